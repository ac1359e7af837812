package faulttest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// strikers are faults that strike at the same time: the lists go on beside each other, each one fault after the other.
// Those of a list break the same, see fault.on.
type strikers [][]fault

// each what a fault can break has one list.
var breakable = []string{onProcesses, onKafka, onPostgres, onCore}

// shortForm is little of everything, with what has found most at its front.
func shortForm(random *rand.Rand) strikers {
	one := func(names ...string) fault {
		found, err := pick(names[random.IntN(len(names))])
		if err != nil {
			panic(err)
		}
		return found[0]
	}
	return strikers{
		{one("kill one of each"), one("lost answers to commit", "lost answers to api", "rebalance each second")},
		{one("hold back marker", "kill leader", "kill controller")},
		{one("stop postgres", "cut connections", "fill disk", "statement time-out")},
		{one("core down", "core answers 500", "core answers 429", "core hangs", "core breaks off", "core answers late", "core out of order")},
	}
}

// longForm is several of everything.
func longForm(kinds []fault, random *rand.Rand) strikers {
	const each = 6
	var all strikers
	for _, on := range breakable {
		var of, list []fault
		for _, f := range kinds {
			if f.on == on {
				of = append(of, f)
			}
		}
		for range each {
			if len(of) > 0 {
				list = append(list, of[random.IntN(len(of))])
			}
		}
		all = append(all, list)
	}
	return all
}

// strikeTogether lets all strike, waits until what they left is made up for, and tells how many there were and how long
// counting stood still at most.
func (w *world) strikeTogether(ctx context.Context, all strikers, random *rand.Rand) (struck int, pause time.Duration, err error) {
	w.watch.stalls.reset()
	var n atomic.Int64
	group, striking := errgroup.WithContext(ctx)
	for _, list := range all {
		// One each, so that nothing depends on who comes first.
		random := rand.New(rand.NewPCG(random.Uint64(), 0))
		group.Go(func() error {
			for _, f := range list {
				sleep(striking, between(random, 200*time.Millisecond, 3*time.Second))
				w.t.Logf("%s strikes", f.name)
				if err := f.strike(striking, w, random); err != nil {
					return fmt.Errorf("strike %s: %w", f.name, err)
				}
				w.load.resume() // some end with the last view, and others need more
				n.Add(1)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return int(n.Load()), 0, err
	}
	if err := w.recover(ctx); err != nil {
		return int(n.Load()), 0, err
	}
	return int(n.Load()), w.watch.stalls.took(), nil
}
