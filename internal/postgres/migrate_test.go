package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sync/errgroup"

	"seenby/internal/testenv"
	"seenby/migrations"
	"seenby/projections"
)

// next is this program's migrations and one more, as a newer program has them.
func next(t *testing.T, number int, sql string) fs.FS {
	t.Helper()
	all := fstest.MapFS{fmt.Sprintf("%d_next.sql", number): {Data: []byte("-- +goose Up\n" + sql)}}
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(migrations.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = &fstest.MapFile{Data: text}
	}
	return all
}

const (
	// readMax is far more than a read waits for a migration that lets it pass.
	readMax = 5 * time.Second
	reads   = 200
	// throughMax is for ten migrations, which take a second, or ten where they are tried again.
	throughMax = time.Minute
)

// read is a read as the api does it, and one in a statement of its own, as the gate does.
func (s *Store) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readMax)
	defer cancel()
	const sql = `SELECT count(*) FROM unique_view_counts c JOIN unique_views u USING (tenant, post)`
	var n int
	if err := s.pool.QueryRow(ctx, sql).Scan(&n); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return s.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error { return q.QueryRow(ctx, sql).Scan(&n) })
}

func openMigrated(t *testing.T) (*Store, string) {
	t.Helper()
	env := testenv.PostgresWith(t, "seenby", Migrate)
	store, err := Open(t.Context(), Config{URL: env.DSN})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store, env.DSN
}

// TestMigrateLetsReadersPass: a long snapshot delays a migration, and nobody who comes after it. Every version that stands
// is changed, and readers see the change.
func TestMigrateLetsReadersPass(t *testing.T) {
	store, dsn := openMigrated(t)
	if _, err := store.pool.Exec(t.Context(), `
INSERT INTO read_model_versions VALUES ('uniqueviews', 2, 1, false);
CREATE SCHEMA uniqueviews_v2;
CREATE TABLE uniqueviews_v2.unique_views (LIKE uniqueviews_v1.unique_views);
CREATE TABLE uniqueviews_v2.unique_view_counts (LIKE uniqueviews_v1.unique_view_counts)`); err != nil {
		t.Fatal(err)
	}
	holding, release := make(chan struct{}), make(chan struct{})
	var group errgroup.Group
	group.Go(func() error {
		return store.Snapshot(t.Context(), func(context.Context, projections.Querier) error {
			close(holding)
			<-release
			return nil
		})
	})
	<-holding
	migrated := make(chan struct{})
	group.Go(func() error {
		defer close(migrated)
		return migrate(t.Context(), dsn, next(t, 90001, `SELECT change_read_model('uniqueviews', $$ ALTER TABLE unique_views ADD COLUMN app text NOT NULL DEFAULT 'web' $$);`))
	})
	for begun, n := time.Now(), 0; n < reads || time.Since(begun) < 2*migrateAgain; n++ {
		if err := store.read(t.Context()); err != nil {
			t.Error(err)
			break
		}
	}
	select {
	case <-migrated:
		t.Error("it did not wait for the snapshot")
	default:
	}
	close(release)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"uniqueviews_v1.unique_views", "uniqueviews_v2.unique_views", "unique_views"} {
		if _, err := store.pool.Exec(t.Context(), "SELECT app FROM "+table); err != nil {
			t.Errorf("%s: %v", table, err)
		}
	}
}

// TestMigrateGetsThrough: who reads locks views before their tables, and so does a migration; else it would be in one
// deadlock with them after the other, and give way each time.
func TestMigrateGetsThrough(t *testing.T) {
	store, dsn := openMigrated(t)
	ctx, cancel := context.WithTimeout(t.Context(), throughMax)
	defer cancel()
	done := make(chan struct{})
	var readers errgroup.Group
	for range 4 {
		readers.Go(func() error {
			for {
				select {
				case <-done:
					return nil
				default:
				}
				if err := store.read(t.Context()); err != nil {
					return err
				}
			}
		})
	}
	for n := range 10 {
		sql := fmt.Sprintf(`SELECT change_read_model('uniqueviews', $$ ALTER TABLE unique_views ADD COLUMN a%d int NOT NULL DEFAULT 0; ALTER TABLE unique_view_counts ADD COLUMN a%[1]d int NOT NULL DEFAULT 0 $$);`, n)
		if err := migrate(ctx, dsn, next(t, 90002+n, sql)); err != nil {
			t.Error(err)
			break
		}
	}
	close(done)
	if err := readers.Wait(); err != nil {
		t.Error(err)
	}
}
