package tenancy

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"seenby/domain"
)

// Limit is one of a tenant's limits by its name, its value as people write it: 25h, 600, refuse.
type Limit struct{ Name, Value string }

// limitField is a limit that can be set. The names are those that domain.Limits.Validate uses.
type limitField struct {
	name string
	get  func(*domain.Limits) string
	set  func(*domain.Limits, string) error
}

var limitFields = []limitField{
	windowLimit("duplicate_window", func(l *domain.Limits) *time.Duration { return &l.DuplicateWindow }),
	windowLimit("stale", func(l *domain.Limits) *time.Duration { return &l.Stale }),
	windowLimit("future", func(l *domain.Limits) *time.Duration { return &l.Future }),
	countLimit("quota_views_per_minute", func(l *domain.Limits) *int64 { return &l.Quota.ViewsPerMinute }),
	countLimit("quota_burst_views", func(l *domain.Limits) *int64 { return &l.Quota.BurstViews }),
	countLimit("post_cap_views", func(l *domain.Limits) *int64 { return &l.PostCap.Views }),
	windowLimit("post_cap_window", func(l *domain.Limits) *time.Duration { return &l.PostCap.Window }),
	choiceLimit("own_views", limitCount, limitRefuse, func(l *domain.Limits) *bool { return &l.RefuseOwnViews }),
	choiceLimit("unknown_posts", limitRefuse, limitCount, func(l *domain.Limits) *bool { return &l.CountUnknownPosts }),
	countLimit("intake_views_per_second", func(l *domain.Limits) *int64 { return &l.IntakeViewsPerSecond }),
}

// What becomes of views that may be counted or refused.
const (
	limitCount  = "count"
	limitRefuse = "refuse"
)

func windowLimit(name string, of func(*domain.Limits) *time.Duration) limitField {
	return limitField{
		name: name,
		get:  func(l *domain.Limits) string { return of(l).String() },
		set: func(l *domain.Limits, text string) error {
			d, err := time.ParseDuration(text)
			if err != nil || d%time.Millisecond != 0 {
				return domain.Invalid(name, "must be a duration of whole milliseconds, such as 90m or 25h")
			}
			*of(l) = d
			return nil
		},
	}
}

func countLimit(name string, of func(*domain.Limits) *int64) limitField {
	return limitField{
		name: name,
		get:  func(l *domain.Limits) string { return strconv.FormatInt(*of(l), 10) },
		set: func(l *domain.Limits, text string) error {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return domain.Invalid(name, "must be a whole number")
			}
			*of(l) = n
			return nil
		},
	}
}

// choiceLimit is a limit of two values; the second is true.
func choiceLimit(name, no, yes string, of func(*domain.Limits) *bool) limitField {
	return limitField{
		name: name,
		get: func(l *domain.Limits) string {
			if *of(l) {
				return yes
			}
			return no
		},
		set: func(l *domain.Limits, text string) error {
			if text != no && text != yes {
				return domain.Invalid(name, "must be %s or %s", no, yes)
			}
			*of(l) = text == yes
			return nil
		},
	}
}

// LimitNames are the names of all limits that can be set.
func LimitNames() []string {
	names := make([]string, len(limitFields))
	for i, f := range limitFields {
		names[i] = f.name
	}
	return names
}

// LimitsOf gives all limits by name.
func LimitsOf(l domain.Limits) []Limit {
	out := make([]Limit, len(limitFields))
	for i, f := range limitFields {
		out[i] = Limit{f.name, f.get(&l)}
	}
	return out
}

// SetLimits decides new limits of a tenant: those that stand with the changes made, as the next revision. Changes
// that change nothing give no event. An unknown or repeated name, a value that cannot be read and limits that
// contradict each other are CodeInvalid, an unknown or closed tenant CodeNotFound.
func SetLimits(in *domain.Installation, now time.Time, tenant domain.TenantID, changes []Limit) (domain.Limits, []domain.Event, error) {
	t, err := open(in, tenant)
	if err != nil {
		return domain.Limits{}, nil, err
	}
	if len(changes) == 0 {
		return domain.Limits{}, nil, domain.Invalid("limits", "name at least one of %s", strings.Join(LimitNames(), ", "))
	}
	limits := t.Limits
	set := map[string]bool{}
	for _, c := range changes {
		i := slices.IndexFunc(limitFields, func(f limitField) bool { return f.name == c.Name })
		switch {
		case i < 0:
			return domain.Limits{}, nil, domain.Invalid("limits", "there is no limit %q; there are %s", c.Name, strings.Join(LimitNames(), ", "))
		case set[c.Name]:
			return domain.Limits{}, nil, domain.Invalid(c.Name, "is given twice")
		}
		set[c.Name] = true
		if err := limitFields[i].set(&limits, c.Value); err != nil {
			return domain.Limits{}, nil, err
		}
	}
	if err := limits.Validate(); err != nil {
		return domain.Limits{}, nil, err
	}
	if limits == t.Limits {
		return limits, nil, nil
	}
	limits.Revision++
	return limits, []domain.Event{domain.LimitsSet{Tenant: tenant, Limits: limits, SetAt: now}}, nil
}
