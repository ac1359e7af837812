package rebuild

import (
	"strings"
	"testing"

	"seenby/projections/projectiontest"
	"seenby/projections/uniqueviews"
)

// look is Look, which must change nothing.
func (w *world) look() Plan {
	w.t.Helper()
	before := w.everything()
	plan, err := Look(w.t.Context(), w.deps, w.p, w.opts)
	if err != nil {
		w.t.Fatalf("look at %s: %v", w.p.Name(), err)
	}
	if after := w.everything(); after != before {
		w.t.Errorf("a look at %s changed\n%s\nto\n%s", w.p.Name(), before, after)
	}
	return plan
}

// everything is what stands in the database, as far as a rebuild could change it.
func (w *world) everything() (all string) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), `
SELECT concat_ws(E'\n',
    (SELECT string_agg(c.oid::regclass::text, ' ' ORDER BY c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname NOT LIKE 'pg\_%'),
    (SELECT string_agg(v::text, ' ' ORDER BY v.projection, v.version) FROM read_model_versions v),
    (SELECT string_agg(p::text, ' ' ORDER BY p.projection, p.version, p.topic, p.partition) FROM positions p),
    (SELECT string_agg(b::text, ' ' ORDER BY b.id) FROM rebuilds b))`).Scan(&all); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// TestLook: what a rebuild would do is said before, from what there is to judge by.
func TestLook(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.p.Name(), func(t *testing.T) {
			w := newWorld(t, k.p, k.generate)
			plan := w.look()
			if plan.Live != 1 || plan.Version != 2 || plan.GoesOnAt != "" || len(plan.Refused) > 0 || plan.OtherFold != 0 ||
				plan.SizeFrom != BasisLive || plan.TimeFrom != BasisSample || plan.Takes <= 0 || plan.Sampled == 0 {
				t.Errorf("before the first rebuild: %+v", plan)
			}
			sampled := w.withoutLive(1).look()
			if sampled.SizeFrom != BasisSample || sampled.TableBytes < plan.TableBytes/2 || sampled.IndexBytes < plan.IndexBytes/2 {
				t.Errorf("from a sample: %+v; from the live version: %+v", sampled, plan)
			}
			w.deliver(1)
			r := w.run()
			if r.Events != plan.Events {
				t.Errorf("%d events were to be read, and %d were", plan.Events, r.Events)
			}
			if plan := w.look(); plan.TimeFrom != BasisHistory || plan.Takes <= 0 || plan.Live != 2 || plan.Version != 3 ||
				len(plan.Refused) != 1 || !strings.Contains(plan.Refused[0], "--drop-old") {
				t.Errorf("while version 1 is kept: %+v", plan)
			}
		})
	}
}

// withoutLive makes the live version begin anew.
func (w *world) withoutLive(version int) *world {
	w.t.Helper()
	for _, table := range w.p.Tables() {
		w.exec(`TRUNCATE ` + qualified(w.model(version), table))
	}
	w.exec(`UPDATE positions SET next_offset = 0, view_next_offset = 0 WHERE projection = $1`, w.p.Name())
	w.exec(`DELETE FROM dead_letters WHERE projection = $1`, w.p.Name())
	return w
}

// TestLookAtAnUnfinishedRebuild: what is left of it, and what would keep it from going on.
func TestLookAtAnUnfinishedRebuild(t *testing.T) {
	w := newWorld(t, uniqueviews.Projection{}, projectiontest.Verdicts)
	whole := w.look()
	w.stopAt(PhaseCatchUp)
	if plan := w.look(); plan.GoesOnAt != PhaseCatchUp || plan.Version != 2 || plan.Events != 0 || plan.IndexBytes >= whole.IndexBytes || len(plan.Refused) > 0 {
		t.Errorf("loaded: %+v; before: %+v", plan, whole)
	}
	w.p = newer{}
	if plan := w.look(); len(plan.Refused) != 1 || !strings.Contains(plan.Refused[0], "fold version 1, and this one has 2") || plan.OtherFold != 1 {
		t.Errorf("by a program with another fold: %+v", plan)
	}
	w.p = uniqueviews.Projection{}
	at := w.standAt(PhaseCatchUp)
	s := w.start(t.Context())
	<-at.reached
	if plan, err := Look(t.Context(), w.deps, w.p, w.opts); err != nil || len(plan.Refused) != 1 || !strings.Contains(plan.Refused[0], "another process works on it") {
		t.Errorf("while it runs: %+v (%v)", plan, err)
	}
	at.letGo()
	if err := s.wait(t); err != nil {
		t.Fatal(err)
	}
	w.dropOld()
	part := projectiontest.PartitionOf(uniqueviews.Projection{}.Topics()[0], nil)
	w.log.starts[part] = 3
	if plan := w.look(); len(plan.Refused) != 1 || !strings.Contains(plan.Refused[0], "starts at 3") {
		t.Errorf("from a log that was cut: %+v", plan)
	}
}
