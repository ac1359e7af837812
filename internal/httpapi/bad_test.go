package httpapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"seenby/domain"
	"seenby/internal/tenancy"
)

func TestBadInput(t *testing.T) {
	const view = `{"id":"01939a2b-7c3d-7e4f-8a5b-6c7d8e9f0a1b","post":"p","viewer":"v"}`
	big := strings.Repeat("x", requestBytesMax)
	foreign := tenancy.SealPositions(other.Key, []domain.Position{{Topic: domain.TopicPosts}})
	anew := tenancy.SealPositions(acme.Key, []domain.Position{{Topic: domain.TopicPosts, TopicID: domain.TopicID{0xff}, NextOffset: 1}})
	for _, c := range []struct {
		name, method, path, body string
		header                   [2]string
		status                   int
		code, field              string
	}{
		{"no key", "GET", "/v1/posts/p", "", [2]string{"Authorization", ""}, 401, "unauthorized", ""},
		{"wrong scheme", "GET", "/v1/posts/p", "", [2]string{"Authorization", "Basic " + acmeKey}, 401, "unauthorized", ""},
		{"unknown key", "GET", "/v1/posts/p", "", [2]string{"Authorization", "Bearer nobody"}, 401, "unauthorized", ""},
		{"no such path", "GET", "/v2", "", [2]string{}, 404, "not_found", ""},
		{"no id", "PUT", "/v1/posts/", `{"author":"a"}`, [2]string{}, 404, "not_found", ""},
		{"method", "PATCH", "/v1/views", "", [2]string{}, 405, "method_not_allowed", ""},

		{"post: empty body", "PUT", "/v1/posts/p", "", [2]string{}, 400, "malformed", "body"},
		{"post: no JSON", "PUT", "/v1/posts/p", "{", [2]string{}, 400, "malformed", "body"},
		{"post: trailing", "PUT", "/v1/posts/p", `{"author":"a"} x`, [2]string{}, 400, "malformed", "body"},
		{"post: array", "PUT", "/v1/posts/p", "[]", [2]string{}, 422, "invalid", "body"},
		{"post: unknown field", "PUT", "/v1/posts/p", `{"author":"a","colour":1}`, [2]string{}, 422, "invalid", "colour"},
		{"post: repeated field", "PUT", "/v1/posts/p", `{"author":"a","author":"b"}`, [2]string{}, 422, "invalid", "author"},
		{"post: no author", "PUT", "/v1/posts/p", `{}`, [2]string{}, 422, "invalid", "author"},
		{"post: author type", "PUT", "/v1/posts/p", `{"author":7}`, [2]string{}, 422, "invalid", "author"},
		{"post: author long", "PUT", "/v1/posts/p", `{"author":"` + strings.Repeat("a", 256) + `"}`, [2]string{}, 422, "invalid", "author"},
		{"post: author control", "PUT", "/v1/posts/p", `{"author":"a\u0000"}`, [2]string{}, 422, "invalid", "author"},
		{"post: body type", "PUT", "/v1/posts/p", `{"author":"a","body":{}}`, [2]string{}, 422, "invalid", "body"},
		{"post: body NUL", "PUT", "/v1/posts/p", `{"author":"a","body":"\u0000"}`, [2]string{}, 422, "invalid", "body"},
		{"post: body long", "PUT", "/v1/posts/p", `{"author":"a","body":"` + strings.Repeat("a", domain.BodyBytesMax+1) + `"}`, [2]string{}, 422, "invalid", "body"},
		{"post: time", "PUT", "/v1/posts/p", `{"author":"a","published_at":"today"}`, [2]string{}, 422, "invalid", "published_at"},
		{"post: year 0001", "PUT", "/v1/posts/p", `{"author":"a","published_at":"0001-01-01T00:00:00Z"}`, [2]string{}, 422, "invalid", "published_at"},
		{"post: year 3000", "PUT", "/v1/posts/p", `{"author":"a","published_at":"3000-01-01T00:00:00Z"}`, [2]string{}, 422, "invalid", "published_at"},
		{"post: time with a comma", "PUT", "/v1/posts/p", `{"author":"a","published_at":"2026-11-23T12:00:00,5Z"}`, [2]string{}, 422, "invalid", "published_at"},
		{"post: hour of one digit", "PUT", "/v1/posts/p", `{"author":"a","published_at":"2026-11-23T1:00:00Z"}`, [2]string{}, 422, "invalid", "published_at"},
		{"post: zone of a day", "PUT", "/v1/posts/p", `{"author":"a","published_at":"2026-11-23T12:00:00+24:00"}`, [2]string{}, 422, "invalid", "published_at"},
		{"post: too large", "PUT", "/v1/posts/p", `{"author":"a","body":"` + big, [2]string{}, 413, "too_large", "body"},
		{"post: id long", "PUT", "/v1/posts/" + strings.Repeat("a", 256), `{"author":"a"}`, [2]string{}, 422, "invalid", "id"},
		{"post: id control", "PUT", "/v1/posts/%00", `{"author":"a"}`, [2]string{}, 422, "invalid", "id"},
		{"post: id no UTF-8", "PUT", "/v1/posts/%ff", `{"author":"a"}`, [2]string{}, 422, "invalid", "id"},
		{"post: If-Match", "PUT", "/v1/posts/p", `{"author":"a"}`, [2]string{"If-Match", "3"}, 422, "invalid", "If-Match"},
		{"post: If-Match 0", "PUT", "/v1/posts/p", `{"author":"a"}`, [2]string{"If-Match", `"0"`}, 422, "invalid", "If-Match"},
		{"post: If-Match *", "PUT", "/v1/posts/p", `{"author":"a"}`, [2]string{"If-Match", `*`}, 422, "invalid", "If-Match"},
		{"post: If-Match +1", "PUT", "/v1/posts/p", `{"author":"a"}`, [2]string{"If-Match", `"+1"`}, 422, "invalid", "If-Match"},
		{"post: If-Match 01", "PUT", "/v1/posts/p", `{"author":"a"}`, [2]string{"If-Match", `"01"`}, 422, "invalid", "If-Match"},
		{"post: If-None-Match", "PUT", "/v1/posts/p", `{"author":"a"}`, [2]string{"If-None-Match", `"3"`}, 422, "invalid", "If-None-Match"},
		{"new post: unknown field", "POST", "/v1/posts", `{"author":"a","id":"p"}`, [2]string{}, 422, "invalid", "id"},

		{"views: empty", "POST", "/v1/views", "", [2]string{}, 400, "malformed", "body"},
		{"views: no JSON", "POST", "/v1/views", `{"views":[` + view, [2]string{}, 400, "malformed", "body"},
		{"views: trailing", "POST", "/v1/views", `{"views":[` + view + `]}]`, [2]string{}, 400, "malformed", "body"},
		{"views: array", "POST", "/v1/views", `[` + view + `]`, [2]string{}, 422, "invalid", "body"},
		{"views: none", "POST", "/v1/views", `{}`, [2]string{}, 422, "invalid", "views"},
		{"views: null", "POST", "/v1/views", `{"views":null}`, [2]string{}, 422, "invalid", "views"},
		{"views: no array", "POST", "/v1/views", `{"views":{}}`, [2]string{}, 422, "invalid", "views"},
		{"views: zero", "POST", "/v1/views", `{"views":[]}`, [2]string{}, 422, "invalid", "views"},
		{"views: many", "POST", "/v1/views", `{"views":[` + strings.Repeat(view+",", 1000) + view + `]}`, [2]string{}, 422, "invalid", "views"},
		{"views: sent_at", "POST", "/v1/views", `{"sent_at":1,"views":[` + view + `]}`, [2]string{}, 422, "invalid", "sent_at"},
		{"views: sent_at form", "POST", "/v1/views", `{"sent_at":"now","views":[` + view + `]}`, [2]string{}, 422, "invalid", "sent_at"},
		{"views: none acceptable", "POST", "/v1/views", `{"views":[{}]}`, [2]string{}, 422, "invalid", "views"},
		{"views: too large", "POST", "/v1/views", `{"views":["` + big, [2]string{}, 413, "too_large", "body"},

		{"patch: no JSON", "PATCH", "/v1/posts/p", "{", [2]string{}, 400, "malformed", "body"},
		{"patch: array", "PATCH", "/v1/posts/p", "[]", [2]string{}, 422, "invalid", "body"},
		{"patch: empty", "PATCH", "/v1/posts/p", "{}", [2]string{}, 422, "invalid", "body"},
		{"patch: null", "PATCH", "/v1/posts/p", "null", [2]string{}, 422, "invalid", "body"},
		{"patch: author", "PATCH", "/v1/posts/p", `{"author":"a","body":"b"}`, [2]string{}, 422, "invalid", "author"},
		{"patch: author null", "PATCH", "/v1/posts/p", `{"author":null}`, [2]string{}, 422, "invalid", "author"},
		{"patch: unknown field", "PATCH", "/v1/posts/p", `{"colour":1}`, [2]string{}, 422, "invalid", "colour"},
		{"patch: repeated field", "PATCH", "/v1/posts/p", `{"body":"a","body":"b"}`, [2]string{}, 422, "invalid", "body"},
		{"patch: body type", "PATCH", "/v1/posts/p", `{"body":7}`, [2]string{}, 422, "invalid", "body"},
		{"patch: body NUL", "PATCH", "/v1/posts/p", `{"body":"\u0000"}`, [2]string{}, 422, "invalid", "body"},
		{"patch: body long", "PATCH", "/v1/posts/p", `{"body":"` + strings.Repeat("a", domain.BodyBytesMax+1) + `"}`, [2]string{}, 422, "invalid", "body"},
		{"patch: audience null", "PATCH", "/v1/posts/p", `{"audience":null}`, [2]string{}, 422, "invalid", "audience"},
		{"patch: audience", "PATCH", "/v1/posts/p", `{"audience":"friends"}`, [2]string{}, 422, "invalid", "audience"},
		{"patch: time null", "PATCH", "/v1/posts/p", `{"published_at":null}`, [2]string{}, 422, "invalid", "published_at"},
		{"patch: time", "PATCH", "/v1/posts/p", `{"published_at":"today"}`, [2]string{}, 422, "invalid", "published_at"},
		{"patch: If-Match", "PATCH", "/v1/posts/p", `{"body":"b"}`, [2]string{"If-Match", "3"}, 422, "invalid", "If-Match"},
		{"patch: id", "PATCH", "/v1/posts/%00", `{"body":"b"}`, [2]string{}, 422, "invalid", "id"},
		{"delete: If-Match", "DELETE", "/v1/posts/p", "", [2]string{"If-Match", "*"}, 422, "invalid", "If-Match"},
		{"delete: id", "DELETE", "/v1/posts/%00", "", [2]string{}, 422, "invalid", "id"},
		{"history: unknown", "GET", "/v1/posts/p/history", "", [2]string{}, 404, "not_found", ""},
		{"history: limit", "GET", "/v1/posts/p/history?limit=0", "", [2]string{}, 422, "invalid", "limit"},
		{"history: cursor", "GET", "/v1/posts/p/history?cursor=abc", "", [2]string{}, 422, "invalid", "cursor"},
		{"history: cursor of another list", "GET", "/v1/posts/p/history?cursor=" + sealList(acme.Key, listOf("feed", "", ""), make([]byte, 8)), "", [2]string{}, 422, "invalid", "cursor"},
		{"feed: limit", "GET", "/v1/posts?limit=201", "", [2]string{}, 422, "invalid", "limit"},
		{"feed: cursor", "GET", "/v1/posts?cursor=abc", "", [2]string{}, 422, "invalid", "cursor"},
		{"feed: cursor of other filters", "GET", "/v1/posts?author=a&cursor=" + sealList(acme.Key, listOf("feed", "", ""), make([]byte, 9)), "", [2]string{}, 422, "invalid", "cursor"},
		{"feed: author", "GET", "/v1/posts?author=%00", "", [2]string{}, 422, "invalid", "author"},
		{"feed: two authors", "GET", "/v1/posts?author=a&author=b", "", [2]string{}, 422, "invalid", "author"},
		{"feed: no author", "GET", "/v1/posts?author=", "", [2]string{}, 422, "invalid", "author"},
		{"feed: an author that is not said", "GET", "/v1/posts?author", "", [2]string{}, 422, "invalid", "author"},
		{"feed: no audience", "GET", "/v1/posts?author=a&audience=", "", [2]string{}, 422, "invalid", "audience"},
		{"feed: audience", "GET", "/v1/posts?audience=friends", "", [2]string{}, 422, "invalid", "audience"},
		{"get: unknown", "GET", "/v1/posts/p", "", [2]string{}, 404, "not_found", ""},
		{"get: id long", "GET", "/v1/posts/" + strings.Repeat("%61", 256), "", [2]string{}, 422, "invalid", "id"},
		{"get: token", "GET", "/v1/posts/p", "", [2]string{"Seenby-Wait-For", "xyz"}, 422, "invalid", "Seenby-Wait-For"},
		{"get: foreign token", "GET", "/v1/posts/p", "", [2]string{"Seenby-Wait-For", foreign}, 422, "invalid", "Seenby-Wait-For"},
		{"get: token of a topic made anew", "GET", "/v1/posts/p", "", [2]string{"Seenby-Wait-For", anew}, 422, "invalid", "Seenby-Wait-For"},
		{"get: tokens", "GET", "/v1/posts/p", "", [2]string{"Seenby-Wait-For", strings.Repeat("x,", 16)}, 422, "invalid", "Seenby-Wait-For"},
		{"get: prefer", "GET", "/v1/posts/p", "", [2]string{"Prefer", "wait=soon"}, 422, "invalid", "Prefer"},
		{"get: prefer negative", "GET", "/v1/posts/p", "", [2]string{"Prefer", "wait=-1"}, 422, "invalid", "Prefer"},
		{"get: prefer long", "GET", "/v1/counts?post=a", "", [2]string{"Prefer", "respond-async, wait=31"}, 422, "invalid", "Prefer"},
		{"counts: none", "GET", "/v1/counts", "", [2]string{}, 422, "invalid", "post"},
		{"post: audience", "PUT", "/v1/posts/p", `{"author":"a","audience":"friends"}`, [2]string{}, 422, "invalid", "audience"},
		{"post: audience without a name", "PUT", "/v1/posts/p", `{"author":"a","audience":"audience:"}`, [2]string{}, 422, "invalid", "audience"},
		{"post: audience long", "PUT", "/v1/posts/p", `{"author":"a","audience":"audience:` + strings.Repeat("a", 256) + `"}`, [2]string{}, 422, "invalid", "audience"},

		{"member: audience long", "PUT", "/v1/audiences/" + strings.Repeat("a", 256) + "/members/ann", "", [2]string{}, 422, "invalid", "audience"},
		{"member: viewer", "PUT", "/v1/audiences/friends/members/%00", "", [2]string{}, 422, "invalid", "viewer"},
		{"member: viewer removed", "DELETE", "/v1/audiences/friends/members/%00", "", [2]string{}, 422, "invalid", "viewer"},
		{"members: not JSON", "POST", "/v1/audiences/friends/members:batch", `{"add":`, [2]string{}, 400, "malformed", "body"},
		{"members: none", "POST", "/v1/audiences/friends/members:batch", `{}`, [2]string{}, 422, "invalid", "add"},
		{"members: type", "POST", "/v1/audiences/friends/members:batch", `{"add":"ann"}`, [2]string{}, 422, "invalid", "add"},
		{"members: unknown field", "POST", "/v1/audiences/friends/members:batch", `{"members":["ann"]}`, [2]string{}, 422, "invalid", "members"},
		{"members: an id", "POST", "/v1/audiences/friends/members:batch", `{"add":["ann"],"remove":["ben",""]}`, [2]string{}, 422, "invalid", "remove.1"},
		{"members: in both", "POST", "/v1/audiences/friends/members:batch", `{"add":["ann"],"remove":["ben","ann"]}`, [2]string{}, 422, "invalid", "remove.1"},
		{"members: many", "POST", "/v1/audiences/friends/members:batch", `{"add":[` + strings.Repeat(`"a",`, 1000) + `"a"]}`, [2]string{}, 422, "invalid", "add"},
		{"members: cursor", "GET", "/v1/audiences/friends/members?cursor=abc", "", [2]string{}, 422, "invalid", "cursor"},
		{"members: limit", "GET", "/v1/audiences/friends/members?limit=0", "", [2]string{}, 422, "invalid", "limit"},

		{"counts: empty", "GET", "/v1/counts?post=", "", [2]string{}, 422, "invalid", "post"},
		{"counts: long", "GET", "/v1/counts?post=" + strings.Repeat("a", 256), "", [2]string{}, 422, "invalid", "post"},
		{"counts: many", "GET", "/v1/counts?post=a" + strings.Repeat("&post=a", 100), "", [2]string{}, 422, "invalid", "post"},
		{"counts: an escape that is none", "GET", "/v1/counts?post=a&post=%zz", "", [2]string{}, 422, "invalid", "query"},
		{"viewers: semicolon", "GET", "/v1/posts/p/viewers?cursor=abc;limit=1", "", [2]string{}, 422, "invalid", "query"},
		{"viewers: two limits", "GET", "/v1/posts/p/viewers?limit=1&limit=2", "", [2]string{}, 422, "invalid", "limit"},
		{"viewers: two cursors", "GET", "/v1/posts/p/viewers?cursor=&cursor=abc", "", [2]string{}, 422, "invalid", "cursor"},
		{"time series: unknown", "GET", "/v1/posts/p/timeseries", "", [2]string{}, 404, "not_found", ""},
		{"time series: id", "GET", "/v1/posts/%00/timeseries", "", [2]string{}, 422, "invalid", "id"},
		{"time series: interval", "GET", "/v1/timeseries?interval=week", "", [2]string{}, 422, "invalid", "interval"},
		{"time series: two froms", "GET", "/v1/timeseries?from=&from=2026-11-23T00:00:00Z", "", [2]string{}, 422, "invalid", "from"},
		{"time series: two intervals", "GET", "/v1/timeseries?interval=hour&interval=day", "", [2]string{}, 422, "invalid", "interval"},
		{"time series: from", "GET", "/v1/timeseries?from=yesterday", "", [2]string{}, 422, "invalid", "from"},
		{"time series: a date", "GET", "/v1/timeseries?from=2026-11-23", "", [2]string{}, 422, "invalid", "from"},
		{"time series: a zone with a bare +", "GET", "/v1/timeseries?from=2026-11-23T00:00:00+01:00", "", [2]string{}, 422, "invalid", "from"},
		{"time series: year 1969", "GET", "/v1/timeseries?from=1969-12-31T23:59:59Z", "", [2]string{}, 422, "invalid", "from"},
		{"time series: year 3000", "GET", "/v1/timeseries?to=3000-01-01T00:00:00Z", "", [2]string{}, 422, "invalid", "to"},
		{"time series: to", "GET", "/v1/posts/p/timeseries?to=1763900000", "", [2]string{}, 422, "invalid", "to"},
		{"time series: from is to", "GET", "/v1/timeseries?from=2026-11-23T10:00:00Z&to=2026-11-23T10:00:00Z", "", [2]string{}, 422, "invalid", "from"},
		{"time series: from after to", "GET", "/v1/timeseries?from=2026-11-24T10:00:00Z&to=2026-11-23T10:00:00Z", "", [2]string{}, 422, "invalid", "from"},
		{"time series: from after now", "GET", "/v1/timeseries?from=2026-11-23T13:00:00Z", "", [2]string{}, 422, "invalid", "from"},
		{"time series: 1001 hours", "GET", "/v1/timeseries?from=2026-10-01T00:00:00Z&to=2026-11-11T16:00:01Z", "", [2]string{}, 422, "invalid", "from"},
		{"time series: 1001 days", "GET", "/v1/posts/p/timeseries?interval=day&from=2024-01-01T00:00:00Z&to=2026-09-27T00:00:01Z", "", [2]string{}, 422, "invalid", "from"},
		{"time series: all there ever was", "GET", "/v1/timeseries?from=1970-01-01T00:00:00Z&to=2999-12-31T23:59:59Z", "", [2]string{}, 422, "invalid", "from"},

		{"viewers: unknown", "GET", "/v1/posts/p/viewers", "", [2]string{}, 404, "not_found", ""},
		{"viewers: limit", "GET", "/v1/posts/p/viewers?limit=many", "", [2]string{}, 422, "invalid", "limit"},
		{"viewers: limit 0", "GET", "/v1/posts/p/viewers?limit=0", "", [2]string{}, 422, "invalid", "limit"},
		{"viewers: limit 201", "GET", "/v1/posts/p/viewers?limit=201", "", [2]string{}, 422, "invalid", "limit"},
		{"viewers: cursor", "GET", "/v1/posts/p/viewers?cursor=abc", "", [2]string{}, 422, "invalid", "cursor"},
		{"viewers: foreign cursor", "GET", "/v1/posts/p/viewers?cursor=" + tenancy.Seal(acme.Key, tenancy.KindCursor, make([]byte, cursorListBytes+cursorViewerBytes)), "", [2]string{}, 422, "invalid", "cursor"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			rec := do(w.api(t, Config{}), c.method, c.path, c.body, c.header[0], c.header[1])
			p := wantProblem(t, rec, c.status, c.code)
			if p.Field != c.field {
				t.Errorf("field %q, want %q (%s)", p.Field, c.field, p.Detail)
			}
			if len(w.log) > 0 {
				t.Errorf("appended %v", w.log)
			}
			switch c.status {
			case 401:
				if rec.Header().Get("WWW-Authenticate") == "" {
					t.Error("401 without WWW-Authenticate")
				}
			case 405:
				if got := rec.Header().Get("Allow"); got != "POST" {
					t.Errorf("Allow: %q", got)
				}
			}
		})
	}
}

// wantProblem checks the form of every error.
func wantProblem(t *testing.T, rec *httptest.ResponseRecorder, status int, code string) Problem {
	t.Helper()
	var p Problem
	dec := json.NewDecoder(rec.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		t.Fatalf("status %d, no problem: %v", rec.Code, err)
	}
	if rec.Code != status || p.Status != status || p.Code != code || p.Title != http.StatusText(status) || p.Detail == "" {
		t.Fatalf("got status %d, %+v; want %d %s", rec.Code, p, status, code)
	}
	if got := rec.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q", got)
	}
	if status == http.StatusServiceUnavailable && rec.Header().Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	return p
}

func TestLimitsAreInclusive(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	id := strings.Repeat("a", 255)
	if rec := do(h, "PUT", "/v1/posts/"+id, `{"author":"`+id+`","body":"`+strings.Repeat("b", domain.BodyBytesMax)+`"}`); rec.Code != 201 {
		t.Errorf("ids of 255 bytes: %d %s", rec.Code, rec.Body)
	}
	prefix, suffix := `{"views":[{"viewer":"v","post":"p","id":"01939a2b-7c3d-7e4f-8a5b-6c7d8e9f0a1b"}],"pad":"`, `"}`
	pad := strings.Repeat("x", requestBytesMax-len(prefix)-len(suffix))
	if rec := do(h, "POST", "/v1/views", prefix+pad+suffix); rec.Code != 202 {
		t.Errorf("a body of exactly 1 MiB: %d %s", rec.Code, rec.Body)
	}
	if rec := do(h, "POST", "/v1/views", prefix+pad+"x"+suffix); rec.Code != 413 {
		t.Errorf("a body of a byte more: %d", rec.Code)
	}
}
