package relay

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/posts"
	"seenby/projections/uniqueviews"
)

const (
	// tellMax is how many posts one round tells: a snapshot and a transaction of some hundred milliseconds.
	tellMax = 2000
	// doubtFor is far longer than a process needs to read of a new tenant.
	doubtFor = 30 * time.Second
	// resendMax is how many posts an operator's wish adds to a round.
	resendMax = 500
)

// due is a post that is to be told.
type due struct {
	at      time.Time // not before; zero: at once
	round   int64     // in which it was marked first
	how     domain.Telling
	looked  bool      // found by a look at every post, and not marked
	doubted time.Time // since when its tenant is not known; zero: it is, or was not asked
	before  bool      // its partition's marks were not known: some of its counts may be from before any
}

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

// openedMax is at least as many partitions as a topic can have.
const openedMax = 1024

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
	wait := retryMost / 5
	switch domain.CodeOf(err) {
	case domain.CodeDataLoss, domain.CodeMisconfigured:
		wait = 24 * time.Hour
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

// want makes a post due.
func (t *teller) want(post domain.PostKey) *due {
	d := t.due[post]
	if d == nil {
		d = &due{round: t.round}
		if at, ok := t.told[post]; ok {
			d.at = at.Add(tellEvery)
		}
		t.due[post] = d
	}
	return d
}

// mark makes a post due that was seen or imported just now.
func (t *teller) mark(post domain.PostKey) {
	d := t.want(post)
	d.looked = false
	d.before = d.before || t.markless(post)
}

// lookAt makes a post due that may have been seen before.
func (t *teller) lookAt(post domain.PostKey) {
	_, marked := t.due[post]
	d := t.want(post)
	d.looked = d.looked || !marked
	d.before = d.before || t.markless(post)
}

func (t *teller) markless(post domain.PostKey) bool {
	number := t.r.deps.PartitionOf(post)
	for part, o := range t.owned {
		if part.Partition == number {
			return o.markless
		}
	}
	return false
}

// silent tells whether nobody saw which milestones a post passes that was not told before.
func (d *due) silent(told *domain.ImpressionsChanged) bool {
	return told.Revision == 0 && (d.looked || d.before)
}

// doubt leaves a post alone whose tenant is not known: it was closed, or is so new that this process has not read of it.
func (t *teller) doubt(post domain.PostKey, now time.Time) {
	d := t.due[post]
	if d.doubted.IsZero() {
		d.doubted = now
	}
	if now.Sub(d.doubted) >= doubtFor {
		t.done(post)
		return
	}
	d.at = now.Add(tellEvery)
}

// done takes a post off.
func (t *teller) done(post domain.PostKey) {
	d := t.due[post]
	if d == nil {
		return
	}
	delete(t.due, post)
	if t.safe != nil && d.round <= t.safe.round {
		t.safe.left--
	}
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
	passed, err := t.passed(ctx, q)
	if err != nil {
		return v, err
	}
	t.marks.take(passed, func(post domain.PostKey) {
		if (*t.mine.Load())[t.r.deps.PartitionOf(post)] {
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
	v.now, err = ReadCounts(ctx, q, v.keys)
	return v, err
}

// passed tells, per partition, up to where all read models that are told from have folded it.
func (t *teller) passed(ctx context.Context, q projections.Querier) (map[domain.Partition]int64, error) {
	all, err := projections.Positions(ctx, q)
	if err != nil {
		return nil, err
	}
	to := map[domain.Partition]int64{}
	for _, row := range all[impressions.Name] {
		to[row.In()] = row.NextOffset
	}
	unique := map[domain.Partition]int64{}
	for _, row := range all[uniqueviews.Name] {
		unique[row.In()] = row.NextOffset
	}
	for part := range to {
		to[part] = min(to[part], unique[part])
	}
	for _, row := range all[posts.Name] {
		if row.Topic == domain.TopicPosts {
			to[row.In()] = row.NextOffset
		}
	}
	return to, nil
}

// liveVersions names the versions of the read models that counts come from.
func liveVersions(ctx context.Context, q projections.Querier) (string, error) {
	versions, err := projections.Versions(ctx, q)
	if err != nil {
		return "", err
	}
	var names []string
	for _, v := range versions {
		if v.Live && (v.Projection == impressions.Name || v.Projection == uniqueviews.Name || v.Projection == posts.Name) {
			names = append(names, fmt.Sprintf("%s_v%d", v.Projection, v.Version))
		}
	}
	return strings.Join(names, " "), nil
}

// ReadCounts reads the counts of posts from the live read models, as the api answers them; every key has some.
func ReadCounts(ctx context.Context, q projections.Querier, keys []domain.PostKey) (map[domain.PostKey]domain.PostCounts, error) {
	counted, err := impressions.Counts(ctx, q, keys)
	if err != nil {
		return nil, err
	}
	unique, err := uniqueviews.Counts(ctx, q, keys)
	if err != nil {
		return nil, err
	}
	elsewhere, err := posts.Baselines(ctx, q, keys)
	if err != nil {
		return nil, err
	}
	asOf, err := projections.AsOf(ctx, q, impressions.Name, uniqueviews.Name)
	if err != nil {
		return nil, err
	}
	counts := make(map[domain.PostKey]domain.PostCounts, len(keys))
	for _, key := range keys {
		c, base := counted[key], elsewhere[key]
		counts[key] = domain.PostCounts{
			Impressions: c.Impressions + base.Impressions, UniqueViewers: unique[key] + base.UniqueViewers,
			Imported: c.ImportedImpressions + base.Impressions, AsOf: asOf,
		}
	}
	return counts, nil
}

func (t *teller) ownedNumbers() []int32 {
	return slices.Sorted(maps.Keys(*t.mine.Load()))
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
			t.done(key)
			t.told[key] = now
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

func (t *teller) ownedInOrder() []*owned {
	return slices.SortedFunc(maps.Values(t.owned), func(a, b *owned) int { return domain.ComparePartitions(a.part, b.part) })
}
