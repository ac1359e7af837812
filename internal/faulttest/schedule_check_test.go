package faulttest

import (
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
	"seenby/projections"
)

// check compares what the apps know, the log and the rows. Everything is quiet.
func (w *world) check() error {
	l := w.ledger
	for p := range w.partitions {
		if err := w.oneVerdictEach(p); err != nil {
			return fmt.Errorf("check one-verdict: views/%d: %w", p, err)
		}
		if err := w.asNeverCrashed(p); err != nil {
			return fmt.Errorf("check verdicts: views/%d: %w", p, err)
		}
		if err := w.deletedIsDeleted(p); err != nil {
			return fmt.Errorf("check deleted: views/%d: %w", p, err)
		}
	}
	if err := l.acknowledged(); err != nil {
		return fmt.Errorf("check acknowledged: %w", err)
	}
	if open := l.undecided(); len(open) > 0 {
		return fmt.Errorf("check undecided: %d stay so, %s first", len(open), open[0])
	}
	if err := w.rows(); err != nil {
		return fmt.Errorf("check rows: %w", err)
	}
	return nil
}

// oneVerdictEach: reported = counted + refused, each verdict of one view and of the view that it names.
func (w *world) oneVerdictEach(p int32) error {
	l := w.ledger
	times := map[int64]int{}
	for _, v := range l.verdicts[p] {
		times[v.ViewOffset]++
	}
	for i, v := range l.views[p] {
		if v.offset != int64(i) {
			return fmt.Errorf("the view at %d stands at offset %d", i, v.offset)
		}
		want := 1
		if l.repeated[viewPlace{p, v.offset}] {
			want = 2
		}
		if n := times[v.offset]; n != want {
			return fmt.Errorf("offset %d has %d verdicts", v.offset, n)
		}
		delete(times, v.offset)
	}
	for offset := range times {
		return fmt.Errorf("a verdict is of offset %d, which is not there", offset)
	}
	for _, v := range l.verdicts[p] {
		view := l.views[p][v.ViewOffset]
		if v.Viewer != view.Viewer || v.ViewID != view.ViewID || v.Post != view.Post || v.Anonymous != view.Anonymous {
			return fmt.Errorf("the verdict of offset %d speaks of another view", v.ViewOffset)
		}
		if (v.Readmits != nil) != (view.Readmitted != nil) || v.Readmits != nil && *v.Readmits != view.Readmitted.Offset {
			return fmt.Errorf("the verdict of offset %d readmits what its view does not", v.ViewOffset)
		}
	}
	return nil
}

// once gives the verdicts of a partition in the order of their views, without those that the test repeated.
func (l *ledger) once(p int32) []verdictRecord {
	out := make([]verdictRecord, len(l.views[p]))
	for _, v := range l.verdicts[p] {
		if out[v.ViewOffset].Verdict == nil {
			out[v.ViewOffset] = v
		}
	}
	return out
}

// asNeverCrashed: each verdict is what a gate that never crashed gives, which met the same views and the same answers
// of the look-up. The answers are taken from the verdict; what windows and quotas say is found anew.
func (w *world) asNeverCrashed(p int32) error {
	j := newJudge(w.limits)
	for i, v := range w.ledger.once(p) {
		view := w.ledger.views[p][i]
		want := j.judge(&view, v.Verdict)
		if v.Reason != want.reason || !v.QuotaFullAt.Equal(want.quotaFullAt) || !v.Received.Equal(want.received) || !v.ViewedAt.Equal(want.viewedAt) {
			return fmt.Errorf("offset %d, view %x of %s at %v: the verdict is %s, and one that never crashed says %s",
				view.offset, view.ViewID[:4], view.Post, view.at.UTC().Format(time.StampMilli),
				said(v.Reason, v.QuotaFullAt, v.Received, v.ViewedAt), said(want.reason, want.quotaFullAt, want.received, want.viewedAt))
		}
		if !v.raw.Timestamp.Equal(j.now) {
			return fmt.Errorf("offset %d: the verdict's time is %v and the partition's %v", view.offset, v.raw.Timestamp, j.now)
		}
	}
	return nil
}

func said(reason domain.Reason, quota, received, viewed time.Time) string {
	if reason == domain.ReasonNone {
		reason = "counted"
	}
	clock := func(t time.Time) string { return t.UTC().Format("15:04:05.000000") }
	return fmt.Sprintf("%s (quota %s, received %s, viewed %s)", reason, clock(quota), clock(received), clock(viewed))
}

// staleMost is how far a positive answer may be behind the projection of posts (DESIGN §2.4).
const staleMost = 2 * time.Second

// deletedIsDeleted: no view counts that came well after the projection had folded its post's deletion.
func (w *world) deletedIsDeleted(p int32) error {
	for i, v := range w.ledger.once(p) {
		at, ok := w.model.deletedAt(domain.PostKey{Tenant: tenant, Post: v.Post})
		if view := w.ledger.views[p][i]; ok && v.Counted() && view.at.After(at.Add(staleMost)) {
			return fmt.Errorf("offset %d counts at %v, and its post %s was deleted at %v", v.ViewOffset, view.at, v.Post, at)
		}
	}
	return nil
}

// acknowledged: every view that was acknowledged has records, counts at most once, and, where its post stood before it,
// was not refused for that.
func (l *ledger) acknowledged() error {
	found := map[viewRef][]*domain.Verdict{}
	for p := range l.partitions {
		for _, v := range l.once(p) {
			found[viewRef{v.Viewer, v.ViewID}] = append(found[viewRef{v.Viewer, v.ViewID}], v.Verdict)
		}
	}
	for _, r := range l.reports() {
		if !r.acked {
			return fmt.Errorf("the view %x was never acknowledged", r.view.ViewID[:4])
		}
		verdicts := found[refOf(&r.view)]
		if len(verdicts) == 0 {
			return fmt.Errorf("the view %x was acknowledged and is lost", r.view.ViewID[:4])
		}
		counted := 0
		for _, v := range verdicts {
			if v.Counted() {
				counted++
			}
			if r.stood && (v.Reason == domain.ReasonUnknownPost || v.Reason == domain.ReasonNotInAudience) {
				return fmt.Errorf("offset %d: the view %x of %s is refused as %s, and all that it needs was acknowledged before it", v.ViewOffset, r.view.ViewID[:4], r.view.Post, v.Reason)
			}
		}
		// Without a time of its own an id counts again after the window: the judge has looked at that.
		if counted > 1 && !r.view.ViewedAt.IsZero() {
			return fmt.Errorf("the view %x counts %d times", r.view.ViewID[:4], counted)
		}
	}
	return nil
}

// rows: the read models are the fold of the committed verdicts, and what is poison is parked.
func (w *world) rows() error {
	want := newTables()
	for p := range w.partitions {
		shard := projections.Shard(p)
		for _, v := range w.ledger.once(p) {
			if !v.Counted() {
				continue
			}
			key := domain.PostKey{Tenant: v.Viewer.Tenant, Post: v.Post}
			if v.Post == parkedPost {
				for _, projection := range []string{"impressions", "uniqueviews"} {
					want.letters[letterKey{positionKey{projection: projection, version: 1, partition: p}, v.offset}] = letterRow{}
				}
				continue
			}
			counts := want.impressions[countKey{key, shard}]
			counts.impressions++
			if v.Anonymous {
				counts.anonymous++
			}
			if v.Imported {
				counts.imported++
			}
			want.impressions[countKey{key, shard}] = counts
			if v.Anonymous {
				continue
			}
			pair := viewKey{key, v.Viewer.Person}
			row, seen := want.views[pair]
			if !seen {
				row = viewRow{first: v.ViewedAt.UTC(), last: v.ViewedAt.UTC(), shard: shard}
				want.viewers[countKey{key, shard}]++
			}
			if v.ViewedAt.Before(row.first) {
				row.first = v.ViewedAt.UTC()
			}
			if v.ViewedAt.After(row.last) {
				row.last = v.ViewedAt.UTC()
			}
			row.views++
			want.views[pair] = row
		}
	}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	have := w.store.rows
	letters := map[letterKey]letterRow{}
	for k := range have.letters {
		k.topicID = [16]byte{}
		letters[k] = letterRow{}
	}
	exported := cmp.AllowUnexported(countKey{}, impressionsRow{}, viewKey{}, viewRow{}, letterKey{}, positionKey{}, letterRow{})
	for name, diff := range map[string]string{
		"impressions":        cmp.Diff(want.impressions, have.impressions, exported),
		"unique_views":       cmp.Diff(want.views, have.views, exported),
		"unique_view_counts": cmp.Diff(want.viewers, have.viewers, exported),
		"dead_letters":       cmp.Diff(want.letters, letters, exported),
	} {
		if diff != "" {
			return fmt.Errorf("%s is not the fold of the verdicts (-fold +rows):\n%s", name, diff)
		}
	}
	return nil
}
