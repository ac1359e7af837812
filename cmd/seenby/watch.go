package main

import (
	"context"
	"time"

	"seenby/domain"
	"seenby/internal/gate"
	"seenby/internal/projector"
	"seenby/projections"
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

// watchGate shows what the gate does with the partitions that it holds, and what waits for it there.
func (s *service) watchGate(ctx context.Context, g *gate.Gate) {
	shown := map[int32]bool{}
	every(ctx, func() {
		// Asked first: what a partition has judged by then is at most this.
		ends, err := s.events.Ends(ctx, domain.TopicViews)
		in := map[gate.State]int{}
		held := map[int32]bool{}
		for _, p := range g.Status() {
			in[p.State]++
			n := p.Partition.Partition
			held[n] = true
			if err == nil && int(n) < len(ends) && p.NextOffset >= 0 {
				s.metrics.GateLagEvents(n, max(0, ends[n].NextOffset-p.NextOffset))
			}
		}
		for _, state := range gate.States {
			s.metrics.GatePartitions(string(state), in[state])
		}
		for n := range shown {
			if !held[n] {
				s.metrics.ForgetGateLag(n)
			}
		}
		shown = held
	})
}

// watchDeadLetters shows how many events are parked, by asking PostgreSQL now and then and not at every scrape.
func (s *service) watchDeadLetters(ctx context.Context) {
	every(ctx, func() {
		ctx, cancel := context.WithTimeout(ctx, watchEvery)
		defer cancel()
		var counts map[string]projections.LetterCount
		err := s.store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
			counts, err = projections.CountAllLetters(ctx, q, s.projections)
			return err
		})
		if err != nil {
			return // PostgreSQL is away, and others say so
		}
		for name, n := range counts {
			s.metrics.DeadLetters(name, n.Letters, n.Follow)
		}
	})
}

// watchLag shows how far a projection is behind in what its workers here own, and nothing of what they no longer
// do.
func (s *service) watchLag(ctx context.Context, name string, of func() []*projector.Projector) {
	shown := map[domain.Partition]bool{}
	every(ctx, func() {
		var lag time.Duration
		owned := map[domain.Partition]bool{}
		stopped := 0
		for _, w := range of() {
			status := w.Status()
			if status.Stopped {
				stopped++
			}
			for _, part := range status.Partitions {
				owned[part.In()] = true
				s.metrics.ProjectionLagEvents(name, part.Topic, part.Partition, part.LagEvents)
				lag = max(lag, part.Lag)
			}
		}
		s.metrics.ProjectionLag(name, lag)
		s.metrics.ProjectionStopped(name, stopped)
		for part := range shown {
			if !owned[part] {
				s.metrics.ForgetProjectionLag(name, part.Topic, part.Partition)
			}
		}
		shown = owned
	})
}
