package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/internal/postgres"
	"seenby/internal/testenv"
	"seenby/internal/webhook"
	"seenby/projections"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

const (
	shop       = domain.TenantID("shop")
	partitions = 2
)

// partitionOf goes by the last digit of the post's id.
func partitionOf(post domain.PostKey) int32 {
	return int32(post.Post[len(post.Post)-1]-'0') % partitions
}

func key(post string) domain.PostKey { return domain.PostKey{Tenant: shop, Post: domain.PostID(post)} }

func part(topic domain.Topic, n int32) domain.Partition {
	p := domain.Partition{Topic: topic, Partition: n}
	copy(p.TopicID[:], topic)
	return p
}

var errAway = domain.Errorf(domain.CodeUnavailable, "away")

// kafka is a log in memory. A transaction takes one offset more than it has records.
type kafka struct {
	mu      sync.Mutex
	records map[domain.Partition][]domain.Record
	ends    map[domain.Partition]int64
	starts  map[domain.Partition]int64
	epochs  map[domain.Partition]int
	commits int
	away    error               // of everything but commits
	strike  func(n int32) fault // of each commit to a partition; may be nil
	reading func(n int) error   // of each batch of a range; may be nil
}

type fault int

const (
	well    fault = iota
	unsent        // nothing stands in the log
	unheard       // it stands there, but the answer is lost
)

func newKafka() *kafka {
	return &kafka{
		records: map[domain.Partition][]domain.Record{}, ends: map[domain.Partition]int64{}, starts: map[domain.Partition]int64{}, epochs: map[domain.Partition]int{},
	}
}

func (k *kafka) add(p domain.Partition, events ...domain.Event) (offsets []int64) {
	for _, e := range events {
		k.records[p] = append(k.records[p], domain.Record{Partition: p, Offset: k.ends[p], Event: e})
		offsets = append(offsets, k.ends[p])
		k.ends[p]++
	}
	return offsets
}

func (k *kafka) append(p domain.Partition, events ...domain.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.add(p, events...)
}

func (k *kafka) Ends(_ context.Context, topic domain.Topic) (at []domain.Position, _ error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for n := range int32(partitions) {
		p := part(topic, n)
		at = append(at, p.At(k.ends[p]))
	}
	return at, k.away
}

func (k *kafka) within(from domain.Position, until int64) (records []domain.Record, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if from.NextOffset < k.starts[from.In()] {
		return nil, domain.Errorf(domain.CodeDataLoss, "%d is gone", from.NextOffset)
	}
	for _, r := range k.records[from.In()] {
		if r.Offset >= from.NextOffset && r.Offset < until {
			records = append(records, r)
		}
	}
	return records, k.away
}

func (k *kafka) ReadRange(_ context.Context, from domain.Position, until int64, apply func([]domain.Record) error) error {
	records, err := k.within(from, until)
	if err != nil {
		return err
	}
	n := 0
	for batch := range slices.Chunk(records, 2) {
		if k.reading != nil {
			if err := k.reading(n); err != nil {
				return err
			}
		}
		n++
		if err := apply(batch); err != nil {
			return err
		}
	}
	return nil
}

// told are the values on the topic of a post.
func (k *kafka) told(post string) (told []domain.ImpressionsChanged) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.records[part(domain.TopicImpressions, partitionOf(key(post)))] {
		if e := r.Event.(domain.ImpressionsChanged); e.PostRef == key(post) {
			told = append(told, e)
		}
	}
	return told
}

type memWriter struct {
	k     *kafka
	part  domain.Partition
	epoch int
}

func (k *kafka) openWriter(_ context.Context, p domain.Partition) (Writer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.epochs[p]++
	return &memWriter{k, p, k.epochs[p]}, k.away
}

func (w *memWriter) Commit(_ context.Context, events []domain.Event) ([]int64, error) {
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	if w.epoch != w.k.epochs[w.part] {
		return nil, domain.Errorf(domain.CodeConflict, "fenced")
	}
	f := well
	if w.k.strike != nil {
		f = w.k.strike(w.part.Partition)
	}
	if f == unsent {
		return nil, errAway
	}
	w.k.commits++
	offsets := w.k.add(w.part, events...)
	w.k.ends[w.part]++ // its marker
	if f == unheard {
		return nil, errAway
	}
	return offsets, nil
}

func (w *memWriter) Close() {}

type memSource struct {
	k    *kafka
	next map[domain.Partition]int64
	fail error
}

func (k *kafka) newSource() (Source, error) {
	return &memSource{k: k, next: map[domain.Partition]int64{}}, nil
}

func (s *memSource) Seek(_ context.Context, at []domain.Position) error {
	for _, p := range at {
		if p.NextOffset < s.k.starts[p.In()] {
			return domain.Errorf(domain.CodeDataLoss, "%d is gone", p.NextOffset)
		}
		s.next[p.In()] = p.NextOffset
	}
	return nil
}

func (s *memSource) Drop(parts []domain.Partition) {
	for _, p := range parts {
		delete(s.next, p)
	}
}

func (s *memSource) Poll(ctx context.Context, _ int) (b domain.Batch, _ error) {
	s.k.mu.Lock()
	for p, from := range s.next {
		for _, r := range s.k.records[p] {
			if r.Offset >= from {
				b.Records = append(b.Records, r)
			}
		}
		if s.k.ends[p] > from {
			s.next[p] = s.k.ends[p]
			b.Next = append(b.Next, p.At(s.k.ends[p]))
		}
	}
	s.k.mu.Unlock()
	return b, errors.Join(s.fail, ctx.Err())
}

func (s *memSource) Close() {}

// group assigns what the test says.
type group struct {
	mu      sync.Mutex
	parts   []domain.Partition
	changed chan struct{}
}

func (g *group) Assignment() ([]domain.Partition, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.parts, g.changed
}

func (g *group) assign(numbers ...int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.parts = nil
	for _, n := range numbers {
		g.parts = append(g.parts, part(domain.TopicImpressions, n))
	}
	if g.changed != nil {
		close(g.changed)
	}
	g.changed = make(chan struct{})
}

// decided are the tenants as the test has decided.
type decided struct {
	mu        sync.Mutex
	relays    map[domain.TenantID]domain.RelaySet
	endpoints map[domain.TenantID][]domain.EndpointSet
	changed   chan struct{}
}

func (d *decided) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *decided) Relay(tenant domain.TenantID) (domain.RelaySet, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	set, ok := d.relays[tenant]
	return set, ok
}

func (d *decided) Endpoints(tenant domain.TenantID) []domain.EndpointSet {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.endpoints[tenant])
}

func (d *decided) Tenants() (all []domain.TenantID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for tenant := range d.relays {
		all = append(all, tenant)
	}
	return all
}

func (d *decided) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// call is what an endpoint was sent.
type call struct {
	endpoint webhook.Endpoint
	id       string
	body     string
}

type caller struct {
	mu     sync.Mutex
	calls  []call
	answer func(ctx context.Context, c call) webhook.Answer // nil: all are delivered
}

func (c *caller) Send(ctx context.Context, e webhook.Endpoint, id string, body []byte, _ time.Time) webhook.Answer {
	one := call{e, id, string(body)}
	c.mu.Lock()
	c.calls = append(c.calls, one)
	answer := c.answer
	c.mu.Unlock()
	if answer == nil {
		return webhook.Answer{Outcome: webhook.Delivered, Status: 204}
	}
	return answer(ctx, one)
}

func (c *caller) all() []call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// take gives the calls since the last time.
func (c *caller) take() []call {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.calls
	c.calls = nil
	return calls
}

// struck is a PostgreSQL whose transactions can fail.
type struck struct {
	*postgres.Store
	mu     sync.Mutex
	strike func() (before, after error) // of each transaction; may be nil
	away   error                        // of snapshots too
}

func (s *struck) InTx(ctx context.Context, f func(context.Context, projections.Tx) error) error {
	s.mu.Lock()
	strike, away := s.strike, s.away
	s.mu.Unlock()
	if away != nil {
		return away
	}
	if strike == nil {
		return s.Store.InTx(ctx, f)
	}
	before, after := strike()
	if before != nil {
		return before
	}
	if err := s.Store.InTx(ctx, f); err != nil {
		return err
	}
	return after
}

func (s *struck) Snapshot(ctx context.Context, f func(context.Context, projections.Querier) error) error {
	s.mu.Lock()
	away := s.away
	s.mu.Unlock()
	if away != nil {
		return away
	}
	return s.Store.Snapshot(ctx, f)
}

func (s *struck) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// world is all around a relay. Its read models are written by SQL.
type world struct {
	t       *testing.T
	conn    *pgx.Conn
	store   *struck
	kafka   *kafka
	tenants *decided
	caller  *caller
	mu      sync.Mutex
	now     time.Time
	version int // of the read models that are written
	stopped []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	env := testenv.PostgresWith(t, "seenby", postgres.Migrate)
	store, err := postgres.Open(t.Context(), postgres.Config{URL: env.DSN})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w := &world{
		t: t, conn: env.Conn(t), store: &struck{Store: store}, kafka: newKafka(), caller: &caller{}, version: 1,
		now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC),
		tenants: &decided{
			relays:    map[domain.TenantID]domain.RelaySet{shop: {Tenant: shop, Enabled: true, Milestones: []int64{3, 5, 8}}},
			endpoints: map[domain.TenantID][]domain.EndpointSet{shop: {endpoint("e1")}}, changed: make(chan struct{}),
		},
	}
	for _, name := range []string{"impressions", "uniqueviews"} {
		w.exec(`INSERT INTO positions (projection, version, topic_id, partition, topic) SELECT $1, 1, $2, n, 'verdicts' FROM generate_series(0, 1) n`,
			name, [16]byte(part(domain.TopicVerdicts, 0).TopicID))
	}
	w.exec(`INSERT INTO positions (projection, version, topic_id, partition, topic) SELECT 'posts', 1, $1, n, 'posts' FROM generate_series(0, 1) n`,
		[16]byte(part(domain.TopicPosts, 0).TopicID))
	return w
}

func endpoint(id string) domain.EndpointSet {
	return domain.EndpointSet{Tenant: shop, EndpointID: id, URL: "https://core.example/" + id, SecretGeneration: 1}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.conn.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(err)
	}
}

// number is one number by SQL.
func (w *world) number(sql string, args ...any) (n int64) {
	w.t.Helper()
	if err := w.conn.QueryRow(w.t.Context(), sql, args...).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// see appends n counted views of a post; its read models do not have them yet.
func (w *world) see(post string, n int) {
	for range n {
		w.kafka.append(part(domain.TopicVerdicts, 0), &domain.Verdict{Viewer: domain.PersonRef{Tenant: shop}, Post: domain.PostID(post)})
	}
}

// count puts n more views of a post into the read models.
func (w *world) count(post string, n int) {
	w.t.Helper()
	w.exec(fmt.Sprintf(`INSERT INTO impressions_v%d.impressions AS i (tenant, post, shard, impressions, anonymous_impressions) VALUES ($1, $2, 0, $3, 0)
		ON CONFLICT (tenant, post, shard) DO UPDATE SET impressions = i.impressions + $3`, w.version), string(shop), post, n)
	w.exec(`INSERT INTO uniqueviews_v1.unique_view_counts AS i (tenant, post, shard, unique_viewers) VALUES ($1, $2, 0, $3)
		ON CONFLICT (tenant, post, shard) DO UPDATE SET unique_viewers = i.unique_viewers + $3`, string(shop), post, n)
}

// fold moves the read models to the ends of the log, complete to now.
func (w *world) fold() {
	w.t.Helper()
	for _, topic := range []domain.Topic{domain.TopicVerdicts, domain.TopicPosts} {
		ends, _ := w.kafka.Ends(w.t.Context(), topic)
		for _, end := range ends {
			w.exec(`UPDATE positions SET next_offset = $1, complete_to = $2 WHERE topic = $3 AND partition = $4`, end.NextOffset, w.clock(), string(topic), end.Partition)
		}
	}
}

// view is views that the read models have at once.
func (w *world) view(post string, n int) {
	w.t.Helper()
	w.see(post, n)
	w.count(post, n)
	w.fold()
}

// swap makes a version of impressions live that holds what the test puts there; it stands where the one before stood.
func (w *world) swap() {
	w.t.Helper()
	was := w.version
	w.version++
	w.exec(fmt.Sprintf(`CREATE SCHEMA impressions_v%d`, w.version))
	w.exec(fmt.Sprintf(`CREATE TABLE impressions_v%d.impressions (LIKE impressions_v%d.impressions INCLUDING ALL)`, w.version, was))
	w.exec(fmt.Sprintf(`INSERT INTO impressions_v%d.impressions SELECT * FROM impressions_v%d.impressions`, w.version, was))
	w.exec(`INSERT INTO read_model_versions (projection, version, fold_version, followed) VALUES ('impressions', $1, 1, true)`, w.version)
	w.exec(`INSERT INTO positions (projection, version, topic_id, partition, topic, next_offset, leader_epoch, view_next_offset, complete_to)
		SELECT projection, $1, topic_id, partition, topic, next_offset, leader_epoch, view_next_offset, complete_to FROM positions WHERE projection = 'impressions' AND version = $2`, w.version, was)
}

func (w *world) show() {
	w.t.Helper()
	w.exec(`SELECT show_read_model('impressions', $1)`, w.version)
}

func (w *world) deps(g *group) Deps {
	return Deps{
		Assigner: g, Log: w.kafka, NewSource: w.kafka.newSource, OpenWriter: w.kafka.openWriter, PartitionOf: partitionOf, Store: w.store, Tenants: w.tenants,
		Caller: w.caller, Now: w.clock,
		Secrets: func(e domain.EndpointSet, _ time.Time) ([]string, error) {
			return []string{fmt.Sprint("secret ", e.SecretGeneration)}, nil
		},
		Disable: func(_ context.Context, _ domain.TenantID, endpoint, reason string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.stopped = append(w.stopped, endpoint+": "+reason)
			return nil
		},
	}
}

func (w *world) disabled() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.stopped)
}

// one is a relay whose rounds the test makes.
type one struct {
	*teller
	w *world
	g *group
}

// relay makes one that has partitions, with its first rounds behind it.
func (w *world) relay(numbers ...int32) *one {
	w.t.Helper()
	o := w.idle()
	o.assign(numbers...)
	return o
}

func (w *world) idle() *one {
	w.t.Helper()
	o := &one{w: w, g: &group{}}
	o.g.assign()
	r := New(w.deps(o.g))
	source, _ := w.kafka.newSource()
	o.teller = newTeller(r, source, false)
	w.t.Cleanup(o.close)
	return o
}

// assign gives it partitions and goes round until it has opened them and looked at every post.
func (o *one) assign(numbers ...int32) {
	o.w.t.Helper()
	o.g.assign(numbers...)
	o.rounds(8)
}

// rounds makes rounds, each with all that was read, and everything opened that was begun.
func (o *one) rounds(rounds int) {
	o.w.t.Helper()
	for range rounds {
		if err := o.once(); err != nil {
			o.w.t.Fatal(err)
		}
	}
}

func (o *one) once() error {
	if err := o.reading.step(o.w.t.Context()); err != nil {
		return err
	}
	o.follow(o.w.t.Context())
	o.await()
	return o.step(o.w.t.Context())
}

// await waits for everything that is being opened.
func (o *one) await() {
	var all []opened
	for range o.opening {
		all = append(all, <-o.opened)
	}
	for _, one := range all {
		o.opened <- one
	}
}

// later passes a second, so that everything may be told again, and goes round.
func (o *one) later() {
	o.w.t.Helper()
	o.w.pass(time.Second)
	o.rounds(3)
}

// wants checks what was told last of a post, and that revisions rise one by one.
func (w *world) wants(what, post string, revision, impressions int64, milestones ...int64) {
	w.t.Helper()
	told := w.kafka.told(post)
	if revision == 0 {
		if len(told) > 0 {
			w.t.Errorf("%s: %s was told: %+v", what, post, told)
		}
		return
	}
	if len(told) == 0 {
		w.t.Errorf("%s: nothing was told of %s", what, post)
		return
	}
	last := int64(0)
	for _, e := range told {
		if e.Revision <= last {
			w.t.Errorf("%s: revision %d of %s follows %d", what, e.Revision, post, last)
		}
		last = e.Revision
	}
	e := told[len(told)-1]
	if e.Revision != revision || e.Impressions != impressions || !slices.Equal(e.Milestones, milestones) {
		w.t.Errorf("%s: told of %s was last %+v, not revision %d with %d and milestones %v", what, post, e, revision, impressions, milestones)
	}
}

type ctx = context.Context

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	every := time.NewTicker(5 * time.Millisecond)
	defer every.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("waited for %s", what)
		case <-every.C:
		}
	}
}

// wantStarted runs a relay for as long as the test.
func wantStarted(t *testing.T, r *Relay) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// logged is what a relay logs.
type logged struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
