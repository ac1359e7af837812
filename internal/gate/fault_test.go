package gate

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seenby/domain"
	"seenby/internal/testenv"
)

// onBoth runs a test on kfake and on the Kafka that testenv finds.
func onBoth(t *testing.T, f func(t *testing.T, kind []testenv.Kind)) {
	t.Run("kfake", func(t *testing.T) { f(t, nil) })
	t.Run("testenv", func(t *testing.T) { f(t, []testenv.Kind{testenv.Given, testenv.Containers, testenv.Embedded}) })
}

// Two workers believe that they own a partition: the one that was there first writes nothing more.
func TestZombieIsFenced(t *testing.T) {
	onBoth(t, func(t *testing.T, kind []testenv.Kind) {
		w := newWorld(t, worldOption{kind: kind})
		w.posts.publish("p")
		zombie := w.mustOpen(w.views[0])
		w.report(time.Time{}, view(1, 1, "p"))
		zombie.stepTo(t, 1)
		begun := time.Now()
		owner := w.mustOpen(w.views[0])
		t.Logf("takeover in %v", time.Since(begun))
		w.report(time.Time{}, view(1, 1, "p"), view(1, 2, "p"))
		// The zombie still reads and judges; its verdicts go nowhere.
		if err := zombie.step(t.Context()); !fenced(err) {
			t.Fatalf("the zombie's batch: %v", err)
		}
		owner.stepTo(t, 3)
		want := []domain.Reason{"", domain.ReasonDuplicate, ""}
		if got := reasons(w.verdicts(0, 3)); !cmp.Equal(got, want) {
			t.Fatal(got)
		}
		w.noMore(0, 3)
	})
}

// The predecessor died between produce and commit: its batch is aborted at the takeover, no reader ever sees
// it, it is in nobody's memory, and the views are judged anew.
func TestDeadInTheMiddleOfATransaction(t *testing.T) {
	onBoth(t, func(t *testing.T, kind []testenv.Kind) {
		w := newWorld(t, worldOption{kind: kind})
		w.posts.publish("p")
		w.report(time.Time{}, view(1, 1, "p"))
		dead := w.mustOpen(w.views[0])
		dead.stepTo(t, 1)
		w.report(time.Time{}, view(1, 2, "p"), view(1, 3, "p"))
		dead.half(t)
		begun := time.Now()
		s := w.mustOpen(w.views[0])
		t.Logf("takeover in %v", time.Since(begun))
		if s.next != 1 || s.memory.Len() != 1 {
			t.Fatalf("opened at view %d remembering %d; an aborted batch counts for nothing", s.next, s.memory.Len())
		}
		s.stepTo(t, 3)
		if got := reasons(w.verdicts(0, 3)); !cmp.Equal(got, []domain.Reason{"", "", ""}) {
			t.Fatal(got)
		}
		// A second death, so that the log ends in an aborted batch, and then a third.
		w.report(time.Time{}, view(1, 3, "p"))
		s.half(t)
		w.mustOpen(w.views[0]).half(t)
		s = w.mustOpen(w.views[0])
		s.stepTo(t, 4)
		if got := reasons(w.verdicts(0, 4)); got[3] != domain.ReasonDuplicate {
			t.Fatal(got)
		}
		w.noMore(0, 4)
	})
}

// half judges a batch and produces its verdicts, but never commits.
func (s *session) half(t *testing.T) {
	t.Helper()
	records, err := s.poll(t.Context())
	check(t, err)
	b, err := s.decode(records)
	check(t, err)
	check(t, s.limitsOf(t.Context(), b))
	answers, err := s.answer(t.Context(), b)
	check(t, err)
	overlay := s.memory.Begin()
	check(t, s.client.BeginTransaction())
	for i, v := range b.views {
		r, err := s.w.g.cfg.Kafka.NewRecord(overlay.Judge(v, answers[i], b.limits[tenant]), 0, overlay.Now())
		check(t, err)
		r.Key = records[i].Key
		s.client.Produce(t.Context(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	check(t, s.client.Flush(t.Context()))
}

// noMore says that a partition holds n committed verdicts and nobody waits in front of more.
func (w *world) noMore(p int32, n int) {
	w.t.Helper()
	s, err := w.open(w.views[p])
	check(w.t, err)
	if s.next != int64(n) {
		w.t.Fatalf("the log says that %d views are judged, want %d", s.next, n)
	}
	topic := w.kafka.TopicName(domain.TopicVerdicts)
	ends, err := w.admin.ListEndOffsets(w.ctx, topic)
	check(w.t, err)
	stable, err := w.admin.ListCommittedOffsets(w.ctx, topic)
	check(w.t, err)
	e, _ := ends.Lookup(topic, p)
	c, _ := stable.Lookup(topic, p)
	if e.Offset != c.Offset {
		w.t.Fatalf("the last stable offset %d is behind the end %d", c.Offset, e.Offset)
	}
	if got := len(w.committed(p, n)); got != n {
		w.t.Fatalf("%d verdicts", got)
	}
}

// A commit that fails may have happened or not. Either way each view has one verdict, and a view that was
// judged in vain is not its own duplicate.
func TestFailedCommit(t *testing.T) {
	for name, fault := range map[string]kfake.Fault{
		"refused":         {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnknownServerError, TopLevel: true},
		"not the owner":   {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.InvalidProducerEpoch, TopLevel: true},
		"produce refused": {Keys: []kmsg.Key{kmsg.Produce}, Topic: "t-verdicts", Err: kerr.InvalidRecord},
		"produce fenced":  {Keys: []kmsg.Key{kmsg.Produce}, Topic: "t-verdicts", Err: kerr.InvalidProducerEpoch},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, worldOption{})
			w.posts.publish("p")
			g, _, _ := w.gate(w.views...)
			w.report(time.Time{}, view(1, 1, "p"))
			w.verdicts(0, 1)
			h := w.fake.Fault(fault)
			w.report(time.Time{}, view(1, 2, "p"), view(1, 3, "p"))
			if got := reasons(w.verdicts(0, 3)); !cmp.Equal(got, []domain.Reason{"", "", ""}) {
				t.Fatal(got)
			}
			if h.Hits() == 0 {
				t.Fatal("the fault did not strike")
			}
			eventually(t, "the gate runs", func() bool { return stateOf(g, 0) == StateRunning && g.Status()[0].NextOffset == 3 })
		})
	}
}

// The commit happened and its answer is lost.
func TestLostAnswerToCommit(t *testing.T) {
	onBoth(t, func(t *testing.T, kind []testenv.Kind) {
		w := newWorld(t, worldOption{kind: kind})
		var deaf atomic.Int32 // answers to EndTxn that will be lost
		w.cfg.Kafka.Options = []kgo.Opt{
			kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				return &deafConn{Conn: c, left: &deaf}, err
			}),
			kgo.RequestRetries(0), // or the client would ask again and be told
		}
		w.posts.publish("p")
		w.report(time.Time{}, view(1, 1, "p"))
		s := w.mustOpen(w.views[0])
		deaf.Store(1)
		if err := s.step(t.Context()); err == nil {
			t.Fatal("a commit without answer counts as success")
		}
		if s.memory.Len() != 0 || s.next != 0 {
			t.Fatal("the memory changed without a certain commit")
		}
		s.client.Close()
		s = w.mustOpen(w.views[0])
		if s.next != 1 || s.memory.Len() != 1 {
			t.Fatalf("opened at view %d remembering %d; the log says that the commit happened", s.next, s.memory.Len())
		}
		w.report(time.Time{}, view(1, 1, "p"))
		s.stepTo(t, 2)
		if got := reasons(w.verdicts(0, 2)); !cmp.Equal(got, []domain.Reason{"", domain.ReasonDuplicate}) {
			t.Fatal(got)
		}
		w.noMore(0, 2)
	})
}

// deafConn loses answers: after it has sent an EndTxn, it breaks as soon as something comes back.
type deafConn struct {
	net.Conn
	left  *atomic.Int32
	armed atomic.Bool
}

func (c *deafConn) Write(b []byte) (int, error) {
	if len(b) >= 6 && kmsg.Key(binary.BigEndian.Uint16(b[4:])) == kmsg.EndTxn && c.left.Add(-1) >= 0 {
		c.armed.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.armed.Load() {
		_ = c.Close()
		return 0, io.EOF
	}
	return n, err
}

// Two gates are told that they own all partitions, for a while; then one is told otherwise.
func TestTwoGatesOneLog(t *testing.T) {
	onBoth(t, func(t *testing.T, kind []testenv.Kind) {
		w := newWorld(t, worldOption{kind: kind, partitions: 2})
		w.cfg.BatchViewsMax = 7
		w.posts.publish("p")
		g1, a1, _ := w.gate(w.views...)
		n := 0
		feed := func(to int) {
			for ; n < to; n++ {
				w.report(time.Time{}, view(n%5, n/2, "p")) // every id twice, by different viewers or the same
			}
		}
		feed(40)
		w.committed(0, 10)
		_, a2, _ := w.gate(w.views...) // fences the first everywhere
		feed(80)
		w.committed(0, 50)
		a1.assign()
		feed(120)
		w.committed(0, 100)
		a1.assign(w.views...)
		a2.assign()
		feed(160)
		w.verdicts(0, n)
		a1.assign()
		eventually(t, "nobody owns a partition", func() bool { return len(g1.Status()) == 0 })
		w.noMore(0, n)
	})
}

// While a partition restores its memory, which takes as long as it takes, the others go on.
func TestARestoreHoldsUpNoOtherPartition(t *testing.T) {
	w := newWorld(t, worldOption{partitions: 2})
	w.posts.publish("p")
	w.report(time.Time{}, view(1, 1, "p"))
	w.mustOpen(w.views[0]).stepTo(t, 1)
	slow := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t-verdicts", Partitions: []int32{0}, Err: kerr.NotLeaderForPartition, Count: -1})
	a := &fakeAssigner{changed: make(chan struct{})}
	a.assign(w.views...)
	deps := w.deps(a)
	restored := make(chan int32, 2)
	deps.Hooks.Restored = func(partition int32, _ int64, took time.Duration) {
		if took > 0 {
			restored <- partition
		}
	}
	g, _, _ := w.gateWith(a, deps)
	r, err := w.kafka.NewRecord(view(1, 1, "p"), 1, time.Time{})
	check(t, err)
	w.raw(1, r.Key, r.Value)
	w.verdicts(1, 1)
	eventually(t, "partition 0 asks for its verdicts", func() bool { return slow.Hits() > 0 })
	if p := <-restored; p != 1 || stateOf(g, 0) != StateOpening {
		t.Fatalf("restored %d, and partition 0 is %s after %d fetches", p, stateOf(g, 0), slow.Hits())
	}
	slow.Remove()
	w.report(time.Time{}, view(1, 1, "p"))
	if got := w.verdicts(0, 2); got[1].Reason != domain.ReasonDuplicate || <-restored != 0 {
		t.Fatal(got[1].Reason)
	}
}

// A partition opens well each time although nothing can be written: the gate must not say that it works.
func TestNotReadyWhileNothingCanBeWritten(t *testing.T) {
	w := newWorld(t, worldOption{})
	w.posts.publish("p")
	g, _, _ := w.gate(w.views...)
	w.report(time.Time{}, view(1, 1, "p"))
	w.verdicts(0, 1)
	eventually(t, "ready", func() bool { return g.Ready() == nil })
	denied := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "t-verdicts", Err: kerr.TopicAuthorizationFailed, Count: -1})
	w.report(time.Time{}, view(1, 2, "p"))
	eventually(t, "it fails", func() bool { return g.Ready() != nil })
	opened := 0
	eventually(t, "it opens again, and fails", func() bool {
		if g.Ready() == nil {
			t.Fatalf("ready while nothing can be written: %+v", g.Status())
		}
		if stateOf(g, 0) == StateRunning {
			opened++
		}
		return opened > 2
	})
	denied.Remove()
	eventually(t, "ready again", func() bool { return g.Ready() == nil })
	w.verdicts(0, 2)
}

// While Kafka changes places a partition cannot be opened; once it can, its views do not wait for the end of a long
// pause.
func TestOpensSoonAfterFailures(t *testing.T) {
	const failures = 7 // doubled from the first pause without a bound, the last would be over six seconds
	w := newWorld(t, worldOption{})
	var failed atomic.Int32
	var last atomic.Int64
	w.fake.ControlKey(int16(kmsg.InitProducerID), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.fake.KeepControl()
		if req.(*kmsg.InitProducerIDRequest).TransactionalID == nil || failed.Add(1) > failures {
			return nil, nil, false
		}
		last.Store(time.Now().UnixNano())
		resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code // the client gives up at once, and the worker begins anew
		return resp, nil, true
	})
	w.report(time.Time{}, view(1, 1, "p"))
	w.gate(w.views...)
	w.verdicts(0, 1)
	if pause := time.Since(time.Unix(0, last.Load())); pause > 3*time.Second {
		t.Errorf("the partition was opened %v after the last failure", pause)
	}
}

// Neither who opens a partition nor who gives it up stops to end sessions with brokers: it stands still meanwhile.
func TestNoFetchSessionHasToBeEnded(t *testing.T) {
	w := newWorld(t, worldOption{})
	var ended atomic.Int64
	w.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.fake.KeepControl()
		if fetch, ok := req.(*kmsg.FetchRequest); ok && fetch.SessionID != 0 && fetch.SessionEpoch == -1 {
			ended.Add(1)
		}
		return nil, nil, false
	})
	w.posts.publish("p")
	for i := range 2 {
		w.report(time.Time{}, view(1, i, "p"))
		s := w.mustOpen(w.views[0])
		s.stepTo(t, int64(i)+1)
		s.client.Close()
	}
	if n := ended.Load(); n > 0 {
		t.Errorf("%d sessions were ended", n)
	}
}
