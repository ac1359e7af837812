package faulttest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Counting does not know of the core system: nothing that it does may hold views up.
var coreFaults = []fault{
	{"core down", onCore, goalCore, whyCore, coreDown},
	{"core answers 500", onCore, goalCore, whyCore, coreIs(failing)},
	{"core answers 429", onCore, goalCore, whyCore, coreIs(limiting)},
	{"core hangs", onCore, goalCore, whyCore, coreIs(hanging)},
	{"core breaks off", onCore, goalCore, whyCore, coreIs(breaking)},
	{"core answers late", onCore, goalCore, whyCore, coreIs(late)},
	{"core out of order", onCore, goalCore, whyCore, coreIs(shuffling)},
}

// endsInside lets a few time-outs of a call pass, with the last view in the middle of them: a later count would make up for one
// that is lost.
func endsInside(ctx context.Context, w *world, random *rand.Rand) {
	sleep(ctx, between(random, 2*time.Second, 4*time.Second))
	w.load.paused.Store(true)
	sleep(ctx, between(random, time.Second, 3*time.Second))
}

func coreDown(ctx context.Context, w *world, random *rand.Rand) error {
	w.core.down()
	endsInside(ctx, w, random)
	return w.core.up(ctx)
}

// coreIs waits for calls: where what came before has the relays leave the endpoint alone, there are none at first.
func coreIs(m mood) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, random *rand.Rand) error {
		w.core.be(m)
		defer w.core.be(willing)
		endsInside(ctx, w, random)
		return until(ctx, settleWithin, "calls of the core system", func() error {
			if w.core.struck() == 0 {
				return errors.New("there was none")
			}
			return nil
		})
	}
}
