package rebuild

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/projections"
)

// throttle makes a rebuild wait while live read models are behind, for as long as that helps them: one that does not move
// is not behind because of us.
type throttle struct {
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
	throttleEvery = 200 * time.Millisecond
	// stuckAfter is how long live read models may stand still before the rebuild goes on without regard to them.
	stuckAfter = 5 * time.Second
)

// A read model that never knew how complete it is has no projectors that keep it so.
var liveTimesSQL = projections.SQL("rebuild.live_times", `
SELECT r.projection, min(p.complete_to)
FROM read_models r
JOIN positions p ON p.projection = r.projection AND p.version = r.live_version
GROUP BY r.projection
HAVING min(p.complete_to) > 'epoch'`)

// wait returns at once unless the live read models are behind and moving.
func (t *throttle) wait(ctx context.Context, r *run) error {
	if r.opts.LagMax == 0 {
		return nil
	}
	waiting := false
	defer func() {
		if waiting {
			r.tell(func(p *Progress) { p.Waiting = false })
		}
	}()
	for {
		behind, err := t.behind(ctx, r)
		if err != nil || !behind {
			return err
		}
		if !waiting {
			waiting = true
			r.tell(func(p *Progress) { p.Waiting = true })
		}
		if err := waitOrEnd(ctx, throttleEvery); err != nil {
			return err
		}
	}
}

func (t *throttle) behind(ctx context.Context, r *run) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := r.deps.Now()
	if now.Sub(t.asked) >= throttleEvery {
		if err := t.ask(ctx, r, now); err != nil {
			return false, fmt.Errorf("ask how far the live read models are: %w", err)
		}
	}
	for _, l := range t.live {
		if now.Sub(l.asOf) > r.opts.LagMax && now.Sub(l.moved) < stuckAfter {
			return true, nil
		}
	}
	return false, nil
}

func (t *throttle) ask(ctx context.Context, r *run, now time.Time) error {
	before := t.live
	t.asked, t.live = now, map[string]liveTime{}
	return r.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		rows, err := q.Query(ctx, liveTimesSQL)
		if err != nil {
			return err
		}
		var name string
		var asOf time.Time
		_, err = pgx.ForEachRow(rows, []any{&name, &asOf}, func() error {
			l, known := before[name]
			if !known || !l.asOf.Equal(asOf) {
				l = liveTime{asOf, now}
			}
			t.live[name] = l
			return nil
		})
		return err
	})
}
