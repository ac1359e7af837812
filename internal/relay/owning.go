package relay

import (
	"context"
	"maps"
	"slices"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// owned is a partition of impressions that this relay alone writes to.
type owned struct {
	part   domain.Partition
	writer Writer
	progress
	sweeping  bool              // every post is to be looked at before anything can be written down
	markless  bool              // sweeping, since it is not known where its marks begin
	after     []domain.Position // which the read models must have passed before that
	unwritten bool              // live is not in the table yet
}

// opened is what came of opening a partition.
type opened struct {
	part  domain.Partition
	owned *owned
	from  []domain.Position // where its marks begin
	err   error
}

const (
	// restFor is how long a partition is left alone that could not be opened or written.
	restFor = time.Second
	// stoppedFor is as good as for ever: nothing but a person and a restart helps.
	stoppedFor = 24 * time.Hour
)

// openedMax is at least as many partitions as a topic can have.
const openedMax = 1024

// follow takes up and gives up partitions as the group says.
func (t *teller) follow(ctx context.Context) {
	select {
	case <-t.changed:
		t.changed = nil
	default:
	}
	now := t.r.deps.Now()
	for part, until := range t.resting {
		if now.After(until) {
			delete(t.resting, part)
			t.changed = nil
		}
	}
	if t.changed != nil {
		return
	}
	parts, next := t.r.deps.Assigner.Assignment()
	for part := range t.owned {
		if !slices.Contains(parts, part) {
			t.give(part)
		}
	}
	maps.DeleteFunc(t.failed, func(part domain.Partition, _ error) bool { return !slices.Contains(parts, part) })
	for _, part := range parts {
		if t.owned[part] == nil && !t.opening[part] && t.resting[part].IsZero() {
			t.opening[part] = true
			go func() {
				o, from, err := t.open(ctx, part)
				t.opened <- opened{part, o, from, err}
			}()
		}
	}
	t.changed = next
}

// takeOpened takes up what was opened meanwhile.
func (t *teller) takeOpened() (failed error) {
	parts, _ := t.r.deps.Assigner.Assignment()
	for {
		var o opened
		select {
		case o = <-t.opened:
		default:
			return failed
		}
		delete(t.opening, o.part)
		switch {
		case o.err != nil:
			failed = o.err
			t.rest(o.part, o.err)
		case !slices.Contains(parts, o.part):
			o.owned.writer.Close()
		default:
			t.owned[o.part] = o.owned
			delete(t.failed, o.part)
			t.publish()
			t.rewind(o.from)
			t.safe = nil
			t.r.log.Info("relay: partition opened", "partition", o.part.Partition, "next_offset", o.owned.told.NextOffset, "every_post", o.owned.sweeping)
		}
	}
}

// rest leaves a partition alone for a while, or for good.
func (t *teller) rest(part domain.Partition, err error) {
	t.give(part)
	t.failed[part] = err
	wait := restFor
	switch domain.CodeOf(err) {
	case domain.CodeDataLoss, domain.CodeMisconfigured:
		wait = stoppedFor
		t.r.log.Error("relay: partition stopped; its posts are not told until the cause is removed and the relay restarted", "partition", part.Partition, "err", err)
	case domain.CodeConflict:
		wait = retryFenced
		delete(t.failed, part)
		t.r.log.Info("relay: fenced: another relay has taken the partition over", "partition", part.Partition, "err", err)
	default:
		t.r.log.Warn("relay: partition is opened anew", "partition", part.Partition, "err", err, "wait", wait)
	}
	t.resting[part] = t.r.deps.Now().Add(wait)
}

// give up a partition: what is marked of it is told by whoever has it next.
func (t *teller) give(part domain.Partition) {
	o := t.owned[part]
	if o == nil {
		return
	}
	o.writer.Close()
	delete(t.owned, part)
	if t.sweep != nil { // should it come back, it begins anew
		delete(t.sweep.of, part.Partition)
	}
	t.publish()
	t.reading.drop(func(p domain.Partition) bool {
		return len(t.owned) == 0 || p.Topic == domain.TopicPosts && p.Partition == part.Partition
	})
	for post := range t.due {
		if t.r.deps.PartitionOf(post) == part.Partition {
			t.done(post)
		}
	}
}

// publish tells the reader, and the senders, what is owned.
func (t *teller) publish() {
	mine := map[int32]bool{}
	parts := make([]int32, 0, len(t.owned))
	for part := range t.owned {
		mine[part.Partition] = true
		parts = append(parts, part.Partition)
	}
	slices.Sort(parts)
	t.mine.Store(&mine)
	t.r.delivery.own(parts)
}

// open takes a partition over. First it is fenced; then nobody can add to it behind our back, and what stands in it comes into
// the tables. It touches nothing of the teller's.
func (t *teller) open(ctx context.Context, part domain.Partition) (o *owned, from []domain.Position, err error) {
	writer, err := t.r.deps.OpenWriter(ctx, part)
	if err != nil {
		return nil, nil, err
	}
	o = &owned{part: part, writer: writer}
	if err = t.catchUp(ctx, o); err == nil {
		from = o.marked
		if len(from) == 0 || t.lookAtAll {
			from, err = t.ends(ctx, part)
			o.sweeping, o.markless, o.after, o.marked = true, true, from, nil
		}
	}
	if err != nil {
		writer.Close()
		return nil, nil, err
	}
	return o, from, nil
}

// ends are where marks are looked for when every post is looked at anyway.
func (t *teller) ends(ctx context.Context, part domain.Partition) ([]domain.Position, error) {
	verdicts, err := t.r.deps.Log.Ends(ctx, domain.TopicVerdicts)
	if err != nil {
		return nil, err
	}
	all, err := t.r.deps.Log.Ends(ctx, domain.TopicPosts)
	if err != nil {
		return nil, err
	}
	return append(verdicts, all[part.Partition]), nil
}

// rewind has everything from these positions on looked at, also where reading is further already. Even where it is not, a
// batch may be on its way that was looked through without the new partition: it is read again.
func (t *teller) rewind(from []domain.Position) {
	read := t.marks.reached()
	from = slices.Clone(from)
	for i, f := range from {
		if at, reading := read[f.In()]; reading && at < f.NextOffset {
			from[i] = f.In().At(at)
		}
	}
	t.reading.want(from)
}

// catchUp folds what stands on the topic and not in the tables yet. Where this database knows nothing of the partition, the
// milestones on the topic are those of another one, and were called.
func (t *teller) catchUp(ctx context.Context, o *owned) error {
	ends, err := t.r.deps.Log.Ends(ctx, domain.TopicImpressions)
	if err != nil {
		return err
	}
	end := ends[o.part.Partition].NextOffset
	if err := t.r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) (err error) {
		var found bool
		if o.progress, found, err = readProgress(ctx, tx, o.part); err != nil || found {
			return err
		}
		o.callsFrom = end
		return insertProgress(ctx, tx, o.part, end)
	}); err != nil {
		return err
	}
	if o.told.TopicID != o.part.TopicID {
		return domain.Errorf(domain.CodeDataLoss, "the topic impressions was deleted and made anew: restore it, or delete the rows of the tables relay_partitions, relay_counts and relay_cursors, and every post is told anew")
	}
	if o.told.NextOffset > end {
		return domain.Errorf(domain.CodeDataLoss, "impressions/%d ends at %d, and what stood up to %d was told: it was truncated", o.part.Partition, end, o.told.NextOffset)
	}
	return t.r.deps.Log.ReadRange(ctx, o.told, end, func(batch []domain.Record) error {
		var records, ours []record
		for _, rec := range batch {
			if e, ok := rec.Event.(domain.ImpressionsChanged); ok {
				records = append(records, record{e, rec.Partition.Partition, rec.Offset})
				if rec.Offset >= o.callsFrom {
					ours = append(ours, records[len(records)-1])
				}
			} else if rec.Err != nil {
				return domain.Errorf(domain.CodeMisconfigured, "impressions/%d, offset %d cannot be read", rec.Partition.Partition, rec.Offset).Because(rec.Err)
			}
		}
		m := move{o.told, batch[len(batch)-1].Offset + 1}
		calls := t.calls(ours)
		if err := t.r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error { return fold(ctx, tx, []move{m}, records, calls) }); err != nil {
			return err
		}
		o.told.NextOffset = m.to
		return nil
	})
}

// calls are the milestones that records set off, for each endpoint of their tenants.
func (t *teller) calls(records []record) []milestone {
	var calls []milestone
	for i := range records {
		rec := &records[i]
		if len(rec.Milestones) == 0 {
			continue
		}
		for _, e := range t.r.deps.Tenants.Endpoints(rec.PostRef.Tenant) {
			if !e.Enabled() {
				continue
			}
			for _, threshold := range rec.Milestones {
				calls = append(calls, milestone{
					item:     item{post: rec.PostRef.Post, impressions: rec.Impressions, revision: rec.Revision, partition: rec.partition, milestone: threshold},
					tenant:   rec.PostRef.Tenant,
					endpoint: e.EndpointID,
				})
			}
		}
	}
	return calls
}

func (t *teller) ownedNumbers() []int32 {
	return slices.Sorted(maps.Keys(*t.mine.Load()))
}

func (t *teller) ownedInOrder() []*owned {
	return slices.SortedFunc(maps.Values(t.owned), func(a, b *owned) int { return domain.ComparePartitions(a.part, b.part) })
}
