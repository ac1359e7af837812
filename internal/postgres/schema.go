package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"seenby/domain"
	"seenby/migrations"
	"seenby/projections"
)

// How long a second Migrate waits for the first one, and how often it looks.
const (
	migrateLockEvery    = 1   // seconds
	migrateLockAttempts = 600 // a migration of a large table may take minutes
)

// Migrate brings the database to the newest schema. Several at once are fine: one works, the others wait for
// it and find nothing to do.
//
// What a migration changes is in use meanwhile. It waits for locks for moments only, and lets through in between who
// waits behind it: a long snapshot, such as that of `seenby verify`, delays the migration and nobody else.
func Migrate(ctx context.Context, dsn string) error { return migrate(ctx, dsn, migrations.FS) }

const (
	// migrateLockWait is less than PostgreSQL's deadlock_timeout (1 s): in a deadlock the migration gives way.
	migrateLockWait = 300 * time.Millisecond
	migrateAgain    = time.Second
)

func migrate(ctx context.Context, dsn string, files fs.FS) error {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return badURL(err)
	}
	cfg.RuntimeParams["lock_timeout"] = millis(migrateLockWait)
	db := stdlib.OpenDB(*cfg)
	defer db.Close() //nolint:errcheck // nothing is pending
	locker, err := lock.NewPostgresSessionLocker(
		lock.WithLockTimeout(migrateLockEvery, migrateLockAttempts),
		lock.WithUnlockTimeout(migrateLockEvery, migrateLockAttempts),
	)
	if err != nil {
		return fmt.Errorf("make the lock of migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithSessionLocker(locker), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	for {
		_, err := provider.Up(ctx)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("migrate: %w", err)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "55P03" /* lock_not_available */ && refused.Code != "40P01" /* deadlock_detected */ {
			return Classify(err)
		}
		timer := time.NewTimer(migrateAgain)
		select {
		case <-ctx.Done():
			timer.Stop()
			return Classify(err)
		case <-timer.C:
		}
	}
}

var schemaVersionSQL = projections.SQL("postgres.schema_version", `
SELECT COALESCE(max(g.version_id), 0) FROM goose_db_version g WHERE g.is_applied`)

// SchemaVersion is the number of the last migration of the database, 0 where there was none.
func (s *Store) SchemaVersion(ctx context.Context) (version int64, err error) {
	err = s.pool.QueryRow(ctx, schemaVersionSQL).Scan(&version)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42P01" { // undefined_table
		return 0, nil
	}
	if err != nil {
		return 0, Classify(fmt.Errorf("read the schema's version: %w", err))
	}
	return version, nil
}

// SchemaVersionNeeded is the number of the last migration that this program holds.
func SchemaVersionNeeded() (int64, error) {
	files, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	needed := int64(0)
	for _, f := range files {
		v, err := goose.NumericComponent(f)
		if err != nil {
			return 0, fmt.Errorf("read the number of migration %s: %w", f, err)
		}
		needed = max(needed, v)
	}
	return needed, nil
}

// schemaCheckTimeout keeps a start from hanging on a database that does not answer.
const schemaCheckTimeout = 10 * time.Second

// CheckSchema refuses, with CodeMisconfigured, a database that lacks migrations of this program. One that has
// more was migrated by a newer program, which keeps older ones working while they are replaced.
func (s *Store) CheckSchema(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, schemaCheckTimeout)
	defer cancel()
	needed, err := SchemaVersionNeeded()
	if err != nil {
		return err
	}
	have, err := s.SchemaVersion(ctx)
	if err != nil {
		return err
	}
	if have < needed {
		return domain.Errorf(domain.CodeMisconfigured, "the database's schema is at version %d, this program needs %d: run seenby migrate", have, needed)
	}
	return nil
}
