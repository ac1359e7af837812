// Package postgres opens PostgreSQL for everybody else: the pool, the schema, transactions and snapshots, and
// what an error of it means.
//
// Store is its main type. Opening is lazy: a process starts while PostgreSQL is away, and every call says
// CodeUnavailable until it is back. Errors are classified once, here (see Classify): CodeUnavailable is worth
// a retry, CodeInternal is data that PostgreSQL refused although the checks had let it through, and
// CodeMisconfigured is a schema that does not fit.
//
// The statements of the projections stand beside the functions that run them, in their own packages; Store only
// runs those on its pool.
package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"seenby/domain"
	"seenby/projections"
)

// Config says how to reach PostgreSQL.
type Config struct {
	// URL is a PostgreSQL connection URL or key=value string. It can hold a password: never print it.
	URL string
	// ConnectionsMax bounds the pool. Default 10: each worker of a projection uses one, reads use the rest.
	ConnectionsMax int32
	// ConnectTimeout bounds one attempt to connect. Default 5 s: a read must answer 503 before clients give up.
	ConnectTimeout time.Duration
	// IdleInTransactionMax ends a transaction whose process is gone without a word, and frees the positions it
	// holds. Default 30 s: no transaction of ours waits for anything but PostgreSQL.
	IdleInTransactionMax time.Duration
	// LockWaitMax bounds the wait for a lock. Default 30 s, as above.
	LockWaitMax time.Duration
	// TransactionMax ends a transaction that PostgreSQL does not answer: a connection that a firewall has forgotten
	// says nothing for ever. Default 30 s, far over the longest honest batch.
	TransactionMax time.Duration
	// Tracer, where given, follows every query.
	Tracer pgx.QueryTracer
}

func (c Config) withDefaults() Config {
	if c.ConnectionsMax == 0 {
		c.ConnectionsMax = 10
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 5 * time.Second
	}
	if c.IdleInTransactionMax == 0 {
		c.IdleInTransactionMax = 30 * time.Second
	}
	if c.LockWaitMax == 0 {
		c.LockWaitMax = 30 * time.Second
	}
	if c.TransactionMax == 0 {
		c.TransactionMax = 30 * time.Second
	}
	return c
}

// Store is a pool of connections to one database. Safe for concurrent use.
type Store struct {
	pool           *pgxpool.Pool
	transactionMax time.Duration
}

// Open makes a Store without connecting. Only a URL that cannot be read fails, with CodeMisconfigured.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, badURL(err)
	}
	pc.MaxConns = cfg.ConnectionsMax
	pc.ConnConfig.ConnectTimeout = cfg.ConnectTimeout
	pc.ConnConfig.Tracer = cfg.Tracer
	pc.PingTimeout = pingTimeout
	params := pc.ConnConfig.RuntimeParams
	setDefault(params, "application_name", "seenby")
	setDefault(params, "timezone", "UTC")
	setDefault(params, "idle_in_transaction_session_timeout", millis(cfg.IdleInTransactionMax))
	setDefault(params, "lock_timeout", millis(cfg.LockWaitMax))
	setDefault(params, "client_connection_check_interval", millis(clientCheckEvery))
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, domain.Errorf(domain.CodeMisconfigured, "open PostgreSQL").Because(err)
	}
	return &Store{pool, cfg.TransactionMax}, nil
}

// badURL leaves the cause out of what may be shown; pgx masks the password in it.
func badURL(err error) error {
	return domain.Errorf(domain.CodeMisconfigured, "the database URL cannot be read").Because(err)
}

func setDefault(params map[string]string, name, value string) {
	if _, given := params[name]; !given {
		params[name] = value
	}
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// clientCheckEvery is how soon a long statement ends whose process was killed, and frees its locks. PostgreSQL would
// notice only when the statement is through.
const clientCheckEvery = 2 * time.Second

// Close waits for connections in use and closes them all.
func (s *Store) Close() { s.pool.Close() }

// Ping tells whether PostgreSQL answers.
func (s *Store) Ping(ctx context.Context) error { return Classify(s.pool.Ping(ctx)) }

// pingTimeout is for a connection that was idle for a second or more, before it is used again: one that has fallen
// silent is thrown away for another.
const pingTimeout = 2 * time.Second

// rollbackTimeout is for telling a server that may be gone; without an answer the connection is dropped.
const rollbackTimeout = 5 * time.Second

// InTx runs f in a READ COMMITTED transaction and commits it. After an error of the commit nobody knows
// whether it took place: the caller reads again what it wrote.
func (s *Store) InTx(ctx context.Context, f func(ctx context.Context, tx projections.Tx) error) error {
	return s.inTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(ctx context.Context, tx pgx.Tx) error { return f(ctx, tx) })
}

// What a view shows is looked up when a statement runs, and not in the snapshot. The lock keeps the views as they are
// from before the snapshot is taken, which LOCK itself does not do: a swap locks the table against it.
const beginSnapshot = "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ; LOCK TABLE read_models IN ACCESS SHARE MODE"

// Snapshot runs f on one snapshot of the database (REPEATABLE READ, READ ONLY), so that what several
// statements read belongs together, and to the version that is live in it.
func (s *Store) Snapshot(ctx context.Context, f func(ctx context.Context, q projections.Querier) error) error {
	return s.inTx(ctx, pgx.TxOptions{BeginQuery: beginSnapshot}, func(ctx context.Context, tx pgx.Tx) error { return f(ctx, tx) })
}

func (s *Store) inTx(ctx context.Context, options pgx.TxOptions, f func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.transactionMax)
	defer cancel()
	tx, err := s.pool.BeginTx(ctx, options)
	if err != nil {
		return Classify(fmt.Errorf("begin: %w", err))
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		_ = tx.Rollback(ctx) // nothing to do after a commit; else the connection is thrown away where it fails
	}()
	if err := f(ctx, tx); err != nil {
		return Classify(err)
	}
	if err := tx.Commit(ctx); err != nil {
		return Classify(fmt.Errorf("commit: %w", err))
	}
	return nil
}

// Stats are the pool's numbers, for metrics.
type Stats struct {
	ConnectionsMax, ConnectionsOpen, ConnectionsIdle, ConnectionsUsed int32
	Acquired, AcquiresWaited                                          int64
	AcquireTime                                                       time.Duration
}

// Stats gives the pool's numbers now.
func (s *Store) Stats() Stats {
	p := s.pool.Stat()
	return Stats{
		ConnectionsMax: p.MaxConns(), ConnectionsOpen: p.TotalConns(), ConnectionsIdle: p.IdleConns(), ConnectionsUsed: p.AcquiredConns(),
		Acquired: p.AcquireCount(), AcquiresWaited: p.EmptyAcquireCount(), AcquireTime: p.AcquireDuration(),
	}
}
