package keeper

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"seenby/domain"
)

// quotaSim has views of which a quota refused all but two of a viewer's: four and a repeat of one of them.
func quotaSim() *sim {
	s := newSim()
	s.limits.Quota = domain.Quota{ViewsPerMinute: 1, BurstViews: 2}
	s.publish("p")
	s.passed = s.posts
	for i := range 6 {
		s.report(newView(1, i, "p"))
	}
	s.report(newView(1, 4, "p"))
	s.report(newView(2, 7, "p"))
	s.judge(100)
	return s
}

func (s *sim) refused() Refused {
	return Refused{Reason: domain.ReasonViewerQuota, Tenant: tenant, Until: s.now.Add(time.Hour)}
}

func (s *sim) readmit(t *testing.T, cfg Config, p *port) (RefusedResult, error) {
	t.Helper()
	cfg.Every, p.waits = time.Millisecond, time.Millisecond
	return Readmit(t.Context(), cfg, Deps{Source: p, Appender: p}, s.refused(), func(RefusedResult) {})
}

// One that readmits refused views is killed at every step of its work, before and after that step's effect, and is run again:
// each view counts once. Ledgers with room for one view do the same.
func TestReadmitKilledAtEveryStep(t *testing.T) { synctest.Test(t, readmitKilledAtEveryStep) }

func readmitKilledAtEveryStep(t *testing.T) {
	for _, cfg := range []Config{{AppendMax: 2}, {PendingMax: 1, AppendMax: 1}} {
		for _, late := range []bool{false, true} {
			for dieAt := 1; ; dieAt++ {
				s := quotaSim()
				if n := s.counted(); n != 3 {
					t.Fatalf("%d counted at first", n)
				}
				_, err := s.readmit(t, cfg, &port{sim: s, batch: 3, judges: 2, dieAt: dieAt, late: late})
				died := errors.Is(err, errDead)
				if err != nil && !died {
					t.Fatal(err)
				}
				result, err := s.readmit(t, cfg, &port{sim: s, batch: 3, judges: 2})
				if err != nil || result.Refused != 5 {
					t.Fatalf("%+v, %v", result, err)
				}
				s.check(t)
				if n := s.counted(); n != 7 {
					t.Fatalf("killed at call %d (late %v): %d counted", dieAt, late, n)
				}
				if !died {
					if dieAt < 10 || result.Appended() != 0 {
						t.Fatalf("the first did next to nothing: %d calls, and the second %+v", dieAt, result)
					}
					break
				}
			}
		}
	}
}

// What is readmitted is told by the new verdicts, and a dry run knows how many there would be.
func TestReadmitTellsWhatBecameOfThem(t *testing.T) { synctest.Test(t, readmitTellsWhatBecameOfThem) }

func readmitTellsWhatBecameOfThem(t *testing.T) {
	s := quotaSim()
	count := func() (refused, open int64) {
		t.Helper()
		refused, open, err := CountRefused(s.refused(), 1, func(_ int, apply func([]domain.Record) error) error {
			for i, v := range s.verdicts {
				if err := apply([]domain.Record{{Partition: verdictsPart, Offset: int64(i), Event: v}}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return refused, open
	}
	if refused, open := count(); refused != 5 || open != 5 {
		t.Errorf("%d refused, %d of them open", refused, open)
	}
	s.limits.PostCap.Views = 4 // two counted, two more may
	result, err := s.readmit(t, Config{}, &port{sim: s, batch: 100, judges: 100})
	if err != nil || result.Refused != 5 || result.Appended() != 5 || result.Ended[domain.ReasonNone] != 2 || result.Ended[domain.ReasonPostCap] != 3 {
		t.Errorf("%+v, %v", result, err)
	}
	if refused, open := count(); refused != 5 || open != 0 {
		t.Errorf("%d refused, %d of them open", refused, open)
	}
	if _, err := s.readmit(t, Config{}, &port{sim: s, batch: 100}); err != nil {
		t.Error(err)
	}
	for _, which := range []Refused{
		{Reason: domain.ReasonViewerQuota, Tenant: "other", Until: s.now.Add(time.Hour)},
		{Reason: domain.ReasonViewerQuota, Tenant: tenant, Post: "q", Until: s.now.Add(time.Hour)},
		{Reason: domain.ReasonViewerQuota, Tenant: tenant, Until: s.now},
		{Reason: domain.ReasonViewerQuota, Tenant: tenant, Since: s.now.Add(1), Until: s.now.Add(time.Hour)},
		{Reason: domain.ReasonPostCap, Tenant: "other", Until: s.now.Add(time.Hour)},
	} {
		for _, v := range s.verdicts {
			if which.matches(v) {
				t.Errorf("%+v is %+v", v, which)
			}
		}
	}
}
