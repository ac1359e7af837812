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

// coreFor is how long a core system is broken: over a few time-outs of a call.
func coreFor(random *rand.Rand) time.Duration { return between(random, 3*time.Second, 6*time.Second) }

func coreDown(ctx context.Context, w *world, random *rand.Rand) error {
	w.core.down()
	sleep(ctx, coreFor(random))
	return w.core.up(ctx)
}

// coreIs waits for calls: where what came before has the relays leave the endpoint alone, there are none at first.
func coreIs(m mood) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, random *rand.Rand) error {
		w.core.be(m)
		defer w.core.be(willing)
		sleep(ctx, coreFor(random))
		return until(ctx, settleWithin, "calls of the core system", func() error {
			if w.core.struck() == 0 {
				return errors.New("there was none")
			}
			return nil
		})
	}
}
