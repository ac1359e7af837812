package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/gate"
	"seenby/internal/keeper"
	"seenby/internal/testenv"
	"seenby/projections/posts"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

const (
	tenant     = domain.TenantID("acme")
	partitions = 2
	waitMost   = 90 * time.Second
)

// The gate and two keepers on one log, with a posts projection that stands still, then goes on: every view of
// a post that was published before is counted once, every other is refused for good, and views of other posts
// waited for nothing.
func TestUndecidedViewsComeToTheirEnd(t *testing.T) {
	for name, kinds := range map[string][]testenv.Kind{
		"kfake":   {testenv.Embedded},
		"testenv": {testenv.Given, testenv.Containers, testenv.Embedded},
	} {
		t.Run(name, func(t *testing.T) { undecidedViewsComeToTheirEnd(t, testenv.Kafka(t, kinds...)) })
	}
}

func undecidedViewsComeToTheirEnd(t *testing.T, env *testenv.KafkaEnv) {
	ctx, cancel := context.WithTimeout(t.Context(), waitMost)
	defer cancel()
	cfg := eventlog.Config{Brokers: env.Brokers, Prefix: env.Prefix}
	createTopics(t, ctx, cfg)
	log := must(eventlog.Open(cfg))(t)
	defer log.Close()
	for _, topic := range []domain.Topic{domain.TopicViews, domain.TopicVerdicts, domain.TopicPosts} {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for _, err := log.Ends(ctx, topic); err != nil; _, err = log.Ends(ctx, topic) { // brokers learn of a topic late
			select {
			case <-ctx.Done():
				t.Fatal(err)
			case <-tick.C:
			}
		}
	}
	model := &readModel{log: log, posts: map[domain.PostKey]bool{}}

	group := must(log.JoinGroup(ctx, "gate", domain.TopicViews))(t)
	g := must(gate.New(gate.Config{Kafka: cfg}, gate.Deps{Assigner: group, Ends: log, Posts: model, Tenants: tenants{}}))(t)
	var done sync.WaitGroup
	defer done.Wait()
	running, stop := context.WithCancel(ctx)
	defer stop()
	done.Go(func() {
		defer group.Close()
		ended(t, g.Run(running))
	})
	// In groups of their own, so that both have all partitions: two that believe to be the only one.
	for i := range 2 {
		source := must(log.JoinSource(ctx, fmt.Sprint("keeper-", i), domain.TopicVerdicts))(t)
		k := must(keeper.New(keeper.Config{Every: 20 * time.Millisecond, AppendMax: 7}, keeper.Deps{Source: source, Appender: log, Readmodel: model}))(t)
		done.Go(func() {
			defer source.Close()
			ended(t, k.Run(running))
		})
	}

	publish(t, ctx, log, "old")
	model.passAll(t, ctx)
	publish(t, ctx, log, "new") // and the projection stands still
	const each = 60
	var views []domain.Event
	for i := range each {
		views = append(views, view(i, i, "old"), view(i, 1000+i, "new"), view(i, 2000+i, "never"))
	}
	appendAll(t, ctx, log, views...)
	appendAll(t, ctx, log, views[1], views[4]) // an app sends two again
	v := verdicts(t, ctx, cfg, func(v *tally) bool { return v.of("old").counted == each && len(v.undecided) >= 2*each })
	if n := v.of("old").undecided; n != 0 {
		t.Fatalf("%d views of a projected post waited for another", n)
	}
	if v.of("new").counted+v.of("never").counted != 0 {
		t.Fatal("counted views of a post that nobody has read of")
	}

	publish(t, ctx, log, "old") // so that partitions have moved on
	model.passAll(t, ctx)
	v = verdicts(t, ctx, cfg, func(v *tally) bool { return len(v.undecided) == 0 && v.of("new").counted == each })
	if n := v.of("never").counted; n != 0 {
		t.Fatalf("%d views of no post are counted", n)
	}
	for id, n := range v.countedIDs {
		if n != 1 {
			t.Fatalf("view %v counts %d times", id, n)
		}
	}
	if len(v.countedIDs) != 2*each {
		t.Fatalf("%d views are counted, want %d", len(v.countedIDs), 2*each)
	}
}

func ended(t *testing.T, err error) {
	if !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func createTopics(t *testing.T, ctx context.Context, cfg eventlog.Config) {
	t.Helper()
	admin := kadm.NewClient(must(kgo.NewClient(cfg.ClientOpts()...))(t))
	defer admin.Close()
	for topic, stamp := range map[domain.Topic]string{domain.TopicViews: "LogAppendTime", domain.TopicVerdicts: "CreateTime", domain.TopicPosts: "CreateTime"} {
		must(admin.CreateTopic(ctx, partitions, 1, map[string]*string{"message.timestamp.type": &stamp}, cfg.TopicName(topic)))(t)
	}
}

func view(viewer, id int, post string) domain.ViewReported {
	return domain.ViewReported{
		Viewer: domain.PersonRef{Tenant: tenant, Person: domain.PersonKey{byte(viewer), 1}},
		ViewID: domain.ViewID{byte(id), byte(id >> 8), 1}, Post: domain.PostID(post),
	}
}

func appendAll(t *testing.T, ctx context.Context, log *eventlog.Log, events ...domain.Event) {
	t.Helper()
	must(log.Append(ctx, events...))(t)
}

func publish(t *testing.T, ctx context.Context, log *eventlog.Log, post string) {
	t.Helper()
	appendAll(t, ctx, log, domain.PostPublished{
		PostRef: domain.PostKey{Tenant: tenant, Post: domain.PostID(post)}, EventID: domain.EventID{1}, Author: domain.PersonKey{7}, Audience: domain.AudienceEveryone,
	})
}

// readModel is a posts projection that reads only when told to.
type readModel struct {
	log   *eventlog.Log
	mu    sync.Mutex
	posts map[domain.PostKey]bool
	at    map[int32]domain.Position
}

func (m *readModel) passAll(t *testing.T, ctx context.Context) {
	t.Helper()
	ends := must(m.log.Ends(ctx, domain.TopicPosts))(t)
	reader := must(m.log.NewReader())(t)
	defer reader.Close()
	from := make([]domain.Position, len(ends))
	left := map[domain.Partition]int64{}
	for i, e := range ends {
		from[i], left[e.In()] = e.In().At(0), e.NextOffset
	}
	if err := reader.Seek(ctx, from); err != nil {
		t.Fatal(err)
	}
	published, at := map[domain.PostKey]bool{}, map[int32]domain.Position{}
	for _, e := range ends {
		at[e.Partition] = e.In().At(0)
	}
	behind := func() bool {
		for _, e := range ends {
			if at[e.Partition].NextOffset < e.NextOffset {
				return true
			}
		}
		return false
	}
	for behind() {
		b := must(reader.Poll(ctx, 1000))(t)
		for _, r := range b.Records {
			published[r.Event.(domain.PostPublished).PostRef] = true
		}
		for _, n := range b.Next {
			at[n.Partition] = n
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.posts, m.at = published, at
}

func (m *readModel) Lookup(_ context.Context, asked []posts.Asked) (posts.LookupResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	res := posts.LookupResult{Posts: map[domain.PostKey]domain.PostAnswer{}, Positions: posts.Positions{}}
	for _, p := range m.at {
		res.Positions.Set(p)
	}
	for _, a := range asked {
		if m.posts[a.Post] {
			res.Posts[a.Post] = domain.PostAnswer{Known: true, Version: 1, Audience: domain.AudienceEveryone}
		}
	}
	return res, nil
}

func (m *readModel) Settled(_ context.Context, waits []posts.Wait) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]bool, len(waits))
	for i, w := range waits {
		out[i] = true
		for _, p := range w.WaitsFor {
			out[i] = out[i] && m.at[p.Partition].NextOffset >= p.NextOffset
		}
	}
	return out, nil
}

func (m *readModel) Erasable(context.Context, int) ([]domain.PostBodyErased, error) { return nil, nil }

type tenants struct{}

func (tenants) Limits(id domain.TenantID) (domain.Limits, bool) {
	return domain.DefaultLimits(), id == tenant
}
func (tenants) Tenants() []domain.TenantID                       { return []domain.TenantID{tenant} }
func (tenants) WaitFor(context.Context, []domain.Position) error { return nil }

// tally is the fold of all verdicts.
type tally struct {
	byPost     map[domain.PostID]*postTally
	undecided  map[string]domain.ViewID // by partition and view offset: unresolved
	countedIDs map[domain.ViewID]int
}

type postTally struct{ counted, undecided int }

func (v *tally) of(post domain.PostID) *postTally {
	if v.byPost[post] == nil {
		v.byPost[post] = &postTally{}
	}
	return v.byPost[post]
}

// verdicts reads all verdicts from the start until enough is true.
func verdicts(t *testing.T, ctx context.Context, cfg eventlog.Config, enough func(*tally) bool) *tally {
	t.Helper()
	from := map[int32]kgo.Offset{}
	for p := range int32(partitions) {
		from[p] = kgo.NewOffset().AtStart()
	}
	client := must(kgo.NewClient(append(cfg.ClientOpts(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{cfg.TopicName(domain.TopicVerdicts): from}))...))(t)
	defer client.Close()
	v := &tally{byPost: map[domain.PostID]*postTally{}, undecided: map[string]domain.ViewID{}, countedIDs: map[domain.ViewID]int{}}
	for !enough(v) {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("never came: old %+v, new %+v, never %+v, %d undecided", *v.of("old"), *v.of("new"), *v.of("never"), len(v.undecided))
		}
		for r := range fetches.RecordsAll() {
			d := must(eventlog.Decode(domain.TopicVerdicts, r.Key, r.Value))(t).(*domain.Verdict)
			name := func(offset int64) string { return fmt.Sprint(r.Partition, "/", offset) }
			if d.Readmits != nil {
				delete(v.undecided, name(*d.Readmits))
			}
			switch d.Reason {
			case domain.ReasonNone:
				v.of(d.Post).counted++
				v.countedIDs[d.ViewID]++
				maps.DeleteFunc(v.undecided, func(_ string, id domain.ViewID) bool { return id == d.ViewID })
			case domain.ReasonUndecided:
				v.of(d.Post).undecided++
				v.undecided[name(d.ViewOffset)] = d.ViewID
			}
		}
	}
	return v
}
