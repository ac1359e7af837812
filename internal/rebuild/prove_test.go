package rebuild

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/people"
	"seenby/projections/posts"
	"seenby/projections/projectiontest"
)

// changes change one row of a table, which still keeps the table's checks.
var changes = map[string]string{
	"posts":              `baseline_impressions = baseline_impressions + 1`,
	"post_events":        `version = version + 1`,
	"post_bodies":        `body = body || '!', erasable = false`,
	"audience_members":   `added_at = added_at + interval '1 second'`,
	"impressions":        `imported_impressions = CASE imported_impressions WHEN 0 THEN 1 ELSE imported_impressions - 1 END`,
	"unique_views":       `views = views + 1`,
	"timeseries_posts":   `views = views + 1`,
	"timeseries_tenants": `views = views + 1`,
	"unique_view_counts": `unique_viewers = unique_viewers + 1`,
	"people":             `id = CASE WHEN erased_at IS NULL THEN COALESCE(id, '') || 'x' END, erased_at = erased_at + interval '1 second'`,
}

// TestAnyRowThatDiffersIsNamed: a row of the live version that was changed, deleted or added by hand lets the proof fail
// and is named; nothing is swapped. Once it is mended the same command goes on.
func TestAnyRowThatDiffersIsNamed(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.p.Name(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, k.p, k.generate)
			w.stopAt(PhaseProve)
			for _, table := range k.p.Tables() {
				in := qualified(w.model(1), table)
				w.exec(`CREATE TABLE sound AS TABLE ` + in)
				for what, damage := range map[string]string{
					"changed": `UPDATE %[1]s SET ` + changes[table] + ` WHERE ctid = (SELECT ctid FROM %[1]s ORDER BY ctid DESC LIMIT 1)`,
					"deleted": `DELETE FROM %[1]s WHERE ctid = (SELECT ctid FROM %[1]s ORDER BY ctid DESC LIMIT 1)`,
					"added":   `INSERT INTO %[1]s SELECT (jsonb_populate_record(t, '{"tenant": "added-by-hand"}')).* FROM %[1]s t LIMIT 1`,
				} {
					w.exec(fmt.Sprintf(damage, in))
					_, err := Run(t.Context(), w.deps, w.p, w.opts)
					var unequal *Unequal
					if !errors.As(err, &unequal) || domain.CodeOf(err) != domain.CodeConflict || w.live() != 1 {
						t.Fatalf("%s: a row was %s: %v, and live is %d", table, what, err, w.live())
					}
					w.names(unequal, table, what)
					w.exec(`DELETE FROM ` + in + `; INSERT INTO ` + in + ` TABLE sound`)
				}
				w.exec(`DROP TABLE sound`)
			}
			if r := w.run(); r.Differences != 0 {
				t.Errorf("it came to %+v", r)
			}
			w.same(1, 2)
		})
	}
}

// names checks that one row is named, in one table, with what it is in both versions.
func (w *world) names(u *Unequal, table, what string) {
	w.t.Helper()
	if u.Rows != 1 || len(u.Differences) != 1 || u.Differences[0].Table != table || len(u.Differences[0].Some) != 1 {
		w.t.Errorf("%s: a row was %s, and it says %+v", table, what, u.Differences)
		return
	}
	row := u.Differences[0].Some[0]
	if (row.Live == "") != (what == "deleted") || (row.Made == "") != (what == "added") || row.Live == row.Made {
		w.t.Errorf("%s: a row was %s, and it is shown as %+v", table, what, row)
	}
	for _, text := range []string{"\n  " + table + ": 1 rows\n", "live:    " + orNone(row.Live), "rebuilt: " + orNone(row.Made), "--accept-differences", "--cancel"} {
		if !strings.Contains(u.Error(), text) {
			w.t.Errorf("%s: it says nothing of %q: %v", table, text, u)
		}
	}
	stopped := w.unfinished()
	if stopped.Phase != PhaseProve || stopped.Differences != 1 || stopped.AcceptedBy != "" {
		w.t.Errorf("it is listed as %+v", stopped)
	}
	if strings.Contains(stopped.Reason, "\n") || strings.Contains(stopped.Reason, "{") || !strings.Contains(stopped.Reason, "differs from the live version 1 in 1 rows") {
		w.t.Errorf("rows are kept in the list, which nobody erases: %q", stopped.Reason)
	}
}

// TestManyDifferences: however many rows differ, some of each table are shown, and shortened.
func TestManyDifferences(t *testing.T) {
	w := newWorld(t, people.Projection{}, projectiontest.People)
	w.stopAt(PhaseProve)
	n := w.number(`SELECT count(*) FROM people_v1.people`)
	w.exec(`UPDATE people_v1.people SET ` + changes["people"])
	w.exec(`INSERT INTO people_v1.people SELECT 'tenant-' || i, p.person, p.id, p.erased_at FROM (SELECT * FROM people_v1.people LIMIT 1) p, generate_series(1, 30000) i`)
	_, err := Run(t.Context(), w.deps, w.p, w.opts)
	var unequal *Unequal
	if !errors.As(err, &unequal) || unequal.Rows != int64(n)+30000 || len(unequal.Differences[0].Some) != someRows {
		t.Fatalf("%d rows differ, and it says: %.300v", n+30000, err)
	}
	if says := err.Error(); !strings.Contains(says, fmt.Sprintf("and %d more", n+30000-someRows)) || len(says) > someRows*(2*rowBytesMax+100) {
		t.Errorf("it says %d bytes: %.300s", len(says), says)
	}
	if long := shortened(strings.Repeat("é", 10_000)); len(long) > rowBytesMax+4 || !strings.HasSuffix(long, "é…") {
		t.Errorf("a row is cut to %q", long)
	}
	w.opts.AcceptDifferences = "ann"
	r := w.run()
	if r.Differences != int64(n)+30000 || w.live() != 2 {
		t.Errorf("accepted, it came to %+v", r)
	}
	l, err := List(t.Context(), w.deps)
	if err != nil {
		t.Fatal(err)
	}
	if row := l.Rebuilds[0]; row.AcceptedBy != "ann" || row.Differences != r.Differences || row.Outcome != "swapped" || row.Reason != "" {
		t.Errorf("the history says %+v", row)
	}
}

// TestWhatWasAcceptedBeforeDoesNotCount: each proof stands for itself, also in the history.
func TestWhatWasAcceptedBeforeDoesNotCount(t *testing.T) {
	w := newWorld(t, impressions.Projection{}, projectiontest.Verdicts)
	w.stopAt(PhaseProve)
	w.exec(`UPDATE rebuilds SET accepted_by = 'ann', differences = 3`) // by a process that died at once
	w.exec(`UPDATE impressions_v1.impressions SET impressions = impressions + 1`)
	if _, err := Run(t.Context(), w.deps, w.p, w.opts); domain.CodeOf(err) != domain.CodeConflict {
		t.Fatalf("it came to %v", err)
	}
	w.exec(`UPDATE impressions_v1.impressions SET impressions = impressions - 1`)
	w.exec(`UPDATE rebuilds SET accepted_by = 'ann', differences = 3`)
	w.run()
	l, err := List(t.Context(), w.deps)
	if err != nil {
		t.Fatal(err)
	}
	if row := l.Rebuilds[0]; row.AcceptedBy != "" || row.Differences != 0 {
		t.Errorf("the history says %+v", row)
	}
}

// TestTheLiveVersionIsHeldForLittle: what has gathered since the last process came to the proof is read before the live
// version is held for it, and no pause begins while it is.
func TestTheLiveVersionIsHeldForLittle(t *testing.T) {
	w := newWorld(t, people.Projection{}, projectiontest.People)
	w.stopAt(PhaseProve)
	more := func() {
		w.log.add(func(l *projectiontest.Log) { projectiontest.People(l, false) })
		w.deliver(1)
	}
	more()
	var free, held atomic.Int64
	w.log.reading = func(ctx context.Context, _ int) error {
		if w.isHeld(ctx) {
			if held.Add(1) == 1 {
				return w.pauseUnderWay(ctx)
			}
			return nil
		}
		if free.Add(1) == 1 {
			more() // behind what is being read
		}
		return nil
	}
	s := w.start(t.Context())
	eventually(t, "the pause after the proof", func() bool { return w.unfinished().Phase == PhaseSwap })
	w.standsStill()
	if w.isHeld(t.Context()) || free.Load() == 0 || held.Load() == 0 {
		t.Errorf("paused, the live version is held: %v; %d reads while it was free, %d while it was not", w.isHeld(t.Context()), free.Load(), held.Load())
	}
	if err := Want(t.Context(), w.deps, w.p.Name(), WantedRun); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(t); err != nil {
		t.Fatal(err)
	}
	w.same(1, 2)
}

// isHeld tells whether projectors of the live version would have to wait.
func (w *world) isHeld(ctx context.Context) bool {
	_, err := w.pool.Exec(ctx, `SELECT FROM positions WHERE projection = $1 AND version = 1 FOR UPDATE NOWAIT`, w.p.Name())
	return err != nil
}

// pauseUnderWay pauses the rebuild and returns when its process knows.
func (w *world) pauseUnderWay(ctx context.Context) error {
	if err := Want(ctx, w.deps, w.p.Name(), WantedPause); err != nil {
		return err
	}
	for range 2 {
		was := w.unfinished().UpdatedAt
		eventually(w.t, "a sign of life", func() bool { return w.unfinished().UpdatedAt.After(was) })
	}
	return nil
}

// faulty refuses a sound record, as a program with a fault does.
type faulty struct {
	projections.Projection
	refuses domain.Position
}

func (f faulty) Check(r domain.Record) error { return refuse(f.Projection, f.refuses, r) }

// faultyBulk is loaded in bulk.
type faultyBulk struct {
	impressions.Projection
	refuses domain.Position
}

func (f faultyBulk) Check(r domain.Record) error { return refuse(f.Projection, f.refuses, r) }

func refuse(p projections.Projection, at domain.Position, r domain.Record) error {
	if r.Partition.At(r.Offset) == at {
		return errors.New("a fault of this program")
	}
	return p.Check(r)
}

// TestPoison: what only the new program cannot apply stops the rebuild; from an empty version it is parked, as a projector
// would.
func TestPoison(t *testing.T) {
	for name, c := range map[string]struct {
		topic domain.Topic
		make  func(domain.Position) projections.Projection
		sound projections.Projection
		log   projectiontest.Generator
	}{
		"one by one": {domain.TopicPosts, func(at domain.Position) projections.Projection { return faulty{posts.Projection{}, at} }, posts.Projection{}, projectiontest.PostsAndMembers},
		"in bulk":    {domain.TopicVerdicts, func(at domain.Position) projections.Projection { return faultyBulk{impressions.Projection{}, at} }, impressions.Projection{}, projectiontest.Verdicts},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.sound, func(l *projectiontest.Log, _ bool) { c.log(l, false) })
			var at domain.Position
			for _, part := range w.log.log.Parts() {
				if records := w.log.log.Records[part]; part.Topic == c.topic && len(records) > 3 {
					at = part.At(records[0].Offset) // a later one may be a repeat
				}
			}
			w.p = c.make(at)
			_, err := Run(t.Context(), w.deps, w.p, w.opts)
			wants(t, err, domain.CodeConflict, fmt.Sprintf("partition %d offset %d cannot be applied (a fault of this program)", at.Partition, at.NextOffset), "no dead letter of the live version")
			if n := w.number(`SELECT count(*) FROM dead_letters`); n != 0 || w.live() != 1 {
				t.Errorf("%d letters, live is %d", n, w.live())
			}
			if err := Cancel(t.Context(), w.deps, w.p); err != nil {
				t.Fatal(err)
			}
			w.exec(`DELETE FROM positions`) // an empty read model
			if r := w.run(); r.Proven {
				t.Errorf("it came to %+v", r)
			}
			if n := w.number(`SELECT count(*) FROM dead_letters WHERE version = 3 AND NOT follows`); n != 1 {
				t.Errorf("%d letters", n)
			}
		})
	}
}

// TestDiscardsAreLeftOut: what operators gave up is neither applied nor parked.
func TestDiscardsAreLeftOut(t *testing.T) {
	for _, k := range kinds[:2] {
		t.Run(k.p.Name(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, k.p, func(l *projectiontest.Log, _ bool) {
				k.generate(l, false)
				for i := range 5 {
					l.AppendPoison(k.p.Topics()[0], projectiontest.Post(fmt.Sprintf("poison-%d", i)).Key(), errors.New("no event"))
				}
			})
			var offset, partition int
			if err := w.pool.QueryRow(t.Context(), `DELETE FROM dead_letters WHERE (partition, record_offset) = (SELECT partition, record_offset FROM dead_letters LIMIT 1) RETURNING partition, record_offset`).Scan(&partition, &offset); err != nil {
				t.Fatal(err)
			}
			w.log.given[w.log.parts(k.p.Topics()[0])[partition].At(int64(offset))] = true
			w.run()
			w.same(1, 2)
			if n := w.number(`SELECT count(*) FROM dead_letters WHERE version = 2`); n != 4 {
				t.Errorf("%d letters", n)
			}
		})
	}
}

// TestALogThatIsNotWhole: nothing is rebuilt from it, and it says why before hours are spent.
func TestALogThatIsNotWhole(t *testing.T) {
	for _, k := range kinds[:2] {
		t.Run(k.p.Name(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, k.p, k.generate)
			some := w.log.log.Parts()[0]
			records := w.log.log.Records[some]
			refused := func(says ...string) {
				t.Helper()
				_, err := Run(t.Context(), w.deps, w.p, w.opts)
				wants(t, err, domain.CodeDataLoss, append(says, "live version is untouched")...)
				if row := w.unfinished(); row.EventsDone != 0 || w.live() != 1 {
					t.Errorf("it is listed as %+v", row)
				}
			}
			w.log.starts[some] = 3
			refused(fmt.Sprintf("%s/%d starts at 3", some.Topic, some.Partition), "needs it from 0")
			delete(w.log.starts, some)
			w.log.log.Records[some] = records[:len(records)-1]
			refused("has lost what that one holds", fmt.Sprintf("%s/%d ends at", some.Topic, some.Partition))
			w.log.log.Records[some] = records
			w.log.anew = domain.TopicID{9}
			refused("was made anew")
			w.log.anew = domain.TopicID{}
			w.run()
			w.same(1, 2)
		})
	}
}

// TestKafkaAway: a rebuild that loses the log ends and says so, wherever it is; the same command goes on.
func TestKafkaAway(t *testing.T) {
	away := domain.Errorf(domain.CodeUnavailable, "Kafka cannot be reached")
	for _, phase := range phases {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, impressions.Projection{}, projectiontest.Verdicts)
			w.watch(func(g Progress) {
				if g.Phase == phase {
					w.log.mu.Lock()
					w.log.away = away
					w.log.mu.Unlock()
				}
			})
			_, err := Run(t.Context(), w.deps, w.p, w.opts)
			w.watch(nil)
			if phase != PhaseSwap || err != nil { // then all is read
				wants(t, err, domain.CodeUnavailable, "Kafka cannot be reached")
			}
			w.log.away = nil
			if w.live() == 1 {
				w.run()
			}
			w.same(1, 2)
		})
	}
}

// TestNoSuchReadModel: the database is older than the program.
func TestNoSuchReadModel(t *testing.T) {
	w := newWorld(t, people.Projection{}, nil)
	_, err := Run(t.Context(), w.deps, other{w.p}, w.opts)
	wants(t, err, domain.CodeMisconfigured, "no read model called other", "seenby migrate")
}

type other struct{ projections.Projection }

func (other) Name() string { return "other" }
