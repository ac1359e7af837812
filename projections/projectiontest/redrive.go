package projectiontest

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"seenby/domain"
	"seenby/projections"
)

// redriven lets a program with a fault park what is sound, and one without redrive it, now and then and at the end,
// in any selection and with transactions that fail anywhere. What is poison for both stays, with its followers.
func redriven(ctx context.Context, d *Database, p projections.Projection, l *Log) error {
	faulty := faultyCheck{Projection: p, refused: map[domain.Position]bool{}}
	for _, part := range l.Parts() {
		for _, r := range l.Records[part] {
			// A tombstone that waits for nothing is sound whenever its key can be read.
			if l.Rand.IntN(10) == 0 && (p.OrderKey(r) != "" || part.Topic != domain.TopicBodies) {
				faulty.refused[part.At(r.Offset)] = true
			}
		}
	}
	for _, b := range l.Batches(l.Rand, l.Parts(), upTo(l.Rand, 40)) {
		if err := d.Deliver(ctx, faulty, b); err != nil {
			return err
		}
		if l.Rand.IntN(4) == 0 {
			if err := d.redriveSome(ctx, p, l); err != nil {
				return err
			}
		}
	}
	_, err := d.Redrive(ctx, p, l, func([]projections.Letter) []projections.Letter { return nil })
	return err
}

// faultyCheck refuses sound records.
type faultyCheck struct {
	projections.Projection
	refused map[domain.Position]bool
}

func (f faultyCheck) Check(r domain.Record) error {
	if f.refused[r.Partition.At(r.Offset)] {
		return errors.New("a fault of this program")
	}
	return f.Projection.Check(r)
}

func (d *Database) redriveSome(ctx context.Context, p projections.Projection, l *Log) error {
	_, err := d.Redrive(ctx, p, l, func(letters []projections.Letter) []projections.Letter {
		var left []projections.Letter
		for _, letter := range letters {
			if l.Rand.IntN(2) == 0 {
				left = append(left, letter)
			}
		}
		return left
	})
	return err
}

// errLost is what a transaction of a redrive fails with.
var errLost = errors.New("the connection is lost")

// Redrive redrives all letters of a projection but those that leave gives, a partition at a time, reading their
// records from the log. Every other transaction fails somewhere first.
func (d *Database) Redrive(ctx context.Context, p projections.Projection, l *Log, leave func([]projections.Letter) []projections.Letter) ([]projections.Redriven, error) {
	letters, err := projections.Letters(ctx, d.Pool, projections.LetterFilter{Of: First(p), Limit: lettersMax})
	if err != nil {
		return nil, err
	}
	left := map[domain.Position]bool{}
	for _, letter := range leave(letters) {
		left[letter.Position()] = true
	}
	works := map[domain.Partition]*projections.Redriving{}
	for _, letter := range letters {
		if left[letter.Position()] {
			continue
		}
		w := works[letter.Partition]
		if w == nil {
			w = &projections.Redriving{In: letter.Partition, Records: map[int64]domain.Record{}}
			w.Overtaken = func(_ context.Context, next int64) (map[int64]bool, error) { return l.overtaken(p, *w, next), nil }
			works[letter.Partition] = w
		}
		w.Offsets = append(w.Offsets, letter.Offset)
		for _, r := range l.Records[letter.Partition] {
			if r.Offset == letter.Offset {
				w.Records[r.Offset] = r
			}
		}
	}
	var all []projections.Redriven
	for _, part := range slices.SortedFunc(maps.Keys(works), domain.ComparePartitions) {
		w := works[part]
		if l.Rand.IntN(2) == 0 {
			if _, err := d.redrive(ctx, p, *w, 1+l.Rand.IntN(8)); err != nil && !errors.Is(err, errLost) {
				return nil, err
			}
		}
		fates, err := d.redrive(ctx, p, *w, 0)
		if err != nil {
			return nil, err
		}
		all = append(all, fates...)
	}
	return all, nil
}

// redrive redrives in one transaction, which fails with its failAt-th statement, counted from 1.
func (d *Database) redrive(ctx context.Context, p projections.Projection, w projections.Redriving, failAt int) (fates []projections.Redriven, err error) {
	err = pgx.BeginFunc(ctx, d.Pool, func(tx pgx.Tx) error {
		failing := &failingTx{tx: tx, left: failAt}
		fates, err = projections.Redrive(ctx, failing, First(p), w)
		if err == nil && failing.left > 0 {
			err = errLost // as it commits
		}
		return err
	})
	return fates, err
}

// overtaken tells which letters a later record of their key has taken back, below next.
func (l *Log) overtaken(p projections.Projection, w projections.Redriving, next int64) map[int64]bool {
	gone := map[int64]bool{}
	for offset, r := range w.Records {
		for _, later := range l.Records[w.In] {
			if later.Offset > offset && later.Offset < next && string(later.Key) == string(r.Key) && projections.Overtakes(p, later, p.OrderKey(r)) {
				gone[offset] = true
			}
		}
	}
	return gone
}

// failingTx fails with one of its statements.
type failingTx struct {
	tx   projections.Tx
	left int // until the one that fails; 0: none does
}

func (f *failingTx) fails() bool {
	if f.left == 0 {
		return false
	}
	f.left--
	return f.left == 0
}

func (f *failingTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if f.fails() {
		return pgconn.CommandTag{}, errLost
	}
	return f.tx.Exec(ctx, sql, args...)
}

func (f *failingTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if f.fails() {
		return nil, errLost
	}
	return f.tx.Query(ctx, sql, args...)
}

func (f *failingTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if f.fails() {
		return failedRow{}
	}
	return f.tx.QueryRow(ctx, sql, args...)
}

type failedRow struct{}

func (failedRow) Scan(...any) error { return errLost }
