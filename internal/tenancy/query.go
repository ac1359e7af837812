package tenancy

import (
	"context"
	"slices"

	"seenby/domain"
)

// Authenticate finds the tenant of an API key: CodeUnauthorized for a key that is unknown, revoked, malformed or
// of a closed tenant (alike), CodeUnavailable before the log was read. Looking up by SHA-256 needs no
// constant-time comparison: what a timing tells is about the hash.
func (r *Registry) Authenticate(bearer string) (TenantHandle, error) {
	s := r.now.Load()
	if s == nil {
		return TenantHandle{}, errNotRead
	}
	if len(bearer) > keyBytesMax {
		return TenantHandle{}, errUnauthorized
	}
	h, ok := s.byHash[HashKey(bearer)]
	if !ok {
		return TenantHandle{}, errUnauthorized
	}
	return h, nil
}

var (
	errUnauthorized = domain.Errorf(domain.CodeUnauthorized, "send a valid API key: Authorization: Bearer seenby_...")
	errNotRead      = domain.Errorf(domain.CodeUnavailable, "the tenants are not read from Kafka yet")
)

// Limits are the tenant's, at the greatest revision; false for an unknown or closed tenant.
func (r *Registry) Limits(id domain.TenantID) (domain.Limits, bool) {
	if s := r.now.Load(); s != nil {
		t, ok := s.tenants[id]
		return t.limits, ok
	}
	return domain.Limits{}, false
}

// Key is the tenant's own key; false for an unknown or closed tenant, and where this process has another secret.
func (r *Registry) Key(id domain.TenantID) (domain.TenantKey, bool) {
	if s := r.now.Load(); s != nil {
		t := s.tenants[id]
		return t.key, t.opened
	}
	return domain.TenantKey{}, false
}

// Relay is what the tenant's core system is told, the zero value where nothing was ever set; false for an unknown or closed
// tenant. It is known even where Key is not.
func (r *Registry) Relay(id domain.TenantID) (domain.RelaySet, bool) {
	s := r.now.Load()
	if s == nil {
		return domain.RelaySet{}, false
	}
	t, ok := s.tenants[id]
	relay := t.relay
	relay.Milestones = slices.Clone(relay.Milestones)
	return relay, ok
}

// Endpoints are those of the tenant, enabled and not, by their ids; none of an unknown or closed tenant.
func (r *Registry) Endpoints(id domain.TenantID) []domain.EndpointSet {
	if s := r.now.Load(); s != nil {
		return slices.Clone(s.tenants[id].endpoints)
	}
	return nil
}

// Changed is closed when the registry answers from a newer state than now. Take it before asking, and no change is missed.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Partitions is the recorded partition count of a topic; false where none is recorded.
func (r *Registry) Partitions(topic domain.Topic) (int32, bool) {
	if s := r.now.Load(); s != nil {
		n, ok := s.partitions[topic]
		return n, ok
	}
	return 0, false
}

// Tenants lists the open tenants, in no order.
func (r *Registry) Tenants() []domain.TenantID {
	s := r.now.Load()
	if s == nil {
		return nil
	}
	ids := make([]domain.TenantID, 0, len(s.tenants))
	for id := range s.tenants {
		ids = append(ids, id)
	}
	return ids
}

// Ready tells whether the log was read to the end asked at the start, once.
func (r *Registry) Ready() bool { return r.now.Load() != nil }

// Check is Ready as a readiness check.
func (r *Registry) Check(context.Context) error {
	if r.Ready() {
		return nil
	}
	return errNotRead
}

// WaitReady waits until Ready.
func (r *Registry) WaitReady(ctx context.Context) error {
	select {
	case <-r.ready:
		return nil
	case <-ctx.Done():
		return domain.Errorf(domain.CodeUnavailable, "%s", errNotRead.Message).Because(ctx.Err())
	}
}

// WaitFor waits until the positions of the topic tenants among those given are folded and answered from.
func (r *Registry) WaitFor(ctx context.Context, positions []domain.Position) error {
	if err := r.WaitReady(ctx); err != nil {
		return err
	}
	for {
		r.mu.Lock()
		moved, passed := r.moved, true
		for _, p := range positions {
			if p.Topic == domain.TopicTenants && r.next[p.In()] < p.NextOffset {
				passed = false
			}
		}
		r.mu.Unlock()
		if passed {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return domain.Errorf(domain.CodeNotYetApplied, "the tenants are not read up to what was asked").Because(ctx.Err())
		}
	}
}
