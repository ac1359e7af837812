// Package throttle makes work that can wait give way to the read models that readers see.
//
// Throttle is its main type: rebuilds and imports ask it before each step. It fails only as PostgreSQL does.
package throttle

import (
	"context"
	"sync"
	"time"

	"seenby/projections"
)

// Store is PostgreSQL; its errors are classified.
type Store interface {
	Snapshot(ctx context.Context, f func(ctx context.Context, q projections.Querier) error) error
}

// Throttle makes work wait while live read models are behind, for as long as that helps them: one that does not move is not
// behind because of it. It is safe for concurrent use, and not to be copied once used.
type Throttle struct {
	Store Store
	Now   func() time.Time
	// LagMax is how far behind the live read models may be. 0: the work never waits.
	LagMax time.Duration

	times func(ctx context.Context) (map[string]time.Time, error) // nil: Store has them

	mu    sync.Mutex
	asked time.Time
	live  map[string]liveTime
}

// liveTime is how complete a live read model is.
type liveTime struct {
	asOf  time.Time
	moved time.Time // when that was last seen to change
}

const (
	every = 200 * time.Millisecond
	// stuckAfter is how long a live read model may stand still before the work goes on without regard to it.
	stuckAfter = 5 * time.Second
)

// Wait returns at once unless the live read models are behind and moving; waiting is told of the begin and the end of a
// wait.
func (t *Throttle) Wait(ctx context.Context, waiting func(bool)) error {
	if t.LagMax == 0 {
		return nil
	}
	told := false
	defer func() {
		if told {
			waiting(false)
		}
	}()
	for {
		behind, err := t.behind(ctx)
		if err != nil || !behind {
			return err
		}
		if !told {
			told = true
			waiting(true)
		}
		timer := time.NewTimer(every)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

func (t *Throttle) behind(ctx context.Context) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.Now()
	if now.Sub(t.asked) >= every {
		if err := t.ask(ctx, now); err != nil {
			return false, err
		}
	}
	for _, l := range t.live {
		if now.Sub(l.asOf) > t.LagMax && now.Sub(l.moved) < stuckAfter {
			return true, nil
		}
	}
	return false, nil
}

func (t *Throttle) ask(ctx context.Context, now time.Time) error {
	times := t.times
	if times == nil {
		times = t.stored
	}
	found, err := times(ctx)
	if err != nil {
		return err
	}
	before := t.live
	t.asked, t.live = now, make(map[string]liveTime, len(found))
	for name, asOf := range found {
		l, known := before[name]
		if !known || !l.asOf.Equal(asOf) {
			l = liveTime{asOf, now}
		}
		t.live[name] = l
	}
	return nil
}

func (t *Throttle) stored(ctx context.Context) (times map[string]time.Time, err error) {
	err = t.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
		times, err = projections.LiveTimes(ctx, q)
		return err
	})
	return times, err
}
