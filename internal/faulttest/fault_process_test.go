package faulttest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"

	"seenby/domain"
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

// killRelaysAtTheEnd kills all relays after the last view, as soon as one has written down that everything was told: what was
// not nobody sees again.
func killRelaysAtTheEnd(ctx context.Context, w *world, _ *rand.Rand) error {
	all := w.of(roleRelay)
	for _, p := range all {
		p.breaking.Lock()
		defer p.breaking.Unlock()
	}
	w.load.paused.Store(true)
	if err := until(ctx, marksWithin, "a relay to have told everything", func() error { return w.told(ctx) }); err != nil {
		w.t.Logf("the relays are killed all the same: %v", err) // others let the load run, or PostgreSQL is away
	}
	for _, p := range all {
		if err := p.kill(); err != nil {
			return err
		}
	}
	for _, p := range all {
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

const marksWithin = 20 * time.Second

// told tells whether a relay says that it has told all verdicts.
func (w *world) told(ctx context.Context) error {
	if n := w.load.flying.Load(); n > 0 {
		return fmt.Errorf("%d batches are under way", n)
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	topic := prefix + string(domain.TopicVerdicts)
	ends := make([]int64, partitions)
	if err := w.admin(func(a admin) error {
		views, err := endsOfViews(ctx, a.Client, askWithin)
		if err != nil {
			return err
		}
		if err := w.watch.judgedTo(views); err != nil {
			return err
		}
		listed, err := a.ListEndOffsets(ctx, topic)
		listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
		return errors.Join(err, listed.Error())
	}); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, w.pg.DSN)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var n int
	if err := conn.QueryRow(ctx, `
		SELECT count(*) FROM relay_partitions r WHERE NOT EXISTS (
		    SELECT FROM unnest($1::bigint[]) WITH ORDINALITY AS e (end_offset, number)
		    WHERE NOT EXISTS (SELECT FROM unnest(r.marked_topics, r.marked_partitions, r.marked_to) AS m (topic, partition, to_offset)
		        WHERE m.topic = 'verdicts' AND m.partition = e.number - 1 AND m.to_offset >= e.end_offset))`, ends).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return errors.New("none of their partitions is that far")
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
