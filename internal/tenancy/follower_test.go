package tenancy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing/synctest"

	"seenby/domain"
)

// topic is the topic tenants in memory, with one partition; every follower reads it from the start.
type topic struct {
	appended chan struct{}
	mu       sync.Mutex
	events   []domain.Event
	attempts atomic.Int64
	away     atomic.Bool // Follow fails when it looks
}

func (l *topic) at(i int) (domain.Event, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i >= len(l.events) {
		return nil, false
	}
	return l.events[i], true
}

func (l *topic) Follow(ctx context.Context, name domain.Topic, apply func(domain.Batch) error, caughtUp func()) error {
	if name != domain.TopicTenants {
		return errors.New("another topic")
	}
	l.attempts.Add(1)
	at, part := 0, domain.Partition{Topic: name}
	for caught := false; ; {
		if l.away.Load() {
			return domain.Errorf(domain.CodeUnavailable, "Kafka is away")
		}
		for e, ok := l.at(at); ok; e, ok = l.at(at) {
			rec := domain.Record{Partition: part, Offset: int64(at), Event: e}
			if e == nil {
				rec.Err = errors.New("bytes")
			}
			at++
			if err := apply(domain.Batch{Records: []domain.Record{rec}, Next: []domain.Position{part.At(int64(at))}}); err != nil {
				return err
			}
		}
		if !caught {
			caught = true
			caughtUp()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.appended:
		}
	}
}

// add appends events; call it when the follower waits.
func (l *topic) add(events ...domain.Event) {
	l.mu.Lock()
	l.events = append(l.events, events...)
	l.mu.Unlock()
	l.appended <- struct{}{}
	synctest.Wait()
}
