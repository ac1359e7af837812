package main

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/postgres"
)

type erasureAnswer struct {
	Receipt     string    `json:"receipt"`
	ErasedAt    time.Time `json:"erased_at"`
	NameRemoved bool      `json:"name_removed"`
	CompactedBy time.Time `json:"compacted_by"`
	Compacted   bool      `json:"compacted"`
}

// TestErasure: an erased person is named no more, by no api, whatever comes later and whatever was left undone;
// counts stay and go on.
func TestErasure(t *testing.T) {
	in, key := install(t)
	in.serve(key, "gate,projector,keeper")
	first, second := in.serve(key, "api"), in.serve(key, "api")
	first.must(http.StatusCreated, "PUT", "/v1/posts/p", nil, map[string]any{"author": "ben"}, nil)
	look := func(p *process, viewers ...string) (position string) {
		t.Helper()
		var body viewsBody
		for _, v := range viewers {
			body.Views = append(body.Views, viewItem{ID: uuid.NewString(), Post: "p", Viewer: v})
		}
		return p.must(http.StatusAccepted, "POST", "/v1/views", nil, body, nil)
	}
	// expect holds what the api says of the post: its author, its viewers, of whom the erased are "", and its counts.
	expect := func(p *process, position string, impressions int64, author string, viewers ...string) {
		t.Helper()
		var post postAnswer
		p.must(http.StatusOK, "GET", "/v1/posts/p", waitFor(position), nil, &post)
		var list struct{ Viewers []struct{ Viewer string } }
		p.must(http.StatusOK, "GET", "/v1/posts/p/viewers", waitFor(position), nil, &list)
		want, got := map[string]int{}, map[string]int{}
		for _, v := range viewers {
			want[v]++
		}
		for _, v := range list.Viewers {
			got[v.Viewer]++
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || post.Author != author || post.Impressions != impressions || post.UniqueViewers != int64(len(viewers)) {
			t.Errorf("viewers %v, post %+v; want %v by %q and %d impressions", got, post, want, author, impressions)
		}
	}
	look(first, "ben", "cleo")
	expect(second, look(second, "ben", "dora"), 4, "ben", "ben", "cleo", "dora")

	var done erasureAnswer
	position := first.must(http.StatusOK, "DELETE", "/v1/people/ben", nil, nil, &done)
	if !done.NameRemoved || done.Compacted || done.CompactedBy.Sub(done.ErasedAt) != 48*time.Hour {
		t.Errorf("%+v", done)
	}
	expect(first, position, 4, "", "", "cleo", "dora")
	expect(second, position, 4, "", "", "cleo", "dora")
	var feed struct{ Posts []postAnswer }
	if second.must(http.StatusOK, "GET", "/v1/posts?author=ben", waitFor(position), nil, &feed); len(feed.Posts) > 0 {
		t.Errorf("found by the author's id: %+v", feed.Posts)
	}
	look(first, "ben") // which erased, and the second knows ben from before
	expect(second, look(second, "ben", "ben"), 7, "", "", "cleo", "dora")

	// What an erasure can leave undone: an api that had not read the mark names the person, and one that erases
	// dies between mark and tombstone.
	log, err := eventlog.Open(eventlog.Config{Brokers: in.brokers, Prefix: in.prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	people, err := in.people(log)
	if err != nil {
		t.Fatal(err)
	}
	ben, dora := people.of("ben"), people.of("dora")
	if len(ben.marks) != 1 || !ben.tombstone || ben.partitions != 1 || ben.namedAfterMark != 0 {
		t.Errorf("the topic holds of ben %+v", ben)
	}
	if len(dora.marks) != 0 || dora.tombstone {
		t.Errorf("the topic holds of dora %+v", dora)
	}
	positions, err := log.Append(t.Context(),
		domain.PersonNamed{Ref: ben.ref, ID: "ben"}, domain.PersonErased{Ref: dora.ref, ErasedAt: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the tombstones that are missing", func() error {
		if people, err = in.people(log); err != nil {
			return err
		}
		if !people.of("ben").tombstone || !people.of("dora").tombstone || people.of("cleo").tombstone {
			return fmt.Errorf("%+v", people)
		}
		return nil
	})
	store, err := postgres.Open(t.Context(), postgres.Config{URL: in.database})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	eventually(t, 30*time.Second, "the projection to pass what was left undone", func() error {
		rows, err := store.Positions(t.Context())
		for _, row := range rows["people"] {
			for _, p := range positions {
				if row.In() == p.In() && row.NextOffset < p.NextOffset {
					return fmt.Errorf("%+v at %d", p, row.NextOffset)
				}
			}
		}
		return err
	})
	expect(first, position, 7, "", "", "cleo", "")

	// An api that starts later knows nobody from before, and all who are erased.
	first.stop()
	second.stop()
	third := in.serve(key, "api")
	expect(third, look(third, "ben", "dora", "cleo", "ben"), 11, "", "", "cleo", "")
	var again erasureAnswer
	third.must(http.StatusOK, "DELETE", "/v1/people/ben", nil, nil, &again)
	if again != done {
		t.Errorf("a second erasure: %+v, want %+v", again, done)
	}
	third.must(http.StatusOK, "GET", "/v1/erasures/"+done.Receipt, nil, nil, &again)
	if again != done {
		t.Errorf("the receipt: %+v, want %+v", again, done)
	}
	third.must(http.StatusOK, "DELETE", "/v1/people/stranger", nil, nil, &again)
	if !again.NameRemoved {
		t.Errorf("a stranger: %+v", again)
	}
	if people, err = in.people(log); err != nil || people.of("ben").namedAfterMark != 1 || len(people.of("ben").marks) != 1 || people.of("dora").namedAfterMark != 0 {
		t.Errorf("%+v, %v: want ben named once after his mark, by this test", people, err)
	}
}

// person is what the topic people holds of a person.
type person struct {
	ref            domain.PersonRef
	marks          []time.Time
	tombstone      bool // the last record of the name's key is one
	namedAfterMark int
	partitions     int
}

type peopleTopic struct {
	byRef map[domain.PersonRef]*person
	refs  map[string]domain.PersonRef // by the app's id
}

func (p peopleTopic) of(id string) person {
	if known := p.byRef[p.refs[id]]; known != nil {
		return *known
	}
	return person{}
}

// people reads the topic from start to end.
func (in *installation) people(log *eventlog.Log) (peopleTopic, error) {
	p := peopleTopic{map[domain.PersonRef]*person{}, map[string]domain.PersonRef{}}
	starts, err := log.Starts(in.t.Context(), domain.TopicPeople)
	if err != nil {
		return p, err
	}
	ends, err := log.Ends(in.t.Context(), domain.TopicPeople)
	if err != nil {
		return p, err
	}
	reader, err := log.NewReader()
	if err != nil {
		return p, err
	}
	defer reader.Close()
	if err := reader.Seek(in.t.Context(), starts); err != nil {
		return p, err
	}
	parts := map[domain.PersonRef]map[int32]bool{}
	for !reader.Passed(ends) {
		b, err := reader.Poll(in.t.Context(), 1000)
		if err != nil {
			return p, err
		}
		for _, r := range b.Records {
			ref, _, ok := domain.ParsePersonKey(r.Key)
			if !ok {
				return p, fmt.Errorf("a strange key: %q", r.Key)
			}
			if p.byRef[ref] == nil {
				p.byRef[ref], parts[ref] = &person{ref: ref}, map[int32]bool{}
			}
			of := p.byRef[ref]
			parts[ref][r.Partition.Partition] = true
			of.partitions = len(parts[ref])
			switch e := r.Event.(type) {
			case domain.PersonNamed:
				p.refs[e.ID], of.tombstone = ref, false
				if len(of.marks) > 0 {
					of.namedAfterMark++
				}
			case domain.PersonErased:
				of.marks = append(of.marks, e.ErasedAt)
			case domain.PersonForgotten:
				of.tombstone = true
			}
		}
	}
	return p, nil
}
