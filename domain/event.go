package domain

import (
	"strings"
	"time"
)

// Event is one immutable fact. Its key (tenant, post, person, ...) is part of it.
type Event interface {
	// EventType is the CloudEvents type without its prefix, e.g. "PostPublished".
	EventType() string
}

// Audience says who may see a post: AudienceEveryone, AudienceAuthor or AudiencePrefix and a name.
type Audience string

// The audiences that are no named group.
const (
	AudienceEveryone Audience = "everyone"
	AudienceAuthor   Audience = "author"
	AudiencePrefix            = "audience:"
)

// Kind is "everyone", "author" or "audience".
func (a Audience) Kind() string {
	switch a {
	case AudienceEveryone, AudienceAuthor:
		return string(a)
	default:
		return "audience"
	}
}

// Name is the name of a named audience; ok is false for the others.
func (a Audience) Name() (name string, ok bool) {
	return strings.CutPrefix(string(a), AudiencePrefix)
}

// Check tells whether the audience has one of its forms; a name is an id of the app's.
func (a Audience) Check() error {
	if a == AudienceEveryone || a == AudienceAuthor {
		return nil
	}
	name, ok := a.Name()
	if !ok {
		return Invalid("audience", "must be %q, %q or %q and a name", AudienceEveryone, AudienceAuthor, AudiencePrefix)
	}
	return CheckID("audience", name)
}

// PostKey names a post.
type PostKey struct {
	Tenant TenantID
	Post   PostID
}

// PersonRef names a person of a tenant.
type PersonRef struct {
	Tenant TenantID
	Person PersonKey
}

// Digest is a keyed digest of a text (see NewDigest): equal texts of a tenant have equal digests, and
// without the tenant's key it tells nothing.
type Digest [16]byte

// PostEvent is what the fold of a post takes.
type PostEvent interface {
	Event
	PostKey() PostKey
	ID() EventID
}

// PostPublished creates or replaces a post.
type PostPublished struct {
	PostRef        PostKey
	EventID        EventID
	Author         PersonKey
	Audience       Audience
	PublishedAt    time.Time // zero: keep the present one, or the record's time at creation
	Body           Digest    // zero: no body
	BasedOnVersion *int64    // If-Match; nil: unconditional
}

// PostEdited changes what it carries.
type PostEdited struct {
	PostRef        PostKey
	EventID        EventID
	Audience       *Audience
	PublishedAt    time.Time // zero: unchanged
	Body           *Digest   // nil: unchanged; zero: removed
	BasedOnVersion *int64
}

// PostDeleted ends a post; its id is never used again.
type PostDeleted struct {
	PostRef        PostKey
	EventID        EventID
	BasedOnVersion *int64
}

// CountsImported is a baseline of counts from elsewhere.
type CountsImported struct {
	PostRef       PostKey
	EventID       EventID
	Impressions   int64
	UniqueViewers int64
	AsOf          time.Time
}

// PostBodyWritten is a post's text, named by its post event.
type PostBodyWritten struct {
	PostRef PostKey
	EventID EventID
	Text    string
}

// PostBodyErased is the tombstone of a PostBodyWritten.
type PostBodyErased struct {
	PostRef PostKey
	EventID EventID
}

// AudienceMemberAdded lets a person see the posts of an audience.
type AudienceMemberAdded struct {
	Tenant   TenantID
	Audience string
	Person   PersonKey
	EventID  EventID
}

// AudienceMemberRemoved takes that back.
type AudienceMemberRemoved struct {
	Tenant   TenantID
	Audience string
	Person   PersonKey
	EventID  EventID
}

// ViewContext is what later rules may need of a view.
type ViewContext struct {
	App          string
	Surface      string
	DwellMS      *int64
	VisibleRatio *float64
}

// ViewReported is what an app claims.
type ViewReported struct {
	Viewer     PersonRef
	ViewID     ViewID
	Post       PostID
	ViewedAt   time.Time // as claimed; zero: the received time
	SentAt     time.Time // the sender's clock when it sent; zero: unknown
	Anonymous  bool
	Imported   bool // from elsewhere: as old as it may be, and outside of the viewer's limits
	Context    *ViewContext
	Readmitted *Readmission // set where the keeper appended the view again
}

// Readmission keeps the original times of a refused view that is appended again.
type Readmission struct {
	Offset    int64     // of the record it repeats, in the same partition
	Received  time.Time // partition time of that record
	ViewedAt  time.Time // as corrected then
	WaitedFor []Position
}

// PersonNamed gives the app's own id of a person.
type PersonNamed struct {
	Ref PersonRef
	ID  string
}

// PersonErased is final: the person is never named again.
type PersonErased struct {
	Ref      PersonRef
	ErasedAt time.Time
}

// PersonForgotten is the tombstone of a PersonNamed.
type PersonForgotten struct {
	Ref PersonRef
}

// ViewRetracted is reserved.
type ViewRetracted struct {
	Viewer     PersonRef
	ViewID     ViewID
	ViewOffset int64
	Post       PostID
	Reason     string
}

func (PostPublished) EventType() string         { return "PostPublished" }
func (PostEdited) EventType() string            { return "PostEdited" }
func (PostDeleted) EventType() string           { return "PostDeleted" }
func (CountsImported) EventType() string        { return "CountsImported" }
func (PostBodyWritten) EventType() string       { return "PostBodyWritten" }
func (PostBodyErased) EventType() string        { return "PostBodyErased" }
func (AudienceMemberAdded) EventType() string   { return "AudienceMemberAdded" }
func (AudienceMemberRemoved) EventType() string { return "AudienceMemberRemoved" }
func (ViewReported) EventType() string          { return "ViewReported" }
func (PersonNamed) EventType() string           { return "PersonNamed" }
func (PersonErased) EventType() string          { return "PersonErased" }
func (PersonForgotten) EventType() string       { return "PersonForgotten" }
func (ViewRetracted) EventType() string         { return "ViewRetracted" }

// PostKey names the post that the event belongs to.
func (e PostPublished) PostKey() PostKey  { return e.PostRef }
func (e PostEdited) PostKey() PostKey     { return e.PostRef }
func (e PostDeleted) PostKey() PostKey    { return e.PostRef }
func (e CountsImported) PostKey() PostKey { return e.PostRef }

// ID is the event's own id: a repeat of it changes nothing.
func (e PostPublished) ID() EventID  { return e.EventID }
func (e PostEdited) ID() EventID     { return e.EventID }
func (e PostDeleted) ID() EventID    { return e.EventID }
func (e CountsImported) ID() EventID { return e.EventID }

// Record is one event where it stands in the log.
type Record struct {
	Partition Partition
	Offset    int64
	Time      time.Time // Kafka's record timestamp: append time on views, partition time on verdicts
	Event     Event     // nil where Err is set
	Err       error     // why the record cannot be read: poison, for the projector to park
	Key       []byte    // as it stands
	Value     []byte    // as it stands; kept only where Err is set
}

// Batch is a run of records, in log order per partition.
type Batch struct {
	Records []Record
	Next    []Position // what is read up to, per partition of the batch; also past control records and gaps
}
