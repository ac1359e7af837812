package faulttest

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/uniqueviews"
)

var (
	flagSeeds  = flag.Int("schedules.count", 200, "how many schedules TestSchedules runs in fake time")
	flagFirst  = flag.Uint64("schedules.first", 1, "the first seed of them")
	flagSeed   = flag.Uint64("schedules.seed", 0, "run this schedule alone, a few times")
	flagReplay = flag.Int("schedules.replays", 20, "how often a schedule that is run alone is tried until it fails")
	flagLog    = flag.Bool("schedules.log", false, "print what the processes of a schedule log")
)

// TestSchedules runs whole installations in fake time, with faults, and checks that nothing is lost and nothing
// counted twice.
func TestSchedules(t *testing.T) {
	percent := debug.SetGCPercent(400) // each schedule makes and drops a hundred clients
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	if *flagSeed != 0 {
		for range *flagReplay {
			if !t.Run(fmt.Sprint(*flagSeed), func(t *testing.T) { schedule(t, *flagSeed) }) {
				return
			}
		}
		return
	}
	for i := range uint64(*flagSeeds) { //nolint:gosec // not negative
		seed := *flagFirst + i
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			schedule(t, seed)
		})
	}
}

func schedule(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		// Its end takes a while, too: connections to nowhere time out. It costs nothing.
		ctx, cancel := context.WithCancel(context.Background())
		w, err := newWorld(t, ctx, newPlan(seed))
		if err != nil {
			cancel()
			t.Fatal(err)
		}
		begun := time.Now()
		err = w.run()
		crashes, rebalances := w.struck()
		cancel()
		w.running.Wait()
		w.end()
		if err == nil && (crashes == 0 || (rebalances == 0 && !w.groups) || len(w.ledger.reports()) < w.viewsMin) {
			err = fmt.Errorf("the schedule is too tame: %d crashes, %d rebalances, %d views", crashes, rebalances, len(w.ledger.reports()))
		}
		if err != nil {
			t.Fatalf("seed %d: %v\nreplay it: go test ./internal/faulttest -run TestSchedules -schedules.seed=%d", seed, err, seed)
		}
		if testing.Verbose() {
			t.Logf("%d views, %d crashes, %d rebalances in %v; %s", len(w.ledger.reports()), crashes, rebalances, time.Since(begun), w.ledger.summary())
		}
	})
}

// run plays the schedule and checks it.
func (w *world) run() error {
	rnd := rand.New(rand.NewPCG(w.seed, 3))
	w.openPosts(rnd)
	for i := range 2 {
		w.liveGate(fmt.Sprint("gate", i))
		w.liveProjector(fmt.Sprint("impressions", i), picky{impressions.Projection{}})
		w.liveProjector(fmt.Sprint("uniqueviews", i), picky{uniqueviews.Projection{}})
		w.liveKeeper(fmt.Sprint("keeper", i))
	}
	w.play(rnd, w.viewsMin)
	if w.jump {
		if err := w.passTime(rnd); err != nil {
			return err
		}
		w.play(rnd, len(w.ledger.reports())+60)
	}
	w.strikeOnce(rnd)
	w.calm()
	if err := w.awaitQuiet(); err != nil {
		return err
	}
	// What a zombie still has in its hands comes now.
	sleep(w.ctx, lateMost)
	w.lastViews(rnd)
	if err := w.awaitQuiet(); err != nil {
		return err
	}
	return w.check()
}

// play goes on until at least views are reported and acknowledged, with faults in between.
func (w *world) play(rnd *rand.Rand, views int) {
	clients := w.clients()
	for len(w.ledger.reports()) < views && w.failed() == nil {
		sleep(w.ctx, between(rnd, 350*time.Millisecond))
		clients.step(rnd)
		if rnd.IntN(2) == 0 {
			w.strike(rnd)
		}
	}
	clients.wait()
}

// passTime lets a duplicate window pass, with views that come again in the middle of it, after gates were killed there,
// exactly at its end, and one instant later.
func (w *world) passTime(rnd *rand.Rand) error {
	w.calm()
	if err := w.awaitQuiet(); err != nil {
		return err
	}
	w.repeatVerdicts()
	edge := w.edgeViews(rnd)
	begun, window, part := time.Now(), w.limits.DuplicateWindow, len(edge)/4
	at := func(d time.Duration, views []*reported) {
		sleep(w.ctx, time.Until(begun.Add(d)))
		w.ownReport(views)
	}
	at(0, edge)
	if err := w.awaitVerdicts(); err != nil {
		return err
	}
	// Whoever waits for records asks for them again and again: nobody does so for a day.
	still := []string{groupKeeper, "impressions", "uniqueviews"}
	stop := func() {
		if w.long || rnd.IntN(2) == 0 {
			w.hold(append(still, groupGate)...)
		} else {
			w.hold(still...)
		}
		w.endAPI()
		w.ledger.rest()
	}
	w.model.rest(true)
	stop()
	at(window*6/10, edge[:part])
	w.hold(still...)
	if err := w.awaitVerdicts(); err != nil {
		return err
	}
	w.killAll(groupGate)
	w.ownReport(edge[part : 2*part])
	if err := w.awaitVerdicts(); err != nil {
		return err
	}
	stop()
	at(window, edge[2*part:3*part])
	at(window+time.Millisecond, edge[3*part:])
	sleep(w.ctx, between(rnd, 4*time.Minute))
	w.mu.Lock()
	w.ending = false
	w.mu.Unlock()
	w.model.rest(false)
	w.hold()
	return w.failed()
}

// picky parks, beside what its projection does, the counted views of one post: poison, which today's gate never writes.
type picky struct{ projections.Projection }

const parkedPost = domain.PostID("parked")

func (p picky) Check(r domain.Record) error {
	if v, ok := r.Event.(*domain.Verdict); ok && v.Counted() && v.Post == parkedPost {
		return domain.Errorf(domain.CodeInvalid, "the post %s is poison", parkedPost)
	}
	return p.Projection.Check(r)
}
