package projectiontest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/bulk"
)

// bulkLoaded loads what the projection folds in bulk, in memories of any size down to the least, and has the rest done as
// ever: positions and dead letters.
func bulkLoaded(ctx context.Context, d *Database, p projections.Projection, l *Log) error {
	_, err := d.load(ctx, p, l, func() int64 { return bulk.MemoryBytesMin << l.Rand.IntN(4) })
	return err
}

// load loads a log shard by shard. It gives the number of runs that were spilled.
func (d *Database) load(ctx context.Context, p projections.Projection, l *Log, memoryBytes func() int64) (runs int, err error) {
	loader, ok := p.(projections.BulkLoader)
	if !ok {
		return 0, errors.New("the projection is not loaded in bulk")
	}
	dir, err := os.MkdirTemp("", "seenby-law-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // temporary
	parts := l.Parts()
	for shard := range int16(projections.Shards) {
		mine := slices.DeleteFunc(slices.Clone(parts), func(part domain.Partition) bool { return projections.Shard(part.Partition) != shard })
		load, err := loader.BulkLoad(shard, projections.BulkRoom{MemoryBytes: memoryBytes(), Dir: dir})
		if err != nil {
			return 0, err
		}
		err = d.bulkLoad(ctx, p, load, l.Batches(l.Rand, mine, upTo(l.Rand, 40)))
		n, _ := load.Spilled()
		runs += n
		if err = errors.Join(err, load.Close()); err != nil {
			return 0, err
		}
	}
	left, err := os.ReadDir(dir)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%d temporary files are left", len(left))
	}
	return runs, err
}

// BulkMemory checks that a load whose memory is far too small, so that it goes through many runs, leaves what one leaves
// that holds all, and both what live leaves.
func BulkMemory(t *testing.T, dsn string, p projections.BulkLoader) {
	const runsMin = 3 * projections.Shards
	d := Open(t, dsn)
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			l := NewLog(rand.New(rand.NewPCG(seed, 0))) //nolint:gosec // repeatable
			manyPosts(l)
			dump := func(what string, f func() error) string {
				if err := d.Reset(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				if err := f(); err != nil {
					t.Fatalf("%s: %v; again with %s=%d", what, err, seedVariable, seed)
				}
				out, err := d.Dump(t.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			want := dump("live", func() error { return replay(t.Context(), d, p, l) })
			loaded := func(memoryBytes int64) (dumped string, runs int) {
				dumped = dump("load", func() (err error) {
					runs, err = d.load(t.Context(), p, l, func() int64 { return memoryBytes })
					return err
				})
				return dumped, runs
			}
			ample, runs := loaded(16 << 20)
			if diff := difference(want, ample); diff != "" || runs != 0 {
				t.Errorf("live (-) and a load that holds all (+) differ (seed %d, %d runs):\n%s", seed, runs, diff)
			}
			refusesOtherShards(t, p, l)
			tiny, runs := loaded(bulk.MemoryBytesMin)
			if diff := difference(want, tiny); diff != "" || runs < runsMin {
				t.Errorf("live (-) and a load of %d runs (+) differ (seed %d):\n%s", runs, seed, diff)
			}
		})
	}
}

// refusesOtherShards gives each record to a load that is not of its shard.
func refusesOtherShards(t *testing.T, p projections.BulkLoader, l *Log) {
	t.Helper()
	for _, part := range l.Parts() {
		load, err := p.BulkLoad((projections.Shard(part.Partition)+1)%projections.Shards, projections.BulkRoom{MemoryBytes: bulk.MemoryBytesMin})
		if err != nil {
			t.Fatal(err)
		}
		if err := load.Add(l.Records[part][:1]); err == nil {
			t.Errorf("a record of partition %d is taken by another shard", part.Partition)
		}
		if err := load.Close(); err != nil {
			t.Error(err)
		}
	}
}

// manyPosts makes up verdicts of more posts and pairs than a small memory holds.
func manyPosts(l *Log) {
	for range 4000 {
		l.AppendVerdict(domain.Verdict{
			Viewer: domain.PersonRef{Tenant: Pick[domain.TenantID](l.Rand, "demo", "acme"), Person: Person(fmt.Sprintf("viewer%d", l.Rand.IntN(60)))},
			Post:   domain.PostID(fmt.Sprintf("p%d", min(l.Rand.IntN(120), l.Rand.IntN(120)))), Anonymous: l.Rand.IntN(10) == 0, Imported: l.Rand.IntN(10) == 0,
			ViewedAt: l.clock.Add(-time.Duration(l.Rand.Int64N(int64(time.Hour)))),
		})
	}
}

// bulkLoad folds batches of a shard, and copies what comes of them.
func (d *Database) bulkLoad(ctx context.Context, p projections.Projection, load projections.BulkLoad, batches []domain.Batch) error {
	for _, b := range batches {
		parts := make([]domain.Partition, len(b.Next))
		for i, n := range b.Next {
			parts[i] = n.In()
		}
		rows, err := d.Positions(ctx, p, parts)
		if err != nil {
			return err
		}
		w := projections.Cut(rows, b)
		poison := func(r domain.Record) bool { return r.Err != nil || p.Check(r) != nil }
		if err := load.Add(slices.DeleteFunc(slices.Clone(w.Records), poison)); err != nil {
			return err
		}
		w.Records = slices.DeleteFunc(w.Records, func(r domain.Record) bool { return !poison(r) })
		if err := d.Write(ctx, p, w, nil); err != nil {
			return err
		}
	}
	return d.copyLoad(ctx, p, load)
}

// copyLoad copies the tables of a load.
func (d *Database) copyLoad(ctx context.Context, p projections.Projection, load projections.BulkLoad) error {
	return pgx.BeginFunc(ctx, d.Pool, func(tx pgx.Tx) error {
		return load.Copy(func(t projections.BulkTable) error {
			if _, err := tx.Conn().PgConn().CopyFrom(ctx, t.Rows, t.CopySQL(First(p))); err != nil {
				return fmt.Errorf("copy %s: %w", t.Name, err)
			}
			return nil
		})
	})
}
