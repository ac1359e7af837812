package posts_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
	"seenby/projections/posts"
	"seenby/projections/projectiontest"
)

// writer delivers post events to a database, one batch each, all in one partition.
type writer struct {
	t    *testing.T
	d    *projectiontest.Database
	in   domain.Partition
	next map[domain.Partition]int64
}

func newWriter(t *testing.T) *writer {
	in := projectiontest.PartitionOf(domain.TopicPosts, []byte("any"))
	return &writer{t, projectiontest.Open(t, migrated(t)), in, map[domain.Partition]int64{}}
}

func (w *writer) deliver(e domain.Event) {
	w.t.Helper()
	part, key := w.in, []byte(nil)
	switch e := e.(type) {
	case domain.PostEvent:
		key = e.PostKey().Key()
	case domain.PostBodyWritten:
		key = e.PostRef.BodyKey(e.EventID)
		part.Topic, part.TopicID = domain.TopicBodies, projectiontest.TopicID(domain.TopicBodies)
	case domain.PostBodyErased:
		key = e.PostRef.BodyKey(e.EventID)
		part.Topic, part.TopicID = domain.TopicBodies, projectiontest.TopicID(domain.TopicBodies)
	}
	at := w.next[part]
	w.next[part] = at + 2 // offsets have gaps
	r := domain.Record{Partition: part, Offset: at, Key: key, Event: e, Time: projectiontest.Start.Add(time.Duration(at) * time.Second)}
	if err := w.d.Deliver(w.t.Context(), posts.Projection{}, domain.Batch{Records: []domain.Record{r}, Next: []domain.Position{part.At(at + 1)}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) publish(post string, id byte, author string, audience domain.Audience, hours int) {
	w.t.Helper()
	w.deliver(domain.PostPublished{
		PostRef: projectiontest.Post(post), EventID: domain.EventID{id, 1}, Author: projectiontest.Person(author), Audience: audience,
		PublishedAt: projectiontest.Start.Add(time.Duration(hours) * time.Hour),
	})
}

// pages reads a feed to its end, a row at a time; between does something after each page.
func (w *writer) pages(filter posts.FeedFilter, between func(page int)) (got []string) {
	w.t.Helper()
	var after *posts.FeedCursor
	for page := 0; ; page++ {
		rows, err := posts.Feed(w.t.Context(), w.d.Pool, filter, after, 1)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(rows) == 0 {
			return got
		}
		got = append(got, string(rows[0].Key.Post))
		after = &posts.FeedCursor{PublishedAt: rows[0].PublishedAt, Post: rows[0].Key.Post}
		if between != nil {
			between(page)
		}
	}
}

func TestFeed(t *testing.T) {
	w := newWriter(t)
	w.publish("a", 1, "ann", domain.AudienceEveryone, 1)
	w.publish("b", 2, "ben", domain.AudienceEveryone, 2)
	w.publish("c", 3, "ann", "audience:friends", 2)
	w.publish("d", 4, "ann", domain.AudienceEveryone, 3)
	w.publish("gone", 5, "ann", domain.AudienceEveryone, 4)
	w.deliver(domain.PostDeleted{PostRef: projectiontest.Post("gone"), EventID: domain.EventID{6, 1}})
	w.deliver(domain.CountsImported{PostRef: projectiontest.Post("imported"), EventID: domain.EventID{7, 1}, AsOf: projectiontest.Start})
	ann := projectiontest.Person("ann")
	for _, c := range []struct {
		filter posts.FeedFilter
		want   []string
	}{
		{posts.FeedFilter{Tenant: "demo"}, []string{"d", "c", "b", "a"}},
		{posts.FeedFilter{Tenant: "demo", Author: &ann}, []string{"d", "c", "a"}},
		{posts.FeedFilter{Tenant: "demo", Audience: domain.AudienceEveryone}, []string{"d", "b", "a"}},
		{posts.FeedFilter{Tenant: "demo", Author: &ann, Audience: "audience:friends"}, []string{"c"}},
		{posts.FeedFilter{Tenant: "acme"}, nil},
	} {
		if diff := cmp.Diff(c.want, w.pages(c.filter, nil)); diff != "" {
			t.Errorf("%+v: %s", c.filter, diff)
		}
	}
}

// While a feed is read page by page, posts come before, between and after, ties included, and some change: of those
// that stood, none that keeps its time stands twice or is left out.
func TestFeedIsStableUnderWrites(t *testing.T) {
	w := newWriter(t)
	var want []string
	id := byte(0)
	for i := range 12 {
		id++
		w.publish(fmt.Sprintf("m%02d", i), id, "ann", domain.AudienceEveryone, i/3)
		want = append([]string{fmt.Sprintf("m%02d", i)}, want...)
	}
	got := w.pages(posts.FeedFilter{Tenant: "demo"}, func(page int) {
		if page < 12 {
			for _, at := range []int{page % 4, 10, -1} {
				id++
				w.publish(fmt.Sprintf("%c%03d", "anz"[page%3], id), id, "ben", domain.AudienceEveryone, at)
			}
			id++
			w.publish(fmt.Sprintf("m%02d", page), id, "ben", domain.AudienceAuthor, page/3)
		}
	})
	var kept []string
	for _, name := range got {
		if name[0] == 'm' {
			kept = append(kept, name)
		}
	}
	if diff := cmp.Diff(want, kept); diff != "" || len(got) <= len(kept) {
		t.Errorf("of %v: %s", got, diff)
	}
}

func TestHistoryAndErasable(t *testing.T) {
	w := newWriter(t)
	ctx := t.Context()
	p := projectiontest.Post("p")
	seven := int64(7)
	text := func(id byte) {
		w.deliver(domain.PostBodyWritten{PostRef: p, EventID: domain.EventID{id, 1}, Text: "secret"})
	}
	edit := func(id byte, based *int64) {
		w.deliver(domain.PostEdited{PostRef: p, EventID: domain.EventID{id, 1}, Body: &domain.Digest{id}, BasedOnVersion: based})
	}
	// Ids fall, so that the order of the log is not theirs.
	w.publish("p", 9, "ann", domain.AudienceEveryone, 1)
	w.publish("q", 10, "ann", domain.AudienceEveryone, 1)
	text(8)
	edit(8, nil)
	text(7)
	edit(7, &seven)
	edit(6, &seven)
	erasable := func(want ...byte) {
		t.Helper()
		got, err := posts.Erasable(ctx, w.d.Pool, 10)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%v (%v), want %v", got, err, want)
		}
		for i, e := range got {
			if e.PostRef != p || e.EventID != (domain.EventID{want[i], 1}) {
				t.Errorf("%+v, want event %d", e, want[i])
			}
		}
	}
	erasable(7)
	text(6) // after its event
	erasable(6, 7)
	if some, err := posts.Erasable(ctx, w.d.Pool, 1); err != nil || len(some) != 1 {
		t.Error(some, err)
	}

	var got []posts.HistoryEvent
	for after := int64(-1); ; {
		page, err := posts.History(ctx, w.d.Pool, p, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got, after = append(got, page...), page[len(page)-1].RecordOffset
	}
	event := func(kind string, o domain.OutcomeKind, version, offset int64) posts.HistoryEvent {
		return posts.HistoryEvent{EventType: kind, Outcome: domain.Outcome{Kind: o, Version: version}, RecordedAt: projectiontest.Start.Add(time.Duration(offset) * time.Second), RecordOffset: offset}
	}
	want := []posts.HistoryEvent{
		event("PostPublished", domain.OutcomeCreated, 1, 0), event("PostEdited", domain.OutcomeReplaced, 2, 4),
		event("PostEdited", domain.OutcomeVoidConflict, 2, 6), event("PostEdited", domain.OutcomeVoidConflict, 2, 8),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	w.deliver(domain.PostBodyErased{PostRef: p, EventID: domain.EventID{7, 1}})
	erasable(6)
	w.deliver(domain.PostDeleted{PostRef: p, EventID: domain.EventID{5, 1}})
	erasable(6, 8)
	var left int
	if err := w.d.Pool.QueryRow(ctx, "SELECT count(*) FROM post_bodies WHERE body <> ''").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d texts are left in the read model (%v)", left, err)
	}
	for tenant, want := range map[domain.TenantID]string{"demo": "map[p:true]", "acme": "map[]"} {
		if got, err := posts.Deleted(ctx, w.d.Pool, tenant, []domain.PostID{"p", "q", "never", "p"}); err != nil || fmt.Sprint(got) != want {
			t.Errorf("deleted of %s: %v (%v)", tenant, got, err)
		}
	}
}
