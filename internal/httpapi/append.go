package httpapi

import (
	"context"
	"errors"

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
	positions, err := s.deps.Log.Append(ctx, events...)
	if errors.Is(err, context.DeadlineExceeded) && domain.CodeOf(err) == domain.CodeInternal {
		return nil, domain.Errorf(domain.CodeUnavailable, "Kafka did not acknowledge in time. A repeat with the same ids is safe.").Because(err)
	}
	return positions, err
}

// appending is the context of a request's appends.
func (s *server) appending(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), s.cfg.AppendTimeout)
}
