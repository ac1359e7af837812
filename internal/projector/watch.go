package projector

import (
	"context"
	"slices"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// Status is what a projector knows of itself.
type Status struct {
	Projection string
	Version    int
	Partitions []PartitionStatus // owned now, in order
	Err        error             // why it retries, or has stopped; nil while all is well
	Stopped    bool              // because of Err, until somebody acts: for good, or standing still for want of room for dead letters
}

// PartitionStatus is how far one partition is folded.
type PartitionStatus struct {
	projections.PositionRow
	End       int64         // of the log, when it was last asked; -1: not yet
	LagEvents int64         // end less position, never negative; control records count too
	Lag       time.Duration // 0 where everything is folded, views without a verdict included; else how long ago it was
}

// board is what the goroutines of a projector tell each other.
type board struct {
	started time.Time
	stopped bool
	rows    []projections.PositionRow
	err     error
	sampled []sampled
	ends    map[domain.Partition]int64
	views   map[int32]int64 // ends of the topic views, where verdicts are followed
	asked   time.Time
}

// sampled is a round of samples that the loop has not taken yet.
type sampled struct {
	at   time.Time
	ends map[int32]int64 // of the topic that complete_to goes by; by partition number, since a view's is its verdict's
	of   domain.Topic
}

func newBoard(at time.Time) board { return board{started: at, ends: map[domain.Partition]int64{}} }

// Status tells how far the projector is. Safe for concurrent use.
func (p *Projector) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Projection: p.model.Name(), Version: p.model.Version, Err: p.board.err, Stopped: p.board.stopped}
	for _, row := range p.board.rows {
		ps := PartitionStatus{PositionRow: row, End: -1}
		if end, ok := p.board.ends[row.In()]; ok {
			ps.End, ps.LagEvents = end, max(0, end-row.NextOffset)
		}
		if ps.LagEvents > 0 || p.board.views[row.Partition] > row.ViewNextOffset {
			since := row.CompleteTo
			if since.IsZero() {
				since = p.board.started
			}
			ps.Lag = max(0, p.board.asked.Sub(since))
		}
		s.Partitions = append(s.Partitions, ps)
	}
	return s
}

// publish shows the loop's state to Status and to the watch.
func (p *Projector) publish(err error) {
	rows := make([]projections.PositionRow, 0, len(p.owned))
	for _, o := range p.owned {
		rows = append(rows, o.row)
	}
	slices.SortFunc(rows, func(a, b projections.PositionRow) int { return domain.ComparePartitions(a.In(), b.In()) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.board.rows, p.board.err = rows, err
}

func (p *Projector) stopped(stopped bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.board.stopped = stopped
}

const (
	watchEvery = time.Second // how fresh complete_to and the lag are
	// watchTimeout bounds what one round asks of a broker that does not answer.
	watchTimeout = 10 * time.Second
	// sampledMax bounds the rounds that a loop in a long pause has not taken; it is in samplesMax's hands after.
	sampledMax = samplesMax
)

// watch asks the log's ends and writes the group's offsets, each second, beside the loop.
func (p *Projector) watch(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		p.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (p *Projector) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	if p.followsVerdicts() {
		p.sample(ctx, domain.TopicViews)
	}
	for _, topic := range p.model.Topics() {
		p.sample(ctx, topic)
	}
	p.mu.Lock()
	at := make([]domain.Position, 0, len(p.board.rows))
	for _, row := range p.board.rows {
		at = append(at, row.Position)
	}
	p.mu.Unlock()
	if len(at) == 0 {
		return
	}
	if err := p.source.Commit(ctx, at); err != nil && ctx.Err() == nil {
		p.log.DebugContext(ctx, "offsets for lag tools were not written", "error", err)
	}
}

// sample asks a topic's ends. The time is taken before: what was accepted by then lies below them.
func (p *Projector) sample(ctx context.Context, topic domain.Topic) {
	at := p.now()
	ends, err := p.source.Ends(ctx, topic)
	if err != nil {
		if ctx.Err() == nil {
			p.log.WarnContext(ctx, "the log's ends are not known: as_of stands still", "topic", topic, "error", err)
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	round := sampled{at: at, ends: make(map[int32]int64, len(ends)), of: topic}
	for _, end := range ends {
		round.ends[end.Partition] = end.NextOffset
		p.board.ends[end.In()] = end.NextOffset
	}
	if topic == domain.TopicViews {
		p.board.views = round.ends
	}
	p.board.asked = at
	if p.followsVerdicts() != (topic == domain.TopicViews) {
		return // asked for the lag only
	}
	if len(p.board.sampled) == sampledMax {
		p.board.sampled = slices.Delete(p.board.sampled, 0, 1)
	}
	p.board.sampled = append(p.board.sampled, round)
}

// takeSamples gives the loop's partitions the ends that were asked since.
func (p *Projector) takeSamples() {
	p.mu.Lock()
	rounds := p.board.sampled
	p.board.sampled = nil
	p.mu.Unlock()
	for _, round := range rounds {
		for part, o := range p.owned {
			end, ok := round.ends[part.Partition]
			if ok && (round.of == part.Topic || round.of == domain.TopicViews) {
				o.samples.add(sample{round.at, end})
			}
		}
	}
}
