package main

import (
	"context"
	"time"

	"seenby/domain"
	"seenby/internal/projector"
)

// watchEvery is how old a metric of lag may be.
const watchEvery = 5 * time.Second

// every calls f until ctx ends.
func every(ctx context.Context, f func()) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// watchStableOffsets shows transactions that stay open: every reader of their partition stands still.
func (s *service) watchStableOffsets(ctx context.Context) {
	every(ctx, func() {
		stable, err := s.events.StableEnds(ctx, domain.TopicVerdicts)
		if err != nil {
			return // Kafka is away, and others say so
		}
		ends, err := s.events.Ends(ctx, domain.TopicVerdicts)
		if err != nil {
			return
		}
		for i, end := range ends {
			s.metrics.StableOffsetDistance(end.Topic, end.Partition, max(0, end.NextOffset-stable[i].NextOffset))
		}
	})
}

// watchLag shows how far a projection is behind in what its workers here own, and nothing of what they no longer
// do.
func (s *service) watchLag(ctx context.Context, name string, workers []*projector.Projector) {
	shown := map[domain.Partition]bool{}
	every(ctx, func() {
		var lag time.Duration
		owned := map[domain.Partition]bool{}
		for _, w := range workers {
			for _, part := range w.Status().Partitions {
				owned[part.In()] = true
				s.metrics.ProjectionLagEvents(name, part.Topic, part.Partition, part.LagEvents)
				lag = max(lag, part.Lag)
			}
		}
		s.metrics.ProjectionLag(name, lag)
		for part := range shown {
			if !owned[part] {
				s.metrics.ForgetProjectionLag(name, part.Topic, part.Partition)
			}
		}
		shown = owned
	})
}
