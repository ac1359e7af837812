package verify

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/posts"
	"seenby/projections/uniqueviews"
)

// Two more than there are shards, so that some partitions meet in one.
const worldPartitions = projections.Shards + 2

var topicIDs = map[domain.Topic]domain.TopicID{domain.TopicViews: {1}, domain.TopicVerdicts: {2}, domain.TopicPosts: {3}}

// world is an installation in memory: the topics, judged by the real judgement, and read models folded by maps.
type world struct {
	rand   *rand.Rand
	clock  time.Time
	limits domain.Limits
	memory [worldPartitions]*domain.Memory

	views, verdicts [worldPartitions][]domain.Record
	starts          map[domain.Topic]int64 // of every partition
	ends            map[domain.Topic]int64 // fewer than there are, where not zero
	postEvents      []domain.Record        // of partition 3
	imported        map[domain.PostKey]domain.Baseline
	undecided       [worldPartitions][]*domain.Verdict
	pending         [worldPartitions]int // views that are judged

	state     State
	decisions Decisions
	atEnds    bool // the positions: not somewhere before
	counts    map[countKey]counts
	viewers   map[viewerKey]ViewerRow
	shards    map[viewerKey]int16
	totals    map[countKey]int64 // unique_view_counts
}

type countKey struct {
	post  domain.PostKey
	shard int16
}

type counts struct{ all, anonymous, imported int64 }

type viewerKey struct {
	post   domain.PostKey
	viewer domain.PersonKey
}

func newWorld(seed uint64) *world {
	w := &world{
		rand: rand.New(rand.NewPCG(seed, 1)), clock: time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC), limits: domain.DefaultLimits(),
		starts: map[domain.Topic]int64{}, ends: map[domain.Topic]int64{},
	}
	w.limits.PostCap.Views = 5
	for n := range w.memory {
		w.memory[n] = domain.NewMemory(w.limits)
	}
	w.decisions.DuplicateWindows = map[domain.TenantID]map[int64]time.Duration{"demo": {1: w.limits.DuplicateWindow}}
	return w
}

// report appends a view of a partition.
func (w *world) report(n int32, e domain.ViewReported) {
	w.clock = w.clock.Add(time.Duration(w.rand.IntN(5000)) * time.Millisecond)
	w.views[n] = append(w.views[n], domain.Record{
		Partition: domain.Partition{Topic: domain.TopicViews, TopicID: topicIDs[domain.TopicViews], Partition: n},
		Offset:    int64(len(w.views[n])), Time: w.clock.Add(-time.Duration(w.rand.IntN(2000)) * time.Millisecond).Truncate(time.Millisecond),
		Key: e.Viewer.Key(), Event: e,
	})
}

// judge gives the views of a partition their verdicts.
func (w *world) judge(n int32) {
	overlay := w.memory[n].Begin()
	for _, r := range w.views[n][w.pending[n]:] {
		view, ok := r.Event.(domain.ViewReported)
		in := domain.ViewRecord{View: view, Offset: r.Offset, Appended: r.Time}
		if !ok {
			in.Malformed = "cannot be decoded"
			in.View.Viewer, _, _ = domain.ParsePersonKey(r.Key)
		}
		v := overlay.Judge(in, w.answer(&view), w.limits)
		w.append(n, domain.Record{Time: overlay.Now(), Key: r.Key, Event: v})
		if v.Reason == domain.ReasonUndecided {
			w.undecided[n] = append(w.undecided[n], v)
		}
	}
	overlay.Commit()
	w.pending[n] = len(w.views[n])
}

// append puts a record at the end of verdicts, sometimes behind a transaction's marker.
func (w *world) append(n int32, r domain.Record) {
	r.Partition = domain.Partition{Topic: domain.TopicVerdicts, TopicID: topicIDs[domain.TopicVerdicts], Partition: n}
	if have := w.verdicts[n]; len(have) > 0 {
		r.Offset = have[len(have)-1].Offset + 1 + int64(w.rand.IntN(2))
	}
	w.verdicts[n] = append(w.verdicts[n], r)
}

// answer goes by the post's name.
func (w *world) answer(view *domain.ViewReported) domain.PostAnswer {
	known := domain.PostAnswer{Known: true, Version: 1, Author: domain.PersonKey{99}, Audience: domain.AudienceEveryone, Final: true}
	waits := []domain.Position{{Topic: domain.TopicPosts, TopicID: topicIDs[domain.TopicPosts], Partition: 3, NextOffset: 17}}
	again := view.Readmitted != nil
	switch kind, _, _ := cut(view.Post); {
	case kind == "gone":
		known.Deleted = true
	case kind == "nowhere", kind == "never" && again:
		return domain.PostAnswer{Final: true}
	case (kind == "late" || kind == "never") && !again:
		return domain.PostAnswer{WaitsFor: waits}
	case kind == "twice" && (!again || len(view.Readmitted.WaitedFor) == 1):
		if again {
			waits = append(waits, domain.Position{Topic: domain.TopicAudiences, TopicID: domain.TopicID{4}, NextOffset: 5})
		}
		return domain.PostAnswer{WaitsFor: waits}
	}
	return known
}

func cut(p domain.PostID) (kind, rest string, ok bool) {
	for i, c := range p {
		if c == '-' {
			return string(p[:i]), string(p[i+1:]), true
		}
	}
	return string(p), "", false
}

// readmit appends undecided views again, some of them twice, as two keepers at once do.
func (w *world) readmit(n int32, share int) {
	left := []*domain.Verdict{}
	for _, v := range w.undecided[n] {
		if w.rand.IntN(100) >= share {
			left = append(left, v)
			continue
		}
		for range 1 + w.rand.IntN(8)/7 {
			w.report(n, domain.ViewReported{
				Viewer: v.Viewer, ViewID: v.ViewID, Post: v.Post, ViewedAt: v.ClaimedAt, Anonymous: v.Anonymous, Imported: v.Imported,
				Readmitted: &domain.Readmission{Offset: v.ViewOffset, Received: v.Received, ViewedAt: v.ViewedAt, WaitedFor: v.WaitsFor},
			})
		}
	}
	w.undecided[n] = left
}

// live makes traffic of a few hundred views: repeated, refused, anonymous, imported, undecided and brought back, unreadable.
func (w *world) live() {
	for round := range 3 {
		for i := range 150 + w.rand.IntN(200) {
			n := int32(w.rand.IntN(worldPartitions))
			tenant := domain.TenantID("demo")
			if w.rand.IntN(5) == 0 {
				tenant = "acme"
			}
			e := domain.ViewReported{
				Viewer: domain.PersonRef{Tenant: tenant, Person: domain.PersonKey{byte(n), byte(w.rand.IntN(6)), 7}},
				Post:   domain.PostID(fmt.Sprintf("%s-%d", []string{"p", "p", "p", "p", "late", "never", "twice", "gone", "nowhere"}[w.rand.IntN(9)], w.rand.IntN(4))),
				ViewID: domain.ViewID{byte(i), byte(i >> 8), byte(round), 1}, Anonymous: w.rand.IntN(6) == 0, Imported: w.rand.IntN(8) == 0,
				ViewedAt: w.clock.Add(-time.Duration(w.rand.Int64N(int64(30 * time.Hour)))).Add(time.Duration(w.rand.IntN(1000)) * time.Microsecond),
			}
			if w.rand.IntN(4) == 0 {
				e.SentAt = w.clock.Add(time.Duration(w.rand.IntN(100)) * time.Minute)
			}
			w.report(n, e)
			if w.rand.IntN(5) == 0 {
				w.report(n, e)
			}
			if w.rand.IntN(40) == 0 {
				w.report(n, e)
				broken := &w.views[n][len(w.views[n])-1]
				broken.Event, broken.Err = nil, domain.Errorf(domain.CodeInvalid, "the value is no event")
			}
		}
		for n := range int32(worldPartitions) {
			w.judge(n)
			w.readmit(n, 60)
		}
	}
	for n := range int32(worldPartitions) {
		w.judge(n)
	}
}

// poison puts a record that cannot be read behind the verdicts of a partition, and lets live park it and a verdict
// that could be read.
func (w *world) poison(n int32) {
	w.append(n, domain.Record{Key: []byte("x"), Value: []byte{0xff}, Err: domain.Errorf(domain.CodeInvalid, "the value is no event")})
	w.park(w.verdicts[n][len(w.verdicts[n])-1])
	for _, r := range w.verdicts[n] {
		if v, ok := r.Event.(*domain.Verdict); ok && v.Counted() {
			w.park(r)
			return
		}
	}
}

func (w *world) park(r domain.Record) {
	if w.state.Parked == nil {
		w.state.Parked = map[string][]Place{}
	}
	for _, p := range followed {
		w.state.Parked[p.Name()] = append(w.state.Parked[p.Name()], Place{r.Partition, r.Offset})
	}
}

// fold makes the read models, each up to a position of its own.
func (w *world) fold() {
	w.counts, w.totals = map[countKey]counts{}, map[countKey]int64{}
	w.viewers, w.shards = map[viewerKey]ViewerRow{}, map[viewerKey]int16{}
	w.state.Positions = map[string][]projections.PositionRow{posts.Name: {{Position: domain.Position{Topic: domain.TopicPosts, TopicID: topicIDs[domain.TopicPosts], Partition: 3, NextOffset: 12}}}}
	for n := range int32(worldPartitions) {
		for _, p := range followed {
			records := w.verdicts[n]
			if cut := 1 + w.rand.IntN(4); len(records) > cut && w.rand.IntN(2) == 0 && len(w.state.Parked) == 0 && !w.atEnds {
				records = records[:len(records)-cut]
			}
			if len(records) == 0 {
				continue
			}
			row := projections.PositionRow{Position: records[len(records)-1].Partition.At(records[len(records)-1].Offset + 1)}
			for _, r := range records {
				v, ok := r.Event.(*domain.Verdict)
				if !ok || v.ViewOffset < row.ViewNextOffset {
					continue
				}
				row.ViewNextOffset = v.ViewOffset + 1
				if slices.Contains(w.state.Parked[p.Name()], Place{r.Partition, r.Offset}) || slices.Contains(w.decisions.Discarded[p.Name()], Place{r.Partition, r.Offset}) {
					continue
				}
				if v.Counted() {
					w.count(p.Name(), n, v)
				}
			}
			w.state.Positions[p.Name()] = append(w.state.Positions[p.Name()], row)
		}
	}
}

func (w *world) count(projection string, n int32, v *domain.Verdict) {
	post, shard := domain.PostKey{Tenant: v.Viewer.Tenant, Post: v.Post}, projections.Shard(n)
	if projection == impressions.Name {
		c := w.counts[countKey{post, shard}]
		c.all++
		if v.Anonymous {
			c.anonymous++
		}
		if v.Imported {
			c.imported++
		}
		w.counts[countKey{post, shard}] = c
		return
	}
	if projection != uniqueviews.Name || v.Anonymous {
		return
	}
	k := viewerKey{post, v.Viewer.Person}
	row, seen := w.viewers[k]
	at := v.ViewedAt.UnixMicro()
	if !seen {
		row = ViewerRow{at, at, 0}
		w.totals[countKey{post, shard}]++
		w.shards[k] = shard
	}
	w.viewers[k] = ViewerRow{min(row.First, at), max(row.Last, at), row.Views + 1}
}

// The parts that a run is joined with.

func (w *world) deps() Deps {
	return Deps{Log: worldLog{w}, ReadModels: worldModels{w}, Operators: worldOperators{w}}
}

type worldLog struct{ w *world }

func (l worldLog) records(topic domain.Topic, n int32) []domain.Record {
	switch topic {
	case domain.TopicViews:
		return l.w.views[n]
	case domain.TopicVerdicts:
		return l.w.verdicts[n]
	case domain.TopicPosts:
		if n == 3 {
			return l.w.postEvents
		}
	}
	return nil
}

func (l worldLog) Starts(_ context.Context, topic domain.Topic) ([]domain.Position, error) {
	out := make([]domain.Position, worldPartitions)
	for n := range out {
		out[n] = domain.Position{Topic: topic, TopicID: topicIDs[topic], Partition: int32(n), NextOffset: l.w.starts[topic]}
	}
	return out, nil
}

func (l worldLog) Ends(_ context.Context, topic domain.Topic) ([]domain.Position, error) {
	out := make([]domain.Position, worldPartitions)
	for n := range out {
		out[n] = domain.Position{Topic: topic, TopicID: topicIDs[topic], Partition: int32(n), NextOffset: 1000}
		if records := l.records(topic, int32(n)); records != nil {
			out[n].NextOffset = records[len(records)-1].Offset + 1 - l.w.ends[topic]
		}
	}
	return out, nil
}

func (l worldLog) ReadRange(_ context.Context, from domain.Position, until int64, apply func([]domain.Record) error) error {
	var batch []domain.Record
	for _, r := range l.records(from.Topic, from.Partition) {
		if r.Offset < from.NextOffset || r.Offset >= until {
			continue
		}
		if batch = append(batch, r); len(batch) == 7 {
			if err := apply(batch); err != nil {
				return err
			}
			batch = nil
		}
	}
	return apply(batch)
}

type worldModels struct{ w *world }

func (m worldModels) Read(_ context.Context, s Scope, to Rows) error {
	if err := to.State(m.w.state); err != nil {
		return err
	}
	for k, c := range m.w.counts {
		if s.covers(k.post.Tenant, k.post.Post) {
			to.Impressions(k.post, k.shard, c.all, c.anonymous, c.imported)
		}
	}
	for k, n := range m.w.totals {
		if s.covers(k.post.Tenant, k.post.Post) {
			to.ViewerCount(k.post, k.shard, n)
		}
	}
	for k, row := range m.w.viewers {
		if s.covers(k.post.Tenant, k.post.Post) {
			to.Viewer(k.post, k.viewer, row, m.w.shards[k])
		}
	}
	for key, b := range m.w.imported {
		if s.covers(key.Tenant, key.Post) {
			to.Imported(key, b.Impressions, b.UniqueViewers, b.AsOf.UnixMicro())
		}
	}
	return nil
}

type worldOperators struct{ w *world }

func (o worldOperators) Read(context.Context) (Decisions, error) { return o.w.decisions, nil }
