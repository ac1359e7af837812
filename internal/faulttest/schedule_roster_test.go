package faulttest

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// roster deals partitions out to the members of a group, as Kafka's coordinator does, only faster and with less
// care: a member may learn late that it lost a partition, and goes on meanwhile. It also keeps the group's offsets.
type roster struct {
	w     *world
	parts []domain.Partition

	mu      sync.Mutex
	members []*member
	offsets map[domain.Partition]int64
}

// member is one process's membership. It is the gate's Assigner, and half of a Source.
type member struct {
	roster  *roster
	parts   []domain.Partition
	changed chan struct{}
}

// lateMost is how late a member may learn that it lost a partition: longer than any transaction takes.
const lateMost = 5 * time.Second

func newRoster(w *world, parts []domain.Partition) *roster {
	return &roster{w: w, parts: parts, offsets: map[domain.Partition]int64{}}
}

func (r *roster) join() *member {
	m := &member{roster: r, changed: make(chan struct{})}
	r.mu.Lock()
	r.members = append(r.members, m)
	r.mu.Unlock()
	r.deal()
	return m
}

// leave takes a member out; a dead one keeps its partitions until its session is over.
func (r *roster) leave(m *member, session time.Duration) {
	go func() {
		sleep(r.w.ctx, session)
		r.mu.Lock()
		r.members = slices.DeleteFunc(r.members, func(o *member) bool { return o == m })
		r.mu.Unlock()
		r.deal()
	}()
}

// deal is a rebalance.
func (r *roster) deal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.members) == 0 {
		return
	}
	next := map[*member][]domain.Partition{}
	late := map[*member]time.Duration{}
	r.w.roll(func(rnd *rand.Rand) {
		for _, p := range r.parts {
			m := r.members[rnd.IntN(len(r.members))]
			next[m] = append(next[m], p)
		}
		for _, m := range r.members {
			if !r.w.ending && rnd.IntN(3) == 0 {
				late[m] = between(rnd, lateMost)
			}
		}
	})
	for _, m := range r.members {
		if wait := late[m]; wait > 0 {
			time.AfterFunc(wait, func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				m.assign(next[m])
			})
			continue
		}
		m.assign(next[m])
	}
}

// settle deals out for the last time, once the late news of earlier deals have come in.
func (r *roster) settle() {
	go func() {
		sleep(r.w.ctx, lateMost)
		r.deal()
	}()
}

func (m *member) assign(parts []domain.Partition) {
	if slices.Equal(parts, m.parts) {
		return
	}
	m.parts = parts
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *member) Assignment() ([]domain.Partition, <-chan struct{}) {
	m.roster.mu.Lock()
	defer m.roster.mu.Unlock()
	return slices.Clone(m.parts), m.changed
}

func (m *member) Commit(_ context.Context, at []domain.Position) error {
	m.roster.mu.Lock()
	defer m.roster.mu.Unlock()
	for _, p := range at {
		m.roster.offsets[p.In()] = p.NextOffset
	}
	return nil
}

// Committed forgets now and then, as a group does whose offsets have expired.
func (m *member) Committed(context.Context) (out []domain.Position, err error) {
	forgotten := false
	m.roster.w.roll(func(rnd *rand.Rand) { forgotten = rnd.IntN(3) == 0 })
	m.roster.mu.Lock()
	defer m.roster.mu.Unlock()
	if forgotten {
		return nil, nil
	}
	for p, next := range m.roster.offsets {
		out = append(out, p.At(next))
	}
	return out, nil
}

// membership is what a member and a real group's have in common.
type membership interface {
	Assignment() (parts []domain.Partition, changed <-chan struct{})
	Commit(ctx context.Context, at []domain.Position) error
	Committed(ctx context.Context) ([]domain.Position, error)
}

// grouped is a membership of a real group, whose offsets the roster keeps: the client holds a mutex while it waits for
// others to join, a commit waits for that mutex, and fake time stands still while anybody waits for a mutex.
type grouped struct {
	*eventlog.Group
	kept *member
}

func (g grouped) Commit(ctx context.Context, at []domain.Position) error {
	return g.kept.Commit(ctx, at)
}

func (g grouped) Committed(ctx context.Context) ([]domain.Position, error) {
	return g.kept.Committed(ctx)
}

// source is a membership with a reader.
type source struct {
	membership
	*eventlog.Reader
	log *eventlog.Log
}

func (s *source) Ends(ctx context.Context, topic domain.Topic) ([]domain.Position, error) {
	return s.log.Ends(ctx, topic)
}
