package faulttest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"seenby/domain"
)

var networkFaults = []fault{
	{"projector without kafka", onProcesses, goalKilled, whyKilled, partitionKafka(roleProjector)},
	{"gate without kafka", onProcesses, goalKilled, whyKilled, partitionKafka(roleGate)},
	{"relay without kafka", onProcesses, goalCore, whyCore, partitionKafka(roleRelay)},
	{"projector without postgres", onProcesses, 0, whyLasts, partitionPostgres(roleProjector)},
	{"relay without postgres", onProcesses, goalCore, whyCore, partitionPostgres(roleRelay)},
	{"lost answers to commit", onProcesses, 0, whyLasts, loseCommits(roleProjector)},
	{"lost answers to commit of relay", onProcesses, goalCore, whyCore, loseCommits(roleRelay)},
	{"lost answers to api", onProcesses, 0, whyLasts, loseAcknowledgements},
	{"slow gate transactions", onProcesses, 0, whyLasts, slowTransactions(roleGate)},
	{"lost commits of relay", onProcesses, goalCore, whyCore, undoCommits(roleRelay)},
	{"slow relay transactions", onProcesses, goalCore, whyCore, slowTransactions(roleRelay)},
	{"rebalance each second", onProcesses, 0, whyLasts, rebalances},
	{"step clock", onProcesses, 0, whyLasts, stepClock},
}

// cutOff makes a network stop in one of its two ways.
func cutOff(random *rand.Rand) mode {
	if random.IntN(2) == 0 {
		return hang
	}
	return cut
}

func partitionKafka(role string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, random *rand.Rand) error {
		l := w.lanes[w.one(role, random)]
		l.setKafka(cutOff(random), 0)
		sleep(ctx, between(random, 5*time.Second, sessionTimeout+6*time.Second))
		l.setKafka(pass, 0)
		return nil
	}
}

func partitionPostgres(role string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, random *rand.Rand) error {
		p := w.lanes[w.one(role, random)].postgres
		p.set(cutOff(random), 0)
		sleep(ctx, between(random, 3*time.Second, 12*time.Second))
		p.set(pass, 0)
		return nil
	}
}

// loseCommits lets PostgreSQL commit and the processes of a role not know.
func loseCommits(role string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, random *rand.Rand) error {
		const each = 5
		var lost int64
		for _, p := range w.of(role) {
			l := w.lanes[p].postgres
			before := l.lost.Load()
			l.commits.Store(each)
			if err := until(ctx, settleWithin, "commits", func() error {
				if n := l.lost.Load() - before; n < each {
					return fmt.Errorf("%d answers were lost", n)
				}
				return nil
			}); err != nil {
				return err
			}
			lost += each
			sleep(ctx, between(random, 10*time.Millisecond, time.Second))
		}
		w.t.Logf("%d answers to COMMIT were lost", lost)
		return nil
	}
}

// undoCommits has what the processes of a role wrote to PostgreSQL undone, when they wrote it to Kafka already.
func undoCommits(role string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, random *rand.Rand) error {
		for range 10 {
			for _, p := range w.of(role) {
				w.lanes[p].postgres.undone.Store(1)
			}
			sleep(ctx, between(random, 300*time.Millisecond, time.Second))
		}
		for _, p := range w.of(role) {
			w.lanes[p].postgres.undone.Store(0)
		}
		return nil
	}
}

// loseAcknowledgements swallows what Kafka answers to an api: its views are written and it does not know.
func loseAcknowledgements(ctx context.Context, w *world, random *rand.Rand) error {
	l := w.lanes[w.one(roleAPI, random)]
	for range 2 {
		l.setKafka(mute, 0)
		sleep(ctx, between(random, 4*time.Second, 7*time.Second)) // about the time-out of an append
		l.setKafka(pass, 0)
		sleep(ctx, between(random, 100*time.Millisecond, time.Second))
	}
	return nil
}

// slowTransactions delays every answer of Kafka to one process: first so that a transaction ends shortly before its time-out, then
// so that it does not, and the coordinator aborts it.
func slowTransactions(role string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, random *rand.Rand) error {
		l := w.lanes[w.one(role, random)]
		for _, late := range []time.Duration{time.Second, 3 * time.Second} {
			l.setKafka(slow, late)
			sleep(ctx, between(random, 5*time.Second, 9*time.Second))
		}
		l.setKafka(pass, 0)
		return nil
	}
}

// rebalances joins the groups of gates, projectors and relays and leaves them again, each second.
func rebalances(ctx context.Context, w *world, random *rand.Rand) error {
	groups := map[string]domain.Topic{
		"gate": domain.TopicViews, "projector-impressions-v1": domain.TopicVerdicts, "projector-uniqueviews-v1": domain.TopicVerdicts,
		"relay": domain.TopicImpressions,
	}
	for end := time.Now().Add(between(random, 8*time.Second, 12*time.Second)); time.Now().Before(end); {
		began := time.Now()
		visits, ctx := errgroup.WithContext(ctx)
		for group, topic := range groups {
			visits.Go(func() error { return w.visit(ctx, group, topic) })
		}
		if err := visits.Wait(); err != nil {
			return err
		}
		sleep(ctx, time.Second-time.Since(began))
	}
	return nil
}

// visit is a member that takes what it is given, does nothing with it, and leaves.
func (w *world) visit(ctx context.Context, group string, topic domain.Topic) error {
	const stay = 700 * time.Millisecond
	client, err := kgo.NewClient(
		kgo.SeedBrokers(w.cluster.Direct...), kgo.ConsumerGroup(prefix+group), kgo.ConsumeTopics(prefix+string(topic)),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.DisableAutoCommit(), kgo.SessionTimeout(sessionTimeout),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	client.PauseFetchTopics(prefix + string(topic))
	sleep(ctx, stay)
	return nil
}

// stepClock moves the clock of the first api by an hour, ahead and back. Devices with wrong clocks are part of the load.
func stepClock(ctx context.Context, w *world, random *rand.Rand) error {
	for _, step := range []string{"1h", "-1h", "0s"} {
		if err := os.WriteFile(w.clock, []byte(step), 0o600); err != nil {
			return err
		}
		sleep(ctx, between(random, 2*time.Second, 4*time.Second))
	}
	return nil
}
