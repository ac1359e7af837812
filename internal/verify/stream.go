package verify

import (
	"context"

	"seenby/domain"
)

// stream is a run of a partition's records, read and decoded beside who folds them.
type stream struct {
	batches chan []domain.Record
	err     error // set before batches is closed
	rest    []domain.Record
}

// open reads from a position to the offset until. The reading ends with ctx.
func open(ctx context.Context, log Log, from domain.Position, until int64) *stream {
	s := &stream{batches: make(chan []domain.Record, 1)}
	go func() {
		defer close(s.batches)
		if from.NextOffset >= until {
			return
		}
		s.err = log.ReadRange(ctx, from, until, func(records []domain.Record) error {
			select {
			case s.batches <- records:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	return s
}

// peek is the next record, nil at the end.
func (s *stream) peek() (*domain.Record, error) {
	for len(s.rest) == 0 {
		batch, more := <-s.batches
		if !more {
			return nil, s.err
		}
		s.rest = batch
	}
	return &s.rest[0], nil
}

func (s *stream) skip() { s.rest = s.rest[1:] }

// drain waits until nobody reads any more; the reading's context has ended.
func (s *stream) drain() {
	for range s.batches {
		continue // what was under way
	}
}
