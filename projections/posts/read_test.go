package posts_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
	"seenby/projections/posts"
	"seenby/projections/projectiontest"
)

func TestReads(t *testing.T) {
	ctx := t.Context()
	d := projectiontest.Open(t, migrated(t))
	p1, p2, p3, none := projectiontest.Post("p1"), projectiontest.Post("p2"), projectiontest.Post("p3"), projectiontest.Post("none")
	in := projectiontest.PartitionOf(domain.TopicPosts, []byte("any"))
	in.Partition = 3
	bodies := in
	bodies.Topic, bodies.TopicID = domain.TopicBodies, projectiontest.TopicID(domain.TopicBodies)
	ann := projectiontest.Person("ann")
	record := func(part domain.Partition, offset int64, key []byte, e domain.Event) domain.Record {
		return domain.Record{Partition: part, Offset: offset, Key: key, Event: e, Time: projectiontest.Start.Add(time.Duration(offset) * time.Second)}
	}
	published := func(k domain.PostKey, id byte) domain.PostPublished {
		return domain.PostPublished{PostRef: k, EventID: domain.EventID{id}, Author: ann, Audience: domain.AudienceEveryone, Body: domain.Digest{id}}
	}
	bad := published(p3, 3)
	bad.Audience = "friends"
	err := d.Deliver(ctx, posts.Projection{}, domain.Batch{
		Records: []domain.Record{
			record(in, 0, p1.Key(), published(p1, 1)),
			record(in, 1, p2.Key(), published(p2, 2)),
			record(in, 2, p2.Key(), domain.PostDeleted{PostRef: p2, EventID: domain.EventID{4}}),
			record(in, 3, p3.Key(), bad),
			record(bodies, 0, p1.BodyKey(domain.EventID{1}), domain.PostBodyWritten{PostRef: p1, EventID: domain.EventID{1}, Text: "Hello"}),
		},
		Next: []domain.Position{in.At(4), bodies.At(1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := []domain.PostKey{p1, p2, p3, none, p1}

	views, err := posts.Read(ctx, d.Pool, keys)
	if err != nil || len(views) != 2 || views[p1].Text != "Hello" || views[p1].Version != 1 || !views[p2].Deleted ||
		!views[p1].CreatedAt.Equal(projectiontest.Start) || views[p1].BodyEvent != (domain.EventID{1}) {
		t.Errorf("posts %+v (%v)", views, err)
	}

	var asked []posts.Asked
	for _, k := range keys {
		asked = append(asked, posts.Asked{Post: k})
	}
	found, err := posts.Lookup(ctx, d.Pool, asked)
	if err != nil {
		t.Fatal(err)
	}
	if a := found.Posts[p1]; len(found.Posts) != 2 || !a.Known || a.Deleted || a.Version != 1 || a.Author != ann || a.Audience != domain.AudienceEveryone {
		t.Errorf("answers %+v", found.Posts)
	}
	if !found.Posts[p2].Deleted || len(found.Parked) != 1 || !found.Parked[p3] {
		t.Errorf("answers %+v, parked %v", found.Posts, found.Parked)
	}
	if len(found.Positions) != 1 || found.Positions[domain.TopicPosts][3] != in.At(4) {
		t.Errorf("positions %v", found.Positions)
	}
	if found, err := posts.Lookup(ctx, d.Pool, nil); err != nil || len(found.Positions) != 1 {
		t.Errorf("without keys: %v (%v)", found, err)
	}

	imported := func(k domain.PostKey, id byte, n int64, asOf time.Time) domain.CountsImported {
		return domain.CountsImported{PostRef: k, EventID: domain.EventID{id}, Impressions: 10 * n, UniqueViewers: n, AsOf: asOf}
	}
	elsewhere := in
	elsewhere.Partition = 5
	noon := projectiontest.Start.Add(-time.Hour)
	if err := d.Deliver(ctx, posts.Projection{}, domain.Batch{
		Records: []domain.Record{
			record(elsewhere, 0, p1.Key(), imported(p1, 11, 1, noon)),
			record(elsewhere, 1, p1.Key(), imported(p1, 12, 2, noon)),                      // as late: the log's order decides
			record(elsewhere, 2, p1.Key(), imported(p1, 13, 3, noon.Add(-time.Second))),    // older
			record(elsewhere, 3, p1.Key(), imported(p1, 11, 1, noon)),                      // a repeat
			record(elsewhere, 4, none.Key(), imported(none, 14, 4, noon.Add(time.Second))), // of no post
			record(elsewhere, 5, p2.Key(), imported(p2, 15, 5, noon)),                      // of a deleted one
		},
		Next: []domain.Position{elsewhere.At(6)},
	}); err != nil {
		t.Fatal(err)
	}
	baselines, err := posts.Baselines(ctx, d.Pool, keys)
	if diff := cmp.Diff(map[domain.PostKey]domain.Baseline{
		p1: {Impressions: 20, UniqueViewers: 2, AsOf: noon}, p2: {Impressions: 50, UniqueViewers: 5, AsOf: noon},
		none: {Impressions: 40, UniqueViewers: 4, AsOf: noon.Add(time.Second)},
	}, baselines); diff != "" || err != nil {
		t.Errorf("imported counts (%v): %s", err, diff)
	}
	if views, err := posts.Read(ctx, d.Pool, keys); err != nil || len(views) != 2 || views[p1].Baseline != baselines[p1] {
		t.Errorf("posts with imported counts %+v (%v)", views, err)
	}

	o, ok, err := posts.OutcomeOf(ctx, d.Pool, p2, domain.EventID{4})
	if err != nil || !ok || o != (domain.Outcome{Kind: domain.OutcomeDeleted, Version: 2}) {
		t.Errorf("outcome %v %v (%v)", o, ok, err)
	}
	if _, ok, err := posts.OutcomeOf(ctx, d.Pool, p3, domain.EventID{3}); err != nil || ok {
		t.Errorf("a parked event has an outcome (%v)", err)
	}

	far := in
	far.Partition = 4
	settled, err := posts.Settled(ctx, d.Pool, []posts.Wait{
		{Key: p1},
		{Key: none, WaitsFor: []domain.Position{in.At(4)}},
		{Key: none, WaitsFor: []domain.Position{in.At(4), in.At(5)}},
		{Key: none, WaitsFor: []domain.Position{far.At(1)}},
		{Key: p3, WaitsFor: []domain.Position{in.At(1)}},
	})
	if want := []bool{true, true, false, false, false}; err != nil || len(settled) != 5 {
		t.Error(settled, err)
	} else {
		for i := range want {
			if settled[i] != want[i] {
				t.Errorf("wait %d settled: %v", i, settled[i])
			}
		}
	}
}

// What Check lets in, the tables hold; the laws would show it too, now and then.
func TestCheckMirrorsTheTables(t *testing.T) {
	k := projectiontest.Post("p")
	r := domain.Record{Time: projectiontest.Start}
	id := domain.EventID{1}
	good := domain.PostPublished{PostRef: k, EventID: id, Audience: domain.AudienceEveryone}
	with := func(f func(*domain.PostPublished)) domain.PostPublished { e := good; f(&e); return e }
	none := domain.Audience("")
	for name, e := range map[string]domain.Event{
		"tenant":        with(func(e *domain.PostPublished) { e.PostRef.Tenant = "Demo" }),
		"post":          with(func(e *domain.PostPublished) { e.PostRef.Post = "a\x00b" }),
		"long post":     with(func(e *domain.PostPublished) { e.PostRef.Post = domain.PostID(strings.Repeat("x", 256)) }),
		"event id":      with(func(e *domain.PostPublished) { e.EventID = domain.EventID{} }),
		"audience":      with(func(e *domain.PostPublished) { e.Audience = "audience:" + "\xff" }),
		"time":          with(func(e *domain.PostPublished) { e.PublishedAt = time.Date(300_000, 1, 1, 0, 0, 0, 0, time.UTC) }),
		"edit":          domain.PostEdited{PostRef: k, EventID: id, Audience: &none},
		"counts":        domain.CountsImported{PostRef: k, EventID: id, Impressions: -1, AsOf: projectiontest.Start},
		"counts' time":  domain.CountsImported{PostRef: k, EventID: id},
		"long text":     domain.PostBodyWritten{PostRef: k, EventID: id, Text: strings.Repeat("x", domain.BodyBytesMax+1)},
		"NUL in text":   domain.PostBodyWritten{PostRef: k, EventID: id, Text: "a\x00b"},
		"text not UTF8": domain.PostBodyWritten{PostRef: k, EventID: id, Text: "\xff"},
	} {
		r.Event = e
		if err := (posts.Projection{}).Check(r); domain.CodeOf(err) != domain.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.Event = good
	if err := (posts.Projection{}).Check(r); err != nil {
		t.Error(err)
	}
	r.Event = domain.PersonNamed{}
	if err := (posts.Projection{}).Check(r); err != domain.ErrUnknownEvent { //nolint:errorlint // the very one
		t.Error(err)
	}
}

func TestMembers(t *testing.T) {
	ctx := t.Context()
	d := projectiontest.Open(t, migrated(t))
	shared, other, open := projectiontest.Post("shared"), projectiontest.Post("other"), projectiontest.Post("open")
	ann, ben, cleo := projectiontest.Person("ann"), projectiontest.Person("ben"), projectiontest.Person("cleo")
	part := func(topic domain.Topic) domain.Partition {
		p := projectiontest.PartitionOf(topic, []byte("any"))
		p.Partition = 3
		return p
	}
	inPosts, inAudiences := part(domain.TopicPosts), part(domain.TopicAudiences)
	published := func(k domain.PostKey, id byte, a domain.Audience) domain.Record {
		return domain.Record{Partition: inPosts, Offset: int64(id), Key: k.Key(), Time: projectiontest.Start, Event: domain.PostPublished{PostRef: k, EventID: domain.EventID{id, 1}, Author: ann, Audience: a}}
	}
	added := func(offset int64, audience string, who domain.PersonKey) domain.Record {
		return domain.Record{Partition: inAudiences, Offset: offset, Key: domain.MemberKey("demo", audience, who), Time: projectiontest.Start.Add(time.Duration(offset) * time.Second),
			Event: domain.AudienceMemberAdded{Tenant: "demo", Audience: audience, Person: who}}
	}
	poison := added(3, "friends", cleo)
	poison.Event, poison.Err = nil, domain.Errorf(domain.CodeInvalid, "no event")
	err := d.Deliver(ctx, posts.Projection{}, domain.Batch{
		Records: []domain.Record{
			published(shared, 0, "audience:friends"), published(other, 1, "audience:family"), published(open, 2, domain.AudienceEveryone),
			added(0, "friends", ann), added(1, "friends", ben), added(2, "family", ann), poison,
		},
		Next: []domain.Position{inPosts.At(3), inAudiences.At(4)},
	})
	if err != nil {
		t.Fatal(err)
	}
	everyone := []domain.PersonKey{ann, ben, cleo}
	found, err := posts.Lookup(ctx, d.Pool, []posts.Asked{{Post: shared, Viewers: everyone}, {Post: other, Viewers: everyone}, {Post: open, Viewers: everyone}})
	if err != nil {
		t.Fatal(err)
	}
	member := func(audience string, who domain.PersonKey) posts.Member {
		return posts.Member{Tenant: "demo", Audience: audience, Person: who}
	}
	want := map[posts.Member]bool{member("friends", ann): true, member("friends", ben): true, member("family", ann): true}
	if diff := cmp.Diff(want, found.Members); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[posts.Member]bool{member("friends", cleo): true}, found.ParkedMembers); diff != "" {
		t.Error(diff)
	}
	if !found.Positions.Passed(inAudiences.At(4)) || found.Positions.Passed(inAudiences.At(5)) || !found.Positions.Passed(inPosts.At(3)) {
		t.Errorf("positions %v", found.Positions)
	}

	settled, err := posts.Settled(ctx, d.Pool, []posts.Wait{
		{Key: shared, Viewer: ben, WaitsFor: []domain.Position{inPosts.At(3), inAudiences.At(4)}},
		{Key: shared, Viewer: ben, WaitsFor: []domain.Position{inAudiences.At(5)}},
		{Key: shared, Viewer: cleo}, // parked
		{Key: open, Viewer: cleo},
	})
	if diff := cmp.Diff([]bool{true, false, false, true}, settled); diff != "" || err != nil {
		t.Error(diff, err)
	}

	first, err := posts.Members(ctx, d.Pool, "demo", "friends", nil, 1)
	if err != nil || len(first) != 1 {
		t.Fatal(first, err)
	}
	rest, err := posts.Members(ctx, d.Pool, "demo", "friends", &first[0].Person, 10)
	if err != nil || len(rest) != 1 {
		t.Fatal(rest, err)
	}
	if first[0].Person != ann || rest[0].Person != ben || !rest[0].AddedAt.Equal(projectiontest.Start.Add(time.Second)) {
		t.Errorf("%+v %+v", first, rest)
	}
	if none, err := posts.Members(ctx, d.Pool, "acme", "friends", nil, 10); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
}
