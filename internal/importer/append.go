package importer

import (
	"context"
	"fmt"
	"time"

	"seenby/domain"
)

const (
	// appendTimeout is longer than Kafka's client tries to deliver: when it is over, the records are acknowledged or given up.
	appendTimeout = 15 * time.Second
	// An append that is not acknowledged is tried again: its events have ids, so a second one of them counts as none.
	retryFirst    = 200 * time.Millisecond
	retryLast     = 5 * time.Second
	retryPatience = 2 * time.Minute
)

// append appends what the items need first, and then their events.
func (r *run) append(ctx context.Context, items []item) error {
	var before, events []domain.Event
	for _, it := range items {
		before, events = append(before, it.before...), append(events, it.event)
	}
	if err := r.insist(ctx, "append names and texts", func(ctx context.Context) error {
		before, err := r.withoutErased(ctx, before)
		if err == nil && len(before) > 0 {
			_, err = r.deps.Log.Append(ctx, before...)
		}
		return err
	}); err != nil {
		return err
	}
	return r.insist(ctx, "append "+r.opts.What, func(ctx context.Context) (err error) {
		if len(events) > 0 {
			r.passing, err = r.deps.Log.Append(ctx, events...)
		}
		return err
	})
}

// withoutErased leaves out the names of erased people, as late as can be. A name that slips through is taken back by
// whoever reads it behind the person's mark (see package erasure).
func (r *run) withoutErased(ctx context.Context, events []domain.Event) ([]domain.Event, error) {
	if err := r.deps.Erasures.Check(ctx); err != nil {
		return nil, err
	}
	kept := make([]domain.Event, 0, len(events))
	for _, e := range events {
		if named, ok := e.(domain.PersonNamed); ok {
			if _, erased := r.deps.Erasures.ErasedAt(named.Ref); erased {
				continue
			}
		}
		kept = append(kept, e)
	}
	return kept, nil
}

// insist tries again while f's error is one that may pass. An attempt is not cut short by the end of ctx: what it had
// appended would be unknown.
func (r *run) insist(ctx context.Context, what string, f func(context.Context) error) error {
	began, pause := r.deps.Now(), retryFirst
	for {
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendTimeout)
		err := f(attempt)
		cancel()
		if err == nil {
			return nil
		}
		if code := domain.CodeOf(err); code != domain.CodeUnavailable || ctx.Err() != nil || r.deps.Now().Sub(began) > retryPatience {
			return fmt.Errorf("%s: %w", what, err)
		}
		r.tell(func(p *Progress) { p.Detail = "trying again: " + err.Error() })
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%s: %w", what, err)
		case <-timer.C:
		}
		pause = min(2*pause, retryLast)
		r.progress.Detail = ""
	}
}
