package projector_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/internal/postgres"
	"seenby/internal/projector"
	"seenby/internal/testenv"
	"seenby/projections"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

var (
	part0 = domain.Partition{Topic: domain.TopicVerdicts, TopicID: domain.TopicID{1}, Partition: 0}
	part1 = domain.Partition{Topic: domain.TopicVerdicts, TopicID: domain.TopicID{1}, Partition: 1}
)

// fakeLog is a log in memory.
type fakeLog struct {
	mu       sync.Mutex
	records  map[domain.Partition][]domain.Record
	viewEnds map[int32]int64
	start    int64
}

func newLog() *fakeLog {
	return &fakeLog{records: map[domain.Partition][]domain.Record{}, viewEnds: map[int32]int64{}}
}

func (l *fakeLog) append(part domain.Partition, key string, e domain.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := int64(len(l.records[part]))
	l.records[part] = append(l.records[part], domain.Record{
		Partition: part, Offset: at, Key: []byte(key), Event: e, Time: time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC),
	})
	if v, ok := e.(*domain.Verdict); ok {
		l.viewEnds[part.Partition] = max(l.viewEnds[part.Partition], v.ViewOffset+1)
	}
}

// count appends n counted views of a post, each with the next view offset.
func (l *fakeLog) count(part domain.Partition, post string, n int) {
	for range n {
		l.mu.Lock()
		next := l.viewEnds[part.Partition]
		l.mu.Unlock()
		l.append(part, post, &domain.Verdict{Post: domain.PostID(post), ViewOffset: next})
	}
}

// fakeSource reads a fakeLog.
type fakeSource struct {
	log     *fakeLog
	mu      sync.Mutex
	parts   []domain.Partition
	changed chan struct{}
	at      map[domain.Partition]int64
	commits []domain.Position
}

func (l *fakeLog) source(parts ...domain.Partition) *fakeSource {
	return &fakeSource{log: l, parts: parts, changed: make(chan struct{}), at: map[domain.Partition]int64{}}
}

func (s *fakeSource) assign(parts ...domain.Partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts = parts
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *fakeSource) Assignment() ([]domain.Partition, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.parts), s.changed
}

func (s *fakeSource) Seek(_ context.Context, at []domain.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range at {
		if p.NextOffset < s.log.start {
			return domain.Errorf(domain.CodeDataLoss, "the log starts at %d", s.log.start)
		}
		s.at[p.In()] = p.NextOffset
	}
	return nil
}

// reading is of how many partitions the source still reads.
func (s *fakeSource) reading() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

func (s *fakeSource) Drop(parts []domain.Partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parts {
		delete(s.at, p)
	}
}

// pollWait is the fake's own short wait.
const pollWait = 5 * time.Millisecond

func (s *fakeSource) Poll(ctx context.Context, eventsMax int) (domain.Batch, error) {
	if b := s.read(eventsMax); len(b.Next) > 0 {
		return b, nil
	}
	timer := time.NewTimer(pollWait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return domain.Batch{}, ctx.Err()
	case <-timer.C:
		return s.read(eventsMax), nil
	}
}

func (s *fakeSource) read(eventsMax int) (b domain.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for part, at := range s.at {
		records := s.log.records[part][at:]
		records = records[:min(len(records), eventsMax-len(b.Records))]
		if len(records) == 0 {
			continue
		}
		b.Records = append(b.Records, records...)
		s.at[part] = records[len(records)-1].Offset + 1
		b.Next = append(b.Next, part.At(s.at[part]))
	}
	return b
}

func (s *fakeSource) Commit(_ context.Context, at []domain.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits = at
	return nil
}

func (s *fakeSource) Ends(_ context.Context, topic domain.Topic) (ends []domain.Position, err error) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for _, part := range []domain.Partition{part0, part1} {
		end := int64(len(s.log.records[part]))
		if topic == domain.TopicViews {
			part.Topic, part.TopicID = topic, domain.TopicID{2}
			end = s.log.viewEnds[part.Partition]
		}
		ends = append(ends, part.At(end))
	}
	return ends, nil
}

// tally counts verdicts by post, in order of the record key.
type tally struct{}

func (tally) Name() string                    { return "tally" }
func (tally) FoldVersion() int                { return 1 }
func (tally) Topics() []domain.Topic          { return []domain.Topic{domain.TopicVerdicts} }
func (tally) Tables() []string                { return []string{"tally"} }
func (tally) OrderKey(r domain.Record) string { return string(r.Key) }

func (tally) Check(r domain.Record) error {
	v, ok := r.Event.(*domain.Verdict)
	switch {
	case !ok:
		return domain.ErrUnknownEvent
	case v.Post == "":
		return domain.Invalid("post", "is required")
	}
	return nil
}

func (tally) Apply(ctx context.Context, tx projections.Tx, batch []domain.Record) error {
	for _, r := range batch {
		post := string(r.Event.(*domain.Verdict).Post) // checked
		if _, err := tx.Exec(ctx, "INSERT INTO tally VALUES ($1, 1) ON CONFLICT (post) DO UPDATE SET n = tally.n + 1", post); err != nil {
			return err
		}
	}
	return nil
}

// database is a migrated database that knows the projection tally.
type database struct {
	*postgres.Store
	conn *pgx.Conn
}

func open(t *testing.T) *database {
	t.Helper()
	env := testenv.PostgresWith(t, "seenby", postgres.Migrate)
	store, err := postgres.Open(t.Context(), postgres.Config{URL: env.DSN})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	d := &database{store, env.Conn(t)}
	d.exec(t, "SELECT add_read_model('tally', $$ CREATE TABLE tally (post text PRIMARY KEY, n bigint, CONSTRAINT tally_allowed CHECK (post <> 'refused')) $$)")
	return d
}

func (d *database) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := d.conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func (d *database) number(t *testing.T, sql string) (n int64) {
	t.Helper()
	if err := d.conn.QueryRow(t.Context(), sql).Scan(&n); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	return n
}

func (d *database) tally(t *testing.T, post string) int64 {
	t.Helper()
	return d.number(t, "SELECT n FROM tally WHERE post = '"+post+"'")
}

func (d *database) waitTally(t *testing.T, post string, n int64) {
	t.Helper()
	wait(t, func() bool { return d.tally(t, post) >= n })
	if got := d.tally(t, post); got != n {
		t.Fatalf("%s was counted %d times, not %d", post, got, n)
	}
}

// wait waits for a condition.
func wait(t *testing.T, cond func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-ticker.C:
		case <-limit:
			t.Fatal("waited in vain")
		}
	}
}

var small = projector.Config{BatchEventsMax: 7, LettersMax: 20, RetryMin: time.Millisecond, RetryMax: 10 * time.Millisecond}

// tallies is the version of tally that a database has.
var tallies = projections.ReadModel{Projection: tally{}, Version: 1}

func newProjector(source projector.Source, store projector.Store) *projector.Projector {
	return projector.New(tallies, source, store, small, slog.New(slog.DiscardHandler), time.Now, projector.Hooks{})
}

// start runs a projector until the test or stop ends it; stop gives what Run returned.
func start(t *testing.T, p *projector.Projector) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return stop
}
