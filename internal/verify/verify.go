package verify

import (
	"context"
	"fmt"
	"slices"
	"time"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/posts"
	"seenby/projections/uniqueviews"
)

const projectionPosts = posts.Name

// followed are the projections that are recomputed; their Check parks alike.
var followed = [2]projections.Projection{impressions.Projection{}, uniqueviews.Projection{}}

// run is one verification under way.
type run struct {
	deps   Deps
	scope  Scope
	report *Report

	state     State
	decisions Decisions
	posts     *postTable
	pairs     map[pairKey]pair // of the partition that is being folded
	ids       *countedIDs
	unknown   map[revision]bool // reported once each
	letters   map[letter]bool   // parked records that the log has not shown yet
	tenants   map[domain.TenantID]*Tenant
	detail    *detail // with Scope.Post

	progress Progress
	told     time.Time
}

type revision struct {
	tenant   domain.TenantID
	revision int64
}

type letter struct {
	projection string
	partition  int32
	offset     int64
}

// Run compares the read models with the log.
func Run(ctx context.Context, deps Deps, scope Scope) (*Report, error) {
	r := &run{
		deps: deps, scope: scope, posts: newPostTable(), pairs: map[pairKey]pair{}, unknown: map[revision]bool{},
		letters: map[letter]bool{}, tenants: map[domain.TenantID]*Tenant{},
		report: &Report{Scope: scope, Positions: []Positions{}, Tenants: []Tenant{}, Findings: []Finding{}, Notes: []string{}},
	}
	if scope.Post != "" {
		r.detail = &detail{rows: map[domain.PersonKey]storedRow{}}
		r.detail.out.Viewers = []ViewerDetail{}
	}
	// The snapshot first, and as short as it can be: it keeps PostgreSQL from tidying up. The log does not change
	// behind a position.
	if err := deps.ReadModels.Read(ctx, scope, r); err != nil {
		return nil, err
	}
	var err error
	if r.decisions, err = deps.Operators.Read(ctx); err != nil {
		return nil, err
	}
	r.ids = newCountedIDs(r.posts.hash, r.decisions.longestWindow())
	if err := r.log(ctx); err != nil {
		return nil, err
	}
	r.end()
	return r.report, nil
}

// log folds all partitions, those of one shard one after the other.
func (r *run) log(ctx context.Context) error {
	bounds, err := r.bounds(ctx)
	if err != nil {
		return err
	}
	parts, err := r.partitions(bounds)
	if err != nil {
		return err
	}
	for _, p := range parts {
		r.progress.Of += max(p.impressions.at.NextOffset, p.pairs.at.NextOffset)
	}
	slices.SortStableFunc(parts, func(a, b *partition) int { return int(a.shard) - int(b.shard) })
	done := int64(0)
	for i, p := range parts {
		if err := p.fold(ctx, bounds[domain.TopicVerdicts], bounds[domain.TopicViews]); err != nil {
			return err
		}
		if i == len(parts)-1 || parts[i+1].shard != p.shard {
			r.posts.endShard(p.shard)
		}
		done += max(p.impressions.at.NextOffset, p.pairs.at.NextOffset)
		r.progress.Verdicts = done
	}
	return r.imported(ctx, bounds[domain.TopicPosts])
}

// bound is where a topic's partitions start and end.
type bound struct{ starts, ends []domain.Position }

// bounds asks how far the log goes, and holds the positions of all read models against it.
func (r *run) bounds(ctx context.Context) (map[domain.Topic]bound, error) {
	out := map[domain.Topic]bound{}
	ask := func(topic domain.Topic) (b bound, err error) {
		b, asked := out[topic]
		if asked {
			return b, nil
		}
		if b.starts, err = r.deps.Log.Starts(ctx, topic); err != nil {
			return b, err
		}
		if b.ends, err = r.deps.Log.Ends(ctx, topic); err != nil {
			return b, err
		}
		out[topic] = b
		return b, nil
	}
	for _, topic := range []domain.Topic{domain.TopicVerdicts, domain.TopicViews} {
		b, err := ask(topic)
		if err != nil {
			return nil, err
		}
		for _, s := range b.starts {
			switch {
			case s.NextOffset == 0:
			case topic == domain.TopicVerdicts:
				return nil, domain.Errorf(domain.CodeDataLoss, "%s/%d starts at %d: the verdicts below it are lost, and the read models can no longer be recomputed from the log", topic, s.Partition, s.NextOffset)
			default:
				r.report.Notes = append(r.report.Notes, fmt.Sprintf("%s/%d starts at %d: older views are taken from their verdicts", topic, s.Partition, s.NextOffset))
			}
		}
	}
	for name, rows := range r.state.Positions {
		for _, row := range rows {
			b, err := ask(row.Topic)
			if err != nil {
				return nil, err
			}
			if err := within(name, row.Position, b); err != nil {
				return nil, err
			}
			if row.Topic != domain.TopicVerdicts {
				continue
			}
			views := row.Position
			views.Topic, views.TopicID, views.NextOffset = domain.TopicViews, domain.TopicID{}, row.ViewNextOffset
			if err := within(name, views, out[domain.TopicViews]); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// within tells whether the log holds everything up to a position.
func within(projection string, at domain.Position, b bound) error {
	lost := func(format string, args ...any) error {
		return domain.Errorf(domain.CodeDataLoss, "%s/%d: %s; restore the topic, or the database to a time that fits it", at.Topic, at.Partition, fmt.Sprintf(format, args...))
	}
	if int(at.Partition) >= len(b.ends) {
		return lost("%s has a position there, and the topic has only %d partitions", projection, len(b.ends))
	}
	end := b.ends[at.Partition]
	switch {
	case at.TopicID != domain.TopicID{} && at.TopicID != end.TopicID:
		return lost("the topic was deleted and made anew: the position of %s is of topic id %v, the log's is %v", projection, at.TopicID, end.TopicID)
	case at.NextOffset > end.NextOffset:
		return lost("%s has read up to %d, and the log ends at %d: it was truncated", projection, at.NextOffset, end.NextOffset)
	}
	return nil
}

// partitions joins the positions, and what is left out, by partition.
func (r *run) partitions(bounds map[domain.Topic]bound) ([]*partition, error) {
	ends := bounds[domain.TopicVerdicts].ends
	if len(bounds[domain.TopicViews].ends) != len(ends) {
		return nil, domain.Errorf(domain.CodeMisconfigured, "views has %d partitions and verdicts %d: a verdict stands in the partition of its view's number", len(bounds[domain.TopicViews].ends), len(ends))
	}
	parts := make([]*partition, len(ends))
	for n, end := range ends {
		p := &partition{
			run: r, n: end.Partition, shard: projections.Shard(end.Partition), counts: map[domain.TenantID]*Counts{},
			undecided: newUndecided(), detail: map[domain.PersonKey][]VerdictShown{},
			impressions: r.follower(followed[0], end), pairs: r.follower(followed[1], end),
		}
		parts[n] = p
	}
	return parts, nil
}

func (r *run) follower(p projections.Projection, in domain.Position) *follower {
	f := &follower{projection: p, leftOut: map[int64]string{}}
	for _, row := range r.state.Positions[p.Name()] {
		if row.In() == in.In() {
			f.at = row
			r.report.Positions = append(r.report.Positions, Positions{p.Name(), in.Partition, row.NextOffset, row.ViewNextOffset})
		}
	}
	for _, at := range r.decisions.Discarded[p.Name()] {
		if at.Partition == in.In() {
			f.leftOut[at.Offset] = "discarded"
		}
	}
	for _, at := range r.state.Parked[p.Name()] {
		if at.Partition == in.In() {
			f.leftOut[at.Offset] = "parked"
			r.letters[letter{p.Name(), in.Partition, at.Offset}] = true
		}
	}
	return f
}

// end compares, and closes the report.
func (r *run) end() {
	for l := range r.letters {
		r.find(domain.TopicVerdicts, l.partition, l.offset, "", "", "is a dead letter of %s, and there is no such record below its position", l.projection)
	}
	for key, i := range r.posts.index {
		p := r.posts.at(i)
		t := r.tenant(key.Tenant)
		t.ReadModel.Impressions += p.impressions.ReadModel
		t.ReadModel.UniqueViewers += p.viewers.ReadModel
	}
	for _, t := range r.tenants {
		r.report.Tenants = append(r.report.Tenants, *t)
	}
	sortTenants(r.report.Tenants)
	slices.SortFunc(r.report.Findings, func(a, b Finding) int { return compareFindings(&a, &b) })
	r.report.Posts = int64(len(r.posts.index))
	r.report.Differing = r.posts.differing()
	if r.detail != nil {
		_, p := r.posts.of(domain.PostKey{Tenant: r.scope.Tenant, Post: r.scope.Post})
		r.report.Post = r.detail.end(p.difference(domain.PostKey{Tenant: r.scope.Tenant, Post: r.scope.Post}))
	}
	r.report.Clean = len(r.report.Differing) == 0 && r.report.FindingsInAll == 0
}

func (r *run) tenant(id domain.TenantID) *Tenant {
	t := r.tenants[id]
	if t == nil {
		t = &Tenant{Tenant: id, Partitions: []Partition{}}
		r.tenants[id] = t
	}
	return t
}

// find notes what is wrong at a place. A record that names no tenant or post is everybody's.
func (r *run) find(topic domain.Topic, partition int32, offset int64, tenant domain.TenantID, post domain.PostID, format string, args ...any) {
	if tenant != "" && !r.scope.tenant(tenant) || post != "" && r.scope.Post != "" && r.scope.Post != post {
		return
	}
	if r.report.FindingsInAll++; r.report.FindingsInAll <= findingsMax {
		r.report.Findings = append(r.report.Findings, Finding{tenant, post, topic, partition, offset, fmt.Sprintf(format, args...)})
	}
}

func compareFindings(a, b *Finding) int {
	switch {
	case a.Partition != b.Partition:
		return int(a.Partition - b.Partition)
	case a.Topic != b.Topic:
		return cmpString(a.Topic, b.Topic)
	case a.Offset < b.Offset:
		return -1
	case a.Offset > b.Offset:
		return 1
	}
	return cmpString(a.What, b.What)
}

// tellEvery is how often somebody who watches is told.
const tellEvery = 200 * time.Millisecond

func (r *run) tell() {
	if r.deps.Progress != nil && time.Since(r.told) >= tellEvery {
		r.told = time.Now()
		r.deps.Progress(r.progress)
	}
}
