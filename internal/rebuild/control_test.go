package rebuild

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/people"
	"seenby/projections/posts"
	"seenby/projections/projectiontest"
	"seenby/projections/uniqueviews"
)

// phases are those in which a rebuild is stopped in tests.
var phases = []Phase{PhaseLoad, PhaseKeys, PhaseCatchUp, PhaseProve, PhaseSwap}

// atPhase is a rebuild that stands still before the first statement of a phase, until it is let go. It goes on to write
// its progress down.
type atPhase struct {
	reached, goOn chan struct{}
	stood, paused atomic.Bool
}

func (w *world) standAt(phase Phase) *atPhase {
	at := &atPhase{reached: make(chan struct{}), goOn: make(chan struct{})}
	stand := func() {
		if at.stood.CompareAndSwap(false, true) {
			close(at.reached)
			<-at.goOn
		}
	}
	w.watch(func(g Progress) {
		at.paused.Store(g.Paused)
		if g.Phase == phase {
			w.store.before.CompareAndSwap(nil, &stand)
		}
	})
	w.t.Cleanup(at.letGo)
	return at
}

func (at *atPhase) letGo() {
	select {
	case <-at.goOn:
	default:
		close(at.goOn)
	}
}

// started is a rebuild that runs beside the test.
type started struct {
	ended  chan struct{}
	result Result
	err    error
}

func (w *world) start(ctx context.Context) *started {
	s := &started{ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.result, s.err = Run(ctx, w.deps, w.p, w.opts)
	}()
	return s
}

func (s *started) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-s.ended:
		return s.err
	case <-time.After(time.Minute):
		t.Fatal("the rebuild does not end")
		return nil
	}
}

// unfinished is the row of the unfinished rebuild.
func (w *world) unfinished() Row {
	w.t.Helper()
	l, err := List(w.t.Context(), w.deps)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(l.Rebuilds) == 0 || l.Rebuilds[0].Outcome != "" {
		w.t.Fatalf("no rebuild is unfinished: %+v", l)
	}
	return l.Rebuilds[0]
}

// stopAt begins a rebuild and ends its process as it enters a phase.
func (w *world) stopAt(phase Phase) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	at := w.standAt(phase)
	s := w.start(ctx)
	<-at.reached
	cancel()
	at.letGo()
	if err := s.wait(w.t); !errors.Is(err, context.Canceled) {
		w.t.Fatalf("stopped in %s: %v", phase, err)
	}
	w.watch(nil)
	w.store.before.Store(nil)
	if row := w.unfinished(); row.Phase != phase || row.Reason != "interrupted" || row.Working(time.Now()) {
		w.t.Fatalf("stopped in %s: %+v", phase, row)
	}
}

// TestStoppedInEachPhase: without a process a rebuild waits for the same command, or for --cancel, which leaves nothing.
func TestStoppedInEachPhase(t *testing.T) {
	for _, phase := range phases {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, uniqueviews.Projection{}, projectiontest.Verdicts)
			w.stopAt(phase)
			if err := Want(t.Context(), w.deps, w.p.Name(), WantedPause); err != nil {
				t.Fatal(err)
			}
			if row := w.unfinished(); row.Wanted != WantedPause || row.Version != 2 {
				t.Errorf("it is listed as %+v", row)
			}
			_, err := Rollback(t.Context(), w.deps, w.p)
			wants(t, err, domain.CodeConflict, "version 2 of uniqueviews is being made", "--cancel uniqueviews")
			w.dropOld() // is not about what is being made
			if err := Cancel(t.Context(), w.deps, w.p); err != nil {
				t.Fatal(err)
			}
			w.clean(1)
			wants(t, Cancel(t.Context(), w.deps, w.p), domain.CodeNotFound, "--list")
			w.stopAt(phase)
			w.log.add(func(l *projectiontest.Log) { projectiontest.Verdicts(l, true) })
			w.deliver(1)
			if phase == PhaseSwap { // projectors follow it from here on
				w.deliver(3)
			}
			if r := w.run(); r.Version != 3 || w.live() != 3 {
				t.Errorf("it came to %+v", r)
			}
			w.same(1, 3)
		})
	}
}

// TestToldInEachPhase: a process obeys, whatever it does just then.
func TestToldInEachPhase(t *testing.T) {
	for _, phase := range phases {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, posts.Projection{}, projectiontest.PostsAndMembers)
			at := w.standAt(phase)
			s := w.start(t.Context())
			<-at.reached
			_, err := Run(t.Context(), w.deps, w.p, w.opts)
			wants(t, err, domain.CodeConflict, "another process works on it")
			_, err = Rollback(t.Context(), w.deps, w.p)
			wants(t, err, domain.CodeConflict, "another process works on it")
			_, err = DropOld(t.Context(), w.deps, w.p)
			wants(t, err, domain.CodeConflict, "another process works on it")
			if err := Want(t.Context(), w.deps, w.p.Name(), WantedPause); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the pause", at.paused.Load)
			at.letGo()
			w.standsStill()
			if err := Want(t.Context(), w.deps, w.p.Name(), WantedRun); err != nil {
				t.Fatal(err)
			}
			if err := s.wait(t); err != nil {
				t.Fatal(err)
			}
			w.same(1, 2)
		})
	}
}

// standsStill looks at a rebuild until its process has written its row some times: it is where it was.
func (w *world) standsStill() {
	w.t.Helper()
	was := w.unfinished()
	for i := range 3 {
		eventually(w.t, "a sign of life", func() bool { return w.unfinished().UpdatedAt.After(was.UpdatedAt) })
		now := w.unfinished()
		if i > 0 && (now.Phase != was.Phase || now.EventsDone != was.EventsDone) {
			w.t.Errorf("paused, it went from %s with %d events to %s with %d", was.Phase, was.EventsDone, now.Phase, now.EventsDone)
		}
		was = now
	}
}

// TestCancelledByAnother: a process whose rebuild is given up ends, and what it made is gone.
func TestCancelledByAnother(t *testing.T) {
	for _, phase := range phases {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, people.Projection{}, projectiontest.People)
			at := w.standAt(phase)
			s := w.start(t.Context())
			<-at.reached
			cancelled := make(chan error, 1)
			go func() { cancelled <- Cancel(t.Context(), w.deps, w.p) }()
			eventually(t, "the command to say so", func() bool { return w.unfinished().Wanted == WantedCancel })
			held := w.hold("positions", "projection = 'people' AND version = 1") // it cannot be through before it is told
			at.letGo()
			wants(t, s.wait(t), domain.CodeConflict, "was cancelled", "version 2 is dropped")
			held()
			if err := <-cancelled; err != nil {
				t.Error(err)
			}
			w.clean(1)
		})
	}
}

// hold locks rows until release.
func (w *world) hold(table, where string) (release func()) {
	w.t.Helper()
	tx, err := w.pool.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := tx.Exec(w.t.Context(), "SELECT FROM "+table+" WHERE "+where+" FOR UPDATE"); err != nil {
		w.t.Fatal(err)
	}
	release = sync.OnceFunc(func() { tx.Rollback(context.WithoutCancel(w.t.Context())) })
	w.t.Cleanup(release)
	return release
}

// TestCancelComesTooLate: what became live meanwhile is not said to be dropped.
func TestCancelComesTooLate(t *testing.T) {
	w := newWorld(t, people.Projection{}, projectiontest.People)
	w.deps.HandOver = 3 * time.Second // so long the process lives on after the swap
	at := w.standAt(PhaseSwap)
	s := w.start(t.Context())
	<-at.reached
	watched := &fakeStore{Store: w.store.Store}
	deps := w.deps
	deps.Store = watched
	watched.arm(3, func(bool) error { // it has told the rebuild; the rebuild does not see it before it is through
		at.letGo()
		eventually(t, "the swap", func() bool { return w.live() == 2 })
		return nil
	})
	w.exec(`CREATE FUNCTION never_cancel() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.wanted := 'run'; RETURN NEW; END $$`)
	w.exec(`CREATE TRIGGER never_cancel BEFORE UPDATE ON rebuilds FOR EACH ROW EXECUTE FUNCTION never_cancel()`)
	err := Cancel(t.Context(), deps, w.p)
	wants(t, err, domain.CodeConflict, "was through before", "--rollback people")
	if err := s.wait(t); err != nil || w.live() != 2 {
		t.Errorf("%v, live is %d", err, w.live())
	}
}

// TestTakenOver: a process that was taken for dead writes nothing more, in any phase but the last, where all write the
// same.
func TestTakenOver(t *testing.T) {
	for _, phase := range phases {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, posts.Projection{}, projectiontest.PostsAndMembers)
			at := w.standAt(phase)
			s := w.start(t.Context())
			<-at.reached
			w.exec(`UPDATE rebuilds SET run = run + 1 WHERE outcome = ''`)
			before := w.dump(2)
			at.letGo()
			wants(t, s.wait(t), domain.CodeConflict, "another process has taken the rebuild over")
			if after := w.dump(2); after != before || w.live() != 1 {
				t.Errorf("it wrote on, live is %d:\n%s", w.live(), after)
			}
			w.watch(nil)
			w.run()
			w.same(1, 2)
		})
	}
}

// TestTheLockIsLost: a process whose lock went with its connection ends, and says why.
func TestTheLockIsLost(t *testing.T) {
	w := newWorld(t, posts.Projection{}, projectiontest.PostsAndMembers)
	at := w.standAt(PhaseCatchUp)
	s := w.start(t.Context())
	<-at.reached
	if err := Want(t.Context(), w.deps, w.p.Name(), WantedPause); err != nil {
		t.Fatal(err)
	}
	w.cut()
	at.letGo()
	if err := s.wait(t); domain.CodeOf(err) != domain.CodeUnavailable {
		t.Errorf("it ended with %v", err)
	}
	w.watch(nil)
	w.run()
	w.same(1, 2)
}

// TestRollback: the version before is live again once it has passed the present one; without one there is nothing to go
// back to.
func TestRollback(t *testing.T) {
	w := newWorld(t, uniqueviews.Projection{}, projectiontest.Verdicts)
	_, err := Rollback(t.Context(), w.deps, w.p)
	wants(t, err, domain.CodeNotFound, "no other version of uniqueviews is kept")
	w.run()
	w.log.add(func(l *projectiontest.Log) { projectiontest.Verdicts(l, true) })
	w.deliver(2)
	said := make(chan string, 100)
	w.watch(func(g Progress) {
		select {
		case said <- g.Detail:
		default:
		}
	})
	rolled := make(chan error, 1)
	go func() { _, err := Rollback(t.Context(), w.deps, w.p); rolled <- err }()
	if says := <-said; !strings.Contains(says, "waiting for version 1, which is ") {
		t.Errorf("it says %q", says)
	}
	if w.live() != 2 {
		t.Fatal("it went back to a version that is behind")
	}
	w.deliver(1)
	if err := <-rolled; err != nil || w.live() != 1 {
		t.Fatalf("%v, live is %d", err, w.live())
	}
	if _, err := Rollback(t.Context(), w.deps, w.p); err != nil || w.live() != 2 {
		t.Fatalf("and forth: %v, live is %d", err, w.live())
	}
	w.dropOld()
	w.clean(2)
	_, err = Rollback(t.Context(), w.deps, w.p)
	wants(t, err, domain.CodeNotFound)
}

// TestAsOfDoesNotGoBack: a version that has folded what the live one has is complete to the same time.
func TestAsOfDoesNotGoBack(t *testing.T) {
	for _, k := range kinds {
		w := newWorld(t, k.p, k.generate)
		asOf := func() time.Time {
			at, err := projections.AsOf(t.Context(), w.pool, w.p.Name())
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
		w.exec(`UPDATE positions SET complete_to = '2026-11-03' WHERE projection = $1`, w.p.Name())
		before := asOf()
		w.run()
		if after := asOf(); after.Before(before) {
			t.Errorf("%s was complete to %v, and is to %v", w.p.Name(), before, after)
		}
	}
}

// TestALostAnswerToTheSwap: the rebuild is through all the same, and says so.
func TestALostAnswerToTheSwap(t *testing.T) {
	w := newWorld(t, people.Projection{}, projectiontest.People)
	w.watch(func(g Progress) {
		if g.Phase == PhaseSwap && w.live() == 1 {
			w.store.arm(1, func(committed bool) error {
				if committed && w.live() == 2 {
					return domain.Errorf(domain.CodeUnavailable, "the answer is lost")
				}
				w.store.left = 1 // another one
				return nil
			})
		}
	})
	if r := w.run(); r.Version != 2 || w.live() != 2 || !w.store.struck() {
		t.Errorf("it came to %+v", r)
	}
}
