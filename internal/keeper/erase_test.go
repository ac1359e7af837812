package keeper

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"seenby/domain"
)

func marked(n int) (out []domain.PostBodyErased) {
	for i := range n {
		out = append(out, domain.PostBodyErased{PostRef: domain.PostKey{Tenant: tenant, Post: "p"}, EventID: domain.EventID{byte(i), byte(i >> 8), 1}})
	}
	return out
}

// readTombstones is the projection: it forgets the texts whose tombstones stand.
func (s *sim) readTombstones() {
	gone := map[domain.EventID]bool{}
	for _, e := range s.erased {
		gone[e.EventID] = true
	}
	var left []domain.PostBodyErased
	for _, e := range s.marked {
		if !gone[e.EventID] {
			left = append(left, e)
		}
	}
	s.marked, s.passed = left, int64(len(s.erased))
}

// Each marked text gets its tombstone, page by page, and no second one while the first is on its way.
func TestErase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim()
		s.marked = marked(eraseMax + 5)
		k, _ := s.keeper(t, Config{}, 1)
		told := 0
		k.deps.Hooks.Erased = func(n int) { told += n }
		step := func(want int) {
			t.Helper()
			time.Sleep(eraseEvery) // fake time
			if err := k.erase(t.Context()); err != nil || len(s.erased) != want {
				t.Fatalf("%d tombstones, want %d (%v)", len(s.erased), want, err)
			}
		}
		step(0) // partition 0 is another's
		var changed <-chan struct{}
		if err := k.follow(t.Context(), &changed); err != nil {
			t.Fatal(err)
		}
		step(eraseMax)
		step(eraseMax) // the projection has not read them
		s.readTombstones()
		if err := k.erase(t.Context()); err != nil || len(s.erased) != eraseMax {
			t.Fatalf("asked again at once: %d tombstones (%v)", len(s.erased), err)
		}
		step(eraseMax + 5)
		s.readTombstones()
		step(eraseMax + 5)
		if told != eraseMax+5 {
			t.Errorf("told of %d", told)
		}
	})
}

// A keeper that dies at any step leaves no text without its tombstone once another has worked.
func TestEraseKilledAtEveryStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for dieAt, died := 1, true; died; dieAt++ {
			for _, late := range []bool{false, true} {
				s := newSim()
				s.marked = marked(3)
				died = false
				for _, at := range []int{dieAt, 0} {
					k, p := s.keeper(t, Config{}, 1)
					p.dieAt, p.late = at, late
					var changed <-chan struct{}
					for range 4 {
						time.Sleep(eraseEvery) // fake time
						err := k.follow(t.Context(), &changed)
						if err == nil {
							err = k.erase(t.Context())
						}
						if errors.Is(err, errDead) {
							died = true
							break
						}
						if err != nil {
							t.Fatal(err)
						}
					}
				}
				s.readTombstones()
				if len(s.marked) > 0 || len(s.erased) > 6 {
					t.Fatalf("killed at call %d (late %v): %d texts stay, %d tombstones", dieAt, late, len(s.marked), len(s.erased))
				}
			}
		}
	})
}
