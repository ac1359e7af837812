package domain

import "bytes"

// A record key is the tenant's id, NUL, and the rest as each function says. No id holds a NUL (CheckID,
// CheckTenantID), and what may hold one (person keys, event ids) has a fixed length and comes last.

const keySeparator = 0

// ErasedSuffix ends the key of an Erased mark, which so outlives the name's tombstone.
const ErasedSuffix = "erased"

// Key is the record key of the post's events.
func (k PostKey) Key() []byte { return joinKey(k.Tenant, []byte(k.Post)) }

// BodyKey is the record key of the text that a post event names.
func (k PostKey) BodyKey(id EventID) []byte {
	return joinKey(k.Tenant, []byte(k.Post), id[:])
}

// Key is the record key of a person's views, verdicts and name.
func (r PersonRef) Key() []byte { return joinKey(r.Tenant, r.Person[:]) }

// ErasedKey is the record key of a person's Erased mark.
func (r PersonRef) ErasedKey() []byte { return append(r.Key(), ErasedSuffix...) }

// MemberKey is the record key of a person's membership of an audience.
func MemberKey(tenant TenantID, audience string, person PersonKey) []byte {
	return joinKey(tenant, []byte(audience), person[:])
}

// TenantKind says what a record of the topic tenants holds.
type TenantKind string

// The kinds of records of the topic tenants.
const (
	TenantKindTenant     TenantKind = "tenant"
	TenantKindLimits     TenantKind = "limits"
	TenantKindKey        TenantKind = "key"
	TenantKindDecision   TenantKind = "decision"
	TenantKindImport     TenantKind = "import"
	TenantKindEndpoint   TenantKind = "endpoint"
	TenantKindRelay      TenantKind = "relay"
	TenantKindPartitions TenantKind = "partitions" // of the installation: the tenant is empty
	TenantKindSecret     TenantKind = "secret"     // of the installation: the tenant is empty
)

// TenantsKey is the record key of a record of the topic tenants.
func TenantsKey(tenant TenantID, kind TenantKind, id string) []byte {
	return joinKey(tenant, []byte(kind), []byte(id))
}

func joinKey(tenant TenantID, parts ...[]byte) []byte {
	n := len(tenant)
	for _, p := range parts {
		n += 1 + len(p)
	}
	key := make([]byte, 0, n)
	key = append(key, tenant...)
	for _, p := range parts {
		key = append(append(key, keySeparator), p...)
	}
	return key
}

// TenantPrefix is how every record key of a tenant begins.
func TenantPrefix(tenant TenantID) []byte { return append([]byte(tenant), keySeparator) }

// SplitTenant cuts a record key into its tenant and the rest; ok is false where the key has no separator.
func SplitTenant(key []byte) (tenant TenantID, rest []byte, ok bool) {
	t, rest, ok := bytes.Cut(key, []byte{keySeparator})
	return TenantID(t), rest, ok
}

// ParsePostKey reads a key made by PostKey.Key.
func ParsePostKey(key []byte) (PostKey, bool) {
	tenant, post, ok := SplitTenant(key)
	return PostKey{tenant, PostID(post)}, ok && len(tenant) > 0 && len(post) > 0 && bytes.IndexByte(post, keySeparator) < 0
}

// ParseBodyKey reads a key made by PostKey.BodyKey.
func ParseBodyKey(key []byte) (PostKey, EventID, bool) {
	tenant, rest, ok := SplitTenant(key)
	post, id, ok2 := bytes.Cut(rest, []byte{keySeparator})
	if !ok || !ok2 || len(tenant) == 0 || len(post) == 0 || len(id) != len(EventID{}) {
		return PostKey{}, EventID{}, false
	}
	return PostKey{tenant, PostID(post)}, EventID(id), true
}

// ParsePersonKey reads a key made by PersonRef.Key or, with erased set, by PersonRef.ErasedKey.
func ParsePersonKey(key []byte) (ref PersonRef, erased, ok bool) {
	tenant, rest, ok := SplitTenant(key)
	const n = len(PersonKey{})
	switch {
	case !ok || len(tenant) == 0 || len(rest) < n:
		return PersonRef{}, false, false
	case len(rest) == n:
		return PersonRef{tenant, PersonKey(rest)}, false, true
	case string(rest[n:]) == ErasedSuffix:
		return PersonRef{tenant, PersonKey(rest[:n])}, true, true
	}
	return PersonRef{}, false, false
}

// ParseMemberKey reads a key made by MemberKey.
func ParseMemberKey(key []byte) (tenant TenantID, audience string, person PersonKey, ok bool) {
	tenant, rest, ok := SplitTenant(key)
	name, p, ok2 := bytes.Cut(rest, []byte{keySeparator})
	if !ok || !ok2 || len(tenant) == 0 || len(name) == 0 || len(p) != len(PersonKey{}) {
		return "", "", PersonKey{}, false
	}
	return tenant, string(name), PersonKey(p), true
}

// ParseTenantsKey reads a key made by TenantsKey.
func ParseTenantsKey(key []byte) (tenant TenantID, kind TenantKind, id string, ok bool) {
	tenant, rest, ok := SplitTenant(key)
	k, i, ok2 := bytes.Cut(rest, []byte{keySeparator})
	return tenant, TenantKind(k), string(i), ok && ok2
}
