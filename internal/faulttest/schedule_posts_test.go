package faulttest

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/projections/posts"
)

// postsModel is the read model of posts, in memory: it follows the log late, as it pleases, and answers from one
// snapshot. Beside that it keeps what the checker asks: when it folded each deletion.
type postsModel struct {
	reader *eventlog.Reader

	mu        sync.Mutex
	posts     map[domain.PostKey]*domain.Post
	seen      map[domain.EventID]bool
	members   map[posts.Member]bool
	positions posts.Positions
	deleted   map[domain.PostKey]time.Time
	away      bool
	resting   chan struct{} // closed when it is to go on; nil: it goes on
}

func newPostsModel(reader *eventlog.Reader) *postsModel {
	return &postsModel{
		reader: reader, posts: map[domain.PostKey]*domain.Post{}, seen: map[domain.EventID]bool{}, members: map[posts.Member]bool{},
		positions: posts.Positions{}, deleted: map[domain.PostKey]time.Time{},
	}
}

// run follows both topics. pause says how long it stands still after each batch.
func (m *postsModel) run(ctx context.Context, from []domain.Position, pause func() time.Duration) error {
	if err := m.reader.Seek(ctx, from); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if resting := m.restingNow(); resting != nil {
			// It reads on from where it stands, and asks for nothing meanwhile.
			at := m.standing(from)
			m.reader.Drop(partitionsOf(at))
			select {
			case <-resting:
			case <-ctx.Done():
				return nil
			}
			if err := m.reader.Seek(ctx, at); err != nil {
				return err
			}
		}
		b, err := m.reader.Poll(ctx, 1000)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end is no error
		case domain.CodeOf(err) == domain.CodeUnavailable:
			sleep(ctx, 100*time.Millisecond)
			continue
		case err != nil:
			return err
		}
		if len(b.Next) > 0 {
			sleep(ctx, pause())
			m.fold(b)
		}
	}
	return nil
}

func (m *postsModel) fold(b domain.Batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range b.Records {
		switch e := r.Event.(type) {
		case domain.PostEvent:
			if m.seen[e.ID()] {
				continue
			}
			m.seen[e.ID()] = true
			p := m.posts[e.PostKey()]
			if p == nil {
				p = &domain.Post{}
				m.posts[e.PostKey()] = p
			}
			p.Apply(e, r.Time)
			if p.Deleted {
				m.deleted[e.PostKey()] = time.Now()
			}
		case domain.AudienceMemberAdded:
			m.members[posts.Member{Tenant: e.Tenant, Audience: e.Audience, Person: e.Person}] = true
		}
	}
	for _, p := range b.Next {
		m.positions.Set(p)
	}
}

var errPostgresAway = domain.Errorf(domain.CodeUnavailable, "PostgreSQL is away")

// Lookup is the gate's question.
func (m *postsModel) Lookup(_ context.Context, asked []posts.Asked) (posts.LookupResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return posts.LookupResult{}, errPostgresAway
	}
	res := posts.LookupResult{
		Posts: map[domain.PostKey]domain.PostAnswer{}, Members: map[posts.Member]bool{}, Positions: posts.Positions{},
		Parked: map[domain.PostKey]bool{}, ParkedMembers: map[posts.Member]bool{},
	}
	for topic, at := range m.positions {
		res.Positions[topic] = maps.Clone(at)
	}
	for _, a := range asked {
		p := m.posts[a.Post]
		if p == nil || p.Version == 0 {
			continue
		}
		res.Posts[a.Post] = domain.PostAnswer{Known: true, Deleted: p.Deleted, Version: p.Version, Author: p.Author, Audience: p.Audience}
		if name, ok := p.Audience.Name(); ok && !p.Deleted {
			for _, v := range a.Viewers {
				if member := (posts.Member{Tenant: a.Post.Tenant, Audience: name, Person: v}); m.members[member] {
					res.Members[member] = true
				}
			}
		}
	}
	return res, nil
}

// Settled is the keeper's question.
func (m *postsModel) Settled(_ context.Context, waits []posts.Wait) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return nil, errPostgresAway
	}
	settled := make([]bool, len(waits))
	for i, w := range waits {
		settled[i] = true
		for _, p := range w.WaitsFor {
			settled[i] = settled[i] && m.positions.Passed(p)
		}
	}
	return settled, nil
}

// Erasable is of texts, which have no part here.
func (m *postsModel) Erasable(context.Context, int) ([]domain.PostBodyErased, error) { return nil, nil }

func (m *postsModel) setAway(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

// rest makes the model stand still, or go on.
func (m *postsModel) rest(resting bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if resting {
		m.resting = make(chan struct{})
	} else {
		close(m.resting)
		m.resting = nil
	}
}

func (m *postsModel) restingNow() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.resting
}

// standing is how far the model has come in all partitions that it began at from.
func (m *postsModel) standing(from []domain.Position) []domain.Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := make([]domain.Position, len(from))
	for i, p := range from {
		at[i] = p
		if have, ok := m.positions[p.Topic][p.Partition]; ok {
			at[i] = have
		}
	}
	return at
}

func partitionsOf(at []domain.Position) []domain.Partition {
	parts := make([]domain.Partition, len(at))
	for i, p := range at {
		parts[i] = p.In()
	}
	return parts
}

func (m *postsModel) deletedAt(k domain.PostKey) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.deleted[k]
	return at, ok
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// between is a random time of [0, most).
func between(rnd *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rnd.Int64N(int64(most)))
}
