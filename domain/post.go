package domain

import "time"

// Post is the fold of a post's events, in log order. The zero value is a post that never was.
type Post struct {
	Version     int64 // 0: never published; raised by every event that changes the post; never restarts
	Deleted     bool
	Author      PersonKey
	Audience    Audience
	PublishedAt time.Time
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Body        Digest  // zero: no body
	BodyEvent   EventID // names the text on the topic bodies
	Baseline    Baseline
}

// Baseline is what a post counted elsewhere.
type Baseline struct {
	Impressions   int64
	UniqueViewers int64
	AsOf          time.Time // zero: none
}

// OutcomeKind says what became of a post event.
type OutcomeKind string

// What can become of a post event. Void: the event changed nothing because of what stood before it.
const (
	OutcomeCreated      OutcomeKind = "created"
	OutcomeReplaced     OutcomeKind = "replaced"
	OutcomeUnchanged    OutcomeKind = "unchanged"
	OutcomeDeleted      OutcomeKind = "deleted"
	OutcomeImported     OutcomeKind = "imported"
	OutcomeVoidConflict OutcomeKind = "void_conflict" // another version stood
	OutcomeVoidGone     OutcomeKind = "void_gone"     // the post was deleted
	OutcomeVoidMissing  OutcomeKind = "void_missing"  // there was no such post
)

// Outcome is what became of one post event, looked up by its id.
type Outcome struct {
	Kind    OutcomeKind
	Version int64 // of the post after the event
}

// Void says that the event changed nothing because it lost.
func (o Outcome) Void() bool {
	return o.Kind == OutcomeVoidConflict || o.Kind == OutcomeVoidGone || o.Kind == OutcomeVoidMissing
}

// Apply folds the event that stands at time at in the log. The first event based on a version wins; later
// ones based on the same version are void. The caller keeps outcomes by event id and does not apply an event
// whose id it has seen: producers may write twice.
func (p *Post) Apply(e PostEvent, at time.Time) Outcome {
	switch e := e.(type) {
	case PostPublished:
		return p.publish(e, at)
	case PostEdited:
		return p.edit(e, at)
	case PostDeleted:
		if o, void := p.refuses(e.BasedOnVersion, false); void {
			return o
		}
		*p = Post{Version: p.Version + 1, Deleted: true, Author: p.Author, CreatedAt: p.CreatedAt, UpdatedAt: at, Baseline: p.Baseline}
		return Outcome{OutcomeDeleted, p.Version}
	case CountsImported:
		if !e.AsOf.Before(p.Baseline.AsOf) {
			p.Baseline = Baseline{Impressions: e.Impressions, UniqueViewers: e.UniqueViewers, AsOf: e.AsOf}
			return Outcome{OutcomeImported, p.Version}
		}
		return Outcome{OutcomeUnchanged, p.Version}
	}
	panic("domain: a post event without a fold: " + e.EventType())
}

func (p *Post) publish(e PostPublished, at time.Time) Outcome {
	if o, void := p.refuses(e.BasedOnVersion, true); void {
		return o
	}
	next := *p
	next.Author, next.Audience, next.Body = e.Author, e.Audience, e.Body
	switch {
	case !e.PublishedAt.IsZero():
		next.PublishedAt = e.PublishedAt
	case p.Version == 0:
		next.PublishedAt = at
	}
	created := p.Version == 0
	if created {
		next.CreatedAt = at
	}
	if o, changed := p.become(next, e.EventID, at); !changed || !created {
		return o
	}
	return Outcome{OutcomeCreated, p.Version}
}

func (p *Post) edit(e PostEdited, at time.Time) Outcome {
	if o, void := p.refuses(e.BasedOnVersion, false); void {
		return o
	}
	next := *p
	if e.Audience != nil {
		next.Audience = *e.Audience
	}
	if !e.PublishedAt.IsZero() {
		next.PublishedAt = e.PublishedAt
	}
	if e.Body != nil {
		next.Body = *e.Body
	}
	o, _ := p.become(next, e.EventID, at)
	return o
}

// refuses tells why an event based on a version is void, if it is.
func (p *Post) refuses(basedOn *int64, creates bool) (Outcome, bool) {
	switch {
	case p.Deleted:
		return Outcome{OutcomeVoidGone, p.Version}, true
	case p.Version == 0 && (!creates || basedOn != nil && *basedOn != 0):
		return Outcome{OutcomeVoidMissing, p.Version}, true
	case basedOn != nil && *basedOn != p.Version:
		return Outcome{OutcomeVoidConflict, p.Version}, true
	}
	return Outcome{}, false
}

// become takes next's content with a new version; equal content keeps version, text and times.
func (p *Post) become(next Post, id EventID, at time.Time) (o Outcome, changed bool) {
	if p.Version > 0 && next.Author == p.Author && next.Audience == p.Audience && next.Body == p.Body &&
		next.PublishedAt.Equal(p.PublishedAt) {
		return Outcome{OutcomeUnchanged, p.Version}, false
	}
	if next.Body != p.Body {
		next.BodyEvent = id
		if next.Body == (Digest{}) {
			next.BodyEvent = EventID{}
		}
	}
	next.Version, next.UpdatedAt = p.Version+1, at
	*p = next
	return Outcome{OutcomeReplaced, p.Version}, true
}
