package faulttest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"seenby/internal/testenv"
)

var postgresFaults = []fault{
	{"stop postgres", onPostgres, 0, whyLasts, stopPostgres},
	{"cut connections", onPostgres, 0, whyLasts, cutConnections},
	{"statement time-out", onPostgres, 0, whyLasts, statementTimeout},
	{"fill disk", onPostgres, 0, whyLasts, fillDisk},
}

// sql runs statements straight on PostgreSQL, one by one.
func (w *world) sql(ctx context.Context, statements ...string) error {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.pg.DSN)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// stopPostgres is pg_ctl stop -m immediate: no checkpoint, no goodbye; the start recovers from the log.
func stopPostgres(ctx context.Context, w *world, random *rand.Rand) error {
	if err := w.pg.Signal(ctx, "QUIT"); err != nil {
		return err
	}
	sleep(ctx, between(random, time.Second, 10*time.Second))
	ctx, cancel := context.WithTimeout(ctx, brokerStart)
	defer cancel()
	return w.pg.Start(ctx)
}

const terminateAll = `
	SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.application_name = 'seenby'`

// cutConnections ends sessions in the middle of their transactions.
func cutConnections(ctx context.Context, w *world, random *rand.Rand) error {
	for end := time.Now().Add(between(random, 3*time.Second, 6*time.Second)); time.Now().Before(end); {
		if err := w.sql(ctx, terminateAll+" AND (a.state <> 'idle' OR random() < 0.1)"); err != nil {
			return err
		}
		sleep(ctx, between(random, 10*time.Millisecond, 200*time.Millisecond))
	}
	return nil
}

// statementTimeout makes PostgreSQL cancel what takes longer than a few milliseconds, which a batch mostly does.
func statementTimeout(ctx context.Context, w *world, random *rand.Rand) error {
	if err := w.sql(ctx, fmt.Sprintf("ALTER ROLE postgres SET statement_timeout = '%dms'", 1+random.IntN(4)), terminateAll); err != nil {
		return err
	}
	sleep(ctx, between(random, 3*time.Second, 8*time.Second))
	return w.sql(ctx, "SET statement_timeout = 0", "ALTER ROLE postgres RESET statement_timeout", terminateAll)
}

// fillDisk moves the tables of views to a small disk and fills it up, and undoes that.
func fillDisk(ctx context.Context, w *world, random *rand.Rand) error {
	err := w.sql(ctx,
		"CREATE TABLESPACE small LOCATION '"+testenv.SmallDisk+"'",
		"ALTER TABLE uniqueviews_v1.unique_views SET TABLESPACE small",
		"ALTER INDEX uniqueviews_v1.unique_views_pkey SET TABLESPACE small",
		"ALTER TABLE impressions_v1.impressions SET TABLESPACE small",
		"CREATE TABLE filler (n text) TABLESPACE small")
	if err != nil {
		return err
	}
	filled := 0
	for err == nil {
		err = w.sql(ctx, "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 500)")
		filled++
	}
	var full *pgconn.PgError
	if !errors.As(err, &full) || full.Code != "53100" {
		return fmt.Errorf("fill the disk: %w", err)
	}
	w.t.Logf("the disk is full after %d half megabytes", filled)
	// The last pages too, so that what is appended has no room whatever its size.
	for range 50 {
		if err := w.sql(ctx, "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 8)"); err != nil {
			break
		}
	}
	sleep(ctx, between(random, 5*time.Second, 10*time.Second))
	return w.sql(ctx,
		"DROP TABLE filler",
		"ALTER TABLE uniqueviews_v1.unique_views SET TABLESPACE pg_default",
		"ALTER INDEX uniqueviews_v1.unique_views_pkey SET TABLESPACE pg_default",
		"ALTER TABLE impressions_v1.impressions SET TABLESPACE pg_default",
		"DROP TABLESPACE small",
		"CHECKPOINT") // from here on a recovery needs nothing of the small disk, which is empty after a restart
}
