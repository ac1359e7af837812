package domain

import "time"

// TenantCreated opens a tenant.
type TenantCreated struct {
	Tenant            TenantID
	Name              string
	WrappedKey        []byte // the tenant's key, sealed under the installation's secret
	SecretFingerprint string
	CreatedAt         time.Time
}

// TenantClosed replaces TenantCreated; the tenant's key is gone with it.
type TenantClosed struct {
	Tenant   TenantID
	ClosedAt time.Time
}

// LimitsSet is one revision of a tenant's limits.
type LimitsSet struct {
	Tenant TenantID
	Limits Limits
	SetAt  time.Time
}

// KeyIssued is an API key, hashed.
type KeyIssued struct {
	Tenant   TenantID
	KeyID    string
	Prefix   string
	SHA256   [32]byte
	Label    string
	IssuedAt time.Time
}

// KeyRevoked replaces KeyIssued.
type KeyRevoked struct {
	Tenant    TenantID
	KeyID     string
	Prefix    string
	RevokedAt time.Time
}

// PartitionsRecorded is the partition count that the keys of a topic are hashed over.
type PartitionsRecorded struct {
	Topic      Topic
	Partitions int32
}

// SecretRecorded names the secret that the tenant keys of this installation are sealed under.
type SecretRecorded struct {
	Fingerprint string
}

func (TenantCreated) EventType() string      { return "TenantCreated" }
func (TenantClosed) EventType() string       { return "TenantClosed" }
func (LimitsSet) EventType() string          { return "LimitsSet" }
func (KeyIssued) EventType() string          { return "KeyIssued" }
func (KeyRevoked) EventType() string         { return "KeyRevoked" }
func (PartitionsRecorded) EventType() string { return "PartitionsRecorded" }
func (SecretRecorded) EventType() string     { return "SecretRecorded" }

// Installation is the fold of the topic tenants: everything that apis and gates know without a database.
// The zero value is empty. It is not safe for concurrent use: its follower hands out copies of what it needs.
type Installation struct {
	Partitions  map[Topic]int32
	Fingerprint string // of the installation's secret; empty before the first tenant
	Tenants     map[TenantID]*Tenant
	KeysByHash  map[[32]byte]KeyRef

	// Discards are dead letters that operators gave up, by projection and by where the record stands; see Discarded.
	Discards map[string]map[Position]Discard
}

// Tenant is what the log says of one tenant.
type Tenant struct {
	Created     TenantCreated
	Closed      bool
	ClosedAt    time.Time
	Limits      Limits    // the greatest revision; those of a new tenant where none stands on the log
	LimitsSetAt time.Time // zero where none stands on the log
	Keys        map[string]APIKey
	Imports     map[string]ImportRecorded // by their ids
	Relay       RelaySet                  // the zero value: off
	Endpoints   map[string]EndpointSet    // by their ids
}

// APIKey is one API key of a tenant, as listed.
type APIKey struct {
	Prefix    string
	SHA256    [32]byte
	Label     string // gone, as IssuedAt is, once the record of a revoked key is compacted
	IssuedAt  time.Time
	Revoked   bool
	RevokedAt time.Time
}

// KeyRef names an API key.
type KeyRef struct {
	Tenant TenantID
	KeyID  string
}

// Apply folds one event. Events of a compacted topic may come more than once and, per key, in order.
// It reports false for an event that does not belong on the topic.
func (in *Installation) Apply(e Event) bool {
	switch e := e.(type) {
	case PartitionsRecorded:
		if in.Partitions == nil {
			in.Partitions = map[Topic]int32{}
		}
		in.Partitions[e.Topic] = e.Partitions
	case SecretRecorded:
		in.Fingerprint = e.Fingerprint
	case TenantCreated:
		in.tenant(e.Tenant).Created = e
	case TenantClosed:
		t := in.tenant(e.Tenant)
		t.Closed, t.ClosedAt, t.Created.WrappedKey = true, e.ClosedAt, nil
	case LimitsSet:
		if t := in.tenant(e.Tenant); e.Limits.Revision >= t.Limits.Revision {
			t.Limits, t.LimitsSetAt = e.Limits, e.SetAt
		}
	case KeyIssued:
		in.tenant(e.Tenant).Keys[e.KeyID] = APIKey{Prefix: e.Prefix, SHA256: e.SHA256, Label: e.Label, IssuedAt: e.IssuedAt}
		if in.KeysByHash == nil {
			in.KeysByHash = map[[32]byte]KeyRef{}
		}
		in.KeysByHash[e.SHA256] = KeyRef{Tenant: e.Tenant, KeyID: e.KeyID}
	case KeyRevoked:
		t := in.tenant(e.Tenant)
		k := t.Keys[e.KeyID]
		delete(in.KeysByHash, k.SHA256)
		t.Keys[e.KeyID] = APIKey{Prefix: e.Prefix, Label: k.Label, IssuedAt: k.IssuedAt, Revoked: true, RevokedAt: e.RevokedAt}
	case ImportRecorded:
		t := in.tenant(e.Tenant)
		if t.Imports == nil {
			t.Imports = map[string]ImportRecorded{}
		}
		t.Imports[e.ImportID] = e
	case RelaySet:
		in.tenant(e.Tenant).Relay = e
	case EndpointSet:
		t := in.tenant(e.Tenant)
		if t.Endpoints == nil {
			t.Endpoints = map[string]EndpointSet{}
		}
		t.Endpoints[e.EndpointID] = e
	case DecisionRecorded:
		in.decided(e)
	default:
		return false
	}
	return true
}

func (in *Installation) tenant(id TenantID) *Tenant {
	if in.Tenants == nil {
		in.Tenants = map[TenantID]*Tenant{}
	}
	t := in.Tenants[id]
	if t == nil {
		// Created and LimitsSet stand under two keys: one may be read, or have been appended, without the other.
		t = &Tenant{Limits: DefaultLimits(), Keys: map[string]APIKey{}}
		in.Tenants[id] = t
	}
	return t
}
