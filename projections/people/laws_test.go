package people_test

import (
	"os"
	"testing"

	"seenby/internal/postgres"
	"seenby/internal/testenv"
	"seenby/projections/people"
	"seenby/projections/projectiontest"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

func migrated(t testing.TB) string {
	t.Helper()
	return testenv.PostgresWith(t, "seenby", postgres.Migrate).DSN
}

func TestLaws(t *testing.T) {
	projectiontest.Laws(t, migrated(t), people.Projection{}, projectiontest.People)
}

func TestScripts(t *testing.T) {
	projectiontest.RunScripts(t, migrated(t), people.Projection{})
}
