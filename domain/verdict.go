package domain

import "time"

// Reason says why a view was refused; ReasonNone: it was counted.
type Reason string

// The reasons, in the order in which they are tried.
const (
	ReasonNone          Reason = ""
	ReasonMalformed     Reason = "malformed"
	ReasonStale         Reason = "stale"
	ReasonFuture        Reason = "future"
	ReasonDuplicate     Reason = "duplicate"
	ReasonOwnView       Reason = "own_view"
	ReasonUnknownPost   Reason = "unknown_post"
	ReasonDeletedPost   Reason = "deleted_post"
	ReasonNotInAudience Reason = "not_in_audience"
	ReasonUndecided     Reason = "undecided" // in the place of a negative look-up that is not final yet
	ReasonPostCap       Reason = "post_cap"
	ReasonViewerQuota   Reason = "viewer_quota"
	ReasonBot           Reason = "bot"       // not yet produced
	ReasonTooShort      Reason = "too_short" // not yet produced
)

// Reasons lists every reason that the gate gives today, in the order in which they are tried.
var Reasons = []Reason{
	ReasonMalformed, ReasonStale, ReasonFuture, ReasonDuplicate, ReasonOwnView, ReasonUnknownPost,
	ReasonDeletedPost, ReasonNotInAudience, ReasonUndecided, ReasonPostCap, ReasonViewerQuota,
}

// Verdict is what the gate decided about one record of views. It goes to the wire as ViewCounted or
// ViewRefused and carries all that projections and later rules need.
type Verdict struct {
	Viewer         PersonRef
	ViewID         ViewID
	ViewOffset     int64 // of the view's record, in the partition of the same number
	ViewEpoch      LeaderEpoch
	Post           PostID
	Author         PersonKey // of the post, where it is known
	PostVersion    int64
	AudienceKind   string
	LimitsRevision int64
	ClaimedAt      time.Time // viewed_at as claimed; zero: none was
	ViewedAt       time.Time // as corrected
	Received       time.Time // partition time of the view's record; of a readmitted view, of the first one
	Anonymous      bool
	OwnView        bool
	Imported       bool
	Context        *ViewContext
	Readmits       *int64 // offset of the refused record that this one repeats

	Reason      Reason
	QuotaFullAt time.Time  // counted: when the viewer's quota is whole again; zero: the view took none
	WaitsFor    []Position // undecided: what the look-ups had not passed
	DeadLetters bool       // undecided: events of the key are parked
	Detail      string     // malformed: what was wrong
}

// Counted says that the view is an impression.
func (v *Verdict) Counted() bool { return v.Reason == ReasonNone }

// EventType is "ViewCounted" or "ViewRefused".
func (v *Verdict) EventType() string {
	if v.Counted() {
		return "ViewCounted"
	}
	return "ViewRefused"
}
