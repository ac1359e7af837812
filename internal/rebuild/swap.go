package rebuild

import (
	"context"
	"errors"
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
	// statementMax bounds a statement that waits for several locks, as that which changes the views does.
	statementMax = 2 * lockWait
	// passWait is how long an attempt holds the live version still for the new one to pass it.
	passWait = 400 * time.Millisecond
	// betweenAttempts lets both through.
	betweenAttempts = time.Second
	// farBehind is how many events nobody folds in passWait: then the live version need not be held for them.
	farBehind = 100_000
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

	locked, err := swapVersions(ctx, r.deps, r.live, r.model, swapHooks{
		ready: r.unpaused,
		say:   func(detail string) { r.tell(func(p *Progress) { p.Detail = detail }) },
		last: func(ctx context.Context, tx projections.Tx) error {
			return r.update(ctx, tx, endSQL, r.endArgs("swapped"))
		},
	})
	if errors.Is(err, errTakenOver) {
		err = r.swapped(ctx)
	}
	if err != nil {
		return Result{}, err
	}
	r.enter(PhaseDone)
	r.tell(func(p *Progress) { p.Detail = "projectors take over" })
	_ = waitOrEnd(ctx, r.deps.handOver())
	return Result{
		Projection: r.model.Name(), Version: r.model.Version, Previous: r.live.Version, Events: r.eventsDone(), Proven: r.row.Proven,
		Differences: r.row.Differences, AcceptedBy: r.row.AcceptedBy, Locked: locked,
	}, nil
}

var outcomeSQL = projections.SQL("rebuild.outcome", `
SELECT b.outcome, b.run FROM rebuilds b WHERE b.id = @id`)

// swapped is nil where this process itself has made the new version the live one.
func (r *run) swapped(ctx context.Context) error {
	outcome, by := "", 0
	if err := r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		return tx.QueryRow(ctx, outcomeSQL, r.args()).Scan(&outcome, &by)
	}); err != nil {
		return fmt.Errorf("look how the rebuild ended: %w", err)
	}
	if outcome != "swapped" || by != r.row.Run {
		return errTakenOver
	}
	return nil
}

// keepFollowing moves the new version until ctx ends, as long as no projector does: who is overtaken leaves it to the
// other for a while, since two that race for each batch are slower than one.
func (r *run) keepFollowing(ctx context.Context) {
	if given, err := r.given(ctx); err == nil {
		r.givenUp = given // once: the topic is folded from its start each time
	}
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
	if _, err := tx.Exec(ctx, followSQL, m.Args()); err != nil {
		return fmt.Errorf("have projectors follow %s: %w", m, err)
	}
	return nil
}

var (
	lockWaitSQL = projections.SQL("rebuild.lock_wait", `
SELECT set_config('lock_timeout', @lock, true), set_config('statement_timeout', @statement, true)`)
	showSQL = projections.SQL("rebuild.show", `
SELECT show_read_model(@projection, @version)`)
)

// swapHooks are what swapVersions calls.
type swapHooks struct {
	ready func(context.Context) error // before each attempt; may wait
	say   func(string)                // what it waits for
	// last is the end of the swap's transaction. It must not wait, since readers and projectors wait for it.
	last func(context.Context, projections.Tx) error
}

// swapVersions makes `to` the live version instead of `from`: it holds the positions of from, so that it stands still,
// until to has passed them, and then changes the views in the same transaction. It tries until it succeeds or ctx ends,
// and tells how long readers and the live projectors may have waited for the attempt that did.
func swapVersions(ctx context.Context, deps Deps, from, to projections.ReadModel, hooks swapHooks) (time.Duration, error) {
	for {
		if err := hooks.ready(ctx); err != nil {
			return 0, err
		}
		started := time.Now()
		behind := int64(0)
		err := deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
			at, err := projections.PositionsOf(ctx, tx, from)
			if err != nil {
				return err
			}
			if behind, err = behindOf(ctx, tx, to, at); err != nil {
				return err
			}
			if behind > farBehind {
				return errNotPassed
			}
			args := pgx.NamedArgs{"lock": fmt.Sprint(lockWait.Milliseconds()), "statement": fmt.Sprint(statementMax.Milliseconds())}
			if _, err := tx.Exec(ctx, lockWaitSQL, args); err != nil {
				return fmt.Errorf("bound the wait for locks: %w", err)
			}
			started = time.Now()
			if at, err = projections.LockPositions(ctx, tx, from); err != nil {
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
			if err := asComplete(ctx, tx, to, at); err != nil {
				return err
			}
			if err := checkLetters(ctx, tx, from, to); err != nil {
				return err
			}
			// A snapshot holds the weakest lock on this table from before it looks; see postgres.Store.Snapshot.
			if _, err := tx.Exec(ctx, "LOCK TABLE read_models IN ACCESS EXCLUSIVE MODE"); err != nil {
				return fmt.Errorf("wait for readers: %w", err)
			}
			var live int
			if err := tx.QueryRow(ctx, lockReadModelSQL, to.Args()).Scan(&live); err != nil {
				return fmt.Errorf("look which version is live: %w", err)
			}
			switch live {
			case from.Version:
			case to.Version:
				return errTakenOver // the attempt before may have done it, and the answer to its commit was lost
			default:
				return domain.Errorf(domain.CodeConflict, "version %d of %s is live now, and not %d: somebody else has swapped", live, to.Name(), from.Version)
			}
			if err := followVersion(ctx, tx, to); err != nil { // whoever meant to drop it comes too late
				return err
			}
			if _, err := tx.Exec(ctx, showSQL, to.Args()); err != nil {
				return fmt.Errorf("change the views: %w", err)
			}
			return hooks.last(ctx, tx)
		})
		switch domain.CodeOf(err) {
		case domain.CodePositionBehind:
			hooks.say(fmt.Sprintf("waiting for version %d, which is %d events behind", to.Version, behind))
		case domain.CodeUnavailable:
			if isFull(err) {
				return 0, err
			}
			hooks.say("waiting for readers or for PostgreSQL")
			deps.Logger.DebugContext(ctx, "the swap is tried again", "projection", to.Name(), "version", to.Version, "err", err)
		default:
			return time.Since(started), err
		}
		if err := waitOrEnd(ctx, betweenAttempts); err != nil {
			return 0, err
		}
	}
}

var moreLettersSQL = projections.SQL("rebuild.more_letters", `
SELECT count(*), COALESCE(min(format('%s/%s@%s', d.topic, d.partition, d.record_offset)), '')
FROM dead_letters d
WHERE d.projection = @projection AND d.version = @version AND NOT d.follows
  AND EXISTS (SELECT FROM positions p
              WHERE p.projection = d.projection AND p.version = @from AND p.topic_id = d.topic_id AND p.partition = d.partition
                AND p.next_offset > d.record_offset)
  AND NOT EXISTS (SELECT FROM dead_letters l
                  WHERE l.projection = d.projection AND l.version = @from AND l.topic_id = d.topic_id AND l.partition = d.partition
                    AND l.record_offset = d.record_offset)`)

// checkLetters refuses to show a version that has dead letters where the live one has none: a letter that was redriven in
// the live version since they were compared is in its rows, and its event would be gone from what readers see. Both
// versions' positions are locked, so nobody redrives meanwhile.
func checkLetters(ctx context.Context, q projections.Querier, from, to projections.ReadModel) error {
	args := to.Args()
	args["from"] = from.Version
	var n int64
	var first string
	if err := q.QueryRow(ctx, moreLettersSQL, args).Scan(&n, &first); err != nil {
		return fmt.Errorf("compare the dead letters of %s: %w", to, err)
	}
	if n > 0 {
		return domain.Errorf(domain.CodeConflict, "%d dead letters of %s, such as %s, are none of the live version: they were redriven or discarded there, and would be gone from what readers see. Nothing was swapped; rebuild %s anew",
			n, to, first, to.Name())
	}
	return nil
}

// asComplete makes a version complete to the times that the one which it has passed is complete to: projectors have
// not told it yet, and as_of must not go back.
func asComplete(ctx context.Context, tx projections.Tx, m projections.ReadModel, passed []projections.PositionRow) error {
	rows, err := projections.LockPositions(ctx, tx, m)
	if err != nil {
		return err
	}
	to := map[domain.Partition]time.Time{}
	for _, row := range passed {
		to[row.In()] = row.CompleteTo
	}
	for i := range rows {
		rows[i].CompleteTo = to[rows[i].In()]
	}
	return projections.CompleteTo(ctx, tx, m, rows)
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
