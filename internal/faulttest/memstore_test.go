package faulttest

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"seenby/domain"
	"seenby/internal/postgres"
	"seenby/projections"
)

// memStore is PostgreSQL as the projections of verdicts need it: rows in memory, and transactions on them that read
// what is committed and their own. It understands the registered statements that they run, by name, and no other.
//
// Where PostgreSQL locks rows, it locks the projection that they belong to, from a transaction's first write or
// FOR UPDATE to its end. Rows of different projections never meet, so that differs in one way only: two transactions of
// one projection that touch different rows wait for each other here.
type memStore struct {
	names map[string]string // statement's text → name

	locks map[string]chan struct{} // by projection; holds a token while it is free

	mu   sync.Mutex
	rows tables
}

// commitFault is what happens at a COMMIT.
type commitFault int

const (
	commitWell       commitFault = iota
	commitLost                   // the connection breaks before it arrives: nothing is committed
	commitUnanswered             // it arrives, and the answer does not
	commitRefused                // the server ends the transaction (SQLSTATE 57P01)
	commitSlow                   // it takes its time
)

// slowCommit is longer than a session time-out: meanwhile the group may have given the partitions away.
const slowCommit = 12 * time.Second

// transactionMax and lockWaitMax are those of internal/postgres.
const (
	transactionMax = 30 * time.Second
	lockWaitMax    = 30 * time.Second
)

// memProjections are those whose read models stand in a memStore, each in version 1.
var memProjections = []string{"impressions", "uniqueviews"}

func newMemStore() *memStore {
	s := &memStore{names: map[string]string{}, locks: map[string]chan struct{}{}, rows: newTables()}
	for name, sql := range projections.Statements() {
		s.names[sql] = name
	}
	for _, projection := range memProjections {
		s.locks[projection] = make(chan struct{}, 1)
		s.locks[projection] <- struct{}{}
	}
	return s
}

// InTx implements projector.Store.
func (s *memStore) InTx(ctx context.Context, f func(ctx context.Context, tx projections.Tx) error) error {
	return s.inTx(ctx, func() commitFault { return commitWell }, f)
}

// inTx asks for the fault when the COMMIT is on its way.
func (s *memStore) inTx(ctx context.Context, fault func() commitFault, f func(ctx context.Context, tx projections.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, transactionMax)
	defer cancel()
	tx := &memTx{store: s, own: newTables()}
	defer tx.release()
	if err := f(ctx, tx); err != nil {
		return postgres.Classify(err)
	}
	if err := tx.commit(ctx, fault()); err != nil {
		return postgres.Classify(fmt.Errorf("commit: %w", err))
	}
	return nil
}

// memTx is a transaction. Its own rows lie over those of the store until it commits.
type memTx struct {
	store  *memStore
	own    tables
	held   []string // projections whose rows it has locked
	failed error    // the first statement that failed: nothing works after it
}

var _ projections.Tx = (*memTx)(nil)

func (tx *memTx) lock(ctx context.Context, projection string) error {
	for _, held := range tx.held {
		if held == projection {
			return nil
		}
	}
	free, ok := tx.store.locks[projection]
	if !ok {
		return nil // it has no rows to lock
	}
	limit := time.NewTimer(lockWaitMax)
	defer limit.Stop()
	select {
	case <-free:
		tx.held = append(tx.held, projection)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return refused("55P03", "canceling statement due to lock timeout")
	}
}

func (tx *memTx) release() {
	for _, projection := range tx.held {
		tx.store.locks[projection] <- struct{}{}
	}
	tx.held = nil
}

func (tx *memTx) commit(ctx context.Context, fault commitFault) error {
	if tx.failed != nil {
		return pgx.ErrTxCommitRollback
	}
	switch fault {
	case commitWell, commitUnanswered:
	case commitLost:
		return errBroken
	case commitRefused:
		return refused("57P01", "terminating connection due to administrator command")
	case commitSlow:
		sleep(ctx, slowCommit)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	tx.store.mu.Lock()
	tx.store.rows.take(tx.own)
	tx.store.mu.Unlock()
	if fault == commitUnanswered {
		return errBroken
	}
	return nil
}

// errBroken is what pgx says of a connection that ends in the middle of an answer.
var errBroken = fmt.Errorf("receive message: %w", io.ErrUnexpectedEOF)

func refused(state, message string) error {
	return &pgconn.PgError{Severity: "ERROR", Code: state, Message: message}
}

// run carries a statement out and gives its rows.
func (tx *memTx) run(ctx context.Context, sql string, args []any) (rows [][]any, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if tx.failed != nil {
		return nil, refused("25P02", "current transaction is aborted")
	}
	defer func() {
		if err != nil {
			tx.failed = err
		}
	}()
	name, ok := tx.store.names[sql]
	if !ok {
		return nil, domain.Errorf(domain.CodeMisconfigured, "memStore: not a registered statement: %s", sql)
	}
	do, ok := interpreted[name]
	if !ok {
		return nil, domain.Errorf(domain.CodeMisconfigured, "memStore does not know the statement %s: teach it, in memstore_statements_test.go", name)
	}
	named, ok := args[0].(pgx.NamedArgs)
	if !ok || len(args) != 1 {
		return nil, domain.Errorf(domain.CodeMisconfigured, "memStore: statement %s has no named arguments", name)
	}
	if do.locks != nil {
		if err := tx.lock(ctx, do.locks(named)); err != nil {
			return nil, err
		}
	}
	tx.store.mu.Lock()
	defer tx.store.mu.Unlock()
	return do.run(&view{base: &tx.store.rows, own: &tx.own}, named)
}

// Exec implements projections.Tx.
func (tx *memTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	_, err := tx.run(ctx, sql, args)
	return pgconn.CommandTag{}, err
}

// Query implements projections.Querier.
func (tx *memTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := tx.run(ctx, sql, args)
	return &memRows{rows: rows, err: err}, nil // as pgx: the error comes with the rows
}

// QueryRow implements projections.Querier.
func (tx *memTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := tx.run(ctx, sql, args)
	return &memRows{rows: rows, err: err, single: true}
}
