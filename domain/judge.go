package domain

import (
	"math"
	"time"
)

// PostAnswer is what the look-up of a view's post (and of the viewer's membership) gave.
type PostAnswer struct {
	Known    bool // the post is, or was, there
	Deleted  bool
	Version  int64
	Author   PersonKey
	Audience Audience
	Member   bool // the viewer is in the post's audience

	// Final says that a negative answer is the last word: the read model had passed the log's end asked after
	// the view was polled. Otherwise WaitsFor names what it had not passed, and DeadLetters says that events
	// of the key are parked.
	Final       bool
	WaitsFor    []Position
	DeadLetters bool
}

// ViewRecord is one record of the topic views, as the gate meets it.
type ViewRecord struct {
	View      ViewReported
	Offset    int64
	Epoch     LeaderEpoch
	Appended  time.Time // LogAppendTime
	Malformed string    // why the record cannot be judged; View then holds what could be read of the key
}

// Judge decides about one view, in the order of Reasons, and remembers the verdict in the overlay. Given the
// same views in the same order, the same answers and the same limits, it gives the same verdicts.
func (o *Overlay) Judge(r ViewRecord, post PostAnswer, limits Limits) *Verdict {
	if r.Appended.After(o.now) {
		o.now = r.Appended
	}
	view := &r.View
	v := &Verdict{
		Viewer: view.Viewer, ViewOffset: r.Offset, ViewEpoch: r.Epoch, LimitsRevision: limits.Revision,
		Received: o.now, ViewedAt: o.now,
	}
	if again := view.Readmitted; again != nil {
		v.Readmits = &again.Offset // of a malformed one too: the keeper must learn that it was judged
	}
	if r.Malformed != "" {
		v.Reason, v.Detail = ReasonMalformed, r.Malformed
		o.remember(v)
		return v
	}
	v.ViewID, v.Post, v.ClaimedAt = view.ViewID, view.Post, view.ViewedAt
	v.Anonymous, v.Imported, v.Context = view.Anonymous, view.Imported, view.Context
	if again := view.Readmitted; again != nil {
		v.Received, v.ViewedAt = again.Received, again.ViewedAt
	} else {
		v.ViewedAt = Corrected(view.ViewedAt, view.SentAt, o.now)
	}
	if post.Known {
		v.Author, v.PostVersion, v.AudienceKind = post.Author, post.Version, post.Audience.Kind()
		v.OwnView = !view.Anonymous && post.Author == view.Viewer.Person
	}
	v.Reason = o.reason(v, post, limits)
	switch v.Reason {
	case ReasonUndecided:
		v.WaitsFor, v.DeadLetters = post.WaitsFor, post.DeadLetters
	case ReasonNone:
		// A readmitted view takes no quota: it was not refused for its own time. Nor does an imported one: when it was
		// imported says nothing about its viewer.
		if v.Readmits == nil && !v.Imported {
			fullAt, ok := o.take(viewerHash(v.Viewer), limits.Quota)
			if !ok {
				v.Reason = ReasonViewerQuota
			}
			v.QuotaFullAt = fullAt
		}
	}
	o.remember(v)
	return v
}

// reason tries every reason but the quota, which changes what it asks.
func (o *Overlay) reason(v *Verdict, post PostAnswer, limits Limits) Reason {
	if v.Readmits == nil {
		if !v.Imported && v.ViewedAt.Before(o.now.Add(-limits.Stale)) {
			return ReasonStale
		}
		// The claimed time is bounded too, corrected or not: an id is forgotten after the duplicate window, and
		// a repeat that comes without sent_at must then be stale by its claimed time.
		if v.ViewedAt.After(o.now.Add(limits.Future)) ||
			v.ClaimedAt.After(o.now.Add(limits.DuplicateWindow-limits.Stale)) {
			return ReasonFuture
		}
	}
	if o.duplicate(idHash(v.Viewer, v.ViewID), limits.DuplicateWindow) {
		return ReasonDuplicate
	}
	if v.OwnView && limits.RefuseOwnViews {
		return ReasonOwnView
	}
	negative := func(r Reason) Reason {
		if !post.Final {
			return ReasonUndecided
		}
		return r
	}
	switch {
	case !post.Known && (!post.Final || !limits.CountUnknownPosts):
		return negative(ReasonUnknownPost)
	case post.Deleted:
		return ReasonDeletedPost
	case post.Known && !v.maySee(post):
		return negative(ReasonNotInAudience)
	case !v.Imported && o.capped(pairHash(v.Viewer, v.Post), limits.PostCap):
		return ReasonPostCap
	}
	return ReasonNone
}

func (v *Verdict) maySee(post PostAnswer) bool {
	return post.Audience == AudienceEveryone || v.OwnView ||
		!v.Anonymous && post.Audience != AudienceAuthor && post.Member
}

// Corrected is the time of a view by our clock: a device whose clock was ahead when it sent is set back by as
// much, a time is never moved later, and a view without one happened when it was received.
func Corrected(claimed, sent, received time.Time) time.Time {
	if claimed.IsZero() {
		return received
	}
	if ahead := sent.Sub(received); !sent.IsZero() && ahead > 0 {
		return claimed.Add(-ahead)
	}
	return claimed
}

// Bounds of the times an app may claim: what a microsecond count and PostgreSQL both hold with ease.
var (
	timeMin = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	timeMax = time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)
)

// CheckTime tells whether a time from an app can be kept. Zero means "not given" and is fine.
func CheckTime(field string, t time.Time) error {
	if !t.IsZero() && (t.Before(timeMin) || !t.Before(timeMax)) {
		return Invalid(field, "must lie between the years 1970 and 3000")
	}
	return nil
}

// Check tells whether the view can be judged. The api asks before it appends, the gate when it reads.
func (e ViewReported) Check() error {
	if err := CheckID("post", string(e.Post)); err != nil {
		return err
	}
	if e.ViewID == (ViewID{}) {
		return Invalid("id", "must not be the nil UUID")
	}
	if err := CheckTime("viewed_at", e.ViewedAt); err != nil {
		return err
	}
	if err := CheckTime("sent_at", e.SentAt); err != nil {
		return err
	}
	if c := e.Context; c != nil {
		return c.check()
	}
	return nil
}

func (c *ViewContext) check() error {
	for _, f := range []struct{ field, value string }{{"context.app", c.App}, {"context.surface", c.Surface}} {
		if len(f.value) > ContextBytesMax || !printable(f.value) {
			return Invalid(f.field, "must be at most %d bytes of printable UTF-8", ContextBytesMax)
		}
	}
	if c.DwellMS != nil && (*c.DwellMS < 0 || *c.DwellMS > dwellMSMax) {
		return Invalid("context.dwell_ms", "must be 0 to %d", dwellMSMax)
	}
	if r := c.VisibleRatio; r != nil && (math.IsNaN(*r) || *r < 0 || *r > 1) {
		return Invalid("context.visible_ratio", "must be 0 to 1")
	}
	return nil
}

// dwellMSMax is a day: longer than anyone looks at one post.
const dwellMSMax = 24 * 60 * 60 * 1000
