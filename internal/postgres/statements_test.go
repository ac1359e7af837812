package postgres_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"seenby/internal/postgres"
	_ "seenby/internal/relay"
	"seenby/internal/testenv"
	"seenby/projections"
	_ "seenby/projections/impressions"
	_ "seenby/projections/people"
	_ "seenby/projections/posts"
	_ "seenby/projections/timeseries"
	_ "seenby/projections/uniqueviews"
)

// Every statement is valid on the migrated schema: columns, types and functions are there. Those of a projection are
// tried on the tables of its first version: what writes does not work on views.
func TestStatementsPrepare(t *testing.T) {
	conn := testenv.PostgresWith(t, "seenby", postgres.Migrate).Conn(t)
	all := projections.Statements()
	if len(all) < 20 {
		t.Fatalf("only %d statements are registered", len(all))
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sql, _, err := pgx.NamedArgs{}.RewriteQuery(t.Context(), conn, all[name], nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		projection, _, _ := strings.Cut(name, ".")
		if _, err := conn.Exec(t.Context(), "SET search_path = "+projection+"_v1, public"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Prepare(t.Context(), name, sql); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every table says whose it is and whether it can be rebuilt.
func TestTablesAreCommented(t *testing.T) {
	conn := testenv.PostgresWith(t, "seenby", postgres.Migrate).Conn(t)
	rows, err := conn.Query(t.Context(), `
		SELECT c.relname
		FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE (n.nspname = 'public' OR n.nspname ~ '_v[0-9]+$') AND c.relkind = 'r' AND c.relname <> 'goose_db_version'
		  AND COALESCE(obj_description(c.oid), '') !~ '^Owner: .*[Rr]ebuildable'`)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(bare) > 0 {
		t.Errorf("tables whose comment does not name the owner and whether they are rebuildable: %v (%v)", bare, err)
	}
}

// A read model that a migration added can be taken back, whatever it holds by then.
func TestReadModelIsRemoved(t *testing.T) {
	conn := testenv.PostgresWith(t, "seenby", postgres.Migrate).Conn(t)
	for _, sql := range []string{
		`SELECT add_read_model('likes', 'CREATE TABLE likes (post text)')`,
		`INSERT INTO likes VALUES ('p')`,
		`INSERT INTO positions (projection, version, topic_id, partition, topic) VALUES ('likes', 1, gen_random_uuid(), 0, 'verdicts')`,
		`SELECT remove_read_model('likes')`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	var left int
	if err := conn.QueryRow(t.Context(), `
		SELECT (SELECT count(*) FROM pg_class c WHERE c.relname = 'likes') + (SELECT count(*) FROM pg_namespace n WHERE n.nspname = 'likes_v1')
		     + (SELECT count(*) FROM read_models r WHERE r.projection = 'likes') + (SELECT count(*) FROM read_model_versions v WHERE v.projection = 'likes')
		     + (SELECT count(*) FROM positions p WHERE p.projection = 'likes')`).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d things are left (%v)", left, err)
	}
}
