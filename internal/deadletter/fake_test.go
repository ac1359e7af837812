package deadletter

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"seenby/domain"
	"seenby/internal/postgres"
	"seenby/internal/testenv"
	"seenby/projections"
	"seenby/projections/posts"
	"seenby/projections/projectiontest"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// errKilled is how a step fails in tests: no retry is worth it.
var errKilled = errors.New("killed")

// steps counts what a run does, and ends it.
type steps struct {
	left int // until the step that fails; 0: none does
}

func (s *steps) kills() bool {
	if s.left == 0 {
		return false
	}
	s.left--
	return s.left == 0
}

// world is a log, a database and a desk of a test.
type world struct {
	t     *testing.T
	log   *projectiontest.Log
	d     *projectiontest.Database
	store *postgres.Store
	p     projections.Projection
	desk  *Desk
	steps *steps

	mu      sync.Mutex
	gone    map[domain.Position]bool // records that the log no longer holds
	decided []domain.Event
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	dsn := testenv.PostgresWith(t, "seenby", postgres.Migrate).DSN
	store, err := postgres.Open(t.Context(), postgres.Config{URL: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w := &world{
		t: t, log: projectiontest.NewLog(rand.New(rand.NewPCG(seed, 1))), d: projectiontest.Open(t, dsn), store: store, //nolint:gosec // repeatable
		p: posts.Projection{}, steps: &steps{}, gone: map[domain.Position]bool{},
	}
	w.desk = New(Deps{
		Store: w, Log: w, Projections: []projections.Projection{w.p}, Now: func() time.Time { return projectiontest.ParkedAt },
		Decode: func(domain.Topic, []byte, []byte) (domain.Event, error) { return nil, errors.New("still unreadable") },
	})
	w.desk.batchLettersMax = 3
	return w
}

// InTx fails before a statement, or once it has committed.
func (w *world) InTx(ctx context.Context, f func(context.Context, projections.Tx) error) error {
	err := w.store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error { return f(ctx, killedTx{tx, w.steps}) })
	if err == nil && w.steps.kills() {
		return errKilled
	}
	return err
}

func (w *world) Snapshot(ctx context.Context, f func(context.Context, projections.Querier) error) error {
	if w.steps.kills() {
		return errKilled
	}
	return w.store.Snapshot(ctx, f)
}

func (w *world) ReadAt(_ context.Context, in domain.Partition, offsets []int64) (map[int64]domain.Record, string, error) {
	if w.steps.kills() {
		return nil, "", errKilled
	}
	found := map[int64]domain.Record{}
	for _, r := range w.log.Records[in] {
		if slices.Contains(offsets, r.Offset) && !w.gone[in.At(r.Offset)] {
			found[r.Offset] = r
		}
	}
	return found, "the log was cut off", nil
}

func (w *world) Scan(_ context.Context, from domain.Position, to int64, each func(domain.Record)) error {
	for _, r := range w.log.Records[from.In()] {
		if r.Offset >= from.NextOffset && r.Offset < to {
			each(r)
		}
	}
	return nil
}

func (w *world) Installation(context.Context) (*domain.Installation, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var in domain.Installation
	for _, e := range w.decided {
		in.Apply(e)
	}
	return &in, nil
}

func (w *world) ChangeTenants(ctx context.Context, decide func(*domain.Installation) ([]domain.Event, error)) error {
	if w.steps.kills() {
		return errKilled
	}
	in, err := w.Installation(ctx)
	if err != nil {
		return err
	}
	events, err := decide(in)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.decided = append(w.decided, events...)
	w.mu.Unlock()
	if w.steps.kills() {
		return errKilled // appended, and the answer is lost
	}
	return nil
}

type killedTx struct {
	tx    projections.Tx
	steps *steps
}

func (k killedTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if k.steps.kills() {
		return pgconn.CommandTag{}, errKilled
	}
	return k.tx.Exec(ctx, sql, args...)
}

func (k killedTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if k.steps.kills() {
		return nil, errKilled
	}
	return k.tx.Query(ctx, sql, args...)
}

func (k killedTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if k.steps.kills() {
		return killedRow{}
	}
	return k.tx.QueryRow(ctx, sql, args...)
}

type killedRow struct{}

func (killedRow) Scan(...any) error { return errKilled }

// faulty refuses some sound records.
type faulty struct {
	projections.Projection
	refuses func(domain.Record) bool
}

func (f faulty) Check(r domain.Record) error {
	if f.refuses(r) {
		return errors.New("a fault of this program")
	}
	return f.Projection.Check(r)
}

// deliver folds the whole log with a projection.
func (w *world) deliver(p projections.Projection) {
	w.t.Helper()
	for _, b := range w.log.Batches(w.log.Rand, w.log.Parts(), func() int { return 25 }) {
		if err := w.d.Deliver(w.t.Context(), p, b); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) dump() string {
	w.t.Helper()
	dump, err := w.d.Dump(w.t.Context(), w.p)
	if err != nil {
		w.t.Fatal(err)
	}
	return dump
}

// sound is the dump of a log that was never refused anything; the database is empty after.
func (w *world) sound() string {
	w.t.Helper()
	w.deliver(w.p)
	dump := w.dump()
	if err := w.d.Reset(w.t.Context(), w.p); err != nil {
		w.t.Fatal(err)
	}
	return dump
}

// redrive redrives a selection and counts the fates.
func (w *world) redrive(sel Selection) (fates map[projections.Fate]int, last Tried) {
	w.t.Helper()
	fates = map[projections.Fate]int{}
	if err := w.desk.Redrive(w.t.Context(), sel, func(t Tried) { fates[t.Fate]++; last = t }); err != nil {
		w.t.Fatal(err)
	}
	return fates, last
}

func (w *world) names() (names []Name) {
	w.t.Helper()
	l, err := w.desk.List(w.t.Context(), Selection{}, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, letter := range l.Letters {
		names = append(names, letter.Name)
	}
	return names
}

func published(post, event string) (domain.Topic, []byte, domain.Event) {
	e := domain.PostPublished{PostRef: projectiontest.Post(post), Author: projectiontest.Person("ann"), Audience: domain.AudienceEveryone}
	copy(e.EventID[:], event)
	return domain.TopicPosts, e.PostRef.Key(), e
}

// refuseEvents refuses the post events of these ids.
func refuseEvents(ids ...string) func(domain.Record) bool {
	return func(r domain.Record) bool {
		e, ok := r.Event.(domain.PostEvent)
		if !ok {
			return false
		}
		id := e.ID()
		return slices.ContainsFunc(ids, func(text string) bool { var want domain.EventID; copy(want[:], text); return id == want })
	}
}

// everyTenth refuses a tenth of the records that have an order key.
func (w *world) everyTenth() faulty {
	refused := map[domain.Position]bool{}
	for _, part := range slices.SortedFunc(maps.Keys(w.log.Records), domain.ComparePartitions) {
		for _, r := range w.log.Records[part] {
			if w.p.OrderKey(r) != "" && w.log.Rand.IntN(10) == 0 {
				refused[part.At(r.Offset)] = true
			}
		}
	}
	return faulty{w.p, func(r domain.Record) bool { return refused[r.Partition.At(r.Offset)] }}
}
