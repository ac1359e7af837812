package rebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"seenby/domain"
	"seenby/internal/postgres"
	"seenby/internal/testenv"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/people"
	"seenby/projections/posts"
	"seenby/projections/projectiontest"
	"seenby/projections/timeseries"
	"seenby/projections/uniqueviews"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// kinds are all projections, each with what makes up a log for it.
var kinds = []struct {
	p        projections.Projection
	generate projectiontest.Generator
}{
	{posts.Projection{}, projectiontest.PostsAndMembers},
	{impressions.Projection{}, projectiontest.Verdicts},
	{uniqueviews.Projection{}, projectiontest.Verdicts},
	{people.Projection{}, projectiontest.People},
	{timeseries.Projection{}, projectiontest.Verdicts},
}

// fakeLog is a log in memory, as rebuilds read it.
type fakeLog struct {
	mu      sync.Mutex
	log     *projectiontest.Log
	given   map[domain.Position]bool
	starts  map[domain.Partition]int64
	anew    domain.TopicID // where set: the id that all topics have now
	away    error
	reading func(ctx context.Context, events int) error // before records are handed out; may be nil
}

func (l *fakeLog) parts(topic domain.Topic) []domain.Partition {
	parts := make([]domain.Partition, projectiontest.Partitions)
	for i := range parts {
		parts[i] = domain.Partition{Topic: topic, TopicID: projectiontest.TopicID(topic), Partition: int32(i)} //nolint:gosec // small
	}
	return parts
}

func (l *fakeLog) bounds(topic domain.Topic, of func(domain.Partition) int64) (at []domain.Position, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, part := range l.parts(topic) {
		n := of(part)
		if l.anew != (domain.TopicID{}) {
			part.TopicID = l.anew
		}
		at = append(at, part.At(n))
	}
	return at, l.away
}

func (l *fakeLog) Starts(_ context.Context, topic domain.Topic) ([]domain.Position, error) {
	return l.bounds(topic, func(part domain.Partition) int64 { return l.starts[part] })
}

func (l *fakeLog) Ends(_ context.Context, topic domain.Topic) ([]domain.Position, error) {
	return l.bounds(topic, l.end)
}

// end is behind the last record. There are gaps before it.
func (l *fakeLog) end(part domain.Partition) int64 {
	records := l.log.Records[part]
	if len(records) == 0 {
		return 0
	}
	return records[len(records)-1].Offset + 1
}

const fakeChunk = 17

func (l *fakeLog) ReadRanges(ctx context.Context, from, to []domain.Position, apply func([]domain.Record) error) error {
	for i := range from {
		l.mu.Lock()
		if err := l.away; err != nil {
			l.mu.Unlock()
			return err
		}
		if from[i].NextOffset < to[i].NextOffset && (from[i].NextOffset < l.starts[from[i].In()] || to[i].NextOffset > l.end(to[i].In())) {
			l.mu.Unlock()
			return domain.Errorf(domain.CodeDataLoss, "%s does not hold %d to %d", from[i].Topic, from[i].NextOffset, to[i].NextOffset)
		}
		var within []domain.Record
		for _, r := range l.log.Records[from[i].In()] {
			if r.Offset >= from[i].NextOffset && r.Offset < to[i].NextOffset {
				within = append(within, r)
			}
		}
		reading := l.reading
		l.mu.Unlock()
		for chunk := range slices.Chunk(within, fakeChunk) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if reading != nil {
				if err := reading(ctx, len(chunk)); err != nil {
					return err
				}
			}
			if err := apply(slices.Clone(chunk)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *fakeLog) Installation(context.Context) (*domain.Installation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := &domain.Installation{}
	for at := range l.given {
		in.Apply(domain.DecisionRecorded{Kind: domain.DecisionDiscard, Projection: "posts", About: []domain.Position{at}})
		in.Apply(domain.DecisionRecorded{Kind: domain.DecisionDiscard, Projection: "impressions", About: []domain.Position{at}})
	}
	return in, l.away
}

// add appends to the log while others read it.
func (l *fakeLog) add(f func(*projectiontest.Log)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l.log)
}

// fakeStore is a PostgreSQL whose steps can be struck: each statement, and each commit, before it and after it.
type fakeStore struct {
	*postgres.Store
	mu     sync.Mutex
	left   int                        // until the step that is struck; 0: none is
	strike func(committed bool) error // nil: the step is done all the same
	before atomic.Pointer[func()]     // called before each statement but that of the progress; may wait
}

func (s *fakeStore) wait(sql string) {
	if before := s.before.Load(); before != nil && sql != progressSQL {
		(*before)()
	}
}

// step is one step; committed: it is one after a commit.
func (s *fakeStore) step(committed bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 {
		return nil
	}
	if s.left--; s.left > 0 {
		return nil
	}
	return s.strike(committed)
}

func (s *fakeStore) arm(left int, strike func(bool) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.strike = left, strike
}

// struck disarms, and tells whether there was a strike.
func (s *fakeStore) struck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	struck := s.left == 0
	s.left = 0
	return struck
}

func (s *fakeStore) InTx(ctx context.Context, f func(context.Context, projections.Tx) error) error {
	err := s.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error { return f(ctx, struckTx{tx, s}) })
	if err != nil {
		return err
	}
	return s.step(true)
}

func (s *fakeStore) Snapshot(ctx context.Context, f func(context.Context, projections.Querier) error) error {
	s.wait("")
	if err := s.step(false); err != nil {
		return err
	}
	return s.Store.Snapshot(ctx, f)
}

func (s *fakeStore) Copy(ctx context.Context, tx projections.Tx, sql string, from io.Reader) (int64, error) {
	if err := s.step(false); err != nil {
		return 0, err
	}
	return s.Store.Copy(ctx, tx.(struckTx).Tx, sql, from)
}

type struckTx struct {
	projections.Tx
	store *fakeStore
}

func (t struckTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	t.store.wait(sql)
	if err := t.store.step(false); err != nil {
		return pgconn.CommandTag{}, err
	}
	return t.Tx.Exec(ctx, sql, args...)
}

func (t struckTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	t.store.wait(sql)
	if err := t.store.step(false); err != nil {
		return nil, err
	}
	return t.Tx.Query(ctx, sql, args...)
}

func (t struckTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	t.store.wait(sql)
	if err := t.store.step(false); err != nil {
		return failedRow{err}
	}
	return t.Tx.QueryRow(ctx, sql, args...)
}

type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }

// world is a log, a database and a projection of a test.
type world struct {
	t     *testing.T
	p     projections.Projection
	log   *fakeLog
	store *fakeStore
	dsn   string
	pool  *pgxpool.Pool // of the test itself
	deps  Deps
	opts  Options

	mu       sync.Mutex
	progress func(Progress)
}

// newWorld makes a database in which the first version has folded a whole log.
func newWorld(t *testing.T, p projections.Projection, generate projectiontest.Generator) *world {
	t.Helper()
	return newWorldOn(t, testenv.PostgresWith(t, "seenby", postgres.Migrate).DSN, p, generate)
}

func newWorldOn(t *testing.T, dsn string, p projections.Projection, generate projectiontest.Generator) *world {
	t.Helper()
	seed := rand.Uint64() //nolint:gosec // no secret
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log's seed is %d", seed)
		}
	})
	w := &world{
		t: t, p: p, dsn: dsn, store: &fakeStore{Store: openStore(t, dsn)}, pool: projectiontest.Open(t, dsn).Pool,
		log:  &fakeLog{log: projectiontest.NewLog(rand.New(rand.NewPCG(seed, 1))), given: map[domain.Position]bool{}, starts: map[domain.Partition]int64{}}, //nolint:gosec // repeatable
		opts: Options{BatchEventsMax: 100, MemoryBytes: 16 << 20, TempDir: t.TempDir()},
	}
	w.deps = Deps{
		Log: w.log, Store: w.store, Now: time.Now, Logger: slog.New(slog.DiscardHandler), HandOver: time.Millisecond,
		Progress: func(g Progress) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.progress != nil {
				w.progress(g)
			}
		},
	}
	if generate != nil {
		generate(w.log.log, true)
		w.deliver(1)
	}
	return w
}

const applicationName = "seenby-rebuild-test"

func openStore(t *testing.T, dsn string) *postgres.Store {
	t.Helper()
	store, err := postgres.Open(t.Context(), postgres.Config{URL: dsn + "&application_name=" + applicationName, ConnectionsMax: 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// watch has f called with the progress.
func (w *world) watch(f func(Progress)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.progress = f
}

func (w *world) model(version int) projections.ReadModel {
	return projections.ReadModel{Projection: w.p, Version: version}
}

// deliver folds into a version, as projectors do, all that it has not folded yet.
func (w *world) deliver(version int) {
	w.t.Helper()
	if err := w.tryDeliver(w.t.Context(), version); err != nil {
		w.t.Fatalf("deliver to version %d: %v", version, err)
	}
}

func (w *world) tryDeliver(ctx context.Context, version int) error {
	var ends []domain.Position
	for _, topic := range w.p.Topics() {
		at, err := w.log.Ends(ctx, topic)
		if err != nil {
			return err
		}
		ends = append(ends, at...)
	}
	parts := make([]domain.Partition, len(ends))
	for i, end := range ends {
		parts[i] = end.In()
	}
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		if err := projections.InsertMissing(ctx, tx, w.model(version), parts); err != nil {
			return err
		}
		rows := map[domain.Partition]projections.PositionRow{}
		at, err := projections.LockPositions(ctx, tx, w.model(version))
		if err != nil {
			return err
		}
		b := domain.Batch{Next: ends}
		w.log.mu.Lock()
		for _, row := range at {
			rows[row.In()] = row
			for _, r := range w.log.log.Records[row.In()] {
				if r.Offset >= row.NextOffset {
					b.Records = append(b.Records, r)
				}
			}
		}
		w.log.mu.Unlock()
		work := projections.Cut(rows, b)
		if len(work.Moves) == 0 {
			return nil
		}
		work.ParkedAt, work.LettersMax, work.Given = projectiontest.ParkedAt, 1<<20, w.log.given
		for i := range work.Moves {
			work.Moves[i].CompleteTo = projectiontest.Start.Add(time.Duration(work.Moves[i].NextOffset) * time.Minute)
		}
		_, err = projections.Write(ctx, tx, w.model(version), work)
		return err
	})
}

// run rebuilds, and must succeed.
func (w *world) run() Result {
	w.t.Helper()
	result, err := Run(w.t.Context(), w.deps, w.p, w.opts)
	if err != nil {
		w.t.Fatalf("rebuild %s: %v", w.p.Name(), err)
	}
	return result
}

// dropOld drops what is kept.
func (w *world) dropOld() {
	w.t.Helper()
	if _, err := DropOld(w.t.Context(), w.deps, w.p); err != nil {
		w.t.Fatalf("drop the old version of %s: %v", w.p.Name(), err)
	}
}

// dump is all that a version holds, and where it stands.
func (w *world) dump(version int) string {
	w.t.Helper()
	var out strings.Builder
	queries := []string{
		`SELECT p.topic || '/' || p.partition || '@' || p.next_offset || ' ' || p.view_next_offset FROM positions p WHERE p.projection = $1 AND p.version = $2`,
		`SELECT (to_jsonb(d) - 'parked_at' - 'version')::text FROM dead_letters d WHERE d.projection = $1 AND d.version = $2`,
	}
	for _, table := range w.p.Tables() {
		queries = append(queries, fmt.Sprintf(`SELECT t::text FROM %s t WHERE $1 <> '' AND $2::integer > 0`, qualified(w.model(version), table)))
	}
	for _, sql := range queries {
		rows, err := w.pool.Query(w.t.Context(), sql, w.p.Name(), version)
		if err != nil {
			w.t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			w.t.Fatal(err)
		}
		slices.Sort(lines)
		out.WriteString(strings.Join(lines, "\n") + "\n\n")
	}
	return out.String()
}

// same fails where two versions are not alike.
func (w *world) same(a, b int) {
	w.t.Helper()
	x, y := w.dump(a), w.dump(b)
	if x == y {
		return
	}
	var diff []string
	for line := range strings.Lines(x) {
		if !strings.Contains(y, line) {
			diff = append(diff, "- "+line)
		}
	}
	for line := range strings.Lines(y) {
		if !strings.Contains(x, line) {
			diff = append(diff, "+ "+line)
		}
	}
	w.t.Fatalf("versions %d (-) and %d (+) of %s differ:\n%s", a, b, w.p.Name(), strings.Join(diff[:min(len(diff), 20)], ""))
}

func (w *world) number(sql string, args ...any) (n int) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), sql, args...).Scan(&n); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.pool.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// live is the live version.
func (w *world) live() int {
	w.t.Helper()
	return w.number(`SELECT live_version FROM read_models WHERE projection = $1`, w.p.Name())
}

// clean fails where anything of a rebuild is left but the live version and, where given, one more.
func (w *world) clean(versions ...int) {
	w.t.Helper()
	for what, sql := range map[string]string{
		"versions":     `SELECT count(*) FROM read_model_versions WHERE projection = $1 AND version <> ALL($2)`,
		"schemas":      `SELECT count(*) FROM pg_namespace WHERE nspname LIKE $1 || '\_v%' AND NOT nspname = ANY (SELECT $1 || '_v' || v FROM unnest($2::integer[]) v)`,
		"positions":    `SELECT count(*) FROM positions WHERE projection = $1 AND version <> ALL($2)`,
		"dead letters": `SELECT count(*) FROM dead_letters WHERE projection = $1 AND version <> ALL($2)`,
	} {
		if n := w.number(sql, w.p.Name(), versions); n != 0 {
			w.t.Errorf("%d %s of %s are left", n, what, w.p.Name())
		}
	}
}

// wants fails unless the error has the code and says all of that.
func wants(t *testing.T, err error, code domain.Code, says ...string) {
	t.Helper()
	if domain.CodeOf(err) != code {
		t.Fatalf("the error is %v (%s), not %s", err, domain.CodeOf(err), code)
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("it says nothing of %q: %v", text, err)
		}
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(time.Minute)
	for !cond() {
		select {
		case <-ticker.C:
		case <-limit:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// counted makes up a verdict of a view that counts.
func counted(l *projectiontest.Log) domain.Verdict {
	n := l.Rand.IntN(1000)
	return domain.Verdict{
		Viewer: domain.PersonRef{Tenant: "demo", Person: projectiontest.Person(fmt.Sprintf("viewer%d", n))},
		Post:   domain.PostID(fmt.Sprintf("p%d", n%7)), ViewedAt: projectiontest.Start,
	}
}
