package faulttest_test

import (
	"context"
	"math/rand/v2"
	"time"
)

var processFaults = []fault{
	{"kill api", onProcesses, goalKilled, whyKilled, killer(roleAPI)},
	{"kill gate", onProcesses, goalKilled, whyKilled, killer(roleGate)},
	{"kill projector", onProcesses, goalKilled, whyKilled, killer(roleProjector)},
	{"kill keeper", onProcesses, goalKilled, whyKilled, killer(roleKeeper)},
	{"kill relay", onProcesses, goalCore, whyCore, killer(roleRelay)},
	{"kill relays at the end", onProcesses, goalCore, whyCore, killRelaysAtTheEnd},
	{"kill one of each", onProcesses, goalKilled, whyKilled, killOneOfEach},
	{"stop gate", onProcesses, goalStopped, whyStopped, stopper(roleGate)},
	{"stop projector", onProcesses, goalStopped, whyStopped, stopper(roleProjector)},
	{"stop relay", onProcesses, goalCore, whyCore, stopper(roleRelay)},
	{"freeze gate", onProcesses, goalKilled, whyKilled, freezer(roleGate)},
	{"freeze projector", onProcesses, goalKilled, whyKilled, freezer(roleProjector)},
	{"freeze relay", onProcesses, goalCore, whyCore, freezer(roleRelay)},
}

// deadFor is how long a killed process stays away: from well under the session time-out to well over it, so that it
// comes back before anybody noticed, or after another took its partitions.
func deadFor(random *rand.Rand) time.Duration {
	return between(random, time.Second, sessionTimeout+5*time.Second)
}

func killer(role string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, random *rand.Rand) error {
		p, away := w.take(role, random), deadFor(random)
		defer p.breaking.Unlock()
		w.t.Logf("%s is killed, for %v", p.name, away.Round(time.Millisecond))
		if err := p.kill(); err != nil {
			return err
		}
		sleep(ctx, away)
		return p.start()
	}
}

func killOneOfEach(ctx context.Context, w *world, random *rand.Rand) error {
	var dead []*process
	for _, role := range roles {
		p := w.take(role, random)
		defer p.breaking.Unlock()
		if err := p.kill(); err != nil {
			return err
		}
		dead = append(dead, p)
	}
	sleep(ctx, deadFor(random))
	for _, p := range dead {
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// killRelaysAtTheEnd kills all relays shortly after the last view: what they marked and did not tell nobody sees again. Their way
// to Kafka is slow, so that much is marked and not told.
func killRelaysAtTheEnd(ctx context.Context, w *world, random *rand.Rand) error {
	all := w.of(roleRelay)
	for _, p := range all {
		p.breaking.Lock()
		defer p.breaking.Unlock()
	}
	for _, p := range all {
		w.lanes[p].setKafka(slow, 300*time.Millisecond)
	}
	sleep(ctx, between(random, 2*time.Second, 3*time.Second))
	w.load.paused.Store(true)
	sleep(ctx, between(random, 500*time.Millisecond, 3*time.Second))
	for _, p := range all {
		if err := p.kill(); err != nil {
			return err
		}
	}
	for _, p := range all {
		w.lanes[p].setKafka(pass, 0)
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

func stopper(role string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, random *rand.Rand) error {
		p := w.take(role, random)
		defer p.breaking.Unlock()
		if err := p.stop(); err != nil {
			return err
		}
		sleep(ctx, between(random, 2*time.Second, 5*time.Second))
		return p.start()
	}
}

// freezer makes a zombie: it is taken for dead, its partitions go to another, and then it goes on in the middle of what
// it did. For a moment two believe that they own a partition.
func freezer(role string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, random *rand.Rand) error {
		p := w.take(role, random)
		defer p.breaking.Unlock()
		if err := p.freeze(); err != nil {
			return err
		}
		sleep(ctx, between(random, sessionTimeout+2*time.Second, sessionTimeout+6*time.Second))
		return p.thaw()
	}
}
