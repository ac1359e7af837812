package gate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"seenby/domain"
	"seenby/projections/posts"
)

// fakeAssigner assigns what the test says.
type fakeAssigner struct {
	mu      sync.Mutex
	parts   []domain.Partition
	changed chan struct{}
	offsets map[int32]int64
}

func (a *fakeAssigner) assign(parts ...domain.Partition) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parts = parts
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *fakeAssigner) Assignment() ([]domain.Partition, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.parts, a.changed
}

func (a *fakeAssigner) Commit(_ context.Context, at []domain.Position) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.offsets == nil {
		a.offsets = map[int32]int64{}
	}
	for _, p := range at {
		a.offsets[p.Partition] = p.NextOffset
	}
	return nil
}

// fakePosts is a posts projection whose rows and positions the test moves.
type fakePosts struct {
	mu        sync.Mutex
	posts     map[domain.PostKey]domain.PostAnswer
	parked    map[domain.PostKey]bool
	positions map[int32]domain.Position
	err       error
	calls     int
	asked     int
	onLookup  func(call int) // before the answer is made, with mu held
}

var postsID = domain.TopicID{1}

func (f *fakePosts) Lookup(_ context.Context, keys []domain.PostKey) (posts.LookupResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	f.asked += len(keys)
	if f.onLookup != nil {
		f.onLookup(f.calls)
	}
	if f.err != nil {
		return posts.LookupResult{}, f.err
	}
	res := posts.LookupResult{Posts: map[domain.PostKey]domain.PostAnswer{}, Positions: maps.Clone(f.positions), Parked: map[domain.PostKey]bool{}}
	for _, k := range keys {
		if p, ok := f.posts[k]; ok {
			res.Posts[k] = p
		}
		if f.parked[k] {
			res.Parked[k] = true
		}
	}
	return res, nil
}

func (f *fakePosts) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func postKey0(post string) domain.PostKey {
	return domain.PostKey{Tenant: tenant, Post: domain.PostID(post)}
}

// publish makes a post that everyone may see, by author 999.
func (f *fakePosts) publish(names ...string) {
	for _, p := range names {
		f.posts[postKey0(p)] = domain.PostAnswer{Known: true, Version: 1, Author: person(999), Audience: domain.AudienceEveryone}
	}
}

func (f *fakePosts) pass(p int32, next int64) {
	f.positions[p] = domain.Position{Topic: domain.TopicPosts, TopicID: postsID, Partition: p, NextOffset: next}
}

// fakeEnds are the ends of the topic posts.
type fakeEnds struct {
	mu         sync.Mutex
	partitions int32
	ends       map[int32]int64
	err        error
	calls      int
}

func (f *fakeEnds) Ends(_ context.Context, topic domain.Topic) ([]domain.Position, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if topic == domain.TopicTenants {
		return []domain.Position{{Topic: topic, NextOffset: 7}}, nil
	}
	f.calls++
	out := make([]domain.Position, f.partitions)
	for p := range out {
		out[p] = domain.Position{Topic: topic, TopicID: postsID, Partition: int32(p), NextOffset: f.ends[int32(p)]}
	}
	return out, f.err
}

func (f *fakeEnds) end(p int32, next int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ends[p] = next
}

// fakeTenants is a registry that the test fills; onWait runs when somebody waits for it to catch up.
type fakeTenants struct {
	mu     sync.Mutex
	limits map[domain.TenantID]domain.Limits
	onWait func(*fakeTenants) error
}

func (f *fakeTenants) Limits(id domain.TenantID) (domain.Limits, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.limits[id]
	return l, ok
}

func (f *fakeTenants) Tenants() []domain.TenantID {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []domain.TenantID
	for id := range f.limits {
		ids = append(ids, id)
	}
	return ids
}

func (f *fakeTenants) WaitFor(_ context.Context, at []domain.Position) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.onWait != nil && len(at) > 0 {
		return f.onWait(f)
	}
	return nil
}

func (f *fakeTenants) set(id domain.TenantID, change func(*domain.Limits)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.limits[id]
	if !ok {
		l = domain.DefaultLimits()
	}
	change(&l)
	f.limits[id] = l
}

// stateOf is the state of a partition; empty before the gate has taken it up.
func stateOf(g *Gate, p int32) State {
	for _, s := range g.Status() {
		if s.Partition.Partition == p {
			return s.State
		}
	}
	return ""
}

var errAway = errors.New("the database is away")

func ids(n int) string { return fmt.Sprintf("p%d", n) }
