package deadletter

import (
	"context"
	"errors"
	"strings"
	"testing"

	"seenby/domain"
	"seenby/projections"
)

// parkedPair is a world with a letter that could be applied by now, and one behind it.
func parkedPair(t *testing.T) (w *world, first Name) {
	t.Helper()
	w = newWorld(t, 1)
	w.log.Append(published("a", "first"))
	w.log.Append(published("a", "second"))
	w.deliver(faulty{w.p, refuseEvents("first")})
	return w, w.names()[0]
}

// applied tells whether the first event of the pair is in the tables.
func (w *world) applied() bool { return strings.Contains(w.dump(), `event_id="first"`) }

// TestDiscardKilledAnywhere ends a discard at each of its steps, and lets a redrive of everything come right after it.
// Whatever happens, the event is either applied or given up, never both, and a repeat ends what was begun.
func TestDiscardKilledAnywhere(t *testing.T) {
	w, _ := parkedPair(t)
	through, appliedRuns, discardedRuns := false, 0, 0
	for n := 1; !through; n++ {
		if err := w.d.Reset(t.Context(), w.p); err != nil {
			t.Fatal(err)
		}
		w.decided = nil
		w.deliver(faulty{w.p, refuseEvents("first")})
		first := w.names()[0]
		w.steps.left = n
		_, err := w.desk.Discard(t.Context(), []Name{first}, "ann", "broken")
		w.steps.left = 0
		if through = err == nil; !through && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		w.redrive(Selection{})
		again, err := w.desk.Discard(t.Context(), []Name{first}, "ben", "really broken")
		switch {
		case w.applied():
			appliedRuns++
			if domain.CodeOf(err) != domain.CodeNotFound || len(w.decided) != 0 {
				t.Errorf("killed at step %d: applied, and given up as well: %v, %v", n, w.decided, err)
			}
		default:
			discardedRuns++
			if err != nil || len(again) != 1 || len(w.decided) != 1 {
				t.Errorf("killed at step %d: given up by %v; the repeat says %v, %v", n, w.decided, again, err)
			}
		}
		w.redrive(Selection{})
		if names := w.names(); len(names) != 0 {
			t.Errorf("killed at step %d: %v are left", n, names)
		}
		if !strings.Contains(w.dump(), `event_id="second"`) {
			t.Errorf("killed at step %d: what waited behind it is lost", n)
		}
	}
	if appliedRuns == 0 || discardedRuns < 4 {
		t.Errorf("%d runs ended applied, %d discarded", appliedRuns, discardedRuns)
	}
}

// TestDiscard: the decision is recorded once, a letter that was begun is left alone, and what waits is named.
func TestDiscard(t *testing.T) {
	w, first := parkedPair(t)
	for name, c := range map[string]struct {
		names      []Name
		by, reason string
		code       domain.Code
	}{
		"no reason":      {[]Name{first}, "ann", "", domain.CodeInvalid},
		"nobody":         {[]Name{first}, "", "broken", domain.CodeInvalid},
		"too many":       {make([]Name, DiscardMax+1), "ann", "broken", domain.CodeTooLarge},
		"no such letter": {[]Name{first, {"posts", projections.LetterPlace{Topic: domain.TopicPosts, Partition: 2, Offset: 99}}}, "ann", "broken", domain.CodeNotFound},
	} {
		if _, err := w.desk.Discard(t.Context(), c.names, c.by, c.reason); domain.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := w.desk.List(t.Context(), Selection{}, 10); err != nil || len(l.Letters) != 2 || l.Letters[0].Discarding {
		t.Fatalf("what was refused has changed the letters: %+v, %v", l, err)
	}
	// Begun, and cut short before its decision was recorded.
	w.desk.deps.Log = undecided{w}
	if _, err := w.desk.Discard(t.Context(), []Name{first}, "ann", "broken"); domain.CodeOf(err) != domain.CodeConflict {
		t.Fatal(err)
	}
	w.desk.deps.Log = w
	if l, err := w.desk.List(t.Context(), Selection{}, 10); err != nil || !l.Letters[0].Discarding || l.Letters[1].Discarding {
		t.Errorf("begun: %+v, %v", l, err)
	}
	if fates, _ := w.redrive(Selection{}); fates[projections.FatePoison] != 1 || fates[projections.FateWaits] != 1 || w.applied() {
		t.Errorf("a redrive of what is being discarded: %v", fates)
	}
	out, err := w.desk.Discard(t.Context(), []Name{first}, "ann", "broken")
	if err != nil || len(out) != 1 || !out[0].Behind || out[0].Before || out[0].Key != "demo/a" {
		t.Errorf("discarded: %+v, %v", out, err)
	}
	if out, err := w.desk.Discard(t.Context(), []Name{first, first}, "ben", "other"); err != nil || len(out) != 2 || !out[0].Before || len(w.decided) != 1 {
		t.Errorf("discarded again: %+v, %v; decided %v", out, err, w.decided)
	}
	if _, err := w.desk.Show(t.Context(), first); domain.CodeOf(err) != domain.CodeNotFound || !strings.Contains(err.Error(), "discarded by ann") {
		t.Errorf("shown: %v", err)
	}
	// A database that was restored to before the discard: the decision stands.
	if err := w.d.Reset(t.Context(), w.p); err != nil {
		t.Fatal(err)
	}
	w.deliver(faulty{w.p, refuseEvents("first")})
	if fates, _ := w.redrive(Selection{}); fates[projections.FateDiscarded] != 1 || fates[projections.FateApplied] != 1 || w.applied() {
		t.Errorf("after a restore: %v\n%s", fates, w.dump())
	}
}

// undecided is a log on which another command is always faster.
type undecided struct{ *world }

func (undecided) ChangeTenants(context.Context, func(*domain.Installation) ([]domain.Event, error)) error {
	return domain.Errorf(domain.CodeConflict, "another command on tenants began")
}
