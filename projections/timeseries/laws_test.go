package timeseries_test

import (
	"os"
	"testing"

	"seenby/internal/postgres"
	"seenby/internal/testenv"
	"seenby/projections/projectiontest"
	"seenby/projections/timeseries"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

func migrated(t testing.TB) string {
	t.Helper()
	return testenv.PostgresWith(t, "seenby", postgres.Migrate).DSN
}

func TestLaws(t *testing.T) {
	projectiontest.Laws(t, migrated(t), timeseries.Projection{}, projectiontest.Verdicts)
}

func TestScripts(t *testing.T) {
	projectiontest.RunScripts(t, migrated(t), timeseries.Projection{})
}

func TestBulkMemory(t *testing.T) {
	projectiontest.BulkMemory(t, migrated(t), timeseries.Projection{})
}

func BenchmarkApply(b *testing.B) {
	projectiontest.BenchmarkApply(b, migrated(b), timeseries.Projection{})
}
