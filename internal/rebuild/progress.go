package rebuild

import (
	"context"
	"fmt"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// Progress is how far a rebuild is.
type Progress struct {
	Projection  string
	Version     int
	Phase       Phase
	Detail      string // what it does just now; may be empty
	Paused      bool   // by an operator
	Waiting     bool   // for the live read models, which are behind
	Done, Total int64  // events folded into the new version, and events that there are
	PerSecond   float64
	Left        time.Duration // until the phase ends, at that rate; 0: not known
}

// Percent is how much is read, exact as far as offsets are: control records count too.
func (p Progress) Percent() float64 {
	if p.Total == 0 {
		return 0
	}
	return 100 * float64(p.Done) / float64(p.Total)
}

// tell changes the progress and hands it out.
func (r *run) tell(change func(*Progress)) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.mu.Lock()
	change(&r.progress)
	r.progress.Projection, r.progress.Version = r.model.Name(), r.model.Version
	now := r.deps.Now()
	if took := now.Sub(r.since).Seconds(); took > 1 && r.progress.Done > r.doneThen {
		r.progress.PerSecond = float64(r.progress.Done-r.doneThen) / took
		r.progress.Left = time.Duration(float64(r.progress.Total-r.progress.Done) / r.progress.PerSecond * float64(time.Second))
	}
	p := r.progress
	r.mu.Unlock()
	if r.deps.Progress != nil {
		r.deps.Progress(p)
	}
}

func (r *run) enter(phase Phase) {
	r.tell(func(p *Progress) {
		p.Phase, p.Detail, p.PerSecond, p.Left = phase, "", 0, 0
		r.since, r.doneThen = r.deps.Now(), p.Done
	})
}

// reading says how much there is to read, and how much of it is folded.
func (r *run) reading(starts, ends []domain.Position, rows map[domain.Partition]projections.PositionRow) {
	total, skipped := int64(0), int64(0)
	for _, end := range ends {
		total += end.NextOffset - startOf(starts, end).NextOffset
		skipped += startOf(starts, end).NextOffset
	}
	done := int64(0)
	for _, end := range ends {
		done += max(0, rows[end.In()].NextOffset-startOf(starts, end).NextOffset)
	}
	r.tell(func(p *Progress) {
		if p.Done == 0 {
			r.doneThen = done // folded by an earlier process
		}
		p.Done, p.Total, r.skipped = done, total, skipped
	})
}

// moved says how much is folded after a transaction.
func (r *run) moved(rows map[domain.Partition]projections.PositionRow) {
	done := int64(0)
	for _, row := range rows {
		done += row.NextOffset
	}
	r.tell(func(p *Progress) {
		p.Done = done - r.skipped
		p.Total = max(p.Total, p.Done)
	})
}

func (r *run) eventsDone() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.progress.Done
}

// watchEvery is how soon a process obeys, and how fresh the list is.
const watchEvery = time.Second

// watch writes the progress down, each second, and obeys what operators want.
func (r *run) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		wanted, err := r.writeProgress(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case domain.CodeOf(err) == domain.CodeConflict:
			if r.ended() {
				continue
			}
			cancel(err)
			return
		case err != nil:
			r.deps.Logger.DebugContext(ctx, "the progress was not written down", "err", err)
		case wanted == WantedCancel:
			cancel(errCancelled)
			return
		default:
			r.pause(wanted == WantedPause)
		}
	}
}

// ended: its row is closed by this process itself.
func (r *run) ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.progress.Phase == PhaseDone || r.progress.Phase == PhaseSwap
}

func (r *run) writeProgress(ctx context.Context) (wanted Wanted, err error) {
	args := r.args()
	r.mu.Lock()
	args["events_done"], args["events_total"] = r.progress.Done, r.progress.Total
	r.mu.Unlock()
	err = r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		rows, err := tx.Query(ctx, progressSQL, args)
		if err != nil {
			return fmt.Errorf("write the progress: %w", err)
		}
		defer rows.Close()
		if !rows.Next() {
			if rows.Err() != nil {
				return fmt.Errorf("write the progress: %w", rows.Err())
			}
			return errTakenOver
		}
		return rows.Scan((*string)(&wanted))
	})
	return wanted, err
}

func (r *run) pause(pause bool) {
	r.mu.Lock()
	changed := pause != (r.paused != nil)
	switch {
	case !changed:
	case pause:
		r.paused = make(chan struct{})
	default:
		close(r.paused)
		r.paused = nil
	}
	r.mu.Unlock()
	if changed {
		r.tell(func(p *Progress) { p.Paused = pause })
	}
}

// mayGoOn waits while an operator wants a pause, and while the live read models are too far behind, but not where they, or
// readers, may wait for this process.
func (r *run) mayGoOn(ctx context.Context) error {
	if r.holding.Load() || r.handsOver.Load() {
		return nil
	}
	if err := r.unpaused(ctx); err != nil {
		return err
	}
	return r.throttle.Wait(ctx, func(waiting bool) {
		r.tell(func(p *Progress) { p.Waiting = waiting })
	})
}

// unpaused waits while an operator wants a pause.
func (r *run) unpaused(ctx context.Context) error {
	for {
		r.mu.Lock()
		paused := r.paused
		r.mu.Unlock()
		if paused == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-paused:
		}
	}
}
