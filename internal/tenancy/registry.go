package tenancy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"seenby/domain"
)

// Follower reads a topic from the log's start for ever: apply gets every batch in order, caughtUp is called once,
// when the ends asked at the start are passed, both by one goroutine. It ends with ctx, with apply's error, or
// with its own.
type Follower interface {
	Follow(ctx context.Context, topic domain.Topic, apply func(domain.Batch) error, caughtUp func()) error
}

// TenantHandle is what a request of a tenant needs to know.
type TenantHandle struct {
	ID    domain.TenantID
	Key   domain.TenantKey
	KeyID string // of the API key that was presented
}

// Registry is the topic tenants, folded in memory. All methods are safe for concurrent use; reads take no lock.
type Registry struct {
	follower Follower
	secret   *Secret
	log      *slog.Logger

	now   atomic.Pointer[snapshot] // nil until the log was read to the end asked at the start
	ready chan struct{}

	mu      sync.Mutex // guards what follows; taken by the follower and by waiters
	next    map[domain.Partition]int64
	moved   chan struct{} // closed and replaced whenever next moves
	changed chan struct{} // closed and replaced whenever now is another
	keys    map[domain.TenantID]unwrapped
}

// snapshot is never changed once it is published.
type snapshot struct {
	byHash      map[[32]byte]TenantHandle
	tenants     map[domain.TenantID]tenantState
	partitions  map[domain.Topic]int32
	fingerprint string
}

// tenantState is of an open tenant. Without its key nobody can be served, but its views can be judged.
type tenantState struct {
	key       domain.TenantKey
	opened    bool // key is known
	limits    domain.Limits
	relay     domain.RelaySet
	endpoints []domain.EndpointSet // by their ids
}

type unwrapped struct {
	wrapped []byte
	key     domain.TenantKey
}

// NewRegistry makes a registry that knows nothing until Run has read the log.
func NewRegistry(follower Follower, secret *Secret, log *slog.Logger) *Registry {
	return &Registry{
		follower: follower, secret: secret, log: log,
		ready: make(chan struct{}), moved: make(chan struct{}), changed: make(chan struct{}),
		next: map[domain.Partition]int64{}, keys: map[domain.TenantID]unwrapped{},
	}
}

// How long Run waits before it follows again, doubling from the first to the last.
const (
	followAgainFirst = 100 * time.Millisecond
	followAgainLast  = 5 * time.Second
)

// Run follows the log until ctx ends (nil) or something is wrong that waiting does not cure: another secret,
// other partition counts, a lost log. While Kafka is away it tries again; what was known stays known.
func (r *Registry) Run(ctx context.Context) error {
	pause := followAgainFirst
	for {
		caughtUp, err := r.follow(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		if err != nil && domain.CodeOf(err) != domain.CodeUnavailable {
			return err
		}
		if caughtUp {
			pause = followAgainFirst
		}
		r.log.Warn("following tenants ended; trying again", "err", err, "wait", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, followAgainLast)
	}
}

// follow reads the log once, from its start, into a fold of its own: folding old records onto a newer state would
// accept a revoked key again until its revocation is read anew.
func (r *Registry) follow(ctx context.Context) (caughtUp bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var in domain.Installation
	var unseen []domain.Position // folded, but not published before the fold has caught up
	err = r.follower.Follow(ctx, domain.TopicTenants, func(b domain.Batch) error {
		for _, rec := range b.Records {
			if rec.Err != nil {
				return domain.Errorf(domain.CodeMisconfigured, "topic tenants, partition %d, offset %d cannot be read; a newer version may have written it", rec.Partition.Partition, rec.Offset).Because(rec.Err)
			}
			if rec.Event != nil && !in.Apply(rec.Event) {
				return domain.Errorf(domain.CodeMisconfigured, "topic tenants, partition %d, offset %d holds a %s, which does not belong there", rec.Partition.Partition, rec.Offset, rec.Event.EventType())
			}
		}
		if !caughtUp {
			unseen = append(unseen, b.Next...)
			return nil
		}
		if len(b.Records) > 0 {
			if err := r.publish(&in, false); err != nil {
				return err
			}
		}
		r.advance(b.Next)
		return nil
	}, func() {
		caughtUp = true
		if err := r.publish(&in, r.now.Load() == nil); err != nil {
			cancel(err)
			return
		}
		r.advance(unseen)
		unseen = nil
	})
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return caughtUp, cause
	}
	return caughtUp, err
}

// publish makes the fold what the registry answers from. At the start a tenant key that does not open refuses to
// start; later it is that tenant alone that is not served here, and the others go on. Its limits are known even so: after
// a rotation a gate that was not restarted yet meets views of tenants that were created since, which others took.
func (r *Registry) publish(in *domain.Installation, starting bool) error {
	if err := r.secret.check(in.Fingerprint); err != nil {
		if starting {
			return err
		}
		r.log.Error("the installation's secret was changed while this process runs; restart it with the new one", "err", err)
	}
	before := r.now.Load()
	s := &snapshot{
		byHash: make(map[[32]byte]TenantHandle, len(in.KeysByHash)), tenants: make(map[domain.TenantID]tenantState, len(in.Tenants)),
		partitions: maps.Clone(in.Partitions), fingerprint: in.Fingerprint,
	}
	if before != nil {
		for topic, n := range before.partitions {
			if now := s.partitions[topic]; now != n {
				return domain.Errorf(domain.CodeMisconfigured, "the partition count of topic %s changed from %d to %d: keys would move; stopping", topic, n, now)
			}
		}
	}
	for id, t := range in.Tenants {
		if t.Closed || len(t.Created.WrappedKey) == 0 {
			continue
		}
		key, err := r.unwrap(id, t.Created.WrappedKey)
		if err != nil {
			if starting {
				return err
			}
			r.log.Error("a tenant cannot be served", "tenant", id, "err", err)
		}
		s.tenants[id] = tenantState{key: key, opened: err == nil, limits: t.Limits, relay: t.Relay, endpoints: sortedEndpoints(t)}
	}
	for hash, ref := range in.KeysByHash {
		if t := s.tenants[ref.Tenant]; t.opened {
			s.byHash[hash] = TenantHandle{ID: ref.Tenant, Key: t.key, KeyID: ref.KeyID}
		}
	}
	if r.now.Swap(s) == nil {
		close(r.ready)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

// unwrap opens a tenant's key once. A key that was opened before stays usable when it was wrapped anew under a
// secret that this process does not have: wrapping changes, the key does not.
func (r *Registry) unwrap(id domain.TenantID, wrapped []byte) (domain.TenantKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	have, known := r.keys[id]
	if known && bytes.Equal(have.wrapped, wrapped) {
		return have.key, nil
	}
	key, err := r.secret.Unwrap(id, wrapped)
	if err != nil {
		if known {
			return have.key, nil
		}
		return key, err
	}
	r.keys[id] = unwrapped{wrapped: wrapped, key: key}
	return key, nil
}

// advance lets WaitFor see what is folded.
func (r *Registry) advance(next []domain.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range next {
		r.next[p.In()] = max(r.next[p.In()], p.NextOffset)
	}
	close(r.moved)
	r.moved = make(chan struct{})
}
