package rebuild

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"seenby/domain"
)

// TestRebuildIsAsLive: the new version holds what the old one does, under the same keys, and becomes the live one; the old
// one is kept until it is dropped, and nothing is left behind.
func TestRebuildIsAsLive(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.p.Name(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, k.p, k.generate)
			var seen []Phase
			w.watch(func(g Progress) {
				if len(seen) == 0 || seen[len(seen)-1] != g.Phase {
					seen = append(seen, g.Phase)
				}
			})
			r := w.run()
			if r.Version != 2 || r.Previous != 1 || !r.Proven || r.Differences != 0 || r.Events == 0 || w.live() != 2 {
				t.Errorf("it came to %+v", r)
			}
			if got := fmt.Sprint(seen); got != "[load keys catch up prove swap done]" {
				t.Errorf("its phases were %s", got)
			}
			w.same(1, 2)
			w.sameShape(1, 2)
			_, err := Run(t.Context(), w.deps, w.p, w.opts)
			wants(t, err, domain.CodeConflict, "--drop-old "+k.p.Name())
			w.dropOld()
			w.clean(2)
			if r := w.run(); r.Version != 3 {
				t.Errorf("again: %+v", r)
			}
			w.same(2, 3)
		})
	}
}

// sameShape compares columns, constraints, indexes, storage and comments.
func (w *world) sameShape(a, b int) {
	w.t.Helper()
	shape := func(version int) (shape string) {
		schema := w.model(version).Schema()
		if err := w.pool.QueryRow(w.t.Context(), `
SELECT concat_ws(E'\n',
  (SELECT string_agg(concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage, a.attcollation, pg_get_expr(d.adbin, d.adrelid)), E'\n' ORDER BY c.relname, a.attnum)
     FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r'),
  (SELECT string_agg(concat_ws(' ', conname, contype, pg_get_constraintdef(oid)), E'\n' ORDER BY conname) FROM pg_constraint WHERE connamespace = $1::regnamespace AND contype <> 'n'),
  (SELECT string_agg(replace(indexdef, $2, ''), E'\n' ORDER BY indexname) FROM pg_indexes WHERE schemaname = $2),
  (SELECT string_agg(concat_ws(' ', relname, reloptions::text, obj_description(oid)), E'\n' ORDER BY relname) FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r'))`,
			schema, schema).Scan(&shape); err != nil {
			w.t.Fatal(err)
		}
		return shape
	}
	if x, y := shape(a), shape(b); x != y || len(x) < 200 {
		w.t.Errorf("version %d is\n%s\nand version %d is\n%s", a, x, b, y)
	}
}

// TestCrashAtEveryStep: a rebuild is struck at one statement or commit after the other: its process dies, its connections
// are cut, or it never learns that a commit took place. The same command then finishes, and what it made is as live. Each
// run of the test takes some of the steps.
func TestCrashAtEveryStep(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.p.Name(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, k.p, k.generate)
			w.opts.BatchEventsMax, w.opts.Workers = 400, 1
			for step := 1 + rand.IntN(stepsApart); ; step += 1 + rand.IntN(2*stepsApart-1) { //nolint:gosec // no secret
				before := w.live()
				if !w.strikeAt(step, rand.IntN(3)) { //nolint:gosec // no secret
					if step < 30 {
						t.Errorf("a rebuild had %d steps only", step)
					}
					return
				}
				w.store.Store = openStore(t, w.dsn) // as the next process does
				if w.live() == before {
					w.run()
				}
				w.same(before, w.live())
				w.dropOld()
				w.clean(w.live())
			}
		})
	}
}

// stepsApart is how far the steps are apart, on the average.
const stepsApart = 4

// strikeAt runs a rebuild that is struck at a step in one of three ways, and tells whether it got there.
func (w *world) strikeAt(step, way int) bool {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	var ways = []func(committed bool) error{
		func(bool) error { cancel(); return ctx.Err() },
		func(bool) error { w.cut(); return nil },
		func(committed bool) error {
			if committed {
				return domain.Errorf(domain.CodeUnavailable, "the answer is lost")
			}
			return domain.Errorf(domain.CodeUnavailable, "the question is lost")
		},
	}
	w.store.arm(step, ways[way])
	var last atomic.Value
	w.watch(func(g Progress) { last.Store(string(g.Phase)) })
	before := w.live()
	_, err := Run(ctx, w.deps, w.p, w.opts)
	w.watch(nil)
	struck := w.store.struck()
	switch code := domain.CodeOf(err); {
	case err == nil, ctx.Err() != nil, code == domain.CodeUnavailable:
	default:
		w.t.Errorf("step %d, struck in way %d in %v: %v (%s)", step, way, last.Load(), err, code)
	}
	if err == nil && w.live() == before {
		w.t.Errorf("step %d: it says that it is through, and is not", step)
	}
	return struck
}

// cut ends all connections of the rebuild, as a restart of PostgreSQL does.
func (w *world) cut() {
	if _, err := w.pool.Exec(w.t.Context(), `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1`, applicationName); err != nil {
		w.t.Error(err)
	}
}
