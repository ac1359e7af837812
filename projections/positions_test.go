package projections_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/internal/postgres"
	"seenby/internal/testenv"
	"seenby/projections"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

func part(topic domain.Topic, n int32) domain.Partition {
	return domain.Partition{Topic: topic, TopicID: domain.TopicID{byte(len(topic))}, Partition: n}
}

// named is a projection of which only the name is asked.
type named struct {
	projections.Projection
	name string
}

func (n named) Name() string { return n.name }

func model(name string, version int) projections.ReadModel {
	return projections.ReadModel{Projection: named{name: name}, Version: version}
}

// An empty live version becomes that of a newer fold, one that holds something does not.
func TestClaim(t *testing.T) {
	ctx := t.Context()
	conn := testenv.PostgresWith(t, "seenby", postgres.Migrate).Conn(t)
	claim := func(want bool) {
		t.Helper()
		if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			claimed, err := projections.Claim(ctx, tx, folded{named{name: "impressions"}, 2})
			if claimed != want {
				t.Errorf("claimed: %v", claimed)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	claim(true)
	claim(false)
	if _, err := conn.Exec(ctx, `UPDATE read_model_versions SET fold_version = 1;
		INSERT INTO positions (projection, version, topic_id, partition, topic, next_offset) VALUES ('impressions', 1, gen_random_uuid(), 0, 'verdicts', 1)`); err != nil {
		t.Fatal(err)
	}
	claim(false)
}

// folded is a projection of which only the name and the fold are asked.
type folded struct {
	named
	version int
}

func (f folded) FoldVersion() int { return f.version }

func at(s int64) time.Time { return time.Unix(s, 0).UTC() }

func TestPositions(t *testing.T) {
	ctx := t.Context()
	conn := testenv.PostgresWith(t, "seenby", postgres.Migrate).Conn(t)
	in := func(f func(tx pgx.Tx) error) {
		t.Helper()
		if err := pgx.BeginFunc(ctx, conn, f); err != nil {
			t.Fatal(err)
		}
	}
	asOf := func(want time.Time, names ...string) {
		t.Helper()
		got, err := projections.AsOf(ctx, conn, names...)
		if err != nil || !got.Equal(want) {
			t.Errorf("as of %v is %v (%v), not %v", names, got, err, want)
		}
	}
	v0, v1, people := part(domain.TopicVerdicts, 0), part(domain.TopicVerdicts, 1), part(domain.TopicPeople, 0)
	asOf(time.Time{}, "impressions")
	in(func(tx pgx.Tx) error {
		return projections.InsertMissing(ctx, tx, model("impressions", 1), []domain.Partition{v1, v0})
	})
	in(func(tx pgx.Tx) error {
		return projections.InsertMissing(ctx, tx, model("impressions", 1), []domain.Partition{v0})
	})
	in(func(tx pgx.Tx) error {
		return projections.InsertMissing(ctx, tx, model("people", 1), []domain.Partition{people})
	})
	in(func(tx pgx.Tx) error {
		if err := projections.InsertMissing(ctx, tx, model("impressions", 2), []domain.Partition{v0}); err != nil {
			return err
		}
		rows, err := projections.PositionsOf(ctx, tx, model("impressions", 2))
		if err != nil || len(rows) != 0 {
			t.Errorf("a version that does not stand has positions: %v (%v)", rows, err)
		}
		_, err = tx.Exec(ctx, "INSERT INTO read_model_versions VALUES ('impressions', 2, 1, true)")
		return err
	})
	in(func(tx pgx.Tx) error {
		return projections.InsertMissing(ctx, tx, model("impressions", 2), []domain.Partition{v0})
	})
	move := func(want bool, moves ...projections.Move) {
		t.Helper()
		in(func(tx pgx.Tx) error {
			ok, err := projections.Advance(ctx, tx, model("impressions", 1), moves)
			if ok != want {
				t.Errorf("moved: %v, not %v", ok, want)
			}
			return err
		})
	}
	move(true, projections.Move{From: v1.At(0), NextOffset: 7, ViewNextOffset: 3, CompleteTo: at(100)}, projections.Move{From: v0.At(0), NextOffset: 5})
	asOf(time.Time{}, "impressions") // partition 0 is complete to nothing known
	move(false, projections.Move{From: v0.At(5), NextOffset: 6}, projections.Move{From: v1.At(6), NextOffset: 8})
	move(false, projections.Move{From: part(domain.TopicVerdicts, 2).At(0), NextOffset: 1})
	move(true, projections.Move{From: v0.At(5), NextOffset: 9, Epoch: 4, CompleteTo: at(90)}, projections.Move{From: v1.At(7), NextOffset: 8, ViewNextOffset: 4, CompleteTo: at(50)})
	asOf(at(90), "impressions") // and no time goes back
	asOf(time.Time{}, "impressions", "people")
	if _, err := projections.AsOf(ctx, conn, "nonesuch"); err == nil {
		t.Error("as of a projection that is none")
	}
	row := func(p domain.Position, to int64) projections.PositionRow {
		return projections.PositionRow{Position: p, CompleteTo: at(to)}
	}
	in(func(tx pgx.Tx) error {
		return projections.CompleteTo(ctx, tx, model("impressions", 1), []projections.PositionRow{row(v0.At(9), 200), row(v1.At(7), 300)})
	})
	asOf(at(100), "impressions") // partition 1 is elsewhere: left alone

	all, err := projections.Positions(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	nine := v0.At(9)
	nine.Epoch = 4
	want := []projections.PositionRow{{Position: nine, CompleteTo: at(200)}, {Position: v1.At(8), ViewNextOffset: 4, CompleteTo: at(100)}}
	if got := all["impressions"]; len(all) != 2 || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("live positions: %v", all)
	}

	anew := v0
	anew.TopicID = domain.TopicID{99}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		return projections.InsertMissing(ctx, tx, model("impressions", 1), []domain.Partition{anew})
	})
	if domain.CodeOf(err) != domain.CodeDataLoss {
		t.Errorf("a topic made anew: %v", err)
	}
}

func TestCut(t *testing.T) {
	v := part(domain.TopicVerdicts, 0)
	record := func(offset, view int64) domain.Record {
		return domain.Record{Partition: v, Offset: offset, Event: &domain.Verdict{ViewOffset: view}}
	}
	rows := map[domain.Partition]projections.PositionRow{v: {Position: v.At(10), ViewNextOffset: 4}}
	other := domain.Record{Partition: part(domain.TopicVerdicts, 1), Offset: 0, Event: &domain.Verdict{}}
	w := projections.Cut(rows, domain.Batch{
		Records: []domain.Record{record(9, 3), record(10, 3), record(11, 4), record(12, 4), other, record(14, 6)},
		Next:    []domain.Position{v.At(16), other.Partition.At(1)},
	})
	if len(w.Records) != 2 || w.Records[0].Offset != 11 || w.Records[1].Offset != 14 {
		t.Errorf("records %v", w.Records)
	}
	if len(w.Moves) != 1 || w.Moves[0] != (projections.Move{From: v.At(10), NextOffset: 16, ViewNextOffset: 7}) {
		t.Errorf("moves %v", w.Moves)
	}
	if w := projections.Cut(rows, domain.Batch{Next: []domain.Position{v.At(10)}}); len(w.Moves) != 0 {
		t.Errorf("a batch that brings nothing moves %v", w.Moves)
	}
}

func TestUntil(t *testing.T) {
	v, o, x := part(domain.TopicVerdicts, 0), part(domain.TopicVerdicts, 1), part(domain.TopicVerdicts, 2)
	record := func(p domain.Partition, offset int64) domain.Record {
		return domain.Record{Partition: p, Offset: offset}
	}
	b := domain.Batch{
		Records: []domain.Record{record(o, 1), record(v, 4), record(v, 6), record(o, 3), record(v, 7), record(x, 2)},
		Next:    []domain.Position{v.At(9), o.At(5), x.At(3)},
	}
	b.Next[0].Epoch = 7
	got := projections.Until(b, record(v, 6))
	if len(got.Records) != 2 || got.Records[1].Offset != 4 {
		t.Errorf("records %v", got.Records)
	}
	if want := []domain.Position{v.At(6), o.At(3), x.At(2)}; !slices.Equal(got.Next, want) {
		t.Errorf("next %v, want %v", got.Next, want)
	}
	if b.Next[0].NextOffset != 9 || b.Next[0].Epoch != 7 {
		t.Error("the batch itself was changed")
	}
	if got := projections.Until(b, record(v, 5)); len(got.Records)+len(got.Next) != 0 {
		t.Errorf("until a record that is not in it: %v", got)
	}
}
