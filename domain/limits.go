package domain

import "time"

// Limits are a tenant's settings at one revision: the bounds of the gate, and of the intake.
type Limits struct {
	Revision          int64
	DuplicateWindow   time.Duration // how long a counted id is remembered
	Stale             time.Duration // a view older than this is refused
	Future            time.Duration // a view further ahead than this is refused
	Quota             Quota
	PostCap           PostCap
	RefuseOwnViews    bool
	CountUnknownPosts bool // a view of a post that was never published is judged without one

	// IntakeViewsPerSecond is what one api process takes; twice that at once.
	IntakeViewsPerSecond int64
}

// Quota is a token bucket per viewer.
type Quota struct {
	ViewsPerMinute int64
	BurstViews     int64
}

// PostCap bounds the counted views of one post by one viewer in a sliding window.
type PostCap struct {
	Views  int64
	Window time.Duration
}

// DefaultLimits are what a tenant starts with.
func DefaultLimits() Limits {
	return Limits{
		Revision:        1,
		DuplicateWindow: 25 * time.Hour,
		Stale:           24 * time.Hour,
		Future:          10 * time.Minute,
		Quota:           Quota{ViewsPerMinute: 600, BurstViews: 2000},
		PostCap:         PostCap{Views: 60, Window: time.Hour},

		IntakeViewsPerSecond: 1000,
	}
}

// Bounds of every limit. The longest window stays well under 2^32 ms, so that the gate's memory can keep a
// time in 32 bits; the others keep products of them inside an int64 of microseconds. An undecided view is appended again
// within an hour of the last look for a count of its id (DESIGN §2.4), and the memory must not have forgotten by then one
// that came in between.
const (
	windowLeast       = time.Hour
	WindowMax         = 24 * 24 * time.Hour
	quotaPerMinuteMax = 60_000_000 // one view a microsecond
	quotaBurstMax     = 10_000_000
	postCapViewsMax   = 10_000
	intakeMax         = 10_000_000
)

// Interval is the time in which one view's worth of quota comes back, at least a microsecond.
func (q Quota) Interval() time.Duration {
	return max((time.Minute / time.Duration(q.ViewsPerMinute)).Truncate(time.Microsecond), time.Microsecond)
}

// Refill is the time in which an empty quota becomes whole.
func (q Quota) Refill() time.Duration { return q.Interval() * time.Duration(q.BurstViews) }

// Window is the longest time that the gate must look back for these limits.
func (l Limits) Window() time.Duration {
	return max(l.DuplicateWindow, l.PostCap.Window, l.Quota.Refill())
}

// Validate reports the first contradiction as a CodeInvalid error that names the limit.
func (l Limits) Validate() error {
	switch {
	case l.DuplicateWindow < windowLeast || l.DuplicateWindow > WindowMax:
		return Invalid("duplicate_window", "must be %v to %v", windowLeast, WindowMax)
	case l.Stale <= 0:
		return Invalid("stale", "must be over 0")
	case l.Future < 0:
		return Invalid("future", "must not be negative")
	case l.Stale > l.DuplicateWindow || l.Future > l.DuplicateWindow-l.Stale: // the sum may be too large for a duration
		return Invalid("stale", "stale + future (%v + %v) must not exceed duplicate_window (%v): an id that is forgotten must be stale", l.Stale, l.Future, l.DuplicateWindow)
	case l.Quota.ViewsPerMinute < 1 || l.Quota.ViewsPerMinute > quotaPerMinuteMax:
		return Invalid("quota_views_per_minute", "must be 1 to %d", quotaPerMinuteMax)
	case l.Quota.BurstViews < 1 || l.Quota.BurstViews > quotaBurstMax:
		return Invalid("quota_burst_views", "must be 1 to %d", quotaBurstMax)
	case l.Quota.Refill() > l.DuplicateWindow:
		return Invalid("quota_burst_views", "an empty quota takes %v to refill, longer than duplicate_window (%v): lower the burst or raise the rate", l.Quota.Refill(), l.DuplicateWindow)
	case l.PostCap.Views < 1 || l.PostCap.Views > postCapViewsMax:
		return Invalid("post_cap_views", "must be 1 to %d", postCapViewsMax)
	case l.PostCap.Window <= 0 || l.PostCap.Window > l.DuplicateWindow:
		return Invalid("post_cap_window", "must be over 0 and at most duplicate_window (%v)", l.DuplicateWindow)
	case l.IntakeViewsPerSecond < 1 || l.IntakeViewsPerSecond > intakeMax:
		return Invalid("intake_views_per_second", "must be 1 to %d", intakeMax)
	}
	return nil
}
