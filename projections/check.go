package projections

import (
	"time"

	"seenby/domain"
)

// CheckPost tells whether a post's key can stand in a table.
func CheckPost(k domain.PostKey) error {
	if err := domain.CheckTenantID(string(k.Tenant)); err != nil {
		return err
	}
	return domain.CheckID("post", string(k.Post))
}

// CheckGivenTime tells whether a time that must be there can stand in a table.
func CheckGivenTime(field string, t time.Time) error {
	if t.IsZero() {
		return domain.Invalid(field, "is required")
	}
	return domain.CheckTime(field, t)
}

// CheckCounted tells, for the projections over verdicts, whether a record is a verdict whose view counts, and
// whether its post and viewer can stand in a table. A refused one is never poison: nothing of it is kept.
func CheckCounted(r domain.Record) (v *domain.Verdict, counted bool, err error) {
	v, ok := r.Event.(*domain.Verdict)
	switch {
	case !ok:
		return nil, false, domain.ErrUnknownEvent
	case v.ViewOffset < 0:
		return v, false, domain.Invalid("view_offset", "must not be negative")
	case !v.Counted():
		return v, false, nil
	}
	return v, true, CheckPost(domain.PostKey{Tenant: v.Viewer.Tenant, Post: v.Post})
}

// Micros is the time as PostgreSQL keeps it. A fold that compares times must see only such ones, or it would
// decide otherwise once a row was written and read again.
func Micros(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}
