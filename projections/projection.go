// Package projections is the contract that every read model keeps, and the position table they share.
//
// A projection is a fold of events into its own tables: its folder below this one holds the fold, the writes
// and the reads, and imports no other projection. It is run by internal/projector, rebuilt by replaying the
// log, and held to the laws of projectiontest: replay equals live; the same offsets delivered twice change
// nothing; where a batch ends and how partitions interleave does not matter.
package projections

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"seenby/domain"
)

// Projection is one read model. Implementations are stateless values: all state is in PostgreSQL.
type Projection interface {
	// Name is the projection's name in positions, groups, metrics and commands, e.g. "impressions".
	Name() string
	// FoldVersion changes when the same events give other rows: a read model of another fold is left to the programs
	// that have it, until a rebuild makes one of this fold.
	FoldVersion() int
	// Topics are what it consumes.
	Topics() []domain.Topic
	// Tables are what each version of its read model has, for dumps and rebuilds.
	Tables() []string
	// Check tells why a record cannot be folded: nil, or the reason that parks it. It is pure and mirrors every
	// constraint of the tables, so that PostgreSQL never has to refuse a row. Records with Err set are poison
	// without being asked about. An event type that does not belong on the topic stops the projector: it
	// returns domain.ErrUnknownEvent.
	Check(domain.Record) error
	// OrderKey is the key within which events must be applied in order: what follows a parked event of the
	// same key is parked too. Empty: the fold is commutative and only the event itself is parked.
	OrderKey(domain.Record) string
	// Apply folds a batch into the tables. Records come in log order per partition, each exactly once, already
	// checked. Tables are written by one set-based statement each, rows sorted by key so that two projectors
	// cannot deadlock. Their names are those of tx's version (see lockPositionsSQL).
	Apply(ctx context.Context, tx Tx, batch []domain.Record) error
}

// Tx is the part of a pgx transaction that a projection uses.
type Tx interface {
	Querier
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Querier reads; a pool, a connection and a transaction are one.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Shards is over how many rows the counts of one post are spread, by the partition of the event, so that the
// projectors of a viral post do not queue on one row.
const Shards = 8

// Shard is the row of an event's partition.
func Shard(partition int32) int16 { return int16(partition % Shards) } //nolint:gosec // less than Shards
