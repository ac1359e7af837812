package faulttest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/internal/postgres"
	"seenby/internal/projector"
	"seenby/internal/testenv"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/projectiontest"
	"seenby/projections/uniqueviews"
)

// TestMemStoreIsPostgres drives the same random calls against memStore and PostgreSQL, through the projections' own
// functions, and compares what each call gives, the code of its error, and the rows.
func TestMemStoreIsPostgres(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, p := range []projections.Projection{impressions.Projection{}, uniqueviews.Projection{}} {
		t.Run(p.Name(), func(t *testing.T) {
			env := testenv.PostgresWith(t, "seenby", postgres.Migrate)
			store, err := postgres.Open(t.Context(), postgres.Config{URL: env.DSN})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(store.Close)
			database := projectiontest.Open(t, env.DSN)
			memory := newMemStore()
			c := &conformance{rnd: rand.New(rand.NewPCG(seed, 3)), p: p, next: map[int32]int64{}}
			for step := range 400 {
				before := maps.Clone(c.next)
				call := c.call()
				want, wantErr := outcome(t.Context(), store, call.run)
				got, gotErr := outcome(t.Context(), memory, call.run)
				if domain.CodeOf(wantErr) != domain.CodeOf(gotErr) || (wantErr == nil) != (gotErr == nil) {
					t.Fatalf("step %d, %s: PostgreSQL says %v, memStore %v", step, call.name, wantErr, gotErr)
				}
				if wantErr != nil {
					c.next = before
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("step %d, %s gives another result (-PostgreSQL +memStore):\n%s", step, call.name, diff)
				}
				if step%20 > 0 && step != 399 {
					continue
				}
				rows, err := database.Dump(t.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(rows, memory.dump(p.Name(), p.Tables())); diff != "" {
					t.Fatalf("after step %d, %s, the rows differ (-PostgreSQL +memStore):\n%s", step, call.name, diff)
				}
			}
		})
	}
}

type storeCall struct {
	name string
	run  func(ctx context.Context, tx projections.Tx) (any, error)
}

// outcome is what a call gives, in a transaction of its own.
func outcome(ctx context.Context, store projector.Store, f func(context.Context, projections.Tx) (any, error)) (result string, err error) {
	err = store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		v, err := f(ctx, tx)
		result = fmt.Sprintf("%+v", v)
		return err
	})
	return result, err
}

// conformance makes up calls, most of them at the positions that stand, some beside them.
type conformance struct {
	rnd  *rand.Rand
	p    projections.Projection
	next map[int32]int64
}

var conformanceTopic = domain.Partition{Topic: domain.TopicVerdicts, TopicID: domain.TopicID{9}}

func (c *conformance) partition() domain.Partition {
	p := conformanceTopic
	p.Partition = c.rnd.Int32N(3)
	return p
}

func (c *conformance) clock() time.Time {
	return time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC).Add(between(c.rnd, time.Hour))
}

func (c *conformance) call() storeCall {
	m := projectiontest.First(c.p)
	switch c.rnd.IntN(10) {
	case 0:
		parts := []domain.Partition{c.partition()}
		if other := c.partition(); other != parts[0] {
			parts = append(parts, other)
		}
		if c.rnd.IntN(8) == 0 {
			parts[0].TopicID = domain.TopicID{8} // made anew
		}
		if c.rnd.IntN(8) == 0 {
			m.Version = 2 // which does not stand
		}
		return storeCall{"InsertMissing", func(ctx context.Context, tx projections.Tx) (any, error) {
			if err := projections.InsertMissing(ctx, tx, m, parts); err != nil {
				return nil, err
			}
			return projections.PositionsOf(ctx, tx, m) // its own rows are seen
		}}
	case 1:
		return storeCall{"PositionsOf", func(ctx context.Context, tx projections.Tx) (any, error) {
			return projections.PositionsOf(ctx, tx, m)
		}}
	case 2:
		part := c.partition()
		row := projections.PositionRow{Position: part.At(c.next[part.Partition]), CompleteTo: c.clock()}
		return storeCall{"CompleteTo", func(ctx context.Context, tx projections.Tx) (any, error) {
			return nil, projections.CompleteTo(ctx, tx, m, []projections.PositionRow{row})
		}}
	case 3:
		return storeCall{"CountLetters", func(ctx context.Context, tx projections.Tx) (any, error) {
			return projections.CountLetters(ctx, tx, m)
		}}
	case 4:
		// What Check keeps away from the tables: the store refuses it, and the transaction is worth nothing after that.
		part := c.partition()
		at := projections.Move{From: part.At(c.next[part.Partition]), NextOffset: c.next[part.Partition]} // a lock, and no more
		record := c.record(part, 1, "nul\x00")
		return storeCall{"Apply of refused data", func(ctx context.Context, tx projections.Tx) (any, error) {
			ok, err := projections.Advance(ctx, tx, m, []projections.Move{at})
			if err != nil || !ok {
				return ok, err
			}
			err = m.Apply(ctx, tx, []domain.Record{record})
			_, second := projections.PositionsOf(ctx, tx, m)
			if (err == nil) != (second == nil) {
				return nil, domain.Errorf(domain.CodeConflict, "a failed transaction goes on: %v, then %v", err, second)
			}
			return nil, err
		}}
	}
	work := c.work()
	abort := c.rnd.IntN(6) == 0
	return storeCall{"Write", func(ctx context.Context, tx projections.Tx) (any, error) {
		done, err := projections.Write(ctx, tx, m, work)
		if err == nil && abort {
			err = domain.Errorf(domain.CodeTooLarge, "rolled back")
		}
		return fmt.Sprint(done.Applied, len(done.Parked)), err
	}}
}

// work is a batch of one or two partitions, cut where the conformance believes the positions to stand.
func (c *conformance) work() projections.Work {
	w := projections.Work{ParkedAt: projectiontest.ParkedAt, LettersMax: 12}
	for _, n := range slices.Compact(slices.Sorted(slices.Values([]int32{c.rnd.Int32N(3), c.rnd.Int32N(3)}))) {
		part := conformanceTopic
		part.Partition = n
		from := c.next[n]
		if c.rnd.IntN(8) == 0 {
			from += c.rnd.Int64N(3) - 1
		}
		m := projections.Move{From: part.At(from), NextOffset: from, Epoch: domain.LeaderEpoch(c.rnd.Int32N(3))}
		if c.rnd.IntN(2) == 0 {
			m.CompleteTo = c.clock()
		}
		for range c.rnd.IntN(12) {
			post := fmt.Sprint("p", c.rnd.IntN(4))
			if c.rnd.IntN(40) == 0 {
				post = "" // poison
			}
			w.Records = append(w.Records, c.record(part, m.NextOffset, post))
			m.NextOffset++
		}
		m.ViewNextOffset = m.NextOffset
		w.Moves = append(w.Moves, m)
		c.next[n] = max(m.NextOffset, 0)
	}
	return w
}

func (c *conformance) record(part domain.Partition, offset int64, post string) domain.Record {
	v := &domain.Verdict{
		Viewer: domain.PersonRef{Tenant: "demo", Person: projectiontest.Person(fmt.Sprint("viewer", c.rnd.IntN(9), "of", part.Partition))},
		Post:   domain.PostID(post), ViewOffset: max(offset, 0), ViewedAt: c.clock().Add(time.Duration(c.rnd.IntN(2000))), Anonymous: c.rnd.IntN(5) == 0,
		Imported: c.rnd.IntN(5) == 0,
	}
	if c.rnd.IntN(5) == 0 {
		v.Reason = domain.ReasonStale
	}
	if post == "nul\x00" {
		v.Reason, v.Anonymous = domain.ReasonNone, false
	}
	return domain.Record{Partition: part, Offset: offset, Time: c.clock(), Event: v, Key: v.Viewer.Key()}
}

// An unknown statement fails loudly.
func TestMemStoreRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, sql := range []string{"SELECT 1", projections.Statements()["positions.live"]} {
		err := newMemStore().InTx(t.Context(), func(ctx context.Context, tx projections.Tx) error {
			_, err := tx.Exec(ctx, sql, pgx.NamedArgs{})
			return err
		})
		if domain.CodeOf(err) != domain.CodeMisconfigured {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
