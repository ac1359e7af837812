package postgres_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"seenby/internal/postgres"
	"seenby/internal/testenv"
	"seenby/projections"
	_ "seenby/projections/impressions"
	_ "seenby/projections/people"
	_ "seenby/projections/posts"
	_ "seenby/projections/uniqueviews"
)

// Every statement is valid on the migrated schema: columns, types and functions are there.
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
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'goose_db_version'
		  AND COALESCE(obj_description(c.oid), '') !~ '^Owner: .*[Rr]ebuildable'`)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(bare) > 0 {
		t.Errorf("tables whose comment does not name the owner and whether they are rebuildable: %v (%v)", bare, err)
	}
}
