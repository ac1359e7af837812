package posts_test

import (
	"os"
	"testing"

	"seenby/internal/postgres"
	"seenby/internal/testenv"
	"seenby/projections/posts"
	"seenby/projections/projectiontest"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

func migrated(t testing.TB) string {
	t.Helper()
	return testenv.PostgresWith(t, "seenby", postgres.Migrate).DSN
}

func TestLaws(t *testing.T) {
	projectiontest.Laws(t, migrated(t), posts.Projection{}, projectiontest.PostsAndMembers)
}

func TestScripts(t *testing.T) {
	projectiontest.RunScripts(t, migrated(t), posts.Projection{})
}
