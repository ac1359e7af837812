package postgres_test

import (
	"os"
	"testing"

	"seenby/internal/postgres"
	"seenby/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// open gives a Store on a migrated database of the test's own.
func open(t *testing.T) (*postgres.Store, *testenv.PostgresEnv) {
	t.Helper()
	env := testenv.PostgresWith(t, "seenby", postgres.Migrate)
	store, err := postgres.Open(t.Context(), postgres.Config{URL: env.DSN})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store, env
}
