package eventlog_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// network is a way to a broker in memory. What a client sends arrives so much later.
type network struct {
	kfake.VirtualNetwork
	late  time.Duration
	dials atomic.Int64
}

func (n *network) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	n.dials.Add(1)
	conn, err := n.DialContext(ctx, kind, address)
	if err != nil || n.late == 0 {
		return conn, err
	}
	c := &lateConn{Conn: conn, late: n.late, sent: make(chan sent, 100), closed: make(chan struct{})}
	go c.carry()
	return c, nil
}

// lateConn carries requests, several of which may be under way.
type lateConn struct {
	net.Conn
	late   time.Duration
	sent   chan sent
	closed chan struct{}
	once   sync.Once
}

type sent struct {
	at   time.Time
	what []byte
}

func (c *lateConn) Write(b []byte) (int, error) {
	select {
	case c.sent <- sent{time.Now(), bytes.Clone(b)}:
		return len(b), nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *lateConn) carry() {
	for {
		select {
		case s := <-c.sent:
			select {
			case <-time.After(time.Until(s.at.Add(c.late))):
			case <-c.closed:
				return
			}
			if _, err := c.Conn.Write(s.what); err != nil {
				return
			}
		case <-c.closed:
			return
		}
	}
}

func (c *lateConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// inFakeTime runs a test with a log in the fake time of synctest.
func inFakeTime(t *testing.T, late time.Duration, f func(t *testing.T, log *eventlog.Log, n *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := &network{late: late}
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		log, err := eventlog.Open(eventlog.Config{
			Brokers: c.ListenAddrs(), Prefix: "t-", Options: []kgo.Opt{kgo.Dialer(network.dial), kgo.DisableClientMetrics()},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		if _, err := log.ApplyTopics(t.Context(), wanted); err != nil {
			t.Fatal(err)
		}
		f(t, log, network)
	})
}

func join(t *testing.T, log *eventlog.Log) *eventlog.Group {
	t.Helper()
	g, err := log.JoinGroup(t.Context(), "readers", domain.TopicViews)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func has(g *eventlog.Group) int {
	parts, _ := g.Assignment()
	return len(parts)
}

// covered is how many partitions anybody has.
func covered(groups ...*eventlog.Group) int {
	all := map[domain.Partition]bool{}
	for _, g := range groups {
		parts, _ := g.Assignment()
		for _, p := range parts {
			all[p] = true
		}
	}
	return len(all)
}

// eachMoment looks at each millisecond, when all that happens in it has happened, until a look says that it is enough.
func eachMoment(t *testing.T, most time.Duration, enough func() bool) (took time.Duration) {
	t.Helper()
	began, tick := time.Now(), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !enough() {
		<-tick.C
		synctest.Wait()
		if took = time.Since(began); took > most {
			t.Fatalf("waited %v in vain", took)
		}
	}
	return took
}

// A partition goes from one member to another when a third joins, and none stands still for it.
func TestAPartitionThatMovesIsNeverWithoutAMember(t *testing.T) {
	inFakeTime(t, 0, func(t *testing.T, log *eventlog.Log, _ *network) {
		a := join(t, log)
		defer a.Close()
		assigned(t, a, partitions)
		b := join(t, log)
		defer b.Close()
		eachMoment(t, time.Minute, func() bool {
			if n := covered(a, b); n < partitions {
				t.Fatalf("%d of %d partitions are assigned", n, partitions)
			}
			return has(a)+has(b) == partitions && has(b) > 0
		})
		// And so it stays: nothing moves to and fro.
		had, until := has(b), time.Now().Add(5*time.Second)
		eachMoment(t, time.Minute, func() bool {
			if covered(a, b) < partitions || has(a)+has(b) > partitions || has(b) != had {
				t.Fatalf("of %d partitions, one has %d, the other %d", partitions, has(a), has(b))
			}
			return time.Now().After(until)
		})
	})
}

// Whenever a member leaves, others have its partitions soon.
func TestWhatALeavingMemberHadIsSoonAnothers(t *testing.T) {
	inFakeTime(t, 0, func(t *testing.T, log *eventlog.Log, _ *network) {
		a := join(t, log)
		defer a.Close()
		assigned(t, a, partitions)
		for i := range 20 {
			b := join(t, log)
			assigned(t, b, 1)
			until := time.Now().Add(time.Second + time.Duration(i)*21*time.Millisecond)
			eachMoment(t, time.Minute, func() bool { return time.Now().After(until) })
			b.Close()
			if took := eachMoment(t, time.Minute, func() bool { return has(a) == partitions }); took > 200*time.Millisecond {
				t.Fatalf("they stood still for %v", took)
			}
		}
	})
}

// A partition that has come waits for few questions to Kafka: all that are asked before it is read are asked at once, over
// connections that were made before.
func TestAPartitionThatHasComeIsSoonRead(t *testing.T) {
	const late = 50 * time.Millisecond
	inFakeTime(t, late, func(t *testing.T, log *eventlog.Log, n *network) {
		topics := []domain.Topic{domain.TopicViews, domain.TopicBodies, domain.TopicAudiences}
		appendViews(t, log, 1)
		source, err := log.JoinSource(t.Context(), "readers", topics...)
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		assigned(t, source.Group, partitions*len(topics))
		parts, _ := source.Assignment()
		at := make([]domain.Position, len(parts))
		for i, p := range parts {
			at[i] = p.At(0)
		}
		began, dials := time.Now(), n.dials.Load()
		if err := source.Seek(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*late {
			t.Errorf("it took %v, where a question takes %v", took, late)
		}
		for {
			if b, err := source.Poll(t.Context(), 10); err != nil {
				t.Fatal(err)
			} else if len(b.Records) > 0 {
				break
			}
		}
		if more := n.dials.Load() - dials; more > 1 {
			t.Errorf("%d connections were made, where one for records was to be", more)
		}
	})
}

// cancelWhenPolled ends a wait in the moment in which a record is handed out.
type cancelWhenPolled struct{ cancel context.CancelFunc }

func (h *cancelWhenPolled) OnFetchRecordUnbuffered(*kgo.Record, bool) { h.cancel() }

// Who ends a wait for records in the moment in which they come gets them all the same.
func TestAPollThatIsEndedLosesNothing(t *testing.T) {
	inFakeTime(t, 0, func(t *testing.T, log *eventlog.Log, _ *network) {
		positions := appendViews(t, log, 1)
		hook := &cancelWhenPolled{func() {}}
		cfg := log.Config()
		cfg.Options = append(cfg.Options, kgo.WithHooks(hook))
		reading, err := eventlog.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer reading.Close()
		r, err := reading.NewReader()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.Seek(t.Context(), []domain.Position{positions[0].In().At(0)}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		hook.cancel = cancel
		n := 0
		for ctx.Err() == nil {
			b, _ := r.Poll(ctx, 10)
			n += len(b.Records)
		}
		b, err := r.Poll(t.Context(), 10)
		if n += len(b.Records); n != 1 || err != nil {
			t.Errorf("%d records came: %v", n, err)
		}
	})
}
