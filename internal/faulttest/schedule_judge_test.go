package faulttest

import (
	"time"

	"seenby/domain"
)

// judge decides as the gate does, from lists that are searched from end to end: it shares no code with the gate's
// memory, and it never crashes.
type judge struct {
	limits domain.Limits
	now    time.Time // partition time

	ids    map[viewRef][]time.Time
	pairs  map[viewerOfPost][]time.Time
	quotas map[domain.PersonRef]time.Time
}

type viewerOfPost struct {
	viewer domain.PersonRef
	post   domain.PostID
}

type judgement struct {
	reason                          domain.Reason
	quotaFullAt, received, viewedAt time.Time
}

func newJudge(limits domain.Limits) *judge {
	return &judge{limits: limits, ids: map[viewRef][]time.Time{}, pairs: map[viewerOfPost][]time.Time{}, quotas: map[domain.PersonRef]time.Time{}}
}

// within is how many of the times are at most window old.
func (j *judge) within(times []time.Time, window time.Duration) (n int64) {
	for _, at := range times {
		if j.now.Sub(at) <= window {
			n++
		}
	}
	return n
}

// judge takes the look-up's answer from the verdict: where that names a negative, the answer was one.
func (j *judge) judge(view *viewRecord, verdict *domain.Verdict) (out judgement) {
	if view.at.After(j.now) {
		j.now = view.at
	}
	out.received, out.viewedAt = j.now, view.ViewedAt
	if view.ViewedAt.IsZero() {
		out.viewedAt = j.now
	} else if ahead := view.SentAt.Sub(j.now); !view.SentAt.IsZero() && ahead > 0 {
		out.viewedAt = view.ViewedAt.Add(-ahead)
	}
	if again := view.Readmitted; again != nil {
		out.received, out.viewedAt = again.Received, again.ViewedAt
	}
	id, pair := viewRef{view.Viewer, view.ViewID}, viewerOfPost{view.Viewer, view.Post}
	out.reason = j.reason(view, verdict, out.viewedAt, id, pair)
	if out.reason != domain.ReasonNone {
		return out
	}
	if view.Readmitted == nil {
		full, ok := j.take(view.Viewer)
		if !ok {
			out.reason = domain.ReasonViewerQuota
			return out
		}
		out.quotaFullAt = full
	}
	j.ids[id] = append(j.ids[id], j.now)
	j.pairs[pair] = append(j.pairs[pair], j.now)
	return out
}

func (j *judge) reason(view *viewRecord, verdict *domain.Verdict, viewedAt time.Time, id viewRef, pair viewerOfPost) domain.Reason {
	l := j.limits
	if view.Readmitted == nil {
		switch {
		case j.now.Sub(viewedAt) > l.Stale:
			return domain.ReasonStale
		case viewedAt.Sub(j.now) > l.Future, !view.ViewedAt.IsZero() && view.ViewedAt.Sub(j.now) > l.DuplicateWindow-l.Stale:
			return domain.ReasonFuture
		}
	}
	switch {
	case j.within(j.ids[id], l.DuplicateWindow) > 0:
		return domain.ReasonDuplicate
	case verdict.OwnView && l.RefuseOwnViews:
		return domain.ReasonOwnView
	}
	switch verdict.Reason {
	case domain.ReasonUnknownPost, domain.ReasonDeletedPost, domain.ReasonNotInAudience, domain.ReasonUndecided:
		return verdict.Reason
	}
	if j.within(j.pairs[pair], l.PostCap.Window) >= l.PostCap.Views {
		return domain.ReasonPostCap
	}
	return domain.ReasonNone
}

// take takes a view from a bucket that refills by one each interval.
func (j *judge) take(viewer domain.PersonRef) (fullAt time.Time, ok bool) {
	q := j.limits.Quota
	full := j.quotas[viewer]
	if full.Before(j.now) {
		full = j.now
	}
	if full = full.Add(q.Interval()); full.Sub(j.now) > q.Interval()*time.Duration(q.BurstViews) {
		return time.Time{}, false
	}
	j.quotas[viewer] = full
	return full, true
}
