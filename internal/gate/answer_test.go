package gate

import (
	"testing"
	"time"

	"seenby/domain"
)

// The projection passes the post 30 ms after the view came: the view is counted, not undecided.
func TestLatePositive(t *testing.T) {
	w := newWorld(t, worldOption{})
	w.ends.end(0, 5)
	w.posts.pass(0, 4)
	w.posts.onLookup = func(call int) {
		if call == 4 {
			w.posts.publish("p")
			w.posts.pass(0, 5)
		}
	}
	w.report(time.Time{}, view(1, 1, "p"))
	w.gate(w.views...)
	if got := w.verdicts(0, 1); got[0].Reason != domain.ReasonNone {
		t.Fatalf("%q", got[0].Reason)
	}
}

// The post is published after the first look-up and before the log's end is asked: a gate that asked for the
// end earlier would take the projection's no for final.
func TestEndIsAskedAfterThePoll(t *testing.T) {
	w := newWorld(t, worldOption{})
	w.posts.pass(0, 4)
	w.ends.end(0, 4)
	w.posts.onLookup = func(call int) {
		if call == 1 {
			w.ends.end(0, 5)
		}
	}
	w.report(time.Time{}, view(1, 1, "p"))
	w.gate(w.views...)
	got := w.verdicts(0, 1)
	if got[0].Reason != domain.ReasonUndecided || got[0].WaitsFor[0].NextOffset != 5 {
		t.Fatalf("%+v", got[0].Verdict)
	}
}

func TestUndecided(t *testing.T) {
	w := newWorld(t, worldOption{})
	w.posts.publish("p")
	w.posts.pass(0, 4)
	w.ends.end(0, 5)
	s := w.mustOpen(w.views[0])
	w.report(time.Time{}, view(1, 1, "late"), view(1, 2, "p"))
	begun := time.Now()
	s.stepTo(t, 2)
	if took := time.Since(begun); took < w.cfg.withDefaults().NegativeWait {
		t.Errorf("waited only %v", took)
	}
	// The projection has not moved since a wait was in vain: none is tried again.
	calls := w.posts.calls
	w.report(time.Time{}, view(1, 3, "late"))
	s.stepTo(t, 3)
	if n := w.posts.calls - calls; n != 1 {
		t.Errorf("%d look-ups for a projection that stands still", n)
	}
	// It moved, but is too far behind for a wait to be of use.
	w.posts.do(func() { w.posts.pass(0, 5) })
	w.ends.end(0, 5+lagWorthWaiting+1)
	calls = w.posts.calls
	w.report(time.Time{}, view(1, 4, "late"))
	s.stepTo(t, 4)
	if n := w.posts.calls - calls; n != 1 {
		t.Errorf("%d look-ups for a projection far behind", n)
	}
	got := w.verdicts(0, 4)
	for i, want := range []domain.Reason{domain.ReasonUndecided, domain.ReasonNone, domain.ReasonUndecided, domain.ReasonUndecided} {
		if got[i].Reason != want {
			t.Errorf("view %d: %q, want %q", i, got[i].Reason, want)
		}
	}
	if w := got[0].WaitsFor; len(w) != 1 || w[0] != (domain.Position{Topic: domain.TopicPosts, TopicID: topicIDs[domain.TopicPosts], NextOffset: 5}) {
		t.Errorf("waits for %v", w)
	}
}

// A readmitted view's negative is final where what it waited for is passed, whatever else the log holds since.
func TestReadmitted(t *testing.T) {
	w := newWorld(t, worldOption{createTime: true})
	w.posts.publish("p")
	w.posts.pass(0, 5)
	w.ends.end(0, 9)
	w.posts.parked[postKey0("parked")] = true
	waited := func(next int64) []domain.Position {
		return []domain.Position{{Topic: domain.TopicPosts, TopicID: topicIDs[domain.TopicPosts], NextOffset: next}}
	}
	again := func(id int, post string, next int64) domain.ViewReported {
		v := view(1, id, post)
		// Received two days ago: too late for a fresh view.
		v.Readmitted = &domain.Readmission{Offset: int64(id), Received: noon.Add(-48 * time.Hour), ViewedAt: noon.Add(-49 * time.Hour), WaitedFor: waited(next)}
		return v
	}
	malformed := again(6, "p", 5)
	malformed.Viewer.Tenant = "nobody"
	views := []domain.ViewReported{
		again(1, "p", 5), again(1, "p", 5), again(2, "late", 5), again(3, "late", 6), again(4, "parked", 5), again(5, "p", 6), malformed,
	}
	other := again(7, "late", 5)
	other.Readmitted.WaitedFor[0].TopicID = domain.TopicID{9} // of a topic that was deleted since
	views = append(views, other)
	w.report(noon, views...)
	w.mustOpen(w.views[0]).stepTo(t, int64(len(views)))
	got := w.verdicts(0, len(views))
	for i, want := range []domain.Reason{
		domain.ReasonNone, domain.ReasonDuplicate, domain.ReasonUnknownPost, domain.ReasonUndecided, domain.ReasonUndecided,
		domain.ReasonNone, domain.ReasonMalformed, domain.ReasonUndecided,
	} {
		v := got[i]
		if v.Reason != want {
			t.Errorf("view %d: %q, want %q", i, v.Reason, want)
		}
		if v.Readmits == nil || *v.Readmits != views[i].Readmitted.Offset {
			t.Errorf("view %d: readmits %v", i, v.Readmits)
		}
		if v.Counted() && (!v.QuotaFullAt.IsZero() || !v.Received.Equal(noon.Add(-48*time.Hour))) {
			t.Errorf("view %d: %+v", i, v.Verdict)
		}
	}
	if got[3].WaitsFor[0].NextOffset != 6 || !got[4].DeadLetters {
		t.Errorf("%+v %+v", got[3].Verdict, got[4].Verdict)
	}
}

// PostgreSQL away: nothing is decided, the gate says so, and goes on by itself.
func TestFailedLookupPauses(t *testing.T) {
	w := newWorld(t, worldOption{})
	w.posts.publish("p")
	w.posts.do(func() { w.posts.err = errAway })
	w.report(time.Time{}, view(1, 1, "p"))
	g, _, _ := w.gate(w.views...)
	eventually(t, "the partition pauses", func() bool { return stateOf(g, 0) == StatePaused })
	if g.Ready() == nil {
		t.Error("ready while paused")
	}
	eventually(t, "a few tries", func() bool { w.posts.mu.Lock(); defer w.posts.mu.Unlock(); return w.posts.calls >= 3 })
	w.posts.do(func() { w.posts.err = nil })
	if got := w.verdicts(0, 1); got[0].Reason != domain.ReasonNone {
		t.Fatalf("%q", got[0].Reason)
	}
	eventually(t, "ready again", func() bool { return g.Ready() == nil && stateOf(g, 0) == StateRunning })
}

// The end of posts cannot be asked: a negative is neither final nor undecided.
func TestFailedEndPauses(t *testing.T) {
	w := newWorld(t, worldOption{})
	w.ends.err = errAway
	w.report(time.Time{}, view(1, 1, "p"))
	g, _, _ := w.gate(w.views...)
	eventually(t, "the partition pauses", func() bool { return stateOf(g, 0) == StatePaused })
	w.ends.mu.Lock()
	w.ends.err = nil
	w.ends.mu.Unlock()
	if got := w.verdicts(0, 1); got[0].Reason != domain.ReasonUnknownPost {
		t.Fatalf("%q", got[0].Reason)
	}
}

// Positive answers are asked once a second, negative ones every time, and one batch asks once for all.
func TestAnswersAreCachedForASecond(t *testing.T) {
	w := newWorld(t, worldOption{})
	w.posts.publish("p", "q")
	s := w.mustOpen(w.views[0])
	w.report(time.Time{}, view(1, 1, "p"), view(2, 2, "q"), view(3, 3, "p"))
	s.stepTo(t, 3)
	if w.posts.calls != 1 || w.posts.asked != 2 {
		t.Errorf("%d look-ups for %d posts", w.posts.calls, w.posts.asked)
	}
	n := int64(3)
	kept := time.Now()
	eventually(t, "the answer expires", func() bool {
		w.report(time.Time{}, view(int(n), int(n+1), "p"))
		n++
		s.stepTo(t, n)
		return w.posts.calls > 1
	})
	if age := time.Since(kept); age < answersKept/2 || age > 2*answersKept {
		t.Errorf("an answer was used for %v", age)
	}
}
