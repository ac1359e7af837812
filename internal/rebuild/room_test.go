package rebuild

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"seenby/domain"
	"seenby/internal/postgres"
	"seenby/internal/testenv"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/posts"
	"seenby/projections/projectiontest"
	"seenby/projections/uniqueviews"
)

// fill leaves no room on the small disk, until empty is called.
func (w *world) fill() (empty func()) {
	w.t.Helper()
	w.exec(`CREATE TABLE filler (n text) TABLESPACE small`)
	for _, rows := range []int{500, 8} { // the last pages too, so that what is appended has no room whatever its size
		var err error
		for err == nil {
			_, err = w.pool.Exec(w.t.Context(), `INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, $1::int)`, rows)
		}
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "53100" {
			w.t.Fatalf("fill the disk: %v", err)
		}
	}
	return func() { w.exec(`DROP TABLE filler`) }
}

// TestNoRoom: a disk that is full stops a rebuild in whichever phase it is, and nothing else; it goes on once there is room,
// or is given up, and what it took is free again.
func TestNoRoom(t *testing.T) {
	machine := testenv.NewPostgresMachine(t)
	if err := postgres.Migrate(t.Context(), machine.DSN); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), machine.DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	for _, sql := range []string{
		`CREATE TABLESPACE small LOCATION '` + testenv.SmallDisk + `'`,
		`ALTER DATABASE postgres SET default_tablespace = small`, // so only what a rebuild makes is there
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		phase    Phase
		p        projections.Projection
		generate projectiontest.Generator
	}{
		{PhaseLoad, uniqueviews.Projection{}, projectiontest.Verdicts},
		{PhaseKeys, impressions.Projection{}, projectiontest.Verdicts},
		{PhaseCatchUp, posts.Projection{}, projectiontest.PostsAndMembers},
	} {
		t.Run(string(c.phase), func(t *testing.T) {
			w := newWorldOn(t, machine.DSN, c.p, c.generate)
			live := w.live()
			w.stopAt(c.phase)
			empty := w.fill()
			for range 2 {
				_, err := Run(t.Context(), w.deps, w.p, w.opts)
				wants(t, err, domain.CodeUnavailable, "disk is full", "version", "MB", "--cancel "+w.p.Name(), "The live version is untouched")
			}
			if v := w.live(); v != live {
				t.Errorf("version %d is live", v)
			}
			if err := Cancel(t.Context(), w.deps, w.p); err != nil {
				t.Fatal(err)
			}
			if _, err := w.pool.Exec(t.Context(), `CHECKPOINT`); err != nil { // frees what was dropped
				t.Fatal(err)
			}
			w.exec(`CREATE TABLE again (n int PRIMARY KEY) TABLESPACE small`)
			w.exec(`DROP TABLE again`)
			empty()
			w.stopAt(c.phase)
			empty = w.fill()
			_, err := Run(t.Context(), w.deps, w.p, w.opts)
			wants(t, err, domain.CodeUnavailable, "disk is full")
			empty()
			if r := w.run(); !r.Proven || r.Previous != live {
				t.Errorf("%+v", r)
			}
			w.dropOld()
		})
	}
}
