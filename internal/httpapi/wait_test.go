package httpapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"seenby/domain"
	"seenby/internal/tenancy"
	"seenby/projections"
)

// inFakeTime runs a test in which only waiting takes time, and lets the poller find that nobody waits any more.
func inFakeTime(t *testing.T, test func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		defer func() { <-time.After(time.Minute) }()
		test(t)
	})
}

func TestReadWaitsForWhatItReads(t *testing.T) {
	for _, c := range []struct {
		held    string
		waiting []string // of these routes, those that a write of a post and a view make wait
	}{
		{projectionPosts, []string{"/v1/posts/p", "/v1/posts/p/viewers", "/v1/counts?post=p", "/v1/posts/p/timeseries"}},
		{projectionPeople, []string{"/v1/posts/p", "/v1/posts/p/viewers"}},
		{projectionImpressions, []string{"/v1/posts/p", "/v1/counts?post=p"}},
		{projectionUniqueViews, []string{"/v1/posts/p", "/v1/posts/p/viewers", "/v1/counts?post=p"}},
		{projectionTimeSeries, []string{"/v1/posts/p/timeseries", "/v1/timeseries"}},
	} {
		for _, path := range []string{"/v1/posts/p", "/v1/posts/p/viewers", "/v1/counts?post=p", "/v1/posts/p/timeseries", "/v1/timeseries"} {
			t.Run(c.held+path, func(t *testing.T) {
				inFakeTime(t, func(t *testing.T) {
					w := newWorld()
					h := w.api(t, Config{})
					do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
					w.hold(c.held)
					views := do(h, "POST", "/v1/views", twoViews).Header().Get("Seenby-Position")
					post := do(h, "PUT", "/v1/posts/p", `{"author":"cid","body":"x"}`).Header().Get("Seenby-Position")
					waits := false
					for _, p := range c.waiting {
						waits = waits || p == path
					}
					began := time.Now()
					rec := do(h, "GET", path, "", "Seenby-Wait-For", views+", "+post, "Prefer", "wait=7")
					if !waits {
						if rec.Code != 200 {
							t.Errorf("%d %s", rec.Code, rec.Body)
						}
						return
					}
					wantProblem(t, rec, 504, "not_yet_applied")
					if took := time.Since(began); took != 7*time.Second {
						t.Errorf("waited %v, want 7s", took)
					}
					answer := make(chan *httptest.ResponseRecorder)
					go func() { answer <- do(h, "GET", path, "", "Seenby-Wait-For", post+","+views) }()
					<-time.After(time.Second)
					w.release()
					if rec := <-answer; rec.Code != 200 {
						t.Errorf("released: %d %s", rec.Code, rec.Body)
					}
				})
			})
		}
	}
}

func TestDefaultWaitAndRepeatedHeaders(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		w := newWorld()
		h := w.api(t, Config{})
		token := do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`).Header().Get("Seenby-Position")
		w.hold(projectionImpressions)
		views := do(h, "POST", "/v1/views", twoViews).Header().Get("Seenby-Position")
		began := time.Now()
		r := httptest.NewRequest(http.MethodGet, "/v1/posts/p", nil)
		r.Header["Authorization"] = []string{"bearer " + acmeKey}
		r.Header["Seenby-Wait-For"] = []string{token, views}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		wantProblem(t, rec, 504, "not_yet_applied")
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("waited %v, want 5s", took)
		}
		began = time.Now()
		wantProblem(t, do(h, "GET", "/v1/posts/p", "", "Seenby-Wait-For", views, "Prefer", `respond-async, Wait="0"; x=1`), 504, "not_yet_applied")
		if took := time.Since(began); took > waitLeast {
			t.Errorf("wait=0 took %v", took)
		}
	})
}

func TestWaitOfZeroAsksWhetherItIsPassed(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		w := newWorld()
		h := w.api(t, Config{})
		token := do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`).Header().Get("Seenby-Position")
		for range 20 {
			if rec := do(h, "GET", "/v1/posts/p", "", "Seenby-Wait-For", token, "Prefer", "wait=0"); rec.Code != 200 {
				t.Fatalf("%d %s", rec.Code, rec.Body)
			}
		}
	})
}

// However many wait, the read models are asked at the rate of one.
func TestWaitersShareOnePoller(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		w := newWorld()
		h := w.api(t, Config{PollInterval: 20 * time.Millisecond})
		w.hold(projectionImpressions)
		token := do(h, "POST", "/v1/views", twoViews).Header().Get("Seenby-Position")
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				rec := do(h, "GET", fmt.Sprintf("/v1/counts?post=%d", i), "", "Seenby-Wait-For", token, "Prefer", "wait=1")
				if rec.Code != 504 {
					t.Errorf("%d %s", rec.Code, rec.Body)
				}
			})
		}
		wg.Wait()
		if w.looks > 52 {
			t.Errorf("%d looks in a second, want about 50", w.looks)
		}
		<-time.After(time.Second)
		was := w.looks
		<-time.After(time.Second)
		if w.looks != was {
			t.Errorf("%d looks while nobody waited", w.looks-was)
		}
	})
}

func TestReachedBy(t *testing.T) {
	id := domain.TopicID{7}
	rows := []projections.PositionRow{
		{Position: domain.Position{Topic: domain.TopicPosts, TopicID: id, Partition: 0, NextOffset: 5}},
		{Position: domain.Position{Topic: domain.TopicVerdicts, TopicID: domain.TopicID{8}, Partition: 1, NextOffset: 99}, ViewNextOffset: 33},
	}
	for _, c := range []struct {
		asked domain.Position
		want  int64
		anew  bool
	}{
		{domain.Position{Topic: domain.TopicPosts, TopicID: id, Partition: 0}, 5, false},
		{domain.Position{Topic: domain.TopicPosts, TopicID: id, Partition: 1}, 0, false},
		{domain.Position{Topic: domain.TopicPosts, TopicID: domain.TopicID{6}, Partition: 0}, 0, true},
		{domain.Position{Topic: domain.TopicViews, TopicID: domain.TopicID{1}, Partition: 1}, 33, false},
		{domain.Position{Topic: domain.TopicViews, TopicID: domain.TopicID{1}, Partition: 0}, 0, false},
	} {
		got, err := reachedBy(rows, c.asked)
		if got != c.want || (err != nil) != c.anew {
			t.Errorf("%+v: %d, %v", c.asked, got, err)
		}
	}
}

func TestTokenOfTopicMadeAnewWithoutKafka(t *testing.T) {
	w := newWorld()
	do(w.api(t, Config{}), "PUT", "/v1/posts/p", `{"author":"ann"}`)
	deps := w.deps()
	deps.TopicID = func(domain.Topic) (domain.TopicID, bool) { return domain.TopicID{}, false }
	h, err := build(Config{}.withDefaults(), deps, w)
	if err != nil {
		t.Fatal(err)
	}
	token := tenancy.SealPositions(acme.Key, []domain.Position{{Topic: domain.TopicPosts, TopicID: domain.TopicID{0xff}, NextOffset: 1}})
	if p := wantProblem(t, do(h, "GET", "/v1/posts/p", "", "Seenby-Wait-For", token), 422, "invalid"); p.Field != "Seenby-Wait-For" {
		t.Errorf("%+v", p)
	}
}

// A process that stops cannot wait as long as a request may.
func TestWaitsEndWithTheProcess(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		w := newWorld()
		stopping := make(chan struct{})
		deps := w.deps()
		deps.Stopping = stopping
		h, err := build(Config{}.withDefaults(), deps, w)
		if err != nil {
			t.Fatal(err)
		}
		w.hold(projectionImpressions)
		token := do(h, "POST", "/v1/views", twoViews).Header().Get("Seenby-Position")
		time.AfterFunc(time.Second, func() { close(stopping) })
		began := time.Now()
		rec := do(h, "GET", "/v1/posts/p", "", "Seenby-Wait-For", token, "Prefer", "wait=30")
		wantProblem(t, rec, 503, "unavailable")
		if took := time.Since(began); took != time.Second {
			t.Errorf("waited %v", took)
		}
	})
}
