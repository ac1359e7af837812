package gate

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/testenv"
	"seenby/projections/posts"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

const (
	tenant   = domain.TenantID("acme")
	waitMost = 60 * time.Second // of a test for a condition
)

// world is a Kafka with our topics, and everything else that a gate needs, made by hand.
type world struct {
	t       testing.TB
	ctx     context.Context
	cfg     Config
	kafka   eventlog.Config
	fake    *kfake.Cluster // nil: a real Kafka
	client  *kgo.Client    // appends and reads
	admin   *kadm.Client
	views   []domain.Partition
	posts   *fakePosts
	ends    *fakeEnds
	tenants *fakeTenants
}

type worldOption struct {
	partitions int32
	brokers    int
	createTime bool // views carry the test's times
	kind       []testenv.Kind
}

func newWorld(t testing.TB, o worldOption) *world {
	t.Helper()
	o.partitions = max(o.partitions, 1)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx}
	if o.kind == nil {
		// A cluster of its own: faults are the test's alone.
		fake, err := kfake.NewCluster(kfake.NumBrokers(max(o.brokers, 1)))
		check(t, err)
		t.Cleanup(fake.Close)
		w.fake, w.kafka = fake, eventlog.Config{Brokers: fake.ListenAddrs(), Prefix: "t-"}
	} else {
		env := testenv.Kafka(t, o.kind...)
		w.kafka = eventlog.Config{Brokers: env.Brokers, Prefix: env.Prefix}
	}
	client, err := kgo.NewClient(append(w.kafka.ClientOpts(), kgo.ProducerLinger(0))...)
	check(t, err)
	t.Cleanup(client.Close)
	w.client, w.admin = client, kadm.NewClient(client)
	stamp := map[string]*string{"message.timestamp.type": kadm.StringPtr("LogAppendTime")}
	if o.createTime {
		stamp = nil
	}
	for topic, configs := range map[domain.Topic]map[string]*string{
		domain.TopicViews: stamp, domain.TopicVerdicts: nil, domain.TopicPosts: nil, domain.TopicTenants: nil,
	} {
		_, err := w.admin.CreateTopic(ctx, o.partitions, 1, configs, w.kafka.TopicName(topic))
		check(t, err)
	}
	details, err := w.admin.ListTopics(ctx, w.kafka.TopicName(domain.TopicViews))
	check(t, err)
	id := domain.TopicID(details[w.kafka.TopicName(domain.TopicViews)].ID)
	for p := range o.partitions {
		w.views = append(w.views, domain.Partition{Topic: domain.TopicViews, TopicID: id, Partition: p})
	}
	w.cfg = Config{Kafka: w.kafka}
	w.posts = &fakePosts{posts: map[domain.PostKey]domain.PostAnswer{}, members: map[posts.Member]bool{}, parked: map[domain.PostKey]bool{}, positions: posts.Positions{}}
	w.ends = &fakeEnds{partitions: o.partitions, ends: map[stalled]int64{}}
	w.tenants = &fakeTenants{limits: map[domain.TenantID]domain.Limits{tenant: domain.DefaultLimits()}}
	return w
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(waitMost), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never came: %s", what)
		case <-tick.C:
		}
	}
}

func (w *world) deps(a *fakeAssigner) Deps {
	d := Deps{Assigner: a, Ends: w.ends, Posts: w.posts, Tenants: w.tenants}
	if testing.Verbose() {
		if _, bench := w.t.(*testing.B); !bench {
			d.Logger = slog.New(slog.NewTextHandler(w.t.Output(), nil))
		}
	}
	return d
}

// gate starts a gate that is assigned parts and stops it when the test ends, or by stop.
func (w *world) gate(parts ...domain.Partition) (g *Gate, a *fakeAssigner, stop func()) {
	w.t.Helper()
	a = &fakeAssigner{changed: make(chan struct{})}
	a.assign(parts...)
	return w.gateWith(a, w.deps(a))
}

func (w *world) gateWith(a *fakeAssigner, deps Deps) (*Gate, *fakeAssigner, func()) {
	w.t.Helper()
	g, err := New(w.cfg, deps)
	check(w.t, err)
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Run(ctx); !errors.Is(err, context.Canceled) {
			w.t.Errorf("run: %v", err)
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	w.t.Cleanup(stop)
	return g, a, stop
}

// open opens a partition by hand, to be stepped by the test.
func (w *world) open(part domain.Partition) (*session, error) {
	w.t.Helper()
	a := &fakeAssigner{changed: make(chan struct{})}
	g, err := New(w.cfg, w.deps(a))
	check(w.t, err)
	s, err := newWorker(g, part).open(w.ctx)
	if err == nil {
		w.t.Cleanup(s.client.Close)
	}
	return s, err
}

func (w *world) mustOpen(part domain.Partition) *session {
	w.t.Helper()
	s, err := w.open(part)
	check(w.t, err)
	return s
}

// stepTo judges until next is reached.
func (s *session) stepTo(t testing.TB, next int64) {
	t.Helper()
	for s.next < next {
		check(t, s.step(t.Context()))
	}
}

func person(n int) domain.PersonKey { return domain.PersonKey{0: byte(n), 1: byte(n >> 8), 15: 1} }

func viewID(n int) (id domain.ViewID) {
	id[0], id[1], id[2], id[15] = byte(n), byte(n>>8), byte(n>>16), 2
	return id
}

// view is a plain view of post by viewer, with an id of its own.
func view(viewer, id int, post string) domain.ViewReported {
	return domain.ViewReported{Viewer: domain.PersonRef{Tenant: tenant, Person: person(viewer)}, ViewID: viewID(id), Post: domain.PostID(post)}
}

// report appends views to partition 0 at a time (zero: now).
func (w *world) report(at time.Time, views ...domain.ViewReported) {
	w.t.Helper()
	records := make([]*kgo.Record, len(views))
	for i, v := range views {
		r, err := w.kafka.NewRecord(v, 0, at)
		check(w.t, err)
		records[i] = r
	}
	check(w.t, w.client.ProduceSync(w.ctx, records...).FirstErr())
}

// raw appends a record of any form to partition p.
func (w *world) raw(p int32, key, value []byte) {
	w.t.Helper()
	check(w.t, w.client.ProduceSync(w.ctx, &kgo.Record{Topic: w.kafka.TopicName(domain.TopicViews), Partition: p, Key: key, Value: value}).FirstErr())
}

// verdict appends a verdict as a gate of another life would have.
func (w *world) verdict(v *domain.Verdict) {
	w.t.Helper()
	r, err := w.kafka.NewRecord(v, 0, time.Now())
	check(w.t, err)
	check(w.t, w.client.ProduceSync(w.ctx, r).FirstErr())
}

type stored struct {
	*domain.Verdict
	at time.Time
}

// verdicts waits for n committed verdicts of a partition, and checks that they are of the views 0, 1, 2, ...
func (w *world) verdicts(p int32, n int) []stored {
	w.t.Helper()
	out := w.committed(p, n)
	for i, v := range out {
		if v.ViewOffset != int64(i) {
			w.t.Fatalf("verdict %d of partition %d is of view %d: %+v", i, p, v.ViewOffset, v.Verdict)
		}
	}
	return out
}

func (w *world) committed(p int32, n int) []stored {
	w.t.Helper()
	topic := w.kafka.TopicName(domain.TopicVerdicts)
	client, err := kgo.NewClient(append(w.kafka.ClientOpts(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p: kgo.NewOffset().AtStart()}}))...)
	check(w.t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(w.ctx, waitMost)
	defer cancel()
	var out []stored
	for len(out) < n {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			w.t.Fatalf("%d of %d verdicts came on partition %d", len(out), n, p)
		}
		check(w.t, fetches.Err())
		for r := range fetches.RecordsAll() {
			e, err := eventlog.Decode(domain.TopicVerdicts, r.Key, r.Value)
			check(w.t, err)
			out = append(out, stored{e.(*domain.Verdict), r.Timestamp})
		}
	}
	return out
}

func reasons(vs []stored) []domain.Reason {
	out := make([]domain.Reason, len(vs))
	for i, v := range vs {
		out[i] = v.Reason
	}
	return out
}
