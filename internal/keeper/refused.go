package keeper

import (
	"context"
	"time"

	"seenby/domain"
)

// Refused names views that were refused for good and are to be judged again.
type Refused struct {
	Reason       domain.Reason
	Tenant       domain.TenantID
	Post         domain.PostID // empty: all
	Since, Until time.Time     // when they were received: not before Since, and before Until
}

func (r Refused) matches(v *domain.Verdict) bool {
	return v.Reason == r.Reason && v.Viewer.Tenant == r.Tenant && (r.Post == "" || v.Post == r.Post) &&
		!v.Received.Before(r.Since) && v.Received.Before(r.Until)
}

// RefusedResult is what became of them.
type RefusedResult struct {
	Refused int64 // as many match
	// Ended are those that this run appended again, by the reason of their new verdict: none, they count; undecided, a
	// keeper brings them to their end.
	Ended map[domain.Reason]int64
}

// Appended views of this run have their verdict.
func (r RefusedResult) Appended() (n int64) {
	for _, of := range r.Ended {
		n += of
	}
	return n
}

// refusing is a keeper's work on refused views in place of undecided ones.
type refusing struct {
	which  Refused
	result RefusedResult
	ends   map[int32]int64 // of verdicts, by partition: what is to be read at least
	folded map[int32]int64 // which were looked at: those that a ledger rewinds over are not counted twice
}

// goneFor is how long Readmit tries again while Kafka is away, and waits for verdicts while no gate gives any.
const goneFor = 2 * time.Minute

// Readmit appends refused views again, with their original times, and returns once each has its new verdict. They take part
// in nothing that a readmitted view does not: age and quota are not judged anew. It proceeds as a keeper does and can be
// ended and run again at any time, also beside itself: a view whose record is repeated, or whose id counts, is passed over.
//
// Progress is called now and then. Errors are those of Run, and CodeUnavailable where Kafka was away for two minutes; what was
// appended until then stands.
func Readmit(ctx context.Context, cfg Config, deps Deps, which Refused, progress func(RefusedResult)) (RefusedResult, error) {
	k, err := New(cfg, deps)
	if err != nil {
		return RefusedResult{}, err
	}
	k.refusing = &refusing{which: which, result: RefusedResult{Ended: map[domain.Reason]int64{}}, ends: map[int32]int64{}, folded: map[int32]int64{}}
	ends, err := k.deps.Source.Ends(ctx, domain.TopicVerdicts)
	if err != nil {
		return k.refusing.result, err
	}
	for _, end := range ends {
		k.refusing.ends[end.Partition] = end.NextOffset
	}
	var changed <-chan struct{}
	var looked time.Time
	worked, moved, wait := time.Now(), time.Now(), retryFirst
	for read := int64(-1); ; {
		before := looked
		err := k.step(ctx, &changed, &looked)
		if !looked.Equal(before) {
			progress(k.refusing.result)
		}
		if ctx.Err() != nil {
			return k.refusing.result, context.Cause(ctx)
		}
		if err == nil {
			if done, err := k.refusing.done(k.ledgers); done || err != nil {
				return k.refusing.result, err
			}
			worked, wait = time.Now(), retryFirst
			if n := k.read(); n != read {
				read, moved = n, time.Now()
			} else if time.Since(moved) > goneFor {
				return k.refusing.result, domain.Errorf(domain.CodeUnavailable, "views wait for their verdicts and none came for %v: see that gates run, and run this again", goneFor)
			}
			continue
		}
		if code := domain.CodeOf(err); code != domain.CodeUnavailable || time.Since(worked) > goneFor {
			return k.refusing.result, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMost)
	}
}

// read is how many verdicts were folded.
func (k *Keeper) read() (n int64) {
	for _, l := range k.ledgers {
		n += l.next
	}
	return n
}

// follow makes a ledger look for refused views.
func (r *refusing) follow(l *ledger) {
	l.wants = r.which.matches
	l.met = func(offset int64) {
		if next := r.folded[l.part.Partition]; offset >= next {
			r.folded[l.part.Partition] = offset + 1
			r.result.Refused++
		}
	}
	l.ended = func(p *pending, v *domain.Verdict) {
		if p.attempts > 0 {
			r.result.Ended[v.Reason]++
		}
	}
}

// done tells whether all that was there at the start is read and has come to its end.
func (r *refusing) done(ledgers map[domain.Partition]*ledger) (bool, error) {
	done := len(ledgers) == len(r.ends)
	for _, l := range ledgers {
		if l.lost > 0 {
			return false, domain.Errorf(domain.CodeInternal, "%d views of verdicts/%d were appended again %d times and got no verdict that names them; look whether gates run", l.lost, l.part.Partition, attemptsMax)
		}
		done = done && l.next >= r.ends[l.part.Partition] && len(l.byOffset) == 0 && l.passed < 0
	}
	return done, nil
}

// CountRefused tells how many views match and how many of them Readmit would append: neither counted since nor appended again
// before. read hands out the committed records of one partition of verdicts, in order and all that may be about them.
// It remembers some hundred bytes for each view that matches in one partition.
func CountRefused(which Refused, partitions int, read func(partition int, apply func([]domain.Record) error) error) (refused, open int64, err error) {
	for p := range partitions {
		c := counting{which: which, ids: map[int64]viewRef{}, byID: map[viewRef][]int64{}}
		if err := read(p, c.fold); err != nil {
			return refused, open, err
		}
		refused, open = refused+c.refused, open+int64(len(c.ids))
	}
	return refused, open, nil
}

// counting is a ledger that only counts.
type counting struct {
	which   Refused
	refused int64
	ids     map[int64]viewRef // of open views, by their offset
	byID    map[viewRef][]int64
}

func (c *counting) fold(records []domain.Record) error {
	for _, r := range records {
		v, ok := r.Event.(*domain.Verdict)
		if !ok {
			if isUnknown(r.Err) {
				return r.Err
			}
			continue
		}
		if v.Readmits != nil {
			delete(c.ids, *v.Readmits)
		}
		id := viewRef{v.Viewer, v.ViewID}
		switch {
		case v.Counted():
			for _, offset := range c.byID[id] {
				delete(c.ids, offset)
			}
			delete(c.byID, id)
		case c.which.matches(v):
			c.refused++
			c.ids[v.ViewOffset] = id
			c.byID[id] = append(c.byID[id], v.ViewOffset)
		}
	}
	return nil
}
