package main

import (
	"context"
	"time"

	"seenby/domain"
	"seenby/internal/gate"
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
// do. Where another program keeps what readers see, it shows how old that is: there may be no such program left to say so.
func (ps *projectors) watchLag(ctx context.Context) {
	name := ps.projection.Name()
	shown := map[domain.Partition]bool{}
	every(ctx, func() {
		var lag time.Duration
		owned := map[domain.Partition]bool{}
		ofLive, all, foreign := ps.workers()
		for _, w := range ofLive {
			status := w.Status()
			for _, part := range status.Partitions {
				owned[part.In()] = true
				ps.metrics.ProjectionLagEvents(name, part.Topic, part.Partition, part.LagEvents)
				lag = max(lag, part.Lag)
			}
		}
		stopped := 0
		for _, w := range all {
			if w.Status().Stopped {
				stopped++
			}
		}
		if !foreign && len(ofLive) > 0 {
			ps.metrics.ProjectionLag(name, lag)
		} else if age, known := ps.age(ctx); known {
			ps.metrics.ProjectionLag(name, age)
		}
		ps.metrics.ProjectionStopped(name, stopped)
		for part := range shown {
			if !owned[part] {
				ps.metrics.ForgetProjectionLag(name, part.Topic, part.Partition)
			}
		}
		shown = owned
	})
}

// age is how long ago the live version was complete, as PostgreSQL has it.
func (ps *projectors) age(ctx context.Context) (age time.Duration, known bool) {
	ctx, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	asOf, err := ps.store.AsOf(ctx, ps.projection.Name())
	if err != nil || asOf.IsZero() {
		return 0, false // PostgreSQL is away, and others say so, or it was never complete
	}
	return ps.now().Sub(asOf), true
}
