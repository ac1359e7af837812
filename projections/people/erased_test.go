package people_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"seenby/domain"
	"seenby/projections/people"
	"seenby/projections/projectiontest"
)

// TestErasedStayErased: a projector that followed for a while, slept, and came back after compaction had been at
// work anywhere on the topic names nobody who was erased, and has every mark. So does a rebuild.
func TestErasedStayErased(t *testing.T) {
	d := projectiontest.Open(t, migrated(t))
	p := people.Projection{}
	const rounds = 40
	for range rounds {
		seed := rand.Uint64() //nolint:gosec // no secret
		if text := os.Getenv("SEENBY_LAWS_SEED"); text != "" {
			var err error
			if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // repeatable
		l := projectiontest.NewLog(r)
		projectiontest.People(l, false)
		if err := d.Reset(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		awake := l.Batches(r, l.Parts(), func() int { return 1 + r.IntN(20) })
		awake = awake[:r.IntN(len(awake)+1)] // none of it: a rebuild
		c := compacted(l, r)
		for _, b := range append(awake, c.Batches(r, c.Parts(), func() int { return 1 + r.IntN(40) })...) {
			if err := d.Deliver(t.Context(), p, b); err != nil { // from where its position stands
				t.Fatal(err)
			}
		}
		if err := holds(t.Context(), d, l); err != nil {
			t.Fatalf("%v\nagain with SEENBY_LAWS_SEED=%d", err, seed)
		}
	}
}

// compacted leaves what compaction may have left of a log at any time: of what has a later record with its key any
// part, and of the rest all but some tombstones. A tombstone goes only after everything before it with its key.
func compacted(l *projectiontest.Log, r *rand.Rand) *projectiontest.Log {
	c := *l
	c.Records = map[domain.Partition][]domain.Record{}
	for part, records := range l.Records {
		last := map[string]int64{}
		for _, rec := range records {
			last[string(rec.Key)] = rec.Offset
		}
		unclean := map[string]bool{} // keys of which something older is left
		var left []domain.Record
		for _, rec := range records {
			key := string(rec.Key)
			if rec.Offset != last[key] {
				if r.IntN(2) == 0 {
					unclean[key] = true
					left = append(left, rec)
				}
				continue
			}
			if _, tombstone := rec.Event.(domain.PersonForgotten); tombstone && !unclean[key] && r.IntN(2) == 0 {
				continue
			}
			left = append(left, rec)
		}
		if len(left) > 0 {
			c.Records[part] = left
		}
	}
	return &c
}

// holds compares with who was erased according to the log before compaction.
func holds(ctx context.Context, d *projectiontest.Database, l *projectiontest.Log) error {
	byTenant := map[domain.TenantID]map[domain.PersonKey]bool{}
	for _, records := range l.Records {
		for _, rec := range records {
			if e, ok := rec.Event.(domain.PersonErased); ok {
				if byTenant[e.Ref.Tenant] == nil {
					byTenant[e.Ref.Tenant] = map[domain.PersonKey]bool{}
				}
				byTenant[e.Ref.Tenant][e.Ref.Person] = true
			}
		}
	}
	for tenant, erased := range byTenant {
		names, err := people.Names(ctx, d.Pool, tenant, slices.Collect(maps.Keys(erased)))
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return fmt.Errorf("%s: erased and named: %v", tenant, names)
		}
		for person := range erased {
			if ok, err := people.Erased(ctx, d.Pool, domain.PersonRef{Tenant: tenant, Person: person}); err != nil || !ok {
				return fmt.Errorf("%s: the mark of %q is lost (%w)", tenant, person[:], err)
			}
		}
	}
	return nil
}
