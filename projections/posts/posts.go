// Package posts is the read model of the posts: what stands, what became of every post event, and the texts.
//
// The fold itself is domain.Post: this package loads the posts that a batch touches, folds, and writes back.
// A post's events are all in one partition, so one projector at a time folds a post; the log's order decides
// every conflict, and an event whose id is known changes nothing and keeps its first outcome. Texts come from
// another topic and are joined by the id of the event that names them, so that the two topics need not keep
// step. A text whose event is void, or whose post is deleted, is emptied in the transaction that knows of both and
// marked for the keeper, which appends its tombstone (Erasable). Memberships of audiences come from a third: the last event of a member says whether the person is one.
//
// What follows a parked event of a post is parked too (OrderKey is the record key); Lookup and Settled tell
// the gate and the keeper about such posts. Beyond that it fails only as PostgreSQL does.
package posts

import (
	"strings"
	"unicode/utf8"

	"seenby/domain"
	"seenby/projections"
)

// Name is the projection's name.
const Name = "posts"

// Projection folds post events and texts.
type Projection struct{}

var _ projections.Projection = Projection{}

// Name implements projections.Projection.
func (Projection) Name() string { return Name }

// FoldVersion implements projections.Projection.
func (Projection) FoldVersion() int { return 1 }

// Topics implements projections.Projection.
func (Projection) Topics() []domain.Topic {
	return []domain.Topic{domain.TopicPosts, domain.TopicBodies, domain.TopicAudiences}
}

// Tables implements projections.Projection.
func (Projection) Tables() []string {
	return []string{"posts", "post_events", "post_bodies", "audience_members"}
}

// OrderKey implements projections.Projection: the events of a post, of a text and of a member are in order. A
// tombstone waits for nothing: it takes away whatever stood there, also where a later record of the text is parked.
func (Projection) OrderKey(r domain.Record) string {
	if _, ok := r.Event.(domain.PostBodyErased); ok {
		return ""
	}
	return string(r.Key)
}

// Check implements projections.Projection.
func (Projection) Check(r domain.Record) error {
	switch e := r.Event.(type) {
	case domain.PostBodyWritten:
		return checkBody(e)
	case domain.PostBodyErased:
		return checkKey(e.PostRef, e.EventID)
	case domain.PostEvent:
		return checkPostEvent(r, e)
	case domain.AudienceMemberAdded:
		return checkMember(r, Member{e.Tenant, e.Audience, e.Person})
	case domain.AudienceMemberRemoved:
		return checkMember(r, Member{e.Tenant, e.Audience, e.Person})
	}
	return domain.ErrUnknownEvent
}

func checkMember(r domain.Record, m Member) error {
	if err := domain.CheckTenantID(string(m.Tenant)); err != nil {
		return err
	}
	if err := domain.CheckID("audience", m.Audience); err != nil {
		return err
	}
	return projections.CheckGivenTime("record time", r.Time)
}

func checkPostEvent(r domain.Record, e domain.PostEvent) error {
	if err := checkKey(e.PostKey(), e.ID()); err != nil {
		return err
	}
	if err := projections.CheckGivenTime("record time", r.Time); err != nil {
		return err
	}
	switch e := e.(type) {
	case domain.PostPublished:
		if err := e.Audience.Check(); err != nil {
			return err
		}
		return domain.CheckTime("published_at", e.PublishedAt)
	case domain.PostEdited:
		if e.Audience != nil {
			if err := e.Audience.Check(); err != nil {
				return err
			}
		}
		return domain.CheckTime("published_at", e.PublishedAt)
	case domain.PostDeleted:
		return nil
	case domain.CountsImported:
		if e.Impressions < 0 || e.UniqueViewers < 0 {
			return domain.Invalid("impressions", "imported counts must not be negative")
		}
		return projections.CheckGivenTime("as_of", e.AsOf)
	}
	return domain.ErrUnknownEvent
}

func checkKey(k domain.PostKey, id domain.EventID) error {
	if id == (domain.EventID{}) {
		return domain.Invalid("event_id", "must not be the nil UUID")
	}
	return projections.CheckPost(k)
}

func checkBody(e domain.PostBodyWritten) error {
	switch {
	case len(e.Text) > domain.BodyBytesMax:
		return domain.Invalid("body", "is %d bytes long; at most %d are allowed", len(e.Text), domain.BodyBytesMax)
	case !utf8.ValidString(e.Text):
		return domain.Invalid("body", "must be UTF-8")
	case strings.ContainsRune(e.Text, 0):
		return domain.Invalid("body", "must not hold a NUL")
	}
	return checkKey(e.PostRef, e.EventID)
}

// storable is the event as it is folded: with times as PostgreSQL keeps them, since the fold compares them.
func storable(e domain.PostEvent) domain.PostEvent {
	switch e := e.(type) {
	case domain.PostPublished:
		e.PublishedAt = projections.Micros(e.PublishedAt)
		return e
	case domain.PostEdited:
		e.PublishedAt = projections.Micros(e.PublishedAt)
		return e
	case domain.CountsImported:
		e.AsOf = projections.Micros(e.AsOf)
		return e
	}
	return e
}
