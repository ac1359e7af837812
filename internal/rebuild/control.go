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
UPDATE rebuilds b SET wanted = @wanted WHERE b.projection = @projection AND b.outcome = '' RETURNING b.id`)

// Want tells the unfinished rebuild of a projection to pause or to go on; its process obeys within a second. CodeNotFound:
// there is none.
func Want(ctx context.Context, deps Deps, projection string, wanted Wanted) error {
	_, err := want(ctx, deps, projection, wanted)
	return err
}

func want(ctx context.Context, deps Deps, projection string, wanted Wanted) (id int64, err error) {
	err = deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		switch err := tx.QueryRow(ctx, wantSQL, pgx.NamedArgs{"projection": projection, "wanted": string(wanted)}).Scan(&id); {
		case errors.Is(err, pgx.ErrNoRows):
			return domain.Errorf(domain.CodeNotFound, "no rebuild of %s is unfinished; see `seenby rebuild --list`", projection)
		case err != nil:
			return fmt.Errorf("tell the rebuild: %w", err)
		}
		return nil
	})
	return id, err
}

// Cancel gives the unfinished rebuild of a projection up and drops what it made, whether its process runs or is long dead.
func Cancel(ctx context.Context, deps Deps, p projections.Projection) error {
	id, err := want(ctx, deps, p.Name(), WantedCancel)
	if err != nil {
		return err
	}
	for {
		err := exclusively(ctx, deps, p.Name(), func(ctx context.Context) error {
			r := &run{deps: deps}
			found := false
			if err := deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) (err error) {
				r.row, found, err = one(tx.Query(ctx, unfinishedSQL, pgx.NamedArgs{"projection": p.Name()}))
				return err
			}); err != nil {
				return err
			}
			if !found || r.row.ID != id {
				return cancelled(ctx, deps, p, id)
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
		// Again: a process that took the rebuild over meanwhile was meant to go on.
		if now, err := want(ctx, deps, p.Name(), WantedCancel); domain.CodeOf(err) == domain.CodeNotFound || err == nil && now != id {
			return cancelled(ctx, deps, p, id)
		} else if err != nil {
			return err
		}
	}
}

// cancelled tells whether a rebuild has ended as it was told to: its process may have been through before.
func cancelled(ctx context.Context, deps Deps, p projections.Projection, id int64) error {
	outcome, by := "", 0
	if err := deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		return tx.QueryRow(ctx, outcomeSQL, pgx.NamedArgs{"id": id}).Scan(&outcome, &by)
	}); err != nil {
		return fmt.Errorf("look how the rebuild ended: %w", err)
	}
	if outcome != "cancelled" {
		return domain.Errorf(domain.CodeConflict, "the rebuild of %s was through before it could be cancelled: its version is live; `seenby rebuild --rollback %s` goes back", p.Name(), p.Name())
	}
	return nil
}

// drop ends the rebuild and drops its version.
func (r *run) drop(ctx context.Context) error {
	if err := leave(ctx, r.deps, r.model); err != nil {
		return err
	}
	return r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		if err := r.update(ctx, tx, endSQL, r.endArgs("cancelled")); err != nil {
			return err
		}
		return dropVersion(ctx, tx, r.model)
	})
}

var leaveSQL = projections.SQL("rebuild.leave", `
UPDATE read_model_versions v
SET followed = false
WHERE v.projection = @projection AND v.version = @version AND v.followed
  AND NOT EXISTS (SELECT FROM read_models r WHERE r.projection = v.projection AND r.live_version = v.version)`)

// leave has projectors leave versions that are not live, before these are dropped under them, and gives them time to.
func leave(ctx context.Context, deps Deps, versions ...projections.ReadModel) error {
	followed := false
	if err := deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		followed = false
		for _, m := range versions {
			tag, err := tx.Exec(ctx, leaveSQL, m.Args())
			if err != nil {
				return fmt.Errorf("have projectors leave %s: %w", m, err)
			}
			followed = followed || tag.RowsAffected() > 0
		}
		return nil
	}); err != nil || !followed {
		return err
	}
	return waitOrEnd(ctx, deps.handOver())
}

var dropSQL = []string{
	projections.SQL("rebuild.drop_positions", `DELETE FROM positions p WHERE p.projection = @projection AND p.version = @version`),
	projections.SQL("rebuild.drop_letters", `DELETE FROM dead_letters d WHERE d.projection = @projection AND d.version = @version`),
	projections.SQL("rebuild.drop_version", `DELETE FROM read_model_versions v WHERE v.projection = @projection AND v.version = @version`),
}

// dropVersion drops a version that is not live. A projector that still follows it finds no position to move.
func dropVersion(ctx context.Context, tx projections.Tx, m projections.ReadModel) error {
	for _, sql := range dropSQL {
		if _, err := tx.Exec(ctx, sql, m.Args()); err != nil {
			return fmt.Errorf("drop %s: %w", m, err)
		}
	}
	if _, err := tx.Exec(ctx, "DROP SCHEMA "+pgx.Identifier{m.Schema()}.Sanitize()+" CASCADE"); err != nil {
		return fmt.Errorf("drop %s: %w", m, err)
	}
	return nil
}

// DropOld drops the versions of a projection that are kept beside the live one, and tells which they were. Projectors
// leave them first.
func DropOld(ctx context.Context, deps Deps, p projections.Projection) (dropped []int, err error) {
	err = exclusively(ctx, deps, p.Name(), func(ctx context.Context) error {
		kept, err := keptVersions(ctx, deps, p)
		if err != nil {
			return err
		}
		if err := leave(ctx, deps, kept...); err != nil {
			return err
		}
		return deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
			dropped = nil
			for _, m := range kept {
				if err := dropVersion(ctx, tx, m); err != nil {
					return err
				}
				dropped = append(dropped, m.Version)
			}
			return nil
		})
	})
	return dropped, err
}

// keptVersions are those that are neither live nor being made.
func keptVersions(ctx context.Context, deps Deps, p projections.Projection) (kept []projections.ReadModel, err error) {
	err = deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		kept = nil
		row, unfinished, err := one(tx.Query(ctx, unfinishedSQL, pgx.NamedArgs{"projection": p.Name()}))
		if err != nil {
			return err
		}
		versions, err := projections.Versions(ctx, tx)
		if err != nil {
			return err
		}
		for _, v := range versions {
			if v.Projection == p.Name() && !v.Live && (!unfinished || v.Version != row.Version) {
				kept = append(kept, projections.ReadModel{Projection: p, Version: v.Version})
			}
		}
		return nil
	})
	return kept, err
}

// Rollback makes the version live again that was live before the last swap. It waits until that version, which projectors
// have kept current, has passed the live one.
func Rollback(ctx context.Context, deps Deps, p projections.Projection) (result Result, err error) {
	err = exclusively(ctx, deps, p.Name(), func(ctx context.Context) error {
		var from, to projections.ReadModel
		if err := deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
			row, unfinished, err := one(tx.Query(ctx, unfinishedSQL, pgx.NamedArgs{"projection": p.Name()}))
			switch {
			case err != nil:
				return err
			case unfinished:
				return domain.Errorf(domain.CodeConflict, "version %d of %s is being made: finish that with `seenby rebuild %s`, or give it up with `seenby rebuild --cancel %s`", row.Version, p.Name(), p.Name(), p.Name())
			}
			versions, err := projections.Versions(ctx, tx)
			if err != nil {
				return err
			}
			from, to = projections.ReadModel{}, projections.ReadModel{}
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
		locked, err := swapVersions(ctx, deps, from, to, swapHooks{
			ready: func(context.Context) error { return nil }, say: say, last: func(context.Context, projections.Tx) error { return nil },
		})
		if errors.Is(err, errTakenOver) {
			err = nil // it was this one, whose commit was not answered: nobody else may
		}
		result = Result{Projection: p.Name(), Version: to.Version, Previous: from.Version, Locked: locked}
		return err
	})
	return result, err
}

var listSQL = projections.SQL("rebuild.list", `
SELECT `+rowColumns+`
FROM rebuilds b
ORDER BY b.outcome <> '', b.id DESC
LIMIT @limit`)

// Listing is what there is to know of rebuilds.
type Listing struct {
	Versions []projections.VersionRow
	Rebuilds []Row // unfinished ones, then the latest first
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
