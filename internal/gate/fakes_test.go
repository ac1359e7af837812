package gate

import (
	"context"
	"errors"
	"fmt"
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
	members   map[posts.Member]bool
	parked    map[domain.PostKey]bool
	positions posts.Positions
	err       error
	calls     int
	asked     int
	onLookup  func(call int) // before the answer is made, with mu held
}

var topicIDs = map[domain.Topic]domain.TopicID{domain.TopicPosts: {1}, domain.TopicAudiences: {2}}

func (f *fakePosts) Lookup(_ context.Context, asked []posts.Asked) (posts.LookupResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	f.asked += len(asked)
	if f.onLookup != nil {
		f.onLookup(f.calls)
	}
	if f.err != nil {
		return posts.LookupResult{}, f.err
	}
	res := posts.LookupResult{
		Posts: map[domain.PostKey]domain.PostAnswer{}, Members: map[posts.Member]bool{}, Positions: posts.Positions{},
		Parked: map[domain.PostKey]bool{}, ParkedMembers: map[posts.Member]bool{},
	}
	for _, ps := range f.positions {
		for _, p := range ps {
			res.Positions.Set(p)
		}
	}
	for _, a := range asked {
		if p, ok := f.posts[a.Post]; ok {
			res.Posts[a.Post] = p
			name, _ := p.Audience.Name()
			for _, v := range a.Viewers {
				if m := (posts.Member{Tenant: a.Post.Tenant, Audience: name, Person: v}); f.members[m] {
					res.Members[m] = true
				}
			}
		}
		if f.parked[a.Post] {
			res.Parked[a.Post] = true
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

func (f *fakePosts) pass(p int32, next int64) { f.passIn(domain.TopicPosts, p, next) }

func (f *fakePosts) passIn(topic domain.Topic, p int32, next int64) {
	f.positions.Set(domain.Position{Topic: topic, TopicID: topicIDs[topic], Partition: p, NextOffset: next})
}

// share makes a post of a named audience.
func (f *fakePosts) share(name, audience string) {
	f.posts[postKey0(name)] = domain.PostAnswer{Known: true, Version: 1, Author: person(999), Audience: domain.Audience(domain.AudiencePrefix + audience)}
}

func (f *fakePosts) join(audience string, viewer int) {
	f.members[posts.Member{Tenant: tenant, Audience: audience, Person: person(viewer)}] = true
}

// fakeEnds are the ends of the topics posts and audiences.
type fakeEnds struct {
	mu         sync.Mutex
	partitions int32
	ends       map[stalled]int64
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
		out[p] = domain.Position{Topic: topic, TopicID: topicIDs[topic], Partition: int32(p), NextOffset: f.ends[stalled{topic, int32(p)}]}
	}
	return out, f.err
}

func (f *fakeEnds) end(p int32, next int64) { f.endIn(domain.TopicPosts, p, next) }

func (f *fakeEnds) endIn(topic domain.Topic, p int32, next int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ends[stalled{topic, p}] = next
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
