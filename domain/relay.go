package domain

import "time"

// EndpointSet is where a tenant's core system is told counts; each record of an endpoint replaces the one before.
type EndpointSet struct {
	Tenant     TenantID
	EndpointID string
	URL        string
	// SecretGeneration names the secret that signs, from 1. After a rotation the generation before it signs too, for
	// SecretOverlap from RotatedAt on.
	SecretGeneration int64
	RotatedAt        time.Time // zero: there is no generation before
	AllowPrivate     bool      // the address may be private or loopback
	CreatedAt        time.Time
	DisabledAt       time.Time // zero: enabled
	DisabledReason   string
}

// SecretOverlap is how long the secret before a rotation signs too: a receiver has this long to take the new one.
const SecretOverlap = 24 * time.Hour

// Enabled tells whether the endpoint is sent anything.
func (e EndpointSet) Enabled() bool { return e.DisabledAt.IsZero() }

// RelaySet says whether a tenant's core system is told anything, and of which milestones.
type RelaySet struct {
	Tenant     TenantID
	Enabled    bool
	Milestones []int64 // thresholds in impressions, rising
	SetAt      time.Time
}

// ImpressionsChanged holds a post's absolute counts for the core system; each replaces the one before.
type ImpressionsChanged struct {
	PostRef          PostKey
	Impressions      int64 // all: counted here, imported views and imported counts
	UniqueViewers    int64
	Imported         int64     // of Impressions, those that were imported as views or as counts
	Revision         int64     // per post, from 1, only ever rises
	AsOf             time.Time // everything accepted before this is in the counts; zero: not known
	HighestMilestone int64     // greatest threshold that was passed, called or not; 0: none
	Milestones       []int64   // thresholds whose calls this change sets off
}

// EventType implements Event.
func (EndpointSet) EventType() string { return "EndpointSet" }

// EventType implements Event.
func (RelaySet) EventType() string { return "RelaySet" }

// EventType implements Event.
func (ImpressionsChanged) EventType() string { return "ImpressionsChanged" }
