package faulttest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seenby/domain"
	"seenby/internal/testenv"
)

var kafkaFaults = []fault{
	{"kill broker", onKafka, goalBroker, whyBroker, brokerKiller(anyBroker)},
	{"kill leader", onKafka, goalBroker, whyBroker, brokerKiller(leader)},
	{"kill controller", onKafka, goalBroker, whyBroker, brokerKiller(controller)},
	{"roll brokers", onKafka, goalBroker, whyBroker, rollBrokers},
	{"freeze broker", onKafka, goalBroker, whyBroker, freezeBroker},
	{"hold back marker", onKafka, goalBroker, whyBroker, holdBackMarker},
}

const (
	brokerStart = 2 * time.Minute // three cold machines share two cores
	askWithin   = 15 * time.Second
	gatesOpen   = 2 * time.Minute // other faults may have both start, without PostgreSQL and with millions of views to remember
	stopSeconds = 30
)

// admin asks brokers, straight.
type admin struct {
	*kadm.Client
	kafka *kgo.Client
}

func (w *world) admin(f func(admin) error) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(w.cluster.Direct...), kgo.MetadataMinAge(250*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	return f(admin{kadm.NewClient(client), client})
}

func anyBroker(_ context.Context, _ *world, random *rand.Rand) (int, error) {
	return random.IntN(testenv.Brokers), nil
}

// leader is that of a random partition of verdicts.
func leader(ctx context.Context, w *world, random *rand.Rand) (broker int, err error) {
	p := int32(random.IntN(partitions))
	err = w.admin(func(a admin) error {
		leaders, err := leadersOf(ctx, a, domain.TopicVerdicts)
		broker = leaders[p]
		return err
	})
	return broker, err
}

// leadersOf gives the brokers, from 0, that lead the partitions of a topic.
func leadersOf(ctx context.Context, a admin, topic domain.Topic) (map[int32]int, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	details, err := a.ListTopics(ctx, prefix+string(topic))
	if err != nil {
		return nil, err
	}
	leaders := map[int32]int{}
	for p, d := range details[prefix+string(topic)].Partitions {
		leaders[p] = int(d.Leader) - 1
	}
	if len(leaders) != partitions {
		return nil, fmt.Errorf("%s has %d partitions", topic, len(leaders))
	}
	return leaders, nil
}

// controller is the leader of the quorum.
func controller(ctx context.Context, w *world, _ *rand.Rand) (broker int, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, topic)
	err = w.admin(func(a admin) error {
		resp, err := req.RequestWith(ctx, a.kafka)
		if err != nil {
			return err
		}
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return errors.New("the quorum does not tell its leader")
		}
		broker = int(resp.Topics[0].Partitions[0].LeaderID) - 1
		return nil
	})
	return broker, err
}

func brokerKiller(which func(context.Context, *world, *rand.Rand) (int, error)) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, random *rand.Rand) error {
		broker, err := which(ctx, w, random)
		if err != nil {
			return err
		}
		away := between(random, 2*time.Second, 20*time.Second)
		w.t.Logf("broker %d is killed, for %v", broker+1, away.Round(time.Millisecond))
		if err := w.cluster.Machines[broker].Kill(ctx); err != nil {
			return err
		}
		sleep(ctx, away)
		return w.bringBack(ctx, w.cluster.Machines[broker].Start)
	}
}

// bringBack runs start and waits until all replicas are in sync: the next fault may take another broker.
func (w *world) bringBack(ctx context.Context, start func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, brokerStart)
	defer cancel()
	if err := start(ctx); err != nil {
		return err
	}
	return w.admin(func(a admin) error {
		return until(ctx, brokerStart, "the replicas to be in sync", func() error { return inSync(ctx, a) })
	})
}

func inSync(ctx context.Context, a admin) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	details, err := a.ListTopicsWithInternal(ctx)
	if err != nil {
		return err
	}
	for _, t := range details {
		for p, d := range t.Partitions {
			if len(d.ISR) < testenv.Brokers {
				return fmt.Errorf("%s/%d is in sync on %v", t.Topic, p, d.ISR)
			}
		}
	}
	return nil
}

func rollBrokers(ctx context.Context, w *world, _ *rand.Rand) error {
	for _, m := range w.cluster.Machines {
		if err := m.Stop(ctx, stopSeconds); err != nil {
			return err
		}
		if err := w.bringBack(ctx, m.Start); err != nil {
			return err
		}
	}
	return nil
}

// freezeBroker takes a broker away without closing a connection, for longer than the controller bears it.
func freezeBroker(ctx context.Context, w *world, random *rand.Rand) error {
	m := w.cluster.Machines[random.IntN(testenv.Brokers)]
	if err := m.Pause(ctx); err != nil {
		return err
	}
	sleep(ctx, between(random, 5*time.Second, 15*time.Second))
	return w.bringBack(ctx, m.Unpause)
}

// holdBackMarker lets another gate take partitions over between the commit of a transaction and its marker. What was
// committed cannot be read yet: a gate that restored its memory without waiting for the marker would count those views
// again. A frozen leader of verdicts does that to a few transactions by chance, and freezes its followers' groups with
// it; so here everything goes on but the requests that have markers written.
func holdBackMarker(ctx context.Context, w *world, random *rand.Rand) error {
	p := w.take(roleGate, random)
	defer p.breaking.Unlock()
	before := w.heldMarkers()
	hold := func(on bool) {
		for _, b := range w.between {
			b.holdBack(on)
		}
	}
	hold(true)
	defer hold(false)
	if err := until(ctx, gatesOpen, "markers to be held back", func() error {
		if n := w.heldMarkers() - before; n == 0 {
			return errors.New("none was")
		}
		return nil
	}); err != nil {
		return err
	}
	if err := p.kill(); err != nil {
		return err
	}
	if err := w.expelGates(ctx); err != nil {
		return err
	}
	sleep(ctx, between(random, 5*time.Second, 9*time.Second))
	w.t.Logf("%d requests for markers were held back, while %s was dead", w.heldMarkers()-before, p.name)
	hold(false)
	return p.start()
}

func (w *world) heldMarkers() (n int64) {
	for _, b := range w.between {
		n += b.marked.Load()
	}
	return n
}

// expelGates makes all members leave the group of the gates: the living one joins again and finds itself alone, without
// the wait for the dead one's session.
func (w *world) expelGates(ctx context.Context) error {
	const group = prefix + "gate"
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	return w.admin(func(a admin) error {
		groups, err := a.DescribeGroups(ctx, group)
		if err != nil {
			return err
		}
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group = group
		for _, m := range groups[group].Members {
			leaving := kmsg.NewLeaveGroupRequestMember()
			leaving.MemberID = m.MemberID
			req.Members = append(req.Members, leaving)
		}
		resp, err := req.RequestWith(ctx, a.kafka)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
}
