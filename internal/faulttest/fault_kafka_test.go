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
	askWithin   = 5 * time.Second
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

// holdBackMarker freezes the leader of a partition of verdicts between the commit of a gate's transaction and its
// marker, and lets another gate take the partition over meanwhile. What was committed cannot be read yet: a gate that
// restored its memory without waiting for the marker would count those views again.
func holdBackMarker(ctx context.Context, w *world, random *rand.Rand) error {
	p := w.take(roleGate, random)
	defer p.breaking.Unlock()
	return w.admin(func(a admin) error {
		const triesMax = 60
		for range triesMax {
			sleep(ctx, between(random, 10*time.Millisecond, 300*time.Millisecond))
			caught, err := w.tryHoldBackMarker(ctx, a, p, random)
			if caught || err != nil {
				return err
			}
		}
		return fmt.Errorf("no transaction was caught in %d tries", triesMax)
	})
}

func (w *world) tryHoldBackMarker(ctx context.Context, a admin, p *process, random *rand.Rand) (bool, error) {
	gates, err := w.askGates(ctx, a)
	if err != nil {
		return false, err
	}
	// The coordinator of the group must stay awake: it hands the partitions over.
	frozen := random.IntN(testenv.Brokers)
	if gates.coordinator == frozen {
		frozen = (frozen + 1) % testenv.Brokers
	}
	m := w.cluster.Machines[frozen]
	if err := m.Pause(ctx); err != nil {
		return false, err
	}
	held := gates.unmarked(ctx, a, frozen)
	if len(held) == 0 {
		return false, m.Unpause(ctx)
	}
	w.t.Logf("broker %d is frozen: it has not written the markers of %v", frozen+1, held)
	// The group would keep the dead gate for as long as the controller keeps the frozen leader; then nobody would have
	// to wait for the marker. Which of the two had the partition is left to chance: the living one is expelled too.
	if err := p.kill(); err != nil {
		return true, err
	}
	if err := gates.expel(ctx, a); err != nil {
		return true, err
	}
	if err := p.start(); err != nil {
		return true, err
	}
	sleep(ctx, between(random, 4*time.Second, 8*time.Second))
	return true, w.bringBack(ctx, m.Unpause)
}

// gates is what Kafka knows of the gates. It is asked before a broker is frozen, since any broker may be asked for it.
type gates struct {
	leaders      map[int32]int // of verdicts
	coordinator  int           // of their group
	coordinators map[int32]int // of their transactions, by partition
	members      []string
}

func (w *world) askGates(ctx context.Context, a admin) (*gates, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	g := &gates{coordinators: map[int32]int{}}
	var err error
	if g.leaders, err = leadersOf(ctx, a, domain.TopicVerdicts); err != nil {
		return nil, err
	}
	groups, err := a.DescribeGroups(ctx, gateGroup)
	if err != nil {
		return nil, err
	}
	g.coordinator = int(groups[gateGroup].Coordinator.NodeID) - 1
	for _, m := range groups[gateGroup].Members {
		g.members = append(g.members, m.MemberID)
	}
	for p := range int32(partitions) {
		found := a.FindTxnCoordinators(ctx, transactionalID(p))[transactionalID(p)]
		if found.Err != nil {
			return nil, found.Err
		}
		g.coordinators[p] = int(found.NodeID) - 1
	}
	return g, nil
}

const gateGroup = prefix + "gate"

func transactionalID(partition int32) string { return fmt.Sprintf("%sgate-%d", prefix, partition) }

// unmarked are the gates' transactions that are decided, and whose markers the frozen broker has not written.
func (g *gates) unmarked(ctx context.Context, a admin, frozen int) (held []string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for p := range int32(partitions) {
		if g.leaders[p] != frozen || g.coordinators[p] == frozen {
			continue
		}
		req := kmsg.NewPtrDescribeTransactionsRequest()
		req.TransactionalIDs = []string{transactionalID(p)}
		resp, err := req.RequestWith(ctx, a.kafka.Broker(g.coordinators[p]+1))
		if err != nil || len(resp.TransactionStates) != 1 {
			continue // it has moved: another try finds it
		}
		if resp.TransactionStates[0].State == "PrepareCommit" {
			held = append(held, transactionalID(p))
		}
	}
	return held
}

// expel makes all members leave the group.
func (g *gates) expel(ctx context.Context, a admin) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = gateGroup
	for _, id := range g.members {
		leaving := kmsg.NewLeaveGroupRequestMember()
		leaving.MemberID = id
		req.Members = append(req.Members, leaving)
	}
	resp, err := req.RequestWith(ctx, a.kafka.Broker(g.coordinator+1))
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}
