package relay

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"seenby/domain"
	"seenby/projections"
)

const (
	// tellMax is how many posts one round tells: a snapshot and a transaction of some hundred milliseconds.
	tellMax = 2000
	// resendMax is how many posts an operator's wish adds to a round.
	resendMax = 500
)

// teller is one session: what it owns, what is marked, and the rounds that tell it.
type teller struct {
	r         *Relay
	reading   *reading
	marks     *marks
	lookAtAll bool

	owned   map[domain.Partition]*owned
	opening map[domain.Partition]bool // while a leader is away that takes its time, and the others go on
	opened  chan opened
	resting map[domain.Partition]time.Time // partitions that failed, until they are opened again
	failed  map[domain.Partition]error     // why, until they are open again or another relay's
	mine    atomic.Pointer[map[int32]bool]
	changed <-chan struct{}

	due   map[domain.PostKey]*due
	told  map[domain.PostKey]time.Time // posts of the last second
	round int64
	sweep *sweep // under way; nil: none

	safe   *safe // what will be written down once all of it was told
	marked time.Time
	asked  time.Time // when operators' wishes were last looked for
}

// safe is a stretch of the log whose marks are being told.
type safe struct {
	round int64 // marks up to this round count
	left  int   // of them that are not told yet
	to    map[domain.Partition]int64
}

func newTeller(r *Relay, source Source, lookAtAll bool) *teller {
	t := &teller{
		r: r, marks: newMarks(), lookAtAll: lookAtAll, owned: map[domain.Partition]*owned{}, resting: map[domain.Partition]time.Time{},
		failed: map[domain.Partition]error{}, opening: map[domain.Partition]bool{}, opened: make(chan opened, openedMax),
		due: map[domain.PostKey]*due{}, told: map[domain.PostKey]time.Time{}, round: 1,
	}
	t.mine.Store(&map[int32]bool{})
	t.reading = &reading{source: source, marks: t.marks, mine: func(p domain.PostKey) bool { return (*t.mine.Load())[r.deps.PartitionOf(p)] }}
	return t
}

// close gives up everything. Nothing is being opened any more, or its context has ended.
func (t *teller) close() {
	for range t.opening {
		if o := <-t.opened; o.err == nil {
			o.owned.writer.Close()
		}
	}
	for _, o := range t.owned {
		o.writer.Close()
	}
	t.r.delivery.own(nil)
}

// run goes round until ctx ends or nothing but a new session helps.
func (t *teller) run(ctx context.Context) error {
	for ctx.Err() == nil {
		begun := time.Now()
		err := t.step(ctx)
		if ctx.Err() != nil {
			break
		}
		if readErr := t.reading.err(); readErr != nil {
			if domain.CodeOf(readErr) == domain.CodeDataLoss {
				return readErr
			}
			err = cmp.Or(err, readErr)
		}
		t.r.note(cmp.Or(err, t.waits()))
		if err != nil {
			pause(ctx, retryFirst)
		}
		pause(ctx, tick-time.Since(begun))
	}
	return context.Cause(ctx)
}

// waits is why a partition is not open, where nobody else has it.
func (t *teller) waits() error {
	for _, err := range t.failed {
		return err
	}
	return nil
}

func (t *teller) step(ctx context.Context) error {
	t.follow(ctx)
	opening := t.takeOpened()
	if len(t.owned) == 0 {
		return opening
	}
	if err := t.tell(ctx); err != nil {
		return err
	}
	return cmp.Or(t.writeMarks(ctx), opening)
}

// view is what one snapshot shows of the posts that are told from it.
type view struct {
	keys []domain.PostKey
	now  map[domain.PostKey]domain.PostCounts
	told map[domain.PostKey]domain.ImpressionsChanged
}

// tell is one round: what is marked and passed by the read models is read, told and written down.
func (t *teller) tell(ctx context.Context) error {
	now := t.r.deps.Now()
	for post, at := range t.told {
		if now.Sub(at) >= tellEvery {
			delete(t.told, post)
		}
	}
	asking := now.Sub(t.asked) >= tellEvery
	if hook := t.r.deps.Hooks.Waiting; hook != nil {
		hook(len(t.due))
	}
	if t.marks.empty() && len(t.due) == 0 && t.sweep == nil && !asking {
		return nil
	}
	var v view
	if err := t.r.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
		v, err = t.look(ctx, q, now, asking)
		return err
	}); err != nil {
		return err
	}
	if asking {
		t.asked = now
	}
	return t.write(ctx, now, v)
}

// look reads, in one snapshot, how far the read models are and the counts of what is due by that.
func (t *teller) look(ctx context.Context, q projections.Querier, now time.Time, asking bool) (v view, err error) {
	passed, err := passed(ctx, q)
	if err != nil {
		return v, err
	}
	t.marks.take(passed, func(post domain.PostKey) {
		if t.reading.mine(post) {
			t.mark(post)
		}
	})
	if asking {
		above, err := readResends(ctx, q, t.r.deps.Tenants.Tenants(), t.ownedNumbers(), resendMax)
		if err != nil {
			return v, err
		}
		for post, revision := range above {
			d := t.want(post)
			d.how.Resend, d.how.Above = true, revision
		}
	}
	live, err := liveVersions(ctx, q)
	if err != nil {
		return v, err
	}
	if err := t.lookAtEveryPost(ctx, q, live, passed); err != nil {
		return v, err
	}
	for post, d := range t.due {
		if !d.at.After(now) {
			if v.keys = append(v.keys, post); len(v.keys) == tellMax {
				break
			}
		}
	}
	if len(v.keys) == 0 {
		return v, nil
	}
	if v.told, err = Told(ctx, q, v.keys); err != nil {
		return v, err
	}
	v.now, _, err = readCounts(ctx, q, v.keys)
	return v, err
}

// write tells what has changed: to Kafka first, in one transaction per partition, and then, whatever became of the others,
// to the tables.
func (t *teller) write(ctx context.Context, now time.Time, v view) error {
	perPartition := map[int32][]domain.Event{}
	postsOf := map[int32][]domain.PostKey{}
	for _, key := range v.keys {
		d, told, counts := t.due[key], v.told[key], v.now[key]
		set, open := t.r.deps.Tenants.Relay(key.Tenant)
		if !open {
			t.doubt(key, now)
			continue
		}
		if counts.Behind(&told) {
			d.at = now.Add(tellEvery)
			continue
		}
		how := d.how
		if set.Enabled {
			how.Milestones = set.Milestones
		}
		p := t.r.deps.PartitionOf(key)
		how.Silent = d.silent(&told)
		next, changed := domain.Tell(key, told, counts, how)
		if !changed {
			t.done(key)
			continue
		}
		perPartition[p], postsOf[p] = append(perPartition[p], next), append(postsOf[p], key)
	}
	if len(perPartition) == 0 {
		return nil
	}
	moves, records, err := t.commit(ctx, perPartition)
	if len(records) == 0 {
		return err
	}
	if foldErr := t.r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		return fold(ctx, tx, moves, records, t.calls(records))
	}); foldErr != nil {
		// It stands in the log: whoever opens the partition next, most likely we, folds it from there.
		for _, m := range moves {
			t.rest(m.from.In(), foldErr)
		}
		return foldErr
	}
	tenants := map[domain.TenantID]bool{}
	for _, m := range moves {
		t.owned[m.from.In()].told.NextOffset = m.to
		for _, key := range postsOf[m.from.Partition] {
			t.told[key] = t.due[key].toldAt(now)
			t.done(key)
			tenants[key.Tenant] = true
		}
	}
	t.r.delivery.kick(tenants)
	if hook := t.r.deps.Hooks.Told; hook != nil {
		hook(len(records))
	}
	return err
}

// commit writes the events of each partition in a transaction of its own, side by side. What failed is opened anew.
func (t *teller) commit(ctx context.Context, events map[int32][]domain.Event) (moves []move, records []record, err error) {
	var mu sync.Mutex
	failed := map[domain.Partition]error{}
	var all errgroup.Group
	for part, o := range t.owned {
		of := events[part.Partition]
		if len(of) == 0 {
			continue
		}
		all.Go(func() error {
			offsets, err := o.writer.Commit(ctx, of)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[part] = err
				return nil
			}
			for i, e := range of {
				records = append(records, record{e.(domain.ImpressionsChanged), part.Partition, offsets[i]}) //nolint:forcetypeassert // of is ours
			}
			moves = append(moves, move{o.told, offsets[len(offsets)-1] + 1})
			return nil
		})
	}
	_ = all.Wait() // none gives one
	for part, failure := range failed {
		t.rest(part, failure)
		err = failure
	}
	return moves, records, err
}

// writeMarks writes down, now and then, below which offsets everything was told.
func (t *teller) writeMarks(ctx context.Context) error {
	now := t.r.deps.Now()
	if t.safe == nil {
		if now.Sub(t.marked) < markEvery || t.sweep != nil {
			return nil
		}
		// Whatever is due now is told before this counts; what is marked from here on belongs to the next.
		t.safe = &safe{round: t.round, left: len(t.due), to: t.marks.taken()}
		t.round++
	}
	if t.safe.left > 0 {
		return nil
	}
	to := t.safe.to
	t.safe, t.marked = nil, now
	return t.r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		for _, o := range t.ownedInOrder() {
			if o.sweeping {
				continue
			}
			var marked []domain.Position
			for part, offset := range to {
				if part.Topic == domain.TopicVerdicts || part.Partition == o.part.Partition {
					marked = append(marked, part.At(offset))
				}
			}
			slices.SortFunc(marked, func(a, b domain.Position) int { return domain.ComparePartitions(a.In(), b.In()) })
			if !o.unwritten && slices.Equal(marked, o.marked) {
				continue
			}
			if err := writeMarked(ctx, tx, o.part, marked, o.live); err != nil {
				return err
			}
			o.marked, o.unwritten = marked, false
		}
		return nil
	})
}
