package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"seenby/domain"
	"seenby/internal/postgres"
	"seenby/internal/testenv"
	"seenby/projections"
	"seenby/projections/posts"
)

func TestTwoMigrateAtOnce(t *testing.T) {
	env := testenv.EmptyPostgres(t)
	errs := make([]error, 3)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = postgres.Migrate(t.Context(), env.DSN) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	store, err := postgres.Open(t.Context(), postgres.Config{URL: env.DSN})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	have, err := store.SchemaVersion(t.Context())
	if needed, _ := postgres.SchemaVersionNeeded(); err != nil || have != needed || needed == 0 {
		t.Errorf("version %d, needed %d (%v)", have, needed, err)
	}
}

func TestCheckSchemaNamesMigrate(t *testing.T) {
	env := testenv.EmptyPostgres(t)
	store, err := postgres.Open(t.Context(), postgres.Config{URL: env.DSN})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	refused := func(when string) {
		t.Helper()
		err := store.CheckSchema(t.Context())
		if domain.CodeOf(err) != domain.CodeMisconfigured || !strings.Contains(err.Error(), "seenby migrate") {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("empty database")
	if _, err := store.Positions(t.Context()); domain.CodeOf(err) != domain.CodeMisconfigured {
		t.Errorf("reading an empty database: %v", err)
	}
	if err := postgres.Migrate(t.Context(), env.DSN); err != nil {
		t.Fatal(err)
	}
	if err := store.CheckSchema(t.Context()); err != nil {
		t.Error(err)
	}
	conn := env.Conn(t)
	if _, err := conn.Exec(t.Context(), "DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)"); err != nil {
		t.Fatal(err)
	}
	refused("older schema")
	if _, err := conn.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)"); err != nil {
		t.Fatal(err)
	}
	if err := store.CheckSchema(t.Context()); err != nil {
		t.Errorf("a newer schema: %v", err)
	}
}

// A process starts while PostgreSQL is away, and says so at every call.
func TestOpensWhilePostgresIsAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // nobody listens there now
	store, err := postgres.Open(t.Context(), postgres.Config{URL: "postgres://seenby:secret@" + address + "/seenby"})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	_, lookup := store.Lookup(t.Context(), []posts.Asked{{Post: domain.PostKey{Tenant: "demo", Post: "p"}}})
	tx := store.InTx(t.Context(), func(context.Context, projections.Tx) error { return nil })
	for _, err := range []error{store.Ping(t.Context()), lookup, tx, store.CheckSchema(t.Context())} {
		if domain.CodeOf(err) != domain.CodeUnavailable || strings.Contains(fmt.Sprint(err), "secret") {
			t.Errorf("%v", err)
		}
	}
	if _, err := postgres.Open(t.Context(), postgres.Config{URL: "postgres://u:secret@h:bad/d"}); domain.CodeOf(err) != domain.CodeMisconfigured || strings.Contains(err.Error(), "secret") {
		t.Errorf("a bad URL: %v", err)
	}
}

func TestClassify(t *testing.T) {
	state := func(code string) error { return fmt.Errorf("do it: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		err  error
		want domain.Code
	}{
		{state("40001"), domain.CodeUnavailable}, // serialization_failure
		{state("40P01"), domain.CodeUnavailable}, // deadlock_detected
		{state("57P01"), domain.CodeUnavailable}, // admin_shutdown
		{state("57P03"), domain.CodeUnavailable}, // cannot_connect_now
		{state("53300"), domain.CodeUnavailable}, // too_many_connections
		{state("53100"), domain.CodeUnavailable}, // disk_full
		{state("08006"), domain.CodeUnavailable}, // connection_failure
		{state("55P03"), domain.CodeUnavailable}, // lock_not_available
		{state("25006"), domain.CodeUnavailable}, // read_only_sql_transaction
		{state("23514"), domain.CodeInternal},    // check_violation
		{state("22021"), domain.CodeInternal},    // character_not_in_repertoire
		{state("42P01"), domain.CodeMisconfigured},
		{state("42601"), domain.CodeInternal}, // syntax_error
		{io.ErrUnexpectedEOF, domain.CodeUnavailable},
		{&net.OpError{Op: "read", Err: errors.New("reset")}, domain.CodeUnavailable},
		{context.DeadlineExceeded, domain.CodeUnavailable},
		{projections.ErrMoved, domain.CodePositionBehind},
		{errors.New("cannot encode"), domain.CodeInternal},
	} {
		got := postgres.Classify(c.err)
		if domain.CodeOf(got) != c.want || !errors.Is(got, c.err) {
			t.Errorf("%v is %s, not %s", c.err, domain.CodeOf(got), c.want)
		}
	}
	if postgres.Classify(nil) != nil || !errors.Is(postgres.Classify(context.Canceled), context.Canceled) {
		t.Error("nil and a caller who gave up stay as they are")
	}
}

func TestSnapshotSeesOneMomentAndWritesNothing(t *testing.T) {
	store, env := open(t)
	conn := env.Conn(t)
	count := func(q projections.Querier) (n int) {
		if err := q.QueryRow(t.Context(), "SELECT count(*) FROM impressions").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	err := store.Snapshot(t.Context(), func(_ context.Context, q projections.Querier) error {
		before := count(q)
		if _, err := conn.Exec(t.Context(), "INSERT INTO impressions VALUES ('demo', 'p', 0, 1, 0)"); err != nil {
			return err
		}
		if after := count(q); after != before {
			t.Errorf("%d rows became %d", before, after)
		}
		var n int
		if err := q.QueryRow(t.Context(), "DELETE FROM impressions RETURNING 1").Scan(&n); err == nil {
			t.Error("a snapshot wrote")
		}
		return nil
	})
	// The refused write left the transaction failed: its commit is a rollback, and says so.
	if domain.CodeOf(err) != domain.CodeUnavailable {
		t.Errorf("%v", err)
	}
}

// A connection that has fallen silent answers nothing, not even with an error.
func TestATransactionEndsWithoutAnAnswer(t *testing.T) {
	env := testenv.EmptyPostgres(t)
	store, err := postgres.Open(t.Context(), postgres.Config{URL: env.DSN, TransactionMax: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	err = store.InTx(t.Context(), func(ctx context.Context, tx projections.Tx) error {
		_, err := tx.Exec(ctx, "SELECT pg_sleep(60)")
		return err
	})
	if domain.CodeOf(err) != domain.CodeUnavailable {
		t.Errorf("%v", err)
	}
}
