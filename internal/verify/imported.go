package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/posts"
)

// importedCounts folds the topic posts, up to the positions of its projection, into what posts counted elsewhere: of each
// post the event with the greatest as_of holds, of several with the same the last, and an event that comes again is none.
type importedCounts struct {
	*run
	leftOut map[Place]bool // parked or discarded
	// ids are of the events with the as_of that holds; a repeat of an older one changes nothing anyway.
	ids map[uint32][]domain.EventID
}

func (r *run) imported(ctx context.Context, in bound) error {
	c := importedCounts{run: r, leftOut: map[Place]bool{}, ids: map[uint32][]domain.EventID{}}
	for _, at := range slices.Concat(r.state.Parked[projectionPosts], r.decisions.Discarded[projectionPosts]) {
		c.leftOut[at] = true
	}
	for _, row := range r.state.Positions[projectionPosts] {
		if row.Topic != domain.TopicPosts {
			continue
		}
		if start := in.starts[row.Partition].NextOffset; start > 0 {
			return domain.Errorf(domain.CodeDataLoss, "%s/%d starts at %d: the events below it are lost, and the read model of posts can no longer be recomputed from the log", row.Topic, row.Partition, start)
		}
		s := open(ctx, r.deps.Log, in.starts[row.Partition], row.NextOffset)
		for {
			record, err := s.peek()
			if err != nil {
				return err
			}
			if record == nil {
				break
			}
			if err := c.record(record); err != nil {
				return err
			}
			s.skip()
		}
	}
	return nil
}

func (c *importedCounts) record(r *domain.Record) error {
	if errors.Is(r.Err, domain.ErrUnknownEvent) {
		return fmt.Errorf("%s: %w", projections.At(*r), r.Err)
	}
	if c.leftOut[Place{r.Partition, r.Offset}] {
		return nil
	}
	bad := r.Err
	if bad == nil {
		bad = posts.Projection{}.Check(*r)
	}
	if bad != nil {
		c.find(r.Partition.Topic, r.Partition.Partition, r.Offset, "", "", "%s cannot hold it (%v), and it is neither parked nor discarded", projectionPosts, bad)
		return nil
	}
	e, ok := r.Event.(domain.CountsImported)
	if !ok || !c.scope.covers(e.PostRef.Tenant, e.PostRef.Post) {
		return nil
	}
	i, p := c.posts.of(e.PostRef)
	asOf := e.AsOf.UnixMicro()
	switch {
	case asOf < p.importedAsOf.Log || slices.Contains(c.ids[i], e.EventID):
		return nil
	case asOf > p.importedAsOf.Log:
		c.ids[i] = nil
	}
	c.ids[i] = append(c.ids[i], e.EventID)
	p.importedImpressions.Log, p.importedViewers.Log, p.importedAsOf.Log = e.Impressions, e.UniqueViewers, asOf
	return nil
}
