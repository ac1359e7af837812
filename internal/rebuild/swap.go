package rebuild

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

const (
	// lockWait is how long an attempt waits for readers, and readers for it: then it lets them pass.
	lockWait = 300 * time.Millisecond
	// passWait is how long an attempt holds the live version still for the new one to pass it.
	passWait = 400 * time.Millisecond
	// betweenAttempts lets both through.
	betweenAttempts = time.Second
	// handOver is how long this process still moves the new version: projectors look for versions each second.
	handOver = 4 * time.Second
)

// swap makes the new version the live one, at a moment when no count goes back.
func (r *run) swap(ctx context.Context) (Result, error) {
	if err := r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		if err := followVersion(ctx, tx, r.model); err != nil {
			return err
		}
		return r.hold(ctx, tx)
	}); err != nil {
		return Result{}, err
	}
	following, stop := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() { r.keepFollowing(following) })
	defer func() { stop(); ended.Wait() }()

	locked, err := swapVersions(ctx, r.deps, r.live, r.model, func(detail string) { r.tell(func(p *Progress) { p.Detail = detail }) },
		func(ctx context.Context, tx projections.Tx) error {
			return r.update(ctx, tx, endSQL, r.endArgs("swapped"))
		})
	if err != nil {
		return Result{}, err
	}
	r.enter(PhaseDone)
	timer := time.NewTimer(handOver)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return Result{
		Projection: r.model.Name(), Version: r.model.Version, Previous: r.live.Version, Events: r.eventsDone(), Proven: r.row.Proven,
		Differences: r.row.Differences, Locked: locked,
	}, nil
}

// keepFollowing moves the new version until ctx ends, as long as no projector does: who is overtaken leaves it to the
// other for a while, since two that race for each batch are slower than one.
func (r *run) keepFollowing(ctx context.Context) {
	r.handsOver.Store(true)
	for ctx.Err() == nil {
		n, err := r.follow(ctx, nil)
		pause := followEvery
		switch {
		case err == nil && n > 0:
			continue
		case domain.CodeOf(err) == domain.CodePositionBehind:
			pause = overtakenFor
		case err != nil && ctx.Err() == nil:
			r.deps.Logger.WarnContext(ctx, "the new version is not moved on by this process", "projection", r.model.Name(), "version", r.model.Version, "err", err)
		}
		_ = waitOrEnd(ctx, pause)
	}
}

const (
	followEvery  = 100 * time.Millisecond
	overtakenFor = 5 * time.Second
)

func waitOrEnd(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

var followSQL = projections.SQL("rebuild.follow", `
UPDATE read_model_versions v SET followed = true WHERE v.projection = @projection AND v.version = @version`)

func followVersion(ctx context.Context, tx projections.Tx, m projections.ReadModel) error {
	if _, err := tx.Exec(ctx, followSQL, versionArgs(m)); err != nil {
		return fmt.Errorf("have projectors follow %s: %w", m, err)
	}
	return nil
}

func versionArgs(m projections.ReadModel) pgx.NamedArgs {
	return pgx.NamedArgs{"projection": m.Name(), "version": m.Version}
}

var (
	lockWaitSQL = projections.SQL("rebuild.lock_wait", `
SELECT set_config('lock_timeout', @millis, true)`)
	showSQL = projections.SQL("rebuild.show", `
SELECT show_read_model(@projection, @version)`)
)

// swapVersions makes `to` the live version instead of `from`: it holds the positions of from, so that it stands still,
// until to has passed them, and then changes the views in the same transaction, with last in it. It tries until it
// succeeds or ctx ends; last must not wait for anything, since readers and projectors wait for it. It tells how long readers and the live projectors may have waited for the attempt that did.
func swapVersions(ctx context.Context, deps Deps, from, to projections.ReadModel, say func(string), last func(context.Context, projections.Tx) error) (time.Duration, error) {
	for {
		started := time.Now()
		behind := int64(0)
		err := deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
			if _, err := tx.Exec(ctx, lockWaitSQL, pgx.NamedArgs{"millis": fmt.Sprint(lockWait.Milliseconds())}); err != nil {
				return fmt.Errorf("bound the wait for locks: %w", err)
			}
			at, err := projections.LockPositions(ctx, tx, from)
			if err != nil {
				return err
			}
			for end := started.Add(passWait); ; {
				if behind, err = behindOf(ctx, tx, to, at); err != nil {
					return err
				}
				if behind == 0 {
					break
				}
				if time.Now().After(end) {
					return errNotPassed
				}
				if err := waitOrEnd(ctx, pollEvery); err != nil {
					return err
				}
			}
			// A snapshot holds the weakest lock on this table from before it looks; see postgres.Store.Snapshot.
			if _, err := tx.Exec(ctx, "LOCK TABLE read_models IN ACCESS EXCLUSIVE MODE"); err != nil {
				return fmt.Errorf("wait for readers: %w", err)
			}
			if _, err := tx.Exec(ctx, showSQL, versionArgs(to)); err != nil {
				return fmt.Errorf("change the views: %w", err)
			}
			return last(ctx, tx)
		})
		switch domain.CodeOf(err) {
		case domain.CodePositionBehind:
			say(fmt.Sprintf("waiting for version %d, which is %d events behind", to.Version, behind))
		case domain.CodeUnavailable:
			say("waiting for readers or for PostgreSQL")
			deps.Logger.DebugContext(ctx, "the swap is tried again", "projection", to.Name(), "version", to.Version, "err", err)
		default:
			return time.Since(started), err
		}
		if err := waitOrEnd(ctx, betweenAttempts); err != nil {
			return 0, err
		}
	}
}

const pollEvery = 10 * time.Millisecond

var errNotPassed = domain.Errorf(domain.CodePositionBehind, "the other version has not passed the live one")

// behindOf is how many offsets a version has before it has passed a vector.
func behindOf(ctx context.Context, q projections.Querier, m projections.ReadModel, at []projections.PositionRow) (int64, error) {
	rows, err := projections.PositionsOf(ctx, q, m)
	if err != nil {
		return 0, err
	}
	stands := map[domain.Partition]int64{}
	for _, row := range rows {
		stands[row.In()] = row.NextOffset
	}
	behind := int64(0)
	for _, row := range at {
		behind += max(0, row.NextOffset-stands[row.In()])
	}
	return behind, nil
}
