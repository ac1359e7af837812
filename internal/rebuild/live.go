package rebuild

import (
	"context"
	"fmt"
	"time"

	"seenby/domain"
	"seenby/projections"
)

const (
	pollLive = 100 * time.Millisecond
	// liveStands is after how long a live version that does not move is taken to have no projectors: longer than its
	// partitions wait for a process that was killed.
	liveStands = 15 * time.Second
	// liveSleeps is that where projectors, which raise as_of each second, have not done so for long.
	liveSleeps = 3 * time.Second
)

// waitForLive waits until the live version has passed the new one everywhere: only then is there a vector that both can
// stand at. Where no projectors move it, this process does; but only programs of its fold can.
//
// It cannot be compared where it was never complete, as after a loss of PostgreSQL: it is then a replay itself, by the slow
// way, and readers wait for the fast one.
func (r *run) waitForLive(ctx context.Context) (can bool, err error) {
	least, moved := int64(-1), r.deps.Now()
	for {
		l, err := r.lookAtLive(ctx)
		switch {
		case err != nil:
			return false, err
		case l.behind == 0:
			return true, nil
		case !l.complete:
			return false, r.leaveUncompared(ctx, "")
		case least < 0 || l.behind < least:
			least, moved = l.behind, r.deps.Now()
		case r.deps.Now().Sub(moved) < l.patience: // it may be about to move
		case l.foreign == nil:
			if err := r.moveLive(ctx, l.to); err != nil {
				return false, err
			}
		case r.opts.AcceptDifferences == "":
			return false, domain.Errorf(domain.CodeConflict, "the live %s stands still, %d events behind, so there is nothing to compare with: %v. Start one with the role projector and run the same command again, or swap without the proof by --accept-differences and your name",
				r.live, l.behind, l.foreign)
		default:
			return false, r.leaveUncompared(ctx, r.opts.AcceptDifferences)
		}
		r.tell(func(p *Progress) {
			p.Detail = fmt.Sprintf("waiting for the live version, which is %d events behind", l.behind)
		})
		if err := waitOrEnd(ctx, pollLive); err != nil {
			return false, err
		}
	}
}

// liveState is how the live version stands to the new one.
type liveState struct {
	behind   int64             // until it has passed the new one
	patience time.Duration     // how long it may stand still
	to       []domain.Position // where the new one stands
	complete bool              // it was once
	foreign  error             // it has another program's fold
}

func (r *run) lookAtLive(ctx context.Context) (l liveState, err error) {
	err = r.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		at, err := projections.PositionsOf(ctx, q, r.model)
		if err != nil {
			return err
		}
		if l.behind, err = behindOf(ctx, q, r.live, at); err != nil {
			return err
		}
		for _, row := range at {
			l.to = append(l.to, row.Position)
		}
		live, err := projections.PositionsOf(ctx, q, r.live)
		if err != nil {
			return err
		}
		l.complete, l.patience = true, liveSleeps
		for _, row := range live {
			l.complete = l.complete && !row.CompleteTo.IsZero()
			if r.deps.Now().Sub(row.CompleteTo) < liveStands {
				l.patience = liveStands
			}
		}
		if l.foreign = projections.CheckFold(ctx, q, r.live); domain.CodeOf(l.foreign) != domain.CodeConflict {
			err, l.foreign = l.foreign, nil
		}
		return err
	})
	return l, err
}

// moveLive folds into the live version what the new one has, as a projector does. One that comes back meanwhile does no
// harm, nor does this to it.
func (r *run) moveLive(ctx context.Context, to []domain.Position) error {
	r.tell(func(p *Progress) { p.Detail = "moving the live version, which has no projectors" })
	row, deps := r.row, r.deps
	row.Proven, deps.Progress = false, nil
	live := &run{deps: deps, opts: Options{BatchEventsMax: r.opts.BatchEventsMax}, row: row, model: r.live, live: r.live}
	if _, err := live.follow(ctx, to); err != nil {
		return fmt.Errorf("move the live version: %w", err)
	}
	return nil
}

var uncomparedSQL = projections.SQL("rebuild.uncompared", `
UPDATE rebuilds b
SET proven = false, accepted_by = @accepted_by, updated_at = @now
WHERE b.id = @id AND b.run = @run AND b.outcome = ''`)

// leaveUncompared goes on without a proof; who accepts that may be empty, where there is nothing to be compared with.
func (r *run) leaveUncompared(ctx context.Context, accepts string) error {
	args := r.args()
	args["accepted_by"] = accepts
	if err := r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error { return r.update(ctx, tx, uncomparedSQL, args) }); err != nil {
		return err
	}
	r.row.Proven, r.row.AcceptedBy = false, accepts
	r.tell(func(p *Progress) { p.Detail = "nothing to compare with" })
	return nil
}
