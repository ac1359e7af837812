package rebuild

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"seenby/domain"
	"seenby/projections"
)

// isFull tells whether PostgreSQL found no room on its disk: trying again helps only once somebody has made some.
func isFull(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == "53100"
}

var sizeSQL = projections.SQL("rebuild.size", `
SELECT COALESCE(sum(pg_table_size(c.oid)), 0)::bigint, COALESCE(sum(pg_indexes_size(c.oid)), 0)::bigint
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = @schema AND c.relkind = 'r'`)

// size is what a version's tables and their indexes take, in bytes.
func size(ctx context.Context, q projections.Querier, m projections.ReadModel) (tables, indexes int64, err error) {
	if err := q.QueryRow(ctx, sizeSQL, pgx.NamedArgs{"schema": m.Schema()}).Scan(&tables, &indexes); err != nil {
		return 0, 0, fmt.Errorf("ask for the size of %s: %w", m, err)
	}
	return tables, indexes, nil
}

// explain says what a disk that is full means; it leaves other errors as they are.
func (r *run) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return domain.Errorf(domain.CodeUnavailable, "the disk of this machine's temporary files is full: the live version is untouched. Make room, or name another directory by --temp-dir, and run the same command again").Because(err)
	case !isFull(err):
		return err
	}
	var tables, indexes int64
	if err := r.deps.Store.Snapshot(context.WithoutCancel(ctx), func(ctx context.Context, q projections.Querier) (err error) {
		tables, indexes, err = size(ctx, q, r.model)
		return err
	}); err != nil {
		r.deps.Logger.DebugContext(ctx, "the size is not known", "err", err)
	}
	return domain.Errorf(domain.CodeUnavailable, "PostgreSQL's disk is full; %s has taken %.1f MB of it so far. The live version is untouched, but writes to it may fail too until there is room. Make room and run the same command again, which goes on; or give the rebuild up with `seenby rebuild --cancel %s`, which frees that",
		r.model, float64(tables+indexes)/1e6, r.model.Name()).Because(err)
}
