package throttle

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestThrottle(t *testing.T) {
	const lagMax = 2 * time.Second
	// catchesUp is ten seconds behind, and three times as fast as time.
	catchesUp := func(began time.Time) time.Time { return began.Add(-10 * time.Second).Add(3 * time.Since(began)) }
	stands := func(began time.Time) time.Time { return began.Add(-time.Hour) }
	for name, c := range map[string]struct {
		models []func(began time.Time) time.Time
		waits  time.Duration
	}{
		"there is none":      {nil, 0},
		"it is near":         {[]func(time.Time) time.Time{func(time.Time) time.Time { return time.Now().Add(-lagMax) }}, 0},
		"it catches up":      {[]func(time.Time) time.Time{catchesUp}, 4 * time.Second},
		"it stands still":    {[]func(time.Time) time.Time{stands}, stuckAfter},
		"it moves and stops": {[]func(time.Time) time.Time{func(began time.Time) time.Time { return stands(began).Add(min(time.Since(began), time.Second)) }}, time.Second + stuckAfter},
		"one stands still and another moves for longer": {[]func(time.Time) time.Time{stands, func(began time.Time) time.Time {
			return began.Add(-20 * time.Second).Add(3 * time.Since(began))
		}}, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				th := Throttle{Now: time.Now, LagMax: lagMax, times: func(context.Context) (map[string]time.Time, error) {
					times := map[string]time.Time{}
					for i, asOf := range c.models {
						times[string(rune('a'+i))] = asOf(began)
					}
					return times, nil
				}}
				var told []bool
				if err := th.Wait(t.Context(), func(waiting bool) { told = append(told, waiting) }); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took < c.waits || took > c.waits+2*every {
					t.Errorf("waited %v, want about %v", took, c.waits)
				}
				if waited := c.waits > 0; waited != (len(told) == 2 && told[0] && !told[1]) || !waited && len(told) > 0 {
					t.Errorf("told %v", told)
				}
			})
		})
	}
	t.Run("PostgreSQL is away", func(t *testing.T) {
		away := errors.New("away")
		th := Throttle{Now: time.Now, LagMax: lagMax, times: func(context.Context) (map[string]time.Time, error) { return nil, away }}
		if err := th.Wait(t.Context(), func(bool) {}); !errors.Is(err, away) {
			t.Error(err)
		}
		th.LagMax = 0
		if err := th.Wait(t.Context(), func(bool) {}); err != nil {
			t.Error(err)
		}
	})
	t.Run("it is told to end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			th := Throttle{Now: time.Now, LagMax: lagMax, times: func(context.Context) (map[string]time.Time, error) {
				return map[string]time.Time{"a": time.Now().Add(-time.Hour)}, nil
			}}
			if err := th.Wait(ctx, func(bool) {}); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	})
}
