package faulttest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// fault is one kind of harm. strike does it and puts right what it did: when it returns, nothing is broken any more,
// and all that is left is to be made up for. Some stop the load, for whoever strikes next to let it run again.
type fault struct {
	name   string
	on     string // what it breaks; two that break the same do not strike at once
	goal   time.Duration
	why    string // of the goal, in words
	strike func(ctx context.Context, w *world, random *rand.Rand) error
}

// What a fault breaks.
const (
	onProcesses = "processes"
	onKafka     = "kafka"
	onPostgres  = "postgres"
	onCore      = "core"
)

// Goals: the longest time that counting may stand still. What lasts as long as somebody outside wants it to has none.
const (
	sessionTimeout = 10 * time.Second // of a group's member, see internal/eventlog
	goalKilled     = sessionTimeout + 3*time.Second
	goalStopped    = time.Second
	goalBroker     = 20 * time.Second
	goalCore       = 3 * time.Second // nothing of the relay's holds counting up; the machine may

	whyKilled  = "session time-out + restore + 3 s"
	whyStopped = "restore + 1 s"
	whyBroker  = "20 s"
	whyLasts   = "as long as it lasts"
	whyCore    = "3 s"
)

var faults = concat(processFaults, kafkaFaults, postgresFaults, networkFaults, coreFaults)

func concat(parts ...[]fault) (all []fault) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// pick gives the faults with names; all where there are none.
func pick(names string) ([]fault, error) {
	if names == "" {
		return faults, nil
	}
	var out []fault
	for name := range strings.SplitSeq(names, ",") {
		found := false
		for _, f := range faults {
			if f.name == name {
				out = append(out, f)
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no fault %q", name)
		}
	}
	return out, nil
}

// between is a random time.
func between(random *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(random.Int64N(int64(most-least)))
}

// strikeOnce strikes while the load runs, waits until all views from before its end are counted, and tells how long
// counting stood still.
func (w *world) strikeOnce(ctx context.Context, f fault, random *rand.Rand) (time.Duration, error) {
	sleep(ctx, between(random, 200*time.Millisecond, 2*time.Second))
	w.watch.stalls.reset()
	if err := f.strike(ctx, w, random); err != nil {
		return 0, fmt.Errorf("strike %s: %w", f.name, err)
	}
	if err := w.recover(ctx); err != nil {
		return 0, fmt.Errorf("after %s: %w", f.name, err)
	}
	return w.watch.stalls.took(), nil
}

// recover waits until all processes are ready and what stands in views now is counted, under load.
func (w *world) recover(ctx context.Context) error {
	for _, p := range w.processes {
		if err := p.awaitReady(ctx, settleWithin); err != nil {
			return err
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(w.cluster.Direct...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	var ends []int64
	if err := until(ctx, settleWithin, "the ends of views", func() (err error) {
		ends, err = endsOfViews(ctx, admin, 5*time.Second)
		return err
	}); err != nil {
		return err
	}
	return until(ctx, settleWithin, "views to be counted", func() error {
		return errors.Join(w.watch.stalls.passedTo(ends))
	})
}
