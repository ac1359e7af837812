package main

import (
	"strings"
	"testing"
	"time"

	"seenby/internal/rebuild"
)

// What an operator reads of a rebuild is how it stands now, whatever was accepted or wanted before.
func TestRebuildState(t *testing.T) {
	now := time.Date(2026, 11, 3, 4, 5, 6, 0, time.UTC)
	long := now.Add(-time.Hour)
	for want, r := range map[string]rebuild.Row{
		"running: load|":                       {Phase: rebuild.PhaseLoad, UpdatedAt: now},
		"running: prove|":                      {Phase: rebuild.PhaseProve, UpdatedAt: now, AcceptedBy: "ann", Differences: 3},
		"paused: keys|":                        {Phase: rebuild.PhaseKeys, UpdatedAt: now, Wanted: rebuild.WantedPause},
		"stopped: keys|its process has ended":  {Phase: rebuild.PhaseKeys, UpdatedAt: long, Wanted: rebuild.WantedPause},
		"stopped: prove|they differ":           {Phase: rebuild.PhaseProve, UpdatedAt: now, Reason: "they differ"},
		"swapped|1,234 differing rows, accept": {Phase: rebuild.PhaseDone, Outcome: "swapped", Proven: true, AcceptedBy: "ann", Differences: 1234},
		"swapped|nothing was compared":         {Phase: rebuild.PhaseDone, Outcome: "swapped", AcceptedBy: "ann"},
		"cancelled|":                           {Phase: rebuild.PhaseProve, Outcome: "cancelled"},
	} {
		state, why := rebuildState(r, now)
		if got := state + "|" + why; !strings.HasPrefix(got, want) || strings.HasSuffix(want, "|") && got != want {
			t.Errorf("%+v is said to be %q, not %q", r, got, want)
		}
	}
}
