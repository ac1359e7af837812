package httpapi

import (
	"context"
	"errors"
	"slices"

	"seenby/domain"
)

// append appends events and waits for their acknowledgement, within the append timeout from now. A client that
// hangs up does not break it off: what it sent is either all appended or answered with 503 to nobody.
func (s *server) append(ctx context.Context, events []domain.Event) ([]domain.Position, error) {
	if len(events) == 0 {
		return nil, nil
	}
	select {
	case s.appends <- struct{}{}:
		defer func() { <-s.appends }()
	default:
		select {
		case s.appends <- struct{}{}:
			defer func() { <-s.appends }()
		case <-ctx.Done():
			return nil, domain.Errorf(domain.CodeUnavailable, "The api is busy. Try again.").Because(ctx.Err())
		}
	}
	events, err := s.withoutErased(ctx, events)
	if err != nil || len(events) == 0 {
		return nil, err
	}
	positions, err := s.deps.Log.Append(ctx, events...)
	if errors.Is(err, context.DeadlineExceeded) && domain.CodeOf(err) == domain.CodeInternal {
		return nil, domain.Errorf(domain.CodeUnavailable, "Kafka did not acknowledge in time. A repeat with the same ids is safe.").Because(err)
	}
	return positions, err
}

// withoutErased leaves out the names of erased people. It stands before every append, and as late as can be; a name
// that slips through between an erasure by another api and our reading of it is taken back (see package erasure).
func (s *server) withoutErased(ctx context.Context, events []domain.Event) ([]domain.Event, error) {
	var err error
	events = slices.DeleteFunc(events, func(e domain.Event) bool {
		named, ok := e.(domain.PersonNamed)
		if !ok {
			return false
		}
		if err == nil {
			err = s.deps.Erasures.Check(ctx)
		}
		_, erased := s.deps.Erasures.ErasedAt(named.Ref)
		return erased
	})
	return events, err
}

// appending is the context of a request's appends.
func (s *server) appending(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), s.cfg.AppendTimeout)
}
