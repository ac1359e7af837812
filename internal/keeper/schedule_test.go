package keeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"seenby/domain"
)

// turn is one round of Run.
func (k *Keeper) turn(ctx context.Context, changed *<-chan struct{}) error {
	if err := k.follow(ctx, changed); err != nil {
		return err
	}
	if err := k.poll(ctx); err != nil {
		return err
	}
	if err := k.advance(ctx); err != nil {
		return err
	}
	k.commit(ctx)
	return nil
}

// A keeper is killed at every step of its work, before and after that step's effect; the next one starts from
// the log and whatever hint stands.
func TestKilledAtEveryStep(t *testing.T) {
	for _, late := range []bool{false, true} {
		for dieAt := 1; ; dieAt++ {
			s := newSim()
			s.publish("p")
			for i := range 5 {
				s.report(newView(1, i, "p"))
			}
			s.report(newView(1, 2, "p")) // the app sends one again
			s.report(newView(1, 9, "nowhere"))
			s.judge(100)
			s.passed = s.posts
			k, p := s.keeper(t, Config{AppendMax: 2}, 3)
			p.dieAt, p.late = dieAt, late
			died := s.run(t, k, 30)
			k, _ = s.keeper(t, Config{AppendMax: 2}, 3)
			s.run(t, k, 30)
			if open := s.check(t); len(open) > 0 {
				t.Fatalf("killed at call %d (late %v): %d views stay undecided", dieAt, late, len(open))
			}
			if n := s.counted(); n != 5 {
				t.Fatalf("killed at call %d (late %v): %d counted", dieAt, late, n)
			}
			if !died {
				if dieAt < 10 {
					t.Fatal("the keeper does next to nothing")
				}
				break
			}
		}
	}
}

func (s *sim) counted() (n int) {
	for _, v := range s.verdicts {
		if v.Counted() {
			n++
		}
	}
	return n
}

// run turns a keeper, with the gate behind it, n times or until it dies.
func (s *sim) run(t testing.TB, k *Keeper, n int) (died bool) {
	var changed <-chan struct{}
	for range n {
		err := k.turn(t.Context(), &changed)
		s.judge(2)
		if errors.Is(err, errDead) {
			return true
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return false
}

// Anything in any order: apps that repeat, posts that come late, a projection that stands still or is restored
// from a backup, hints that are lost, two keepers at once that are killed, tiny ledgers.
func TestAnySchedule(t *testing.T) {
	first := rand.Uint64()
	for run := range uint64(400) {
		seed := first + run
		rnd := rand.New(rand.NewPCG(seed, 1))
		s := newSim()
		cfg := Config{PendingMax: 1 + rnd.IntN(12), AppendMax: 1 + rnd.IntN(5)}
		type actor struct {
			k       *Keeper
			p       *port
			changed <-chan struct{}
		}
		fresh := func() *actor {
			k, p := s.keeper(t, cfg, 1+rnd.IntN(6))
			if rnd.IntN(2) == 0 {
				p.dieAt, p.late = 1+rnd.IntN(60), rnd.IntN(2) == 0
			}
			return &actor{k: k, p: p}
		}
		actors := []*actor{fresh(), fresh()}
		restored, round := false, 0
		for range 600 {
			switch rnd.IntN(9) {
			case 0, 1:
				v := newView(rnd.IntN(3), 150*round+rnd.IntN(150), fmt.Sprint("p", rnd.IntN(6)))
				s.report(v)
			case 2:
				s.publish(fmt.Sprint("p", rnd.IntN(6)))
			case 3:
				if rnd.IntN(4) == 0 {
					s.passed = s.posts
				}
			case 4, 5:
				s.judge(1 + rnd.IntN(5))
			case 6:
				switch rnd.IntN(20) {
				case 2:
					// More than a duplicate window passes: the gate forgets every id. An app sends a view again only
					// where that would be stale by now, which has no part here; keepers are what is left.
					s.now = s.now.Add(30 * time.Hour)
					for _, a := range actors {
						if l := a.k.ledgers[verdictsPart]; l != nil {
							l.proof.asked = l.proof.asked.Add(-30 * time.Hour)
						}
					}
					round++
				case 0:
					s.hint = nil
				case 1:
					s.passed, restored = rnd.Int64N(s.passed+1), true
				}
			default:
				i := rnd.IntN(2)
				a := actors[i]
				if err := a.k.turn(t.Context(), &a.changed); errors.Is(err, errDead) {
					actors[i] = fresh()
				} else if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			s.check(t)
		}
		s.passed = s.posts
		s.judge(1 << 20)
		k, _ := s.keeper(t, cfg, 50)
		s.run(t, k, 3000)
		s.judge(1 << 20)
		if open := s.check(t); len(open) > 0 {
			t.Fatalf("seed %d: %d of %d views stay undecided, restored %v: %+v", seed, len(open), len(s.views), restored, open[0])
		}
		// Whatever was published before its view is counted, unless capped; nothing here reaches a cap.
		counted := map[viewRef]bool{}
		for _, v := range s.verdicts {
			counted[viewRef{v.Viewer, v.ViewID}] = counted[viewRef{v.Viewer, v.ViewID}] || v.Counted()
		}
		for _, v := range s.verdicts {
			if v.Reason == domain.ReasonUndecided {
				if at, ok := s.published[v.Post]; ok && at < v.WaitsFor[0].NextOffset && !counted[viewRef{v.Viewer, v.ViewID}] {
					t.Fatalf("seed %d: a view of a projected post is lost: %+v", seed, v)
				}
			}
		}
		if p := k.ledgers[verdictsPart]; len(p.byOffset) != 0 || p.hint() != int64(len(s.verdicts)) {
			t.Fatalf("seed %d: %d pending, hint %d of %d", seed, len(p.byOffset), p.hint(), len(s.verdicts))
		}
		if len(s.views) > 5000 {
			t.Fatalf("seed %d: %d records for 600 steps: the keeper fills the log", seed, len(s.views))
		}
	}
}

// elsewhere appends to another partition than asked: the partition counts disagree.
type elsewhere struct {
	*port
	appended int
}

func (e *elsewhere) Append(_ context.Context, events ...domain.Event) ([]domain.Position, error) {
	e.appended += len(events)
	return []domain.Position{{Topic: domain.TopicViews, Partition: 7, NextOffset: int64(e.appended)}}, nil
}

// There another memory judges, and the view could count again: the keeper stops rather than add to it.
func TestStopsWherePartitionsDisagree(t *testing.T) {
	s := newSim()
	s.publish("p")
	s.report(newView(1, 1, "p"))
	s.judge(10)
	s.passed = s.posts
	p := &port{sim: s, batch: 100}
	e := &elsewhere{port: p}
	k, err := New(Config{Every: time.Millisecond}, Deps{Source: p, Appender: e, Readmodel: p})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Run(t.Context()); domain.CodeOf(err) != domain.CodeMisconfigured || e.appended != 1 {
		t.Errorf("%d appended, ended with %v", e.appended, err)
	}
}
