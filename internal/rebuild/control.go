package rebuild

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

var errCancelled = errors.New("the rebuild is cancelled")

var wantSQL = projections.SQL("rebuild.want", `
UPDATE rebuilds b SET wanted = @wanted WHERE b.projection = @projection AND b.outcome = ''`)

// Want tells the unfinished rebuild of a projection to pause or to go on; its process obeys within a second. CodeNotFound:
// there is none.
func Want(ctx context.Context, deps Deps, projection string, wanted Wanted) error {
	return deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		tag, err := tx.Exec(ctx, wantSQL, pgx.NamedArgs{"projection": projection, "wanted": string(wanted)})
		switch {
		case err != nil:
			return fmt.Errorf("tell the rebuild: %w", err)
		case tag.RowsAffected() == 0:
			return domain.Errorf(domain.CodeNotFound, "no rebuild of %s is unfinished; see `seenby rebuild --list`", projection)
		}
		return nil
	})
}

// Cancel gives the unfinished rebuild of a projection up and drops what it made, whether its process runs or is long dead.
func Cancel(ctx context.Context, deps Deps, p projections.Projection) error {
	if err := Want(ctx, deps, p.Name(), WantedCancel); err != nil {
		return err
	}
	for {
		err := exclusively(ctx, deps, p.Name(), func(ctx context.Context) error {
			r := &run{deps: deps}
			found := false
			if err := deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) (err error) {
				r.row, found, err = one(tx.Query(ctx, unfinishedSQL, pgx.NamedArgs{"projection": p.Name()}))
				return err
			}); err != nil || !found {
				return err // its process has dropped it
			}
			r.model = projections.ReadModel{Projection: p, Version: r.row.Version}
			return r.drop(ctx)
		})
		if !errors.Is(err, errTaken) {
			return err
		}
		if err := waitOrEnd(ctx, watchEvery); err != nil {
			return err
		}
	}
}

// drop ends the rebuild and drops its version.
func (r *run) drop(ctx context.Context) error {
	return r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		if err := r.update(ctx, tx, endSQL, r.endArgs("cancelled")); err != nil {
			return err
		}
		return dropVersion(ctx, tx, r.model)
	})
}

var dropSQL = []string{
	projections.SQL("rebuild.drop_positions", `DELETE FROM positions p WHERE p.projection = @projection AND p.version = @version`),
	projections.SQL("rebuild.drop_letters", `DELETE FROM dead_letters d WHERE d.projection = @projection AND d.version = @version`),
	projections.SQL("rebuild.drop_version", `DELETE FROM read_model_versions v WHERE v.projection = @projection AND v.version = @version`),
}

// dropVersion drops a version that is not live. A projector that still follows it finds no position to move.
func dropVersion(ctx context.Context, tx projections.Tx, m projections.ReadModel) error {
	for _, sql := range dropSQL {
		if _, err := tx.Exec(ctx, sql, versionArgs(m)); err != nil {
			return fmt.Errorf("drop %s: %w", m, err)
		}
	}
	if _, err := tx.Exec(ctx, "DROP SCHEMA "+pgx.Identifier{m.Schema()}.Sanitize()+" CASCADE"); err != nil {
		return fmt.Errorf("drop %s: %w", m, err)
	}
	return nil
}

// DropOld drops the versions of a projection that are kept beside the live one, and tells which they were.
func DropOld(ctx context.Context, deps Deps, p projections.Projection) (dropped []int, err error) {
	err = exclusively(ctx, deps, p.Name(), func(ctx context.Context) error {
		return deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
			dropped = nil
			row, unfinished, err := one(tx.Query(ctx, unfinishedSQL, pgx.NamedArgs{"projection": p.Name()}))
			if err != nil {
				return err
			}
			versions, err := projections.Versions(ctx, tx)
			if err != nil {
				return err
			}
			for _, v := range versions {
				if v.Projection != p.Name() || v.Live || unfinished && v.Version == row.Version {
					continue
				}
				if err := dropVersion(ctx, tx, projections.ReadModel{Projection: p, Version: v.Version}); err != nil {
					return err
				}
				dropped = append(dropped, v.Version)
			}
			return nil
		})
	})
	return dropped, err
}

// Rollback makes the version live again that was live before the last swap. It waits until that version, which projectors
// have kept current, has passed the live one.
func Rollback(ctx context.Context, deps Deps, p projections.Projection) (result Result, err error) {
	err = exclusively(ctx, deps, p.Name(), func(ctx context.Context) error {
		var from, to projections.ReadModel
		if err := deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
			versions, err := projections.Versions(ctx, q)
			if err != nil {
				return err
			}
			for _, v := range versions {
				m := projections.ReadModel{Projection: p, Version: v.Version}
				switch {
				case v.Projection != p.Name():
				case v.Live:
					from = m
				case v.Followed:
					to = m
				}
			}
			return nil
		}); err != nil {
			return err
		}
		if to.Projection == nil {
			return domain.Errorf(domain.CodeNotFound, "no other version of %s is kept: there is nothing to go back to", p.Name())
		}
		say := func(detail string) {
			if deps.Progress != nil {
				deps.Progress(Progress{Projection: p.Name(), Version: to.Version, Phase: PhaseSwap, Detail: detail})
			}
		}
		locked, err := swapVersions(ctx, deps, from, to, say, func(context.Context, projections.Tx) error { return nil })
		result = Result{Projection: p.Name(), Version: to.Version, Previous: from.Version, Locked: locked}
		return err
	})
	return result, err
}

var listSQL = projections.SQL("rebuild.list", `
SELECT `+rowColumns+`
FROM rebuilds b
ORDER BY b.id DESC
LIMIT @limit`)

// Listing is what there is to know of rebuilds.
type Listing struct {
	Versions []projections.VersionRow
	Rebuilds []Row // the latest first
}

// listMax is how many rebuilds are listed: a history for people.
const listMax = 100

// List gives the versions that stand and the latest rebuilds.
func List(ctx context.Context, deps Deps) (l Listing, err error) {
	err = deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		if l.Versions, err = projections.Versions(ctx, q); err != nil {
			return err
		}
		rows, err := q.Query(ctx, listSQL, pgx.NamedArgs{"limit": listMax})
		if err != nil {
			return fmt.Errorf("list rebuilds: %w", err)
		}
		l.Rebuilds, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Row])
		return err
	})
	return l, err
}

// Working tells whether a process works on an unfinished rebuild, as far as its row shows.
func (row Row) Working(now time.Time) bool {
	return row.Outcome == "" && row.Reason == "" && now.Sub(row.UpdatedAt) < 10*watchEvery
}
