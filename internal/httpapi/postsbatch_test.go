package httpapi

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
)

func TestPostsBatch(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	rec := do(h, "POST", "/v1/posts:batch", `{"posts":[
		{"id":"p","author":"ann","body":"hello","published_at":"2026-01-02T03:04:05+01:00"},
		{"id":"q","author":"ann","audience":"everyone","body":null},
		{"id":"q"},
		{"id":"r/s","author":"bob","body":"text"},
		{"id":"p","author":"bob","body":"last"}
	]}`)
	want := `{"accepted":4,"rejected":[{"index":2,"code":"invalid","message":"author: is required"}]}` + "\n"
	if rec.Code != 202 || rec.Body.String() != want || rec.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %s\nwant %s", rec.Code, rec.Body, want)
	}
	id := func(n byte) domain.EventID { return domain.EventID{6: 0x70, 8: 0x80, 15: n} }
	key := func(id domain.PostID) domain.PostKey { return domain.PostKey{Tenant: acme.ID, Post: id} }
	published := func(n byte, post domain.PostID, author string, text string) domain.PostPublished {
		e := domain.PostPublished{PostRef: key(post), EventID: id(n), Author: person(author).Person, Audience: "everyone"}
		if text != "" {
			e.Body = domain.NewDigest(acme.Key, text)
		}
		return e
	}
	first := published(1, "p", "ann", "hello")
	first.PublishedAt = time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)
	events := [][]domain.Event{
		{
			domain.PersonNamed{Ref: person("ann"), ID: "ann"},
			domain.PostBodyWritten{PostRef: key("p"), EventID: id(1), Text: "hello"},
			domain.PersonNamed{Ref: person("bob"), ID: "bob"},
			domain.PostBodyWritten{PostRef: key("r/s"), EventID: id(3), Text: "text"},
			domain.PostBodyWritten{PostRef: key("p"), EventID: id(4), Text: "last"},
		},
		{first, published(2, "q", "ann", ""), published(3, "r/s", "bob", "text"), published(4, "p", "bob", "last")},
	}
	if diff := cmp.Diff(events, w.appends); diff != "" {
		t.Error(diff)
	}
	wait := []string{"Seenby-Wait-For", rec.Header().Get("Seenby-Position")}
	if p := decode[Post](t, do(h, "GET", "/v1/posts/p", "", wait...).Body.Bytes()); p.Body != "last" || *p.Author != "bob" || p.Version != 2 {
		t.Errorf("of an id that stands twice, the last wins: %+v", p)
	}
	// Repeated, it changes nothing; the known authors are not named again.
	do(h, "POST", "/v1/posts:batch", `{"posts":[{"id":"q","author":"ann"}]}`)
	if q := decode[Post](t, do(h, "GET", "/v1/posts/q", "").Body.Bytes()); q.Version != 1 || len(w.appends) != 3 {
		t.Errorf("%+v after %d appends", q, len(w.appends))
	}
}

// The token covers texts and names too: a read that waits for it never finds half a post.
func TestPostsBatchIsWaitedFor(t *testing.T) {
	for _, projection := range []string{projectionPosts, projectionPeople} {
		w := newWorld()
		h := w.api(t, Config{})
		w.hold(projection)
		rec := do(h, "POST", "/v1/posts:batch", `{"posts":[{"id":"p","author":"ann","body":"hello"}]}`)
		wait := []string{"Seenby-Wait-For", rec.Header().Get("Seenby-Position"), "Prefer", "wait=0"}
		wantProblem(t, do(h, "GET", "/v1/posts/p", "", wait...), 504, "not_yet_applied")
		w.release()
		if rec := do(h, "GET", "/v1/posts/p", "", wait...); rec.Code != 200 {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
	}
}

// A post that is known to be deleted is rejected: the core would not learn it otherwise.
func TestPostsBatchWithDeletedPosts(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
	do(h, "DELETE", "/v1/posts/p", "")
	do(h, "PUT", "/v1/posts/q", `{"author":"ann"}`, "Authorization", "Bearer "+otherKey)
	do(h, "DELETE", "/v1/posts/q", "", "Authorization", "Bearer "+otherKey)
	w.log = nil
	const item = `{"id":"p","author":"ben","body":"secret"}`
	gone := []Rejected{{Index: 0, Code: "gone", Message: "id: is of a post that was deleted; it is never used again"}}
	p := wantProblem(t, do(h, "POST", "/v1/posts:batch", `{"posts":[`+item+`]}`), 422, "invalid")
	if diff := cmp.Diff(gone, p.Rejected); diff != "" || len(w.log) > 0 {
		t.Errorf("appended %v, %s", w.log, diff)
	}
	got := decode[PostsAccepted](t, do(h, "POST", "/v1/posts:batch", `{"posts":[`+item+`,7,{"id":"q","author":"cid"}]}`).Body.Bytes())
	want := PostsAccepted{Accepted: 1, Rejected: append(gone, Rejected{Index: 1, Code: "invalid", Message: "post: must be a JSON object"})}
	if diff := cmp.Diff(want, got); diff != "" || len(w.log) != 2 { // cid's name and q
		t.Errorf("appended %v, %s", w.log, diff)
	}
	// While the read models are away the log decides.
	w.modelsErr = domain.Errorf(domain.CodeUnavailable, "PostgreSQL is away")
	if got := decode[PostsAccepted](t, do(h, "POST", "/v1/posts:batch", `{"posts":[`+item+`]}`).Body.Bytes()); got.Accepted != 1 {
		t.Errorf("%+v", got)
	}
}

func TestRejectedPosts(t *testing.T) {
	long := strings.Repeat("a", 256)
	for _, c := range []struct{ item, message string }{
		{`7`, "post: must be a JSON object"},
		{`null`, "post: must be a JSON object"},
		{`{"author":"a"}`, "id: is required"},
		{`{"id":null,"author":"a"}`, "id: is required"},
		{`{"id":"","author":"a"}`, "id: is required"},
		{`{"id":"` + long + `","author":"a"}`, "id: is 256 bytes long; at most 255 are allowed"},
		{`{"id":"p\n","author":"a"}`, "id: must be printable UTF-8"},
		{`{"id":7,"author":"a"}`, "id: must not be a JSON number"},
		{`{"id":"p"}`, "author: is required"},
		{`{"id":"p","author":["a"]}`, "author: must not be a JSON array"},
		{`{"id":"p","author":"a","colour":1}`, "colour: is no field of this request"},
		{`{"id":"p","author":"a","id":"q"}`, "id: stands twice"},
		{`{"id":"p","author":"a","author":"b"}`, "author: stands twice"},
		{`{"id":"p","author":"a","audience":"nobody"}`, ""}, // whatever PUT says
		{`{"id":"p","author":"a","body":"\u0000"}`, "body: must be UTF-8 without NUL"},
		{`{"id":"p","author":"a","body":"` + strings.Repeat("a", domain.BodyBytesMax+1) + `"}`, "body: is 65537 bytes long; at most 65536 are allowed"},
		{`{"id":"p","author":"a","body":"` + "\xff" + `"}`, "post: must be UTF-8"},
		{`{"id":"p","author":"\ud800"}`, "post: must be UTF-8"},
		{`{"id":"p","author":"a","published_at":"today"}`, "published_at: must be a time of RFC 3339, e.g. 2026-11-23T12:00:00Z"},
	} {
		w := newWorld()
		h := w.api(t, Config{})
		p := wantProblem(t, do(h, "POST", "/v1/posts:batch", `{"posts":[`+c.item+`]}`), 422, "invalid")
		if c.message == "" {
			put := wantProblem(t, do(h, "PUT", "/v1/posts/p", strings.Replace(c.item, `"id":"p",`, "", 1)), 422, "invalid")
			c.message = put.Field + ": " + put.Detail
		}
		if diff := cmp.Diff([]Rejected{{Index: 0, Code: "invalid", Message: c.message}}, p.Rejected); diff != "" {
			t.Errorf("%s: %s", c.item, diff)
		}
		if p.Field != "posts" || len(w.log) > 0 {
			t.Errorf("%s: field %s, appended %v", c.item, p.Field, w.log)
		}
		// It does not cost a good one, and the author of no acceptable post is not named.
		rec := do(h, "POST", "/v1/posts:batch", `{"posts":[`+c.item+`,{"id":"good","author":"good"}]}`)
		if got := decode[PostsAccepted](t, rec.Body.Bytes()); rec.Code != 202 || got.Accepted != 1 || len(got.Rejected) != 1 || len(w.log) != 2 {
			t.Errorf("%s: %d %s, appended %v", c.item, rec.Code, rec.Body, w.log)
		}
	}
}

func TestBadPostsBatches(t *testing.T) {
	const post = `{"id":"p","author":"a"}`
	for _, c := range []struct {
		name, body  string
		status      int
		code, field string
	}{
		{"empty", "", 400, "malformed", "body"},
		{"no JSON", `{"posts":[` + post, 400, "malformed", "body"},
		{"trailing", `{"posts":[` + post + `]}]`, 400, "malformed", "body"},
		{"array", `[` + post + `]`, 422, "invalid", "body"},
		{"none", `{}`, 422, "invalid", "posts"},
		{"null", `{"posts":null}`, 422, "invalid", "posts"},
		{"no array", `{"posts":{}}`, 422, "invalid", "posts"},
		{"zero", `{"posts":[]}`, 422, "invalid", "posts"},
		{"twice", `{"posts":[` + post + `],"posts":[` + post + `]}`, 422, "invalid", "posts"},
		{"unknown field", `{"posts":[` + post + `],"colour":1}`, 422, "invalid", "colour"},
		{"many", `{"posts":[` + strings.Repeat(post+",", 500) + post + `]}`, 422, "invalid", "posts"},
		{"too large", `{"posts":["` + strings.Repeat("x", requestBytesMax), 413, "too_large", "body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			p := wantProblem(t, do(w.api(t, Config{}), "POST", "/v1/posts:batch", c.body), c.status, c.code)
			if p.Field != c.field || len(w.log) > 0 {
				t.Errorf("field %q, want %q (%s); appended %v", p.Field, c.field, p.Detail, w.log)
			}
		})
	}
}

func TestPostsBatchLimitsAreInclusive(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	var posts []string
	for i := range postsMax {
		posts = append(posts, fmt.Sprintf(`{"id":"p%d","author":"a%d","body":"b"}`, i, i%7))
	}
	rec := do(h, "POST", "/v1/posts:batch", `{"posts":[`+strings.Join(posts, ",")+`]}`)
	if rec.Code != 202 || len(w.appends) != 2 || len(w.appends[0]) != postsMax+7 || len(w.appends[1]) != postsMax {
		t.Errorf("%d %s: %d appends", rec.Code, rec.Body, len(w.appends))
	}
	prefix, suffix := `{"posts":[{"id":"p","author":"a"},{"id":"q","author":"a","body":"`, `"}]}`
	pad := strings.Repeat("x", requestBytesMax-len(prefix)-len(suffix))
	if got := decode[PostsAccepted](t, do(h, "POST", "/v1/posts:batch", prefix+pad+suffix).Body.Bytes()); got.Accepted != 1 || len(got.Rejected) != 1 {
		t.Errorf("a body of exactly 1 MiB: %+v", got)
	}
	wantProblem(t, do(h, "POST", "/v1/posts:batch", prefix+pad+"x"+suffix), 413, "too_large")
}

func TestPostsBatchWhileKafkaIsAway(t *testing.T) {
	away := domain.Errorf(domain.CodeUnavailable, "Kafka is away")
	for name, fails := range map[string]func(events []domain.Event) bool{
		"from the first append": func([]domain.Event) bool { return true },
		"from the second append": func(events []domain.Event) bool {
			_, ok := events[0].(domain.PostPublished)
			return ok
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			h := w.api(t, Config{})
			w.appendErr = func(events []domain.Event) error {
				if fails(events) {
					return away
				}
				return nil
			}
			const body = `{"posts":[{"id":"p","author":"ann","body":"hello"},{"id":"q","author":"bob"}]}`
			rec := do(h, "POST", "/v1/posts:batch", body)
			wantProblem(t, rec, 503, "unavailable")
			if rec.Header().Get("Seenby-Position") != "" || len(w.state) > 0 {
				t.Errorf("position %q, posts %v", rec.Header().Get("Seenby-Position"), w.state)
			}
			w.appendErr = nil
			if rec := do(h, "POST", "/v1/posts:batch", body); rec.Code != 202 || len(w.names) != 2 || len(w.state) != 2 {
				t.Errorf("the repeat: %d %s, names %v", rec.Code, rec.Body, w.names)
			}
		})
	}
}

// A path that ends in :batch names a batch only where one is.
func TestPostsBatchIsNoPost(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	for _, id := range []string{"posts:batch", ":batch", "p:batch"} {
		if rec := do(h, "PUT", "/v1/posts/"+id, `{"author":"ann"}`); rec.Code != 201 || decode[Post](t, rec.Body.Bytes()).ID != id {
			t.Errorf("PUT %s: %d %s", id, rec.Code, rec.Body)
		}
	}
	wantProblem(t, do(h, "POST", "/v1/posts/p:batch", `{"posts":[]}`), 405, "method_not_allowed")
	rec := do(h, "PUT", "/v1/posts:batch", `{"author":"ann"}`)
	wantProblem(t, rec, 405, "method_not_allowed")
	if got := rec.Header().Get("Allow"); got != "POST" {
		t.Errorf("Allow: %q", got)
	}
}

func FuzzPostsBatch(f *testing.F) {
	for _, s := range []string{
		`{"posts":[{"id":"p","author":"a","body":"b","audience":"everyone","published_at":"2026-11-23T12:00:00Z"},{},7]}`,
		`{}`, `[]`, `{"posts":[[],{"id":"\ud800"},null]}`, "{\"posts\":[{\"id\":\"\xff\"}],\"\xff\":1}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if validJSON(raw) != nil {
			return
		}
		items, err := parsePosts(string(raw))
		if err != nil {
			if domain.CodeOf(err) != domain.CodeInvalid {
				t.Errorf("an internal error: %v", err)
			}
			return
		}
		var plain struct{ Posts []json.RawMessage }
		if err := json.Unmarshal(raw, &plain); err == nil && utf8.Valid(raw) && len(plain.Posts) != len(items) {
			t.Errorf("%d items, encoding/json reads %d", len(items), len(plain.Posts))
		}
		for _, item := range items {
			switch {
			case item.err != nil:
				if domain.CodeOf(item.err) != domain.CodeInvalid {
					t.Errorf("%s: an internal error: %v", raw, item.err)
				}
			case domain.CheckID("id", string(item.id)) != nil || domain.CheckID("author", item.in.author) != nil || domain.CheckBody(item.in.body) != nil:
				t.Errorf("of %s accepted %+v", raw, item)
			}
		}
	})
}
