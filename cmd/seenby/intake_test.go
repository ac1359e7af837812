package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// TestIntake is what an api takes in, end to end: batches of posts, views of sessions and of posts that nobody has
// published, and no more than the tenant's rate.
func TestIntake(t *testing.T) {
	in, key := install(t)
	in.setLimits(func(l *domain.Limits) {
		l.CountUnknownPosts = true
		l.Quota = domain.Quota{ViewsPerMinute: 1, BurstViews: quotaViews}
	})
	p := in.serve(key, "api,gate,projector,keeper")
	batchStory(t, p)
	anonymousStory(t, p, in)
	unknownStory(t, p)
	rateStory(t, p, in)
}

// quotaViews is what one viewer may send at once; nothing to speak of comes back while the test runs.
const quotaViews = 5

// postCount is a post's counts as /v1/counts has them.
type postCount struct {
	Post                 string `json:"post"`
	Impressions          int64  `json:"impressions"`
	AnonymousImpressions int64  `json:"anonymous_impressions"`
	UniqueViewers        int64  `json:"unique_viewers"`
}

func (p *process) counts(position, post string) postCount {
	p.t.Helper()
	var a struct{ Counts []postCount }
	p.must(http.StatusOK, "GET", "/v1/counts?post="+escape(post), waitFor(position), nil, &a)
	if len(a.Counts) != 1 {
		p.t.Fatalf("counts of %s: %+v", post, a)
	}
	return a.Counts[0]
}

// batchStory: a core system mirrors its posts, one of them twice and one that is none.
func batchStory(t *testing.T, p *process) {
	posts := []map[string]any{{"id": "b/0", "author": "anna", "body": "first"}}
	for i := range 200 {
		posts = append(posts, map[string]any{"id": fmt.Sprintf("b/%d", i), "author": fmt.Sprintf("author-%d", i%10), "body": fmt.Sprintf("text %d", i)})
	}
	posts = append(posts, map[string]any{"id": "no author"})
	send := func() (position string) {
		var a struct {
			Accepted int
			Rejected []struct {
				Index         int
				Code, Message string
			}
		}
		position = p.must(http.StatusAccepted, "POST", "/v1/posts:batch", nil, map[string]any{"posts": posts}, &a)
		if a.Accepted != 201 || len(a.Rejected) != 1 || a.Rejected[0].Index != 201 || a.Rejected[0].Message != "author: is required" {
			t.Errorf("%+v", a)
		}
		return position
	}
	position := send()
	read := func(i int, version int64) {
		var got postAnswer
		p.must(http.StatusOK, "GET", "/v1/posts/"+escape(fmt.Sprintf("b/%d", i)), waitFor(position), nil, &got)
		if want := fmt.Sprintf("text %d", i); got.Body != want || got.Author != fmt.Sprintf("author-%d", i%10) || got.Version != version {
			t.Errorf("post %d: %+v, want %q at version %d", i, got, want, version)
		}
	}
	read(0, 2)
	for i := 1; i < 200; i++ {
		read(i, 1)
	}
	p.must(http.StatusNotFound, "GET", "/v1/posts/"+escape("no author"), nil, nil, nil)
	// Mirrored again, only what stood twice changes.
	position = send()
	read(0, 4)
	read(1, 1)
}

// anonymousStory: a session is counted, and is nobody.
func anonymousStory(t *testing.T, p *process, in *installation) {
	p.must(http.StatusCreated, "PUT", "/v1/posts/open", nil, map[string]any{"author": "anna"}, nil)
	// A person and a session of the same name have a quota each.
	var views []viewItem
	for range quotaViews + 2 {
		views = append(views, viewItem{ID: uuid.NewString(), Post: "open", Viewer: "same"}, viewItem{ID: uuid.NewString(), Post: "open", Anonymous: "same"})
	}
	views = append(views, viewItem{ID: uuid.NewString(), Post: "open", Anonymous: "another"})
	repeat := views[len(views)-1]
	position := p.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: append(views, repeat)}, nil)
	want := postCount{Post: "open", Impressions: 2*quotaViews + 1, AnonymousImpressions: quotaViews + 1, UniqueViewers: 1}
	if got := p.counts(position, "open"); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	var post postAnswer
	p.must(http.StatusOK, "GET", "/v1/posts/open", nil, nil, &post)
	if post.Impressions != want.Impressions || post.AnonymousImpressions != want.AnonymousImpressions || post.UniqueViewers != 1 {
		t.Errorf("%+v", post)
	}
	var page struct{ Viewers []struct{ Viewer string } }
	p.must(http.StatusOK, "GET", "/v1/posts/open/viewers", waitFor(position), nil, &page)
	if len(page.Viewers) != 1 || page.Viewers[0].Viewer != "same" {
		t.Errorf("%+v", page)
	}

	// What is not for everyone is for no session, be it named as the author is.
	p.must(http.StatusCreated, "PUT", "/v1/posts/private", nil, map[string]any{"author": "anna", "audience": "author"}, nil)
	position = p.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: []viewItem{
		{ID: uuid.NewString(), Post: "private", Anonymous: "anna"}, {ID: uuid.NewString(), Post: "private", Viewer: "anna"},
	}}, nil)
	if got, want := p.counts(position, "private"), (postCount{Post: "private", Impressions: 1, UniqueViewers: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	// No session has a name in the log.
	records, err := in.records(domain.TopicPeople)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	for _, r := range records {
		if e, ok := r.Event.(domain.PersonNamed); ok {
			names[e.ID]++
		}
	}
	if names["another"] > 0 || names["same"] != 1 || names["anna"] == 0 {
		t.Errorf("people: %v", names)
	}
}

// unknownStory: where unknown posts count, a post has the counts of before it was published.
func unknownStory(t *testing.T, p *process) {
	views := viewsBody{Views: []viewItem{
		{ID: uuid.NewString(), Post: "later", Viewer: "ben"}, {ID: uuid.NewString(), Post: "later", Viewer: "ben"},
		{ID: uuid.NewString(), Post: "later", Viewer: "cleo"}, {ID: uuid.NewString(), Post: "later", Anonymous: "session"},
	}}
	position := p.must(http.StatusAccepted, "POST", "/v1/views", nil, views, nil)
	want := postCount{Post: "later", Impressions: 4, AnonymousImpressions: 1, UniqueViewers: 2}
	// A view may be undecided first: the token is passed by then, and the counts follow when it is judged again.
	eventually(t, 20*time.Second, "the views of an unknown post to be counted", func() error {
		if got := p.counts(position, "later"); got != want {
			return fmt.Errorf("%+v, want %+v", got, want)
		}
		return nil
	})
	p.must(http.StatusNotFound, "GET", "/v1/posts/later", nil, nil, nil)
	p.must(http.StatusNotFound, "GET", "/v1/posts/later/viewers", nil, nil, nil)

	var post postAnswer
	p.must(http.StatusCreated, "PUT", "/v1/posts/later", nil, map[string]any{"author": "anna", "body": "At last"}, &post)
	got := postCount{Post: post.ID, Impressions: post.Impressions, AnonymousImpressions: post.AnonymousImpressions, UniqueViewers: post.UniqueViewers}
	if got != want || post.Version != 1 || post.Body != "At last" {
		t.Errorf("published: %+v, want %+v", post, want)
	}
	// A view from now on is one more, and a repeat of an old one is none.
	next := viewsBody{Views: []viewItem{views.Views[0], {ID: uuid.NewString(), Post: "later", Viewer: "dora"}}}
	position = p.must(http.StatusAccepted, "POST", "/v1/views", nil, next, nil)
	want.Impressions, want.UniqueViewers = 5, 3
	if got := p.counts(position, "later"); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	var page struct{ Viewers []struct{ Viewer string } }
	p.must(http.StatusOK, "GET", "/v1/posts/later/viewers", waitFor(position), nil, &page)
	if len(page.Viewers) != 3 {
		t.Errorf("%+v", page)
	}
}

// rateStory: an api follows its tenant's rate while it runs.
func rateStory(t *testing.T, p *process, in *installation) {
	send := func(status int, policy string) func() error {
		return func() error {
			a, err := p.do("POST", "/v1/views", nil, viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: "rate", Viewer: "ben"}}})
			if got := a.header.Get("RateLimit-Policy"); err != nil || a.status != status || got != policy {
				return fmt.Errorf("%d, %s: %s %w", a.status, got, a.body, err)
			}
			var problem struct{ Code string }
			if status == http.StatusTooManyRequests && (json.Unmarshal(a.body, &problem) != nil || problem.Code != "rate_limited" ||
				a.header.Get("Retry-After") != "1" || a.header.Get("RateLimit") == "") {
				t.Errorf("%v %s", a.header, a.body)
			}
			return nil
		}
	}
	if err := send(http.StatusAccepted, `"views";q=2000;w=2`)(); err != nil {
		t.Error(err)
	}
	in.setLimits(func(l *domain.Limits) { l.IntakeViewsPerSecond = 1 })
	eventually(t, 10*time.Second, "a view over the new rate to be refused", send(http.StatusTooManyRequests, `"views";q=2;w=2`))
	if a, err := p.do("GET", "/metrics", nil, nil); err != nil || !strings.Contains(string(a.body), `seenby_views_rejected_total{code="rate_limited"} 1`) {
		t.Errorf("no metric of the views over the rate: %v", err)
	}
	in.setLimits(unlimited)
	eventually(t, 10*time.Second, "a view at the next rate to be accepted", send(http.StatusAccepted, `"views";q=20000000;w=2`))
}

// setLimits appends another revision of the tenant demo's limits, as an operator's command does.
func (in *installation) setLimits(change func(*domain.Limits)) {
	in.t.Helper()
	log, err := in.openLog()
	if err != nil {
		in.t.Fatal(err)
	}
	defer log.Close()
	now, err := log.Installation(in.t.Context())
	if err != nil {
		in.t.Fatal(err)
	}
	limits := now.Tenants[demoTenant].Limits
	limits.Revision++
	change(&limits)
	if err := limits.Validate(); err != nil {
		in.t.Fatal(err)
	}
	if _, err := log.Append(in.t.Context(), domain.LimitsSet{Tenant: demoTenant, Limits: limits, SetAt: time.Now()}); err != nil {
		in.t.Fatal(err)
	}
}

// unlimited is for tests that send more at once than an api takes by default.
func unlimited(l *domain.Limits) { l.IntakeViewsPerSecond = 10_000_000 }

func (in *installation) openLog() (*eventlog.Log, error) {
	return eventlog.Open(eventlog.Config{Brokers: in.brokers, Prefix: in.prefix})
}

// records are all that stands on a topic, from start to end.
func (in *installation) records(topic domain.Topic) (records []domain.Record, err error) {
	log, err := in.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	starts, err := log.Starts(in.t.Context(), topic)
	if err != nil {
		return nil, err
	}
	ends, err := log.Ends(in.t.Context(), topic)
	if err != nil {
		return nil, err
	}
	reader, err := log.NewReader()
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	if err := reader.Seek(in.t.Context(), starts); err != nil {
		return nil, err
	}
	for !reader.Passed(ends) {
		b, err := reader.Poll(in.t.Context(), 10_000)
		if err != nil {
			return nil, err
		}
		records = append(records, b.Records...)
	}
	return records, nil
}
