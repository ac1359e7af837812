package rebuild

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/projections"
)

// throttle makes a rebuild wait while the live read models are behind, for as long as that helps them: where they do not
// move either, they are not behind because of us.
type throttle struct {
	mu    sync.Mutex
	asked time.Time
	asOf  time.Time // of the live read model that is furthest behind
	moved time.Time // when that was last seen to move
}

const (
	throttleEvery = 200 * time.Millisecond
	// stuckAfter is how long live read models may stand still before the rebuild goes on without regard to them.
	stuckAfter = 5 * time.Second
)

// A read model that never knew how complete it is has no projectors that keep it so.
var furthestBehindSQL = projections.SQL("rebuild.furthest_behind", `
SELECT COALESCE(min(m.complete_to), 'epoch')
FROM (
    SELECT min(p.complete_to) AS complete_to
    FROM read_models r
    JOIN positions p ON p.projection = r.projection AND p.version = r.live_version
    GROUP BY r.projection
    HAVING min(p.complete_to) > 'epoch'
) m`)

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
		var asOf time.Time
		if err := r.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
			return q.QueryRow(ctx, furthestBehindSQL, pgx.NamedArgs{}).Scan(&asOf)
		}); err != nil {
			return false, fmt.Errorf("ask how far the live read models are: %w", err)
		}
		if !asOf.Equal(t.asOf) {
			t.moved = now
		}
		t.asked, t.asOf = now, asOf
	}
	return now.Sub(t.asOf) > r.opts.LagMax && now.Sub(t.moved) < stuckAfter, nil
}
