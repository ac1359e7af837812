package rebuild

import (
	"testing"
	"time"

	"seenby/domain"
	"seenby/projections/projectiontest"
	"seenby/projections/uniqueviews"
)

// more is what the live version has not folded.
func (w *world) more() {
	w.log.add(func(l *projectiontest.Log) { projectiontest.Verdicts(l, true) })
}

// TestNobodyKeepsTheLiveVersion: a rebuild moves it itself, and compares.
func TestNobodyKeepsTheLiveVersion(t *testing.T) {
	w := newWorld(t, uniqueviews.Projection{}, projectiontest.Verdicts)
	w.more()
	if r := w.run(); !r.Proven || r.Differences != 0 {
		t.Errorf("%+v", r)
	}
	w.same(1, 2)
}

// TestTheLiveVersionWasNeverComplete: it is a replay itself, and nobody waits for it.
func TestTheLiveVersionWasNeverComplete(t *testing.T) {
	w := newWorld(t, uniqueviews.Projection{}, projectiontest.Verdicts)
	w.more()
	w.exec(`UPDATE positions SET complete_to = 'epoch' WHERE partition = 0`)
	begun := time.Now()
	if r := w.run(); r.Proven || r.AcceptedBy != "" || time.Since(begun) > liveSleeps {
		t.Errorf("after %v: %+v", time.Since(begun), r)
	}
	w.deliver(1)
	w.same(1, 2)
}

// newer is a program whose fold is another one.
type newer struct{ uniqueviews.Projection }

func (newer) FoldVersion() int { return 2 }

// TestNobodyKeepsTheLiveVersionOfAnotherFold: nobody but a program of that fold could move it, so that it is not compared
// where none runs, and a person must accept that.
func TestNobodyKeepsTheLiveVersionOfAnotherFold(t *testing.T) {
	w := newWorld(t, uniqueviews.Projection{}, projectiontest.Verdicts)
	w.more()
	w.p = newer{}
	_, err := Run(t.Context(), w.deps, w.p, w.opts)
	wants(t, err, domain.CodeConflict, "stands still", "has fold version 1, and this program's is 2", "--accept-differences")
	w.p = uniqueviews.Projection{}
	_, err = Run(t.Context(), w.deps, w.p, w.opts)
	wants(t, err, domain.CodeConflict, "is being made by a program with fold version 2")
	w.p, w.opts.AcceptDifferences = newer{}, "kim"
	if r := w.run(); r.Proven || r.AcceptedBy != "kim" {
		t.Errorf("%+v", r)
	}
	if l, err := List(t.Context(), w.deps); err != nil || l.Rebuilds[0].AcceptedBy != "kim" || l.Rebuilds[0].Proven {
		t.Errorf("%+v (%v)", l.Rebuilds, err)
	}
	w.p, w.opts.AcceptDifferences = uniqueviews.Projection{}, ""
	_, err = Run(t.Context(), w.deps, w.p, w.opts)
	wants(t, err, domain.CodeConflict, "an older one: use the program that has 2")
	w.dropOld()
	w.opts.AcceptDifferences = "kim" // back to the older fold, with nothing kept
	w.run()
	if v := w.live(); v != 3 {
		t.Errorf("version %d is live", v)
	}
}

// TestTablesOfANewerProgram: an older one rebuilds them too, so that nothing of the newer one's goes with the old version.
func TestTablesOfANewerProgram(t *testing.T) {
	w := newWorld(t, uniqueviews.Projection{}, projectiontest.Verdicts)
	w.exec(`SELECT change_read_model('uniqueviews', 'CREATE TABLE unique_apps (tenant text PRIMARY KEY)')`)
	w.run()
	w.dropOld()
	w.exec(`SELECT FROM unique_apps`)
}

// TestAMigrationBesideARebuild: each version gets the column, whenever it was begun.
func TestAMigrationBesideARebuild(t *testing.T) {
	for _, phase := range phases {
		w := newWorld(t, uniqueviews.Projection{}, projectiontest.Verdicts)
		w.stopAt(phase)
		w.exec(`SELECT change_read_model('uniqueviews', 'ALTER TABLE unique_views ADD COLUMN app text NOT NULL DEFAULT ''web''')`)
		if r := w.run(); !r.Proven {
			t.Errorf("%s: %+v", phase, r)
		}
		w.exec(`SELECT app FROM unique_views`)
		w.dropOld()
		w.exec(`SELECT app FROM unique_views`)
	}
}
