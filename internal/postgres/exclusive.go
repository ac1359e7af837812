package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// Copy runs COPY FROM STDIN in tx with what from gives, and returns how many rows that were.
func (s *Store) Copy(ctx context.Context, tx projections.Tx, sql string, from io.Reader) (int64, error) {
	on, ok := tx.(interface{ Conn() *pgx.Conn })
	if !ok {
		return 0, domain.Errorf(domain.CodeInternal, "COPY in a transaction that is not of this store")
	}
	tag, err := on.Conn().PgConn().CopyFrom(ctx, from, sql)
	if err != nil {
		return 0, Classify(fmt.Errorf("copy: %w", err))
	}
	return tag.RowsAffected(), nil
}

var (
	tryLockSQL = projections.SQL("postgres.try_lock", `SELECT pg_try_advisory_lock(hashtextextended(@name, 0))`)
	unlockSQL  = projections.SQL("postgres.unlock", `SELECT pg_advisory_unlock(hashtextextended(@name, 0))`)
)

// How often a connection that holds a name is asked whether it still does, and how long it may take to say so.
const (
	holdEvery = 2 * time.Second
	// holdTimeout is longer than a busy disk keeps a server from answering: what the lock protects may have taken hours.
	holdTimeout = 15 * time.Second
)

// Exclusive runs f while nobody else on this database runs one of the same name, on a connection of its own that holds an
// advisory lock: a process that dies frees it at once. taken is returned, wrapped, where somebody else has it. f's context
// ends where the connection is lost, with the reason as its cause.
func (s *Store) Exclusive(ctx context.Context, name string, taken error, f func(ctx context.Context) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return Classify(fmt.Errorf("lock %s: %w", name, err))
	}
	defer conn.Release()
	args := pgx.NamedArgs{"name": name}
	var locked bool
	if err := conn.QueryRow(ctx, tryLockSQL, args).Scan(&locked); err != nil {
		return Classify(fmt.Errorf("lock %s: %w", name, err))
	}
	if !locked {
		return fmt.Errorf("%s: %w", name, taken)
	}
	working, cancel := context.WithCancelCause(ctx)
	held := make(chan error, 1)
	go func() {
		err := hold(working, conn.Conn())
		cancel(err)
		held <- err
	}()
	err = f(working)
	cancel(nil)
	if lost := <-held; lost != nil {
		if errors.Is(err, context.Canceled) {
			err = lost
		}
		return err // the lock went with the connection
	}
	unlocking, done := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer done()
	if _, unlockErr := conn.Exec(unlocking, unlockSQL, args); unlockErr != nil {
		_ = conn.Conn().Close(unlocking) // and the lock with it
	}
	return err
}

// hold asks the connection now and then until ctx ends, nil, or it does not answer.
func hold(ctx context.Context, conn *pgx.Conn) error {
	ticker := time.NewTicker(holdEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		// Not with ctx: a query that is cut off would close the connection, and with it the lock, too early.
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), holdTimeout)
		err := conn.Ping(asking)
		cancel()
		if err != nil {
			return Classify(fmt.Errorf("the connection that holds the lock is lost: %w", err))
		}
	}
}
