package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// partition folds one partition of verdicts, side by side with the views that they are about.
type partition struct {
	*run
	n     int32
	shard int16

	impressions, pairs *follower

	verdicts, views *stream
	viewsFrom       int64     // the first view that the log still holds
	expect          int64     // the next view offset that must be judged
	now             time.Time // partition time: the highest of the views so far

	counts    map[domain.TenantID]*Counts
	undecided *undecided
	detail    map[domain.PersonKey][]VerdictShown // with Scope.Post
}

// follower is a projection over verdicts in this partition.
type follower struct {
	projection projections.Projection
	at         projections.PositionRow // zero where it was never assigned
	leftOut    map[int64]string        // offsets that it does not hold, and why
	expect     int64                   // the view offset after the last verdict below its position
}

// pairKey and pair are the compact form of a viewer row: 40 bytes, which is why times are in halves and views, which
// the post cap bounds, in 32 bits.
type pairKey struct {
	post   uint32
	viewer domain.PersonKey
}

type pair struct {
	first, last micros
	views       uint32
}

// micros is a time in microseconds since the epoch, in two halves: a whole would be aligned to 8 bytes.
type micros [2]uint32

func microsOf(us int64) micros { return micros{uint32(us >> 32), uint32(us)} } //nolint:gosec // its halves

func (m micros) int64() int64 { return int64(m[0])<<32 | int64(m[1]) }

func (p pair) row() ViewerRow { return ViewerRow{p.first.int64(), p.last.int64(), int64(p.views)} }

// fold reads the partition to the positions and adds it up.
func (p *partition) fold(ctx context.Context, verdicts, views bound) error {
	ctx, cancel := context.WithCancel(ctx)
	p.viewsFrom = views.starts[p.n].NextOffset
	p.verdicts = open(ctx, p.deps.Log, verdicts.starts[p.n], max(p.impressions.at.NextOffset, p.pairs.at.NextOffset))
	p.views = open(ctx, p.deps.Log, views.starts[p.n], views.ends[p.n].NextOffset) // as far as verdicts ask for them
	defer func() {
		cancel()
		p.verdicts.drain()
		p.views.drain()
	}()
	clear(p.run.pairs)
	p.ids.begin()
	for {
		r, err := p.verdicts.peek()
		if err != nil {
			return err
		}
		if r == nil {
			break
		}
		if err := p.record(r); err != nil {
			return err
		}
		p.verdicts.skip()
		p.advance(r.Offset + 1)
	}
	for k, row := range p.run.pairs {
		p.posts.row(k.post, k.viewer, row.row(), p.shard)
	}
	p.endDetail()
	p.end()
	return nil
}

// record takes the next record of verdicts.
func (p *partition) record(r *domain.Record) error {
	if errors.Is(r.Err, domain.ErrUnknownEvent) {
		return fmt.Errorf("%s: %w", projections.At(*r), r.Err)
	}
	v, ok := r.Event.(*domain.Verdict)
	if r.Err == nil && !ok {
		return fmt.Errorf("%s holds a %s: %w", projections.At(*r), r.Event.EventType(), domain.ErrUnknownEvent)
	}
	repeat := false
	if r.Err == nil {
		var err error
		if repeat, err = p.judged(r, v); err != nil {
			return err
		}
	}
	held := [2]bool{}
	for i, f := range []*follower{p.impressions, p.pairs} {
		if r.Offset < f.at.NextOffset {
			if r.Err == nil {
				f.expect = p.expect
			}
			held[i] = !repeat && p.holds(f, r)
		}
	}
	if r.Err == nil && !repeat {
		p.verdict(r, v, held[0], held[1])
	}
	return nil
}

// verdict folds the first verdict about a view; impression and viewed tell whether the two projections hold it.
func (p *partition) verdict(r *domain.Record, v *domain.Verdict, impression, viewed bool) {
	if r.Offset < p.impressions.at.NextOffset {
		p.tally(v)
	}
	if !p.scope.covers(v.Viewer.Tenant, v.Post) {
		if v.Readmits != nil { // a malformed one names no post any more
			p.undecided.resolve(v, &p.report.Undecided)
		}
		return
	}
	if p.scope.Post != "" {
		p.show(r, v)
	}
	id := p.ids.key(v.Viewer, v.ViewID)
	p.undecided.verdict(v, id, p.posts.hash.a, &p.report.Undecided)
	if v.Counted() {
		p.once(r, v, id)
		p.add(v, impression, viewed)
	}
}

// holds tells whether a projection must hold what a record says.
func (p *partition) holds(f *follower, r *domain.Record) bool {
	_, out := f.leftOut[r.Offset]
	if out {
		delete(p.letters, letter{f.projection.Name(), p.n, r.Offset})
	}
	bad := r.Err
	if bad == nil {
		bad = f.projection.Check(*r)
	}
	if bad != nil && !out {
		p.find(domain.TopicVerdicts, p.n, r.Offset, "", "", "%s cannot hold it (%v), and it is neither parked nor discarded", f.projection.Name(), bad)
	}
	return bad == nil && !out
}

// judged holds a verdict against the view that it is about. A repeat says nothing new, and is passed over by
// everybody.
func (p *partition) judged(r *domain.Record, v *domain.Verdict) (repeat bool, err error) {
	find := func(format string, args ...any) {
		p.find(domain.TopicVerdicts, p.n, r.Offset, v.Viewer.Tenant, v.Post, format, args...)
	}
	if v.ViewOffset < p.expect {
		find("is a second verdict about view %d", v.ViewOffset)
		return true, nil
	}
	if err := p.passOver(v.ViewOffset); err != nil {
		return false, err
	}
	p.expect = v.ViewOffset + 1
	view, err := p.views.peek()
	switch {
	case err != nil:
		return false, err
	case view == nil || view.Offset != v.ViewOffset:
		if v.ViewOffset >= p.viewsFrom {
			find("is about view %d, and there is no such record", v.ViewOffset)
		} else if r.Offset < p.impressions.at.NextOffset && p.scope.covers(v.Viewer.Tenant, v.Post) {
			p.of(v.Viewer.Tenant).Reported++ // the log no longer holds it; see the note
		}
		if r.Time.After(p.now) {
			p.now = r.Time
		}
		return false, nil
	}
	defer p.views.skip()
	if view.Time.After(p.now) {
		p.now = view.Time
	}
	if r.Offset < p.impressions.at.NextOffset {
		p.reported(view)
	}
	if !bytes.Equal(view.Key, r.Key) {
		find("is about view %d, but its key is another viewer's", v.ViewOffset)
	}
	if !r.Time.Equal(p.now) {
		find("has the time %s; the partition's was %s", stamp(r.Time), stamp(p.now))
	}
	reported, ok := view.Event.(domain.ViewReported)
	if ok && reported.Readmitted != nil && p.scope.covers(reported.Viewer.Tenant, reported.Post) {
		if wrong := p.undecided.repeats(view.Offset, &reported, p.posts.hash.a); wrong != "" {
			p.find(domain.TopicViews, p.n, view.Offset, reported.Viewer.Tenant, reported.Post, wrong, reported.Readmitted.Offset)
		}
	}
	switch {
	case v.Reason == domain.ReasonMalformed:
	case errors.Is(view.Err, domain.ErrUnknownEvent):
		return false, fmt.Errorf("%s: %w", projections.At(*view), view.Err)
	case !ok:
		find("is about view %d, which cannot be read", v.ViewOffset)
	default:
		if field := p.unlike(v, &reported); field != "" {
			find("does not have the %s of view %d", field, v.ViewOffset)
		}
	}
	return false, nil
}

// unlike names what of a verdict is not as its view says; empty: nothing.
func (p *partition) unlike(v *domain.Verdict, view *domain.ViewReported) string {
	received, viewed, readmits := p.now, domain.Corrected(view.ViewedAt, view.SentAt, p.now), int64(-1)
	if again := view.Readmitted; again != nil {
		readmits, received, viewed = again.Offset, again.Received, again.ViewedAt
	}
	switch {
	case v.ViewID != view.ViewID:
		return "id"
	case v.Post != view.Post:
		return "post"
	case v.Anonymous != view.Anonymous || v.Imported != view.Imported:
		return "kind of viewer"
	case (v.Readmits == nil) != (view.Readmitted == nil) || v.Readmits != nil && *v.Readmits != readmits:
		return "readmission"
	case v.ClaimedAt.UnixMicro() != view.ViewedAt.UnixMicro():
		return "claimed time"
	case v.Received.UnixMicro() != received.UnixMicro():
		return "received time"
	case v.ViewedAt.UnixMicro() != viewed.UnixMicro():
		return "corrected time"
	}
	return ""
}

// passOver skips views that no verdict is about.
func (p *partition) passOver(to int64) error {
	missing, first := int64(0), p.expect
	if p.expect < p.viewsFrom {
		missing = max(0, min(to, p.viewsFrom)-p.expect) // views are never gapped: they were there
	}
	for {
		view, err := p.views.peek()
		if err != nil {
			return err
		}
		if view == nil || view.Offset >= to {
			break
		}
		if missing++; missing == 1 {
			first = view.Offset
		}
		if view.Time.After(p.now) {
			p.now = view.Time
		}
		p.reported(view)
		p.views.skip()
	}
	if missing > 0 {
		p.find(domain.TopicViews, p.n, first, "", "", "%d views from here to %d have no verdict, and later ones have", missing, to-1)
	}
	return nil
}

func (p *partition) reported(view *domain.Record) {
	ref, _, _ := domain.ParsePersonKey(view.Key)
	e, _ := view.Event.(domain.ViewReported)
	if p.scope.covers(ref.Tenant, e.Post) {
		p.of(ref.Tenant).Reported++
	}
}

func (p *partition) of(tenant domain.TenantID) *Counts {
	c := p.counts[tenant]
	if c == nil {
		c = &Counts{}
		p.counts[tenant] = c
	}
	return c
}

func (p *partition) tally(v *domain.Verdict) {
	if !p.scope.covers(v.Viewer.Tenant, v.Post) {
		return
	}
	c := p.of(v.Viewer.Tenant)
	if v.Counted() {
		c.Counted++
		return
	}
	c.Refused++
	c.refuse(v.Reason, 1)
}

// once tells where an id counts a second time within the window of the limits that the verdict names.
func (p *partition) once(r *domain.Record, v *domain.Verdict, id idHash) {
	ago, counted := p.ids.count(id, r.Time)
	window, known := p.window(v.Viewer.Tenant, v.LimitsRevision)
	switch {
	case !known:
		if key := (revision{v.Viewer.Tenant, v.LimitsRevision}); !p.unknown[key] {
			p.unknown[key] = true
			p.find(domain.TopicVerdicts, p.n, r.Offset, v.Viewer.Tenant, v.Post, "names revision %d of its tenant's limits, which is not on the topic tenants", v.LimitsRevision)
		}
	case counted && ago <= window:
		p.find(domain.TopicVerdicts, p.n, r.Offset, v.Viewer.Tenant, v.Post, "counts view id %s of viewer %s again, %v after it counted", v.ViewID, v.Viewer.Person, ago)
	}
}

// add folds a counted view.
func (p *partition) add(v *domain.Verdict, impression, viewed bool) {
	if !impression && !viewed {
		return
	}
	i, _ := p.posts.of(domain.PostKey{Tenant: v.Viewer.Tenant, Post: v.Post})
	if impression {
		p.posts.count(i, v.Anonymous, v.Imported)
		p.of(v.Viewer.Tenant).Impressions++
	}
	if !viewed || v.Anonymous {
		return
	}
	key, at := pairKey{i, v.Viewer.Person}, v.ViewedAt.UnixMicro()
	row, seen := p.run.pairs[key]
	if !seen {
		row.first, row.last = microsOf(at), microsOf(at)
		p.of(v.Viewer.Tenant).UniquePairs++
	}
	row.first, row.last = microsOf(min(row.first.int64(), at)), microsOf(max(row.last.int64(), at))
	row.views++
	p.run.pairs[key] = row
}

// end closes the partition's account.
func (p *partition) end() {
	for _, f := range []*follower{p.impressions, p.pairs} {
		if f.at.NextOffset > 0 && f.expect != f.at.ViewNextOffset {
			p.find(domain.TopicVerdicts, p.n, f.at.NextOffset, "", "", "is where %s stands: its position says that views up to %d are judged, the verdicts below it say %d", f.projection.Name(), f.at.ViewNextOffset, f.expect)
		}
	}
	p.undecided.left(p.n, &p.state, &p.report.Undecided)
	for tenant, c := range p.counts {
		p.tenant(tenant).Partitions = append(p.tenant(tenant).Partitions, Partition{p.n, *c})
		p.tenant(tenant).InAll.add(c)
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// window is the duplicate window of a revision. A tenant that stands on the log without limits has those of a new one.
func (r *run) window(tenant domain.TenantID, rev int64) (time.Duration, bool) {
	w, ok := r.decisions.DuplicateWindows[tenant][rev]
	if first := domain.DefaultLimits(); !ok && rev == first.Revision {
		return first.DuplicateWindow, true
	}
	return w, ok
}

// longestWindow is that of any revision.
func (d Decisions) longestWindow() time.Duration {
	longest := domain.DefaultLimits().DuplicateWindow
	for _, revisions := range d.DuplicateWindows {
		for _, w := range revisions {
			longest = max(longest, w)
		}
	}
	return longest
}

// sortTenants puts tenants and their partitions in order.
func sortTenants(tenants []Tenant) {
	slices.SortFunc(tenants, func(a, b Tenant) int { return cmpString(a.Tenant, b.Tenant) })
	for _, t := range tenants {
		slices.SortFunc(t.Partitions, func(a, b Partition) int { return int(a.Partition - b.Partition) })
	}
}
