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

// PostCounts are a post's counts as the read models have them.
type PostCounts struct {
	Impressions   int64 // all, as in ImpressionsChanged
	UniqueViewers int64
	Imported      int64
	AsOf          time.Time
}

// Telling says what is to be heeded when a post's counts are told.
type Telling struct {
	Milestones []int64 // thresholds of the tenant, rising
	Silent     bool    // no milestone is called: nobody saw it passed
	Resend     bool    // tell it also where nothing changed
	Above      int64   // the core has a revision as high as this
}

// Behind tells whether the counts are older than what was told: a read model that was restored from a backup, or is being
// filled again, must not take a count back.
func (c PostCounts) Behind(told *ImpressionsChanged) bool { return c.AsOf.Before(told.AsOf) }

// Tell decides what is told of a post's counts after what was told last; the zero value of told stands for nothing. changed
// is false where there is nothing to tell.
//
// A milestone is called where views of today carry the count past its threshold: what was imported since is added to
// both sides first, so that an import passes any number of thresholds without a call. None is called twice.
func Tell(post PostKey, told ImpressionsChanged, now PostCounts, how Telling) (next ImpressionsChanged, changed bool) {
	same := told.Impressions == now.Impressions && told.UniqueViewers == now.UniqueViewers && told.Imported == now.Imported
	if same && !how.Resend {
		return told, false
	}
	next = ImpressionsChanged{
		PostRef: post, Impressions: now.Impressions, UniqueViewers: now.UniqueViewers, Imported: now.Imported,
		Revision: max(told.Revision, how.Above) + 1, AsOf: now.AsOf, HighestMilestone: told.HighestMilestone,
	}
	before := told.Impressions - told.Imported + now.Imported
	for _, threshold := range how.Milestones {
		if threshold > now.Impressions || threshold <= told.HighestMilestone {
			continue
		}
		next.HighestMilestone = threshold
		if threshold > before && !how.Silent {
			next.Milestones = append(next.Milestones, threshold)
		}
	}
	return next, true
}
