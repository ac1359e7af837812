package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"seenby/domain"
	"seenby/internal/testenv"
)

// TestEndToEnd is the way of a view from the request to the counts, through the real main path: once against
// Kafka and PostgreSQL as the machine has them (in CI: in containers), and once against the embedded ones.
func TestEndToEnd(t *testing.T) {
	t.Run("servers", func(t *testing.T) {
		in, key := install(t)
		in.setLimits(unlimited)
		story(t, in.serve(key, "api,gate,projector,keeper"), in)
	})
	t.Run("embedded", func(t *testing.T) {
		in, key := install(t, testenv.Embedded)
		in.setLimits(unlimited)
		story(t, in.serve(key, "api,gate,projector,keeper"), in)
	})
}

// TestRolesApart runs every role in a process of its own, two of those that share work.
func TestRolesApart(t *testing.T) {
	in, key := install(t)
	in.setLimits(unlimited)
	in.serve(key, "gate")
	in.serve(key, "gate")
	in.serve(key, "projector")
	in.serve(key, "projector,keeper")
	story(t, in.serve(key, "api"), in)
}

func story(t *testing.T, p *process, in *installation) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	at := func(d time.Duration) *time.Time { t := now.Add(d); return &t }
	view := func(views ...viewItem) string {
		t.Helper()
		return p.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: views}, nil)
	}
	read := func(post, position string) (a postAnswer) {
		t.Helper()
		p.must(http.StatusOK, "GET", "/v1/posts/"+escape(post), waitFor(position), nil, &a)
		return a
	}

	// A post appears at once, with its text, and an equal PUT keeps its version.
	var created postAnswer
	hello := map[string]any{"author": "anna", "body": "Hello"}
	p.must(http.StatusCreated, "PUT", "/v1/posts/hello", nil, hello, &created)
	if created.Version != 1 || created.Author != "anna" || created.Body != "Hello" {
		t.Errorf("created %+v", created)
	}
	p.must(http.StatusOK, "PUT", "/v1/posts/hello", nil, hello, &created)
	if created.Version != 1 {
		t.Errorf("an equal PUT made version %d", created.Version)
	}
	p.must(http.StatusOK, "PUT", "/v1/posts/hello", nil, map[string]any{"author": "anna", "body": "Hello, all"}, &created)
	if created.Version != 2 || created.Body != "Hello, all" {
		t.Errorf("replaced: %+v", created)
	}

	// A view counts once, however often it is repeated.
	id := uuid.NewString()
	for range 3 {
		view(viewItem{ID: id, Post: "hello", Viewer: "ben"})
	}
	position := view(viewItem{Post: "hello", Viewer: "ben", ViewedAt: at(0)}, viewItem{Post: "hello", Viewer: "ben", ViewedAt: at(0)},
		viewItem{Post: "hello", Viewer: "cleo", ViewedAt: at(-time.Hour)}, viewItem{ID: uuid.NewString(), Post: "hello", Viewer: "cleo", ViewedAt: at(-25 * time.Hour)})
	if got := read("hello", position); got.Impressions != 3 || got.UniqueViewers != 2 {
		t.Errorf("after three counted views of two people: %+v", got)
	}

	// The post cap: 60 an hour by one viewer. The quota: a burst of 2,000 by one viewer.
	p.must(http.StatusCreated, "PUT", "/v1/posts/capped", nil, map[string]any{"author": "anna"}, nil)
	var items []viewItem
	for range 70 {
		items = append(items, viewItem{ID: uuid.NewString(), Post: "capped", Viewer: "dora"})
	}
	if got := read("capped", view(items...)); got.Impressions != 60 || got.UniqueViewers != 1 {
		t.Errorf("70 views by one viewer: %+v, want 60", got)
	}
	const quotaPosts = 50
	for i := range quotaPosts {
		p.must(http.StatusCreated, "PUT", fmt.Sprintf("/v1/posts/quota-%d", i), nil, map[string]any{"author": "anna"}, nil)
	}
	for range 3 {
		items = items[:0]
		for i := range 1000 {
			items = append(items, viewItem{ID: uuid.NewString(), Post: fmt.Sprintf("quota-%d", i%quotaPosts), Viewer: "emil"})
		}
		position = view(items...)
	}
	read("quota-0", position)

	// An unknown post is refused, and the answer about it is that of any unknown one.
	read("hello", view(viewItem{ID: uuid.NewString(), Post: "nowhere", Viewer: "ben"}))
	p.must(http.StatusNotFound, "GET", "/v1/posts/nowhere", nil, nil, nil)

	// Published and viewed in one breath, a thousand times: a view that is sent as soon as its post was accepted
	// is never refused because something has not caught up.
	const breaths = 1000
	breath := func(i int) string { return fmt.Sprintf("breath/%d", i) }
	var positions [breaths]string
	inParallel(t, breaths, func(i int) error {
		a, err := p.do("PUT", "/v1/posts/"+escape(breath(i)), nil, map[string]any{"author": "anna"})
		if err != nil || a.status != http.StatusCreated {
			return fmt.Errorf("PUT: %d %s %w", a.status, a.body, err)
		}
		a, err = p.do("POST", "/v1/views", nil, viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: breath(i), Viewer: fmt.Sprintf("viewer-%d", i%97)}}})
		if err != nil || a.status != http.StatusAccepted {
			return fmt.Errorf("POST views: %d %s %w", a.status, a.body, err)
		}
		positions[i] = a.header.Get("Seenby-Position")
		return nil
	})

	ledger := in.settle(t)
	ledger.check(t, 4000)
	if got := ledger.reasons; got[domain.ReasonDuplicate] != 3 || got[domain.ReasonStale] != 1 || got[domain.ReasonPostCap] != 10 || got[domain.ReasonUnknownPost] != 1 {
		t.Errorf("refused: %v", got)
	}
	// The quota refills at 10 a second while the three requests run.
	if n := ledger.reasons[domain.ReasonViewerQuota]; n < 700 || n > 1000 {
		t.Errorf("%d views were over the quota, want nearly 1000 of 3000", n)
	}
	inParallel(t, breaths, func(i int) error {
		var got postAnswer
		status, err := p.get("/v1/posts/"+escape(breath(i)), waitFor(positions[i]), &got)
		if err != nil || status != http.StatusOK || got.Impressions != 1 || got.UniqueViewers != 1 {
			return fmt.Errorf("post %d, published and viewed in one breath: %d %+v %w", i, status, got, err)
		}
		return nil
	})

	readModels(t, p, ledger, now)
}

// settle waits until every view has a verdict that is final, and gives what the topics say then.
func (in *installation) settle(t *testing.T) (l *ledger) {
	t.Helper()
	eventually(t, time.Minute, "every view to be settled", func() (err error) {
		if l, err = in.ledger(); err != nil {
			return err
		}
		return l.settled()
	})
	return l
}

// inParallel calls f for 0 to n-1 from 32 goroutines, and fails with the first error.
func inParallel(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(32)
	for i := range n {
		group.Go(func() error { return f(i) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// readModels compares what the API says with what the topics say.
func readModels(t *testing.T, p *process, ledger *ledger, since time.Time) {
	var counts struct {
		Counts []struct {
			Post          string `json:"post"`
			Impressions   int64  `json:"impressions"`
			UniqueViewers int64  `json:"unique_viewers"`
		} `json:"counts"`
		AsOf time.Time `json:"as_of"`
	}
	var query []string
	for i := range 50 {
		query = append(query, fmt.Sprintf("post=quota-%d", i))
	}
	p.must(http.StatusOK, "GET", "/v1/counts?post=hello&post=capped&"+strings.Join(query, "&"), nil, nil, &counts)
	for _, c := range counts.Counts {
		want := ledger.posts[domain.PostID(c.Post)]
		if c.Impressions != want.impressions || c.UniqueViewers != int64(len(want.viewers)) {
			t.Errorf("%s: %d impressions, %d unique viewers; the topics say %d and %d", c.Post, c.Impressions, c.UniqueViewers, want.impressions, len(want.viewers))
		}
	}
	if len(counts.Counts) != 52 || counts.AsOf.Before(since.Add(-time.Hour)) {
		t.Errorf("%d counts as of %v", len(counts.Counts), counts.AsOf)
	}

	var viewers struct {
		Viewers []struct {
			Viewer        string    `json:"viewer"`
			FirstViewedAt time.Time `json:"first_viewed_at"`
			LastViewedAt  time.Time `json:"last_viewed_at"`
			Views         int64     `json:"views"`
		} `json:"viewers"`
		NextCursor string `json:"next_cursor"`
	}
	p.must(http.StatusOK, "GET", "/v1/posts/hello/viewers?limit=1", nil, nil, &viewers)
	if len(viewers.Viewers) != 1 || viewers.Viewers[0].Viewer != "ben" || viewers.Viewers[0].Views != 2 || viewers.NextCursor == "" {
		t.Fatalf("the newest viewer: %+v", viewers)
	}
	p.must(http.StatusOK, "GET", "/v1/posts/hello/viewers?limit=1&cursor="+viewers.NextCursor, nil, nil, &viewers)
	if len(viewers.Viewers) != 1 || viewers.Viewers[0].Viewer != "cleo" || !viewers.Viewers[0].FirstViewedAt.Equal(since.Add(-time.Hour)) {
		t.Fatalf("the next viewer: %+v", viewers)
	}

	timeSeries(t, p, ledger, since)

	// as_of advances although nothing happens.
	var first postAnswer
	p.must(http.StatusOK, "GET", "/v1/posts/hello", nil, nil, &first)
	eventually(t, 10*time.Second, "as_of to advance", func() error {
		var a postAnswer
		p.must(http.StatusOK, "GET", "/v1/posts/hello", nil, nil, &a)
		if !a.AsOf.After(first.AsOf) {
			return errors.New("it stands at " + a.AsOf.String())
		}
		return nil
	})
}

// ledger is what the topics say: the views reported and the verdict of each, partition by partition.
type ledger struct {
	reported  map[int32]int
	counted   map[int32]int
	refused   map[int32]int
	reasons   map[domain.Reason]int
	posts     map[domain.PostID]*ledgerPost
	views     map[int32]map[int64]bool // offsets that wait for their verdict
	pending   map[int32]map[int64]bool // undecided, by offset, and not readmitted
	twice     []string
	countedID map[string]bool
}

type ledgerPost struct {
	impressions int64
	viewers     map[domain.PersonKey]bool
}

// ledger reads the topics views and verdicts from start to end.
func (in *installation) ledger() (*ledger, error) {
	l := &ledger{
		reported: map[int32]int{}, counted: map[int32]int{}, refused: map[int32]int{}, reasons: map[domain.Reason]int{},
		posts: map[domain.PostID]*ledgerPost{}, views: map[int32]map[int64]bool{}, pending: map[int32]map[int64]bool{}, countedID: map[string]bool{},
	}
	for _, topic := range []domain.Topic{domain.TopicViews, domain.TopicVerdicts} {
		records, err := in.records(topic)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if err := l.add(r); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

func (l *ledger) add(r domain.Record) error {
	p := r.Partition.Partition
	switch e := r.Event.(type) {
	case domain.ViewReported:
		if l.views[p] == nil {
			l.views[p], l.pending[p] = map[int64]bool{}, map[int64]bool{}
		}
		l.reported[p]++
		l.views[p][r.Offset] = true
	case *domain.Verdict:
		if !l.views[p][e.ViewOffset] {
			l.twice = append(l.twice, fmt.Sprintf("partition %d has a second verdict, or one without a view, for offset %d", p, e.ViewOffset))
		}
		delete(l.views[p], e.ViewOffset)
		l.reasons[e.Reason]++
		if e.Readmits != nil {
			delete(l.pending[p], *e.Readmits)
		}
		if !e.Counted() {
			l.refused[p]++
			if e.Reason == domain.ReasonUndecided {
				l.pending[p][e.ViewOffset] = true
			}
			return nil
		}
		l.counted[p]++
		if id := e.Viewer.Person.String() + e.ViewID.String(); l.countedID[id] {
			l.twice = append(l.twice, "view "+id+" was counted twice")
		} else {
			l.countedID[id] = true
		}
		post := l.posts[e.Post]
		if post == nil {
			post = &ledgerPost{viewers: map[domain.PersonKey]bool{}}
			l.posts[e.Post] = post
		}
		post.impressions++
		post.viewers[e.Viewer.Person] = true
	default:
		return fmt.Errorf("offset %d: %v %w", r.Offset, r.Event, r.Err)
	}
	return nil
}

func (l *ledger) settled() error {
	waiting, undecided := 0, 0
	for p := range l.views {
		waiting += len(l.views[p])
		undecided += len(l.pending[p])
	}
	if waiting+undecided > 0 {
		return fmt.Errorf("%d views without a verdict, %d undecided", waiting, undecided)
	}
	return nil
}

// check holds the topics to the promise: reported = counted + refused, per partition, one verdict per view.
func (l *ledger) check(t *testing.T, least int) {
	t.Helper()
	for _, problem := range l.twice {
		t.Error(problem)
	}
	total := 0
	for p, n := range l.reported {
		total += n
		if n != l.counted[p]+l.refused[p] {
			t.Errorf("partition %d: %d reported, %d counted and %d refused", p, n, l.counted[p], l.refused[p])
		}
	}
	if total < least {
		t.Errorf("only %d views on the topic", total)
	}
	t.Logf("%d views over %d partitions: %v", total, len(l.reported), l.reasons)
}
