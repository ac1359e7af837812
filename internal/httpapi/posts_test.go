package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
	"seenby/internal/tenancy"
)

func decode[T any](t *testing.T, body []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}

func TestPutPost(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	steps := []struct {
		name, body string
		header     [2]string
		status     int
		etag, code string
	}{
		{"If-Match on nothing", `{"author":"ann"}`, [2]string{"If-Match", `"1"`}, 412, "", "precondition_failed"},
		{"create", `{"author":"ann","body":"hello"}`, [2]string{"If-None-Match", "*"}, 201, `"1"`, ""},
		{"create again", `{"author":"ann"}`, [2]string{"If-None-Match", "*"}, 412, "", "precondition_failed"},
		{"equal", `{"author":"ann","body":"hello","audience":"everyone"}`, [2]string{}, 200, `"1"`, ""},
		{"replace", `{"author":"ann","body":"bye"}`, [2]string{}, 200, `"2"`, ""},
		{"based on an old version", `{"author":"ann"}`, [2]string{"If-Match", `"1"`}, 412, "", "precondition_failed"},
		{"based on the present one", `{"author":"ann","body":null,"published_at":"2026-01-02T03:04:05+01:00"}`, [2]string{"If-Match", `"2"`}, 200, `"3"`, ""},
	}
	for _, s := range steps {
		rec := do(h, "PUT", "/v1/posts/p", s.body, s.header[0], s.header[1])
		if s.code != "" {
			wantProblem(t, rec, s.status, s.code)
		} else if rec.Code != s.status || rec.Header().Get("ETag") != s.etag {
			t.Errorf("%s: %d, ETag %s: %s", s.name, rec.Code, rec.Header().Get("ETag"), rec.Body)
		}
		if rec.Header().Get("Seenby-Position") == "" {
			t.Errorf("%s: no position, though it was appended", s.name)
		}
	}
	got := decode[Post](t, do(h, "GET", "/v1/posts/p", "").Body.Bytes())
	ann := "ann"
	want := Post{
		ID: "p", Author: &ann, Audience: "everyone", PublishedAt: time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC),
		CreatedAt: noon, UpdatedAt: noon, Version: 3, AsOf: &noon,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	key := domain.PostKey{Tenant: acme.ID, Post: "p"}
	w.state[key].Deleted = true
	wantProblem(t, do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`), 410, "gone")
	wantProblem(t, do(h, "GET", "/v1/posts/p", ""), 410, "gone")
	wantProblem(t, do(h, "GET", "/v1/posts/p/viewers", ""), 410, "gone")
}

func TestPostEventsAndTheirOrder(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/p", `{"author":"ann","body":"hello"}`)
	do(h, "PUT", "/v1/posts/q", `{"author":"ann"}`)
	ann := domain.NewPersonKey(acme.Key, domain.PersonKnown, "ann")
	id, second := domain.EventID{6: 0x70, 8: 0x80, 15: 1}, domain.EventID{6: 0x70, 8: 0x80, 15: 2}
	p, q := domain.PostKey{Tenant: "acme", Post: "p"}, domain.PostKey{Tenant: "acme", Post: "q"}
	want := [][]domain.Event{
		{
			domain.PersonNamed{Ref: domain.PersonRef{Tenant: "acme", Person: ann}, ID: "ann"},
			domain.PostBodyWritten{PostRef: p, EventID: id, Text: "hello"},
		},
		{domain.PostPublished{PostRef: p, EventID: id, Author: ann, Audience: "everyone", Body: domain.NewDigest(acme.Key, "hello")}},
		{domain.PostPublished{PostRef: q, EventID: second, Author: ann, Audience: "everyone"}},
	}
	if diff := cmp.Diff(want, w.appends); diff != "" {
		t.Error(diff)
	}
}

func TestNewPost(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	rec := do(h, "POST", "/v1/posts", `{"author":"ann"}`)
	post := decode[Post](t, rec.Body.Bytes())
	if rec.Code != 201 || len(post.ID) != 36 || post.ID[14] != '7' || rec.Header().Get("Location") != "/v1/posts/"+post.ID {
		t.Errorf("%d, Location %q: %s", rec.Code, rec.Header().Get("Location"), rec.Body)
	}
	if got := do(h, "GET", rec.Header().Get("Location"), ""); got.Code != 200 || got.Header().Get("ETag") != `"1"` {
		t.Errorf("reading it: %d", got.Code)
	}
}

// Ids stand percent-encoded in paths; a slash in one is no separator.
func TestIDsInPaths(t *testing.T) {
	for _, id := range []string{"a/b", "a b", "日本", "%2F", "a%", "x?y#z", "viewers", "a/viewers", "é/ /;=&+", "..a", strings.Repeat("/", 255), strings.Repeat("é", 127)} {
		w := newWorld()
		h := w.api(t, Config{})
		path := "/v1/posts/" + url.PathEscape(id)
		rec := do(h, "PUT", path, `{"author":"ann"}`)
		if rec.Code != 201 || decode[Post](t, rec.Body.Bytes()).ID != id {
			t.Errorf("put %q: %d %s", id, rec.Code, rec.Body)
			continue
		}
		if loc := rec.Header().Get("Location"); loc != path {
			t.Errorf("%q: Location %q, want %q", id, loc, path)
		}
		if got, ok := w.appends[1][0].(domain.PostPublished); !ok || string(got.PostRef.Post) != id {
			t.Errorf("appended %+v, want %q", got, id)
		}
		if rec := do(h, "GET", path, ""); rec.Code != 200 {
			t.Errorf("get %q: %d", id, rec.Code)
		}
		if rec := do(h, "GET", path+"/viewers", ""); rec.Code != 200 {
			t.Errorf("viewers of %q: %d", id, rec.Code)
		}
		if got := decode[Counts](t, do(h, "GET", "/v1/counts?post="+url.QueryEscape(id), "").Body.Bytes()); got.Counts[0].Post != id {
			t.Errorf("counts of %q: %+v", id, got)
		}
	}
	wantProblem(t, do(newWorld().api(t, Config{}), "PUT", "/v1/posts/"+strings.Repeat("%2F", 256), `{"author":"a"}`), 422, "invalid")
}

// What stands in the log is never answered with a 5xx.
func TestPostAcceptedWhereItCannotBeReadBack(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(*world)
	}{
		{"the projection stands still", func(w *world) { w.hold(projectionPosts) }},
		{"people stand still", func(w *world) { w.hold(projectionPeople) }},
		{"PostgreSQL is away", func(w *world) { w.modelsErr = domain.Errorf(domain.CodeUnavailable, "PostgreSQL is away") }},
		{"an unknown error", func(w *world) { w.modelsErr = errors.New("what?") }},
		{"no outcome", func(w *world) { w.forgetful = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T) {
				w := newWorld()
				h := w.api(t, Config{})
				c.harm(w)
				began := time.Now()
				rec := do(h, "PUT", "/v1/posts/a%2Fb", `{"author":"ann","body":"x"}`)
				got := decode[PostAccepted](t, rec.Body.Bytes())
				if rec.Code != 202 || got.ID != "a/b" || got.Status != "accepted" {
					t.Fatalf("%d %s", rec.Code, rec.Body)
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("took %v", took)
				}
				positions, err := tenancy.OpenPositions(acme.Key, rec.Header().Get("Seenby-Position"))
				if err != nil || len(positions) != 3 {
					t.Errorf("position %v, %v: want posts, bodies and people", positions, err)
				}
			})
		})
	}
}

func TestKafkaAway(t *testing.T) {
	deadline := func([]domain.Event) error { return context.DeadlineExceeded }
	away := func([]domain.Event) error { return domain.Errorf(domain.CodeUnavailable, "Kafka is away") }
	second := func(events []domain.Event) error {
		if _, ok := events[0].(domain.PostPublished); ok {
			return domain.Errorf(domain.CodeUnavailable, "Kafka is away")
		}
		return nil
	}
	const views = `{"views":[{"viewer":"v","post":"p","viewed_at":"2026-11-23T12:00:00Z"}]}`
	for _, c := range []struct {
		name, method, path, body string
		err                      func([]domain.Event) error
	}{
		{"post", "PUT", "/v1/posts/p", `{"author":"a"}`, away},
		{"post, its event", "PUT", "/v1/posts/p", `{"author":"a"}`, second},
		{"post, deadline", "PUT", "/v1/posts/p", `{"author":"a"}`, deadline},
		{"views", "POST", "/v1/views", views, away},
		{"views, deadline", "POST", "/v1/views", views, deadline},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			h := w.api(t, Config{})
			w.appendErr = c.err
			rec := do(h, c.method, c.path, c.body)
			wantProblem(t, rec, 503, "unavailable")
			if rec.Header().Get("Seenby-Position") != "" {
				t.Error("a position, though nothing is known to be appended")
			}
			// The person was not acknowledged (or stands already): the repeat works and names them if need be.
			w.appendErr = nil
			if rec := do(h, c.method, c.path, c.body); rec.Code >= 300 {
				t.Errorf("the repeat: %d %s", rec.Code, rec.Body)
			}
			if len(w.names) != 1 {
				t.Errorf("names %v", w.names)
			}
		})
	}
}

// What a client sent stands in the log even if it hangs up meanwhile: half of a post is never appended for it.
func TestHangingUpBreaksNoAppendOff(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	w.appendErr = func([]domain.Event) error { cancel(); return nil }
	r := httptest.NewRequestWithContext(ctx, http.MethodPut, "/v1/posts/p", strings.NewReader(`{"author":"ann","body":"x"}`))
	r.Header.Set("Authorization", "Bearer "+acmeKey)
	h.ServeHTTP(httptest.NewRecorder(), r)
	if len(w.appends) != 2 {
		t.Errorf("appended %v", w.appends)
	}
}

// An api that is full answers within the append timeout, too.
func TestAppendsAreBounded(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		w := newWorld()
		release := make(chan struct{})
		w2 := &blockedLog{world: w, release: release}
		deps := w.deps()
		deps.Log = w2
		h, err := build(Config{AppendsMax: 1}.withDefaults(), deps, w)
		if err != nil {
			t.Fatal(err)
		}
		const views = `{"views":[{"viewer":"v","post":"p","viewed_at":"2026-11-23T12:00:00Z"}]}`
		first := make(chan int)
		go func() { first <- do(h, "POST", "/v1/views", views).Code }()
		synctest.Wait()
		began := time.Now()
		wantProblem(t, do(h, "POST", "/v1/views", views), 503, "unavailable")
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("the second was refused after %v", took)
		}
		close(release)
		<-first
	})
}

type blockedLog struct {
	*world
	release chan struct{}
}

func (l *blockedLog) Append(ctx context.Context, events ...domain.Event) ([]domain.Position, error) {
	<-l.release
	return l.world.Append(ctx, events...)
}

// In a terminal the prompt follows the answer.
func TestAnswersEndTheLine(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	for _, rec := range []*httptest.ResponseRecorder{
		do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`), do(h, "POST", "/v1/posts", `{"author":"ann"}`),
		do(h, "PUT", "/v1/posts/p", `{}`), do(h, "POST", "/v1/views", twoViews), do(h, "POST", "/v1/views", `{}`),
		do(h, "GET", "/v1/posts/p", ""), do(h, "GET", "/v1/counts?post=p", ""), do(h, "GET", "/v1/posts/p/viewers", ""),
		do(h, "GET", "/readyz", ""), do(h, "GET", "/nothing", ""),
	} {
		if body := rec.Body.String(); !strings.HasSuffix(body, "\n") {
			t.Errorf("%q", body)
		}
	}
	w.modelsErr = domain.Errorf(domain.CodeUnavailable, "PostgreSQL is away")
	if rec := do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`); rec.Code != 202 || !strings.HasSuffix(rec.Body.String(), "\n") {
		t.Errorf("%d %q", rec.Code, rec.Body)
	}
}

// The read models may still stand in the topic that was before: the write stands in the log all the same.
func TestPostWriteWhileTheTopicWasMadeAnew(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
	w.staleTopicID = true
	rec := do(h, "PUT", "/v1/posts/p", `{"author":"ben"}`)
	if rec.Code != 202 || rec.Header().Get("Seenby-Position") == "" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}
