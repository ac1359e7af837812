package tenancy

import (
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"seenby/domain"
)

// TenantOf finds a tenant, open or closed; an unknown one is CodeNotFound.
func TenantOf(in *domain.Installation, tenant domain.TenantID) (*domain.Tenant, error) {
	if t := in.Tenants[tenant]; t != nil && exists(t) {
		return t, nil
	}
	return nil, domain.Errorf(domain.CodeNotFound, "there is no tenant %s", clip(string(tenant)))
}

// List gives the ids of all tenants, open and closed, sorted.
func List(in *domain.Installation) []domain.TenantID {
	var ids []domain.TenantID
	for id, t := range in.Tenants {
		if exists(t) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// open finds a tenant that is not closed.
func open(in *domain.Installation, tenant domain.TenantID) (*domain.Tenant, error) {
	if t, err := TenantOf(in, tenant); err == nil && !t.Closed {
		return t, nil
	}
	return nil, domain.Errorf(domain.CodeNotFound, "there is no open tenant %s", clip(string(tenant)))
}

// clip bounds an id that is not known to be one.
func clip(id string) string {
	if len(id) > domain.TenantBytesMax {
		return strings.ToValidUTF8(id[:domain.TenantBytesMax], "") + "..."
	}
	return id
}

// CloseTenant decides the end of a tenant: its key is destroyed, its API keys are revoked, and its core system is told
// nothing any more; the URLs of endpoints go, for they may hold a password. One that is closed already gives no event,
// an unknown one is CodeNotFound.
func CloseTenant(in *domain.Installation, now time.Time, tenant domain.TenantID) ([]domain.Event, error) {
	t, err := TenantOf(in, tenant)
	if err != nil || t.Closed {
		return nil, err
	}
	events := []domain.Event{domain.TenantClosed{Tenant: tenant, ClosedAt: now}}
	for _, id := range slices.Sorted(maps.Keys(t.Keys)) {
		if k := t.Keys[id]; !k.Revoked {
			events = append(events, domain.KeyRevoked{Tenant: tenant, KeyID: id, Prefix: k.Prefix, RevokedAt: now})
		}
	}
	if t.Relay.Enabled {
		events = append(events, domain.RelaySet{Tenant: tenant, SetAt: now})
	}
	for _, e := range sortedEndpoints(t) {
		if e.Enabled() {
			e.DisabledAt = now
		}
		e.URL, e.DisabledReason = "", ""
		events = append(events, e)
	}
	return events, nil
}

// RevokeKey decides the end of an API key, named by its id or by its text from the start: seenby_<id>. One that is
// revoked already gives no event, an unknown one is CodeNotFound.
func RevokeKey(in *domain.Installation, now time.Time, tenant domain.TenantID, key string) (id string, events []domain.Event, err error) {
	t, err := TenantOf(in, tenant)
	if err != nil {
		return "", nil, err
	}
	id, _, _ = strings.Cut(strings.TrimPrefix(key, keyMark), "_")
	k, known := t.Keys[id]
	switch {
	case !known:
		// What was given is not repeated: it may be a key, of another tenant.
		return "", nil, domain.Errorf(domain.CodeNotFound, "tenant %s has no key of this id; `seenby keys list %s` shows its keys", tenant, tenant)
	case k.Revoked:
		return id, nil, nil
	}
	return id, []domain.Event{domain.KeyRevoked{Tenant: tenant, KeyID: id, Prefix: k.Prefix, RevokedAt: now}}, nil
}

// RotateSecret decides that tenant keys are sealed under next from now on: every open tenant's key wrapped anew,
// and the mark of the new secret. The events are to be appended together. A rotation that was done already gives
// no event. CodeConflict: there is nothing to rotate yet. CodeMisconfigured: the keys do not open with secret.
func RotateSecret(in *domain.Installation, rand io.Reader, secret, next *Secret) ([]domain.Event, error) {
	switch in.Fingerprint {
	case "":
		return nil, domain.Errorf(domain.CodeConflict, "there is no tenant yet, so nothing is sealed: give the new secret as SEENBY_SECRET")
	case next.fingerprint:
		return nil, nil
	}
	if err := secret.check(in.Fingerprint); err != nil {
		return nil, err
	}
	var events []domain.Event
	for _, id := range List(in) {
		t := in.Tenants[id]
		if t.Closed || len(t.Created.WrappedKey) == 0 {
			continue
		}
		key, err := secret.Unwrap(id, t.Created.WrappedKey)
		if err != nil {
			return nil, err
		}
		created := t.Created
		if created.WrappedKey, err = next.Wrap(rand, id, key); err != nil {
			return nil, err
		}
		created.SecretFingerprint = next.fingerprint
		events = append(events, created)
	}
	return append(events, domain.SecretRecorded{Fingerprint: next.fingerprint}), nil
}

// Remainder is what stays of a closed tenant in one place.
type Remainder struct {
	Where string `json:"where"`
	What  string `json:"what"`
	Until string `json:"until"`
}

// Remainders says what stays once a tenant is closed and its names and texts are forgotten.
func Remainders() []Remainder {
	const (
		forEver    = "for ever"
		compaction = "Kafka compacts the topic: within about two days; on a partition to which nothing is appended any more, after its next record"
	)
	return []Remainder{
		{"topics posts, audiences, views, verdicts", "what happened, under the app's ids of posts and audiences. People stand there as person keys only: without the tenant's key nobody can compute or trace them", forEver},
		{"topic people and its read model", "the marks of people who were erased: a person key and a time", forEver},
		{"topics people, bodies", "names and texts, each with a tombstone behind it", compaction},
		{"topic tenants", "the sealed key of the tenant, the labels of its API keys and the URLs of its endpoints, each with its replacement behind it", compaction},
		{"topic tenants", "the id, which is never used again, the time of closing, the limits, and the ids of API keys and endpoints", forEver},
		{"topic impressions", "each post's counts as they were told, under the app's ids of posts", forEver},
		{"the relay's tables", "the same, and what endpoints refused, with their answers", "their rows are deleted from the database by hand"},
		{"read models posts, impressions, uniqueviews, timeseries", "posts without texts, counts, and viewers and members as person keys; no API key reads them any more", "their rows are deleted from the database by hand"},
		{"names and texts in the read models", "nothing, as soon as the projectors have read the tombstones", "seconds"},
		{"backups of Kafka and PostgreSQL", "all of it, as it was", "they are deleted"},
	}
}
