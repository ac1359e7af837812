package rebuild

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/projectiontest"
	"seenby/projections/uniqueviews"
)

// TestASwapWaitsForReaders: a snapshot that stands, and a transaction that has read a view, see one version to their end;
// the swap lets others read meanwhile, and comes through when they are gone.
func TestASwapWaitsForReaders(t *testing.T) {
	for name, read := range map[string]string{
		"snapshot": "LOCK TABLE read_models IN ACCESS SHARE MODE",
		"view":     "SELECT count(*) FROM unique_views",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, uniqueviews.Projection{}, projectiontest.Verdicts)
			tx, err := w.pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback(context.WithoutCancel(t.Context()))
			if _, err := tx.Exec(t.Context(), read); err != nil {
				t.Fatal(err)
			}
			var attempts atomic.Int64
			w.watch(func(g Progress) {
				if g.Detail == "waiting for readers or for PostgreSQL" {
					attempts.Add(1)
				}
			})
			s := w.start(t.Context())
			longest := w.readsUntil(func() bool { return attempts.Load() >= 3 })
			if w.live() != 1 {
				t.Fatal("it swapped under a reader")
			}
			if longest > time.Second {
				t.Errorf("a reader waited for %v", longest)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.wait(t); err != nil || w.live() != 2 {
				t.Fatalf("%v, live is %d", err, w.live())
			}
			if s.result.Locked > time.Second {
				t.Errorf("the swap locked for %v", s.result.Locked)
			}
		})
	}
}

// readsUntil reads in snapshots until a condition holds, and tells how long the longest took.
func (w *world) readsUntil(holds func() bool) (longest time.Duration) {
	w.t.Helper()
	eventually(w.t, "the attempts", func() bool {
		began := time.Now()
		if err := w.store.Store.Snapshot(w.t.Context(), func(ctx context.Context, q projections.Querier) error {
			var n int
			return q.QueryRow(ctx, "SELECT count(*) FROM unique_views").Scan(&n)
		}); err != nil {
			w.t.Error(err)
		}
		longest = max(longest, time.Since(began))
		return holds()
	})
	return longest
}

// TestNoCountGoesBack: swap follows swap while projectors fold, and readers see each snapshot whole and never less than
// before: all that is counted up to its positions.
func TestNoCountGoesBack(t *testing.T) {
	w := newWorld(t, impressions.Projection{}, nil)
	w.exec(`UPDATE read_model_versions SET followed = true`)
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var reads, swaps atomic.Int64
	all.Go(func() { // the log grows
		for ctx.Err() == nil {
			w.log.add(func(l *projectiontest.Log) {
				for range 20 {
					l.AppendVerdict(counted(l))
				}
			})
			_ = waitOrEnd(ctx, 5*time.Millisecond)
		}
	})
	all.Go(func() { // the projectors of whatever is followed
		for ctx.Err() == nil {
			versions, err := w.store.Versions(ctx)
			for _, v := range versions {
				if v.Projection == w.p.Name() && v.Followed && err == nil {
					err = w.tryDeliver(ctx, v.Version)
				}
			}
			if err != nil && ctx.Err() == nil {
				t.Errorf("a projector: %v", err)
			}
		}
	})
	for range 3 {
		all.Go(func() { w.readsCounts(ctx, &reads) })
	}
	for range 3 {
		w.run()
		swaps.Add(1)
		for range 2 {
			if _, err := Rollback(t.Context(), w.deps, w.p); err != nil {
				t.Error(err)
			}
			swaps.Add(1)
		}
		w.dropOld()
	}
	stop()
	all.Wait()
	if reads.Load() < swaps.Load() {
		t.Errorf("%d reads only beside %d swaps", reads.Load(), swaps.Load())
	}
}

// readsCounts holds each snapshot to the one before it, and to itself: what is counted, and to where.
func (w *world) readsCounts(ctx context.Context, reads *atomic.Int64) {
	var last, lastSum int64
	var lastAt time.Time
	for ctx.Err() == nil {
		var counted, counts, sum int64
		var at time.Time
		err := w.store.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
			var n int // something else first: what is read next must still belong to this snapshot
			if err := q.QueryRow(ctx, `SELECT count(*) FROM posts`).Scan(&n); err != nil {
				return err
			}
			rows, err := projections.Positions(ctx, q)
			if err != nil {
				return err
			}
			for _, row := range rows[w.p.Name()] {
				sum += row.NextOffset
				counts += row.ViewNextOffset
			}
			if at, err = projections.AsOf(ctx, q, w.p.Name()); err != nil {
				return err
			}
			return q.QueryRow(ctx, `SELECT COALESCE(sum(impressions), 0)::bigint FROM impressions`).Scan(&counted)
		})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.t.Errorf("a read failed: %v", err)
		case counted != counts: // each view was counted, so these belong together
			w.t.Errorf("%d are counted, and the positions say %d", counted, counts)
		case counted < last || sum < lastSum || at.Before(lastAt):
			w.t.Errorf("%d counted at %d, complete to %v, after %d at %d, complete to %v", counted, sum, at, last, lastSum, lastAt)
		}
		last, lastSum, lastAt = counted, sum, at
		reads.Add(1)
	}
}

// TestALetterThatWasRedriven: what was redriven in the version that readers see is not taken from them by a version that
// still has it parked.
func TestALetterThatWasRedriven(t *testing.T) {
	t.Parallel()
	w := newWorld(t, impressions.Projection{}, projectiontest.Verdicts)
	w.run()
	w.exec(`DELETE FROM dead_letters`)
	// As it stands where the same letter was parked in both and redriven in the live one alone.
	w.exec(`INSERT INTO dead_letters (projection, version, topic_id, partition, record_offset, topic, order_key, reason, follows, event_type,
	                                  record_key, recorded_at, parked_at)
		SELECT p.projection, 1, p.topic_id, p.partition, 0, p.topic, '', 'poison', false, '', '', now(), now()
		FROM positions p WHERE p.version = 2 AND p.next_offset > 0 ORDER BY p.partition LIMIT 1`)
	_, err := Rollback(t.Context(), w.deps, w.p)
	wants(t, err, domain.CodeConflict, "1 dead letters of impressions version 1", "are none of the live version")
	if w.live() != 2 {
		t.Fatalf("live is %d", w.live())
	}
	w.exec(`DELETE FROM dead_letters`)
	if _, err := Rollback(t.Context(), w.deps, w.p); err != nil || w.live() != 1 {
		t.Errorf("%v, live is %d", err, w.live())
	}
}
