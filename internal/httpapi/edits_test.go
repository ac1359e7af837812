package httpapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
	"seenby/projections/posts"
)

// One post's life: every write's answer by what becomes of it.
func TestEdits(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	steps := []struct {
		name, method, body, ifMatch string
		status                      int
		etag, code                  string
	}{
		{"patch of nothing", "PATCH", `{"body":"x"}`, "", 404, "", "not_found"},
		{"delete of nothing", "DELETE", "", "", 404, "", "not_found"},
		{"conditional patch of nothing", "PATCH", `{"body":"x"}`, `"1"`, 412, "", "precondition_failed"},
		{"conditional delete of nothing", "DELETE", "", `"1"`, 412, "", "precondition_failed"},
		{"create", "PUT", `{"author":"ann","body":"hello"}`, "", 201, `"1"`, ""},
		{"text", "PATCH", `{"body":"bye"}`, "", 200, `"2"`, ""},
		{"equal", "PATCH", `{"body":"bye","audience":"everyone"}`, `"2"`, 200, `"2"`, ""},
		{"lost", "PATCH", `{"body":"lost"}`, `"1"`, 412, "", "precondition_failed"},
		{"lost delete", "DELETE", "", `"1"`, 412, "", "precondition_failed"},
		{"the rest", "PATCH", `{"audience":"audience:friends","published_at":"2026-01-02T03:04:05Z"}`, `"2"`, 200, `"3"`, ""},
		{"no text", "PATCH", `{"body":null}`, "", 200, `"4"`, ""},
		{"delete", "DELETE", "", `"4"`, 204, "", ""},
		{"delete again", "DELETE", "", "", 410, "", "gone"},
		{"delete again, conditional", "DELETE", "", `"4"`, 410, "", "gone"},
		{"patch the deleted", "PATCH", `{"body":"x"}`, "", 410, "", "gone"},
		{"patch the deleted, conditional", "PATCH", `{"body":"x"}`, `"5"`, 410, "", "gone"},
		{"put the deleted", "PUT", `{"author":"ann"}`, "", 410, "", "gone"},
	}
	for _, s := range steps {
		before := len(w.log)
		rec := do(h, s.method, "/v1/posts/p", s.body, "If-Match", s.ifMatch)
		if s.code != "" {
			wantProblem(t, rec, s.status, s.code)
		} else if rec.Code != s.status || rec.Header().Get("ETag") != s.etag || (rec.Code == 204) != (rec.Body.Len() == 0) {
			t.Errorf("%s: %d, ETag %s: %s", s.name, rec.Code, rec.Header().Get("ETag"), rec.Body)
		}
		// What is known to be deleted needs no event that says so again.
		if appended := len(w.log) > before; appended == (s.code == "gone") || appended != (rec.Header().Get("Seenby-Position") != "") {
			t.Errorf("%s: appended %v, position %q", s.name, w.log[before:], rec.Header().Get("Seenby-Position"))
		}
		if s.name == "the rest" {
			if got := decode[Post](t, rec.Body.Bytes()); got.Body != "bye" || got.Audience != "audience:friends" || got.PublishedAt.Year() != 2026 || *got.Author != "ann" {
				t.Errorf("%+v", got)
			}
		}
	}
	for _, path := range []string{"/v1/posts/p", "/v1/posts/p/viewers", "/v1/posts/p/history"} {
		wantProblem(t, do(h, "GET", path, ""), 410, "gone")
		wantProblem(t, do(h, "GET", path, "", "Authorization", "Bearer "+otherKey), 404, "not_found")
	}
	wantProblem(t, do(h, "DELETE", "/v1/posts/p", "", "Authorization", "Bearer "+otherKey), 404, "not_found")
}

// A deletion that the read models do not know yet is the log's to find; while they are away, so is one that they know.
func TestWritesOfAPostThatIsDeletedMeanwhile(t *testing.T) {
	for method, body := range map[string]string{"PUT": `{"author":"ann","body":"x"}`, "PATCH": `{"body":"x"}`, "DELETE": ""} {
		w := newWorld()
		h := w.api(t, Config{})
		do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
		w.appendErr = func(events []domain.Event) error {
			if e, ok := events[0].(domain.PostEvent); ok && e.PostKey().Post == "p" {
				w.fold(domain.PostDeleted{PostRef: e.PostKey(), EventID: domain.EventID{9}})
				w.appendErr = nil
			}
			return nil
		}
		rec := do(h, method, "/v1/posts/p", body)
		wantProblem(t, rec, 410, "gone")
		if rec.Header().Get("Seenby-Position") == "" {
			t.Errorf("%s: no position, though it was appended", method)
		}
		w.modelsErr = domain.Errorf(domain.CodeUnavailable, "PostgreSQL is away")
		if rec := do(h, method, "/v1/posts/p", body); rec.Code != 202 {
			t.Errorf("%s while PostgreSQL is away: %d %s", method, rec.Code, rec.Body)
		}
	}
}

// A condition that cannot be read does not make its write an unconditional one.
func TestConditionsThatCannotBeRead(t *testing.T) {
	const ifMatch, ifNoneMatch = "If-Match", "If-None-Match"
	for _, c := range []struct {
		name, method, header string
		values               []string
	}{
		{"empty", "PUT", ifMatch, []string{""}},
		{"empty", "PATCH", ifMatch, []string{""}},
		{"empty", "DELETE", ifMatch, []string{""}},
		{"empty", "PUT", ifNoneMatch, []string{""}},
		{"two", "PUT", ifMatch, []string{`"1"`, `"2"`}},
		{"two in a line", "PATCH", ifMatch, []string{`"1", "2"`}},
		{"the second empty", "DELETE", ifMatch, []string{`"1"`, ""}},
		{"two", "PUT", ifNoneMatch, []string{"*", `"1"`}},
		{"of PUT", "PATCH", ifNoneMatch, []string{"*"}},
		{"of PUT", "DELETE", ifNoneMatch, []string{`"1"`}},
	} {
		t.Run(c.method+" "+c.header+" "+c.name, func(t *testing.T) {
			w := newWorld()
			h := w.api(t, Config{})
			do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
			body := map[string]string{"PUT": `{"author":"ben"}`, "PATCH": `{"body":"x"}`}[c.method]
			r := httptest.NewRequest(c.method, "/v1/posts/p", strings.NewReader(body))
			r.Header["Authorization"], r.Header[c.header] = []string{"Bearer " + acmeKey}, c.values
			rec, before := httptest.NewRecorder(), len(w.log)
			h.ServeHTTP(rec, r)
			if p := wantProblem(t, rec, 422, "invalid"); p.Field != c.header || len(w.log) > before {
				t.Errorf("field %q (%s), appended %v", p.Field, p.Detail, w.log[before:])
			}
		})
	}
}

// A text stands in the log before the edit that names it, and a removed one has no digest.
func TestEditEvents(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PATCH", "/v1/posts/p", `{"body":"hello"}`)
	do(h, "PATCH", "/v1/posts/p", `{"body":null}`, "If-Match", `"3"`)
	do(h, "PATCH", "/v1/posts/p", `{"audience":"author"}`)
	do(h, "DELETE", "/v1/posts/p", "")
	p, three := domain.PostKey{Tenant: "acme", Post: "p"}, int64(3)
	id := func(n byte) domain.EventID { return domain.EventID{6: 0x70, 8: 0x80, 15: n} }
	digest, none, author := domain.NewDigest(acme.Key, "hello"), domain.Digest{}, domain.AudienceAuthor
	want := [][]domain.Event{
		{domain.PostBodyWritten{PostRef: p, EventID: id(1), Text: "hello"}},
		{domain.PostEdited{PostRef: p, EventID: id(1), Body: &digest}},
		{domain.PostEdited{PostRef: p, EventID: id(2), Body: &none, BasedOnVersion: &three}},
		{domain.PostEdited{PostRef: p, EventID: id(3), Audience: &author}},
		{domain.PostDeleted{PostRef: p, EventID: id(4)}},
	}
	if diff := cmp.Diff(want, w.appends); diff != "" {
		t.Error(diff)
	}
}

// What stands in the log while its outcome cannot be read back is accepted, a deletion too.
func TestEditsAcceptedWhereTheyCannotBeReadBack(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		w := newWorld()
		h := w.api(t, Config{})
		do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
		w.hold(projectionPosts)
		for method, body := range map[string]string{"PATCH": `{"body":"x"}`, "DELETE": ""} {
			rec := do(h, method, "/v1/posts/p", body)
			if got := decode[PostAccepted](t, rec.Body.Bytes()); rec.Code != 202 || got.ID != "p" || rec.Header().Get("Seenby-Position") == "" || rec.Header().Get("ETag") != "" {
				t.Errorf("%s: %d %s", method, rec.Code, rec.Body)
			}
		}
	})
}

// Somebody writes between a write and its reading back: the answer's ETag is that of the write itself.
func TestETagIsThatOfTheWrite(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/p", `{"author":"ann","body":"one"}`)
	w.appendErr = func(events []domain.Event) error {
		if e, ok := events[0].(domain.PostEdited); ok && e.BasedOnVersion == nil {
			w.after = func() {
				w.fold(domain.PostEdited{PostRef: e.PostRef, EventID: domain.EventID{9}, Body: &domain.Digest{9}})
			}
		}
		return nil
	}
	rec := do(h, "PATCH", "/v1/posts/p", `{"body":"two"}`)
	if got := decode[Post](t, rec.Body.Bytes()); rec.Code != 200 || rec.Header().Get("ETag") != `"2"` || got.Version != 3 {
		t.Errorf("%d, ETag %s, version %d", rec.Code, rec.Header().Get("ETag"), got.Version)
	}
	wantProblem(t, do(h, "PATCH", "/v1/posts/p", `{"body":"three"}`, "If-Match", rec.Header().Get("ETag")), 412, "precondition_failed")
}

func TestHistoryPages(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/p", `{"author":"ann","body":"first secret"}`)
	do(h, "PATCH", "/v1/posts/p", `{"body":"second secret"}`)
	do(h, "PATCH", "/v1/posts/p", `{"body":"lost secret"}`, "If-Match", `"1"`)
	do(h, "PUT", "/v1/posts/q", `{"author":"ann"}`)
	do(h, "PATCH", "/v1/posts/p", `{"body":null}`)
	var got []HistoryEvent
	pages, cursor := 0, ""
	for ; pages == 0 || cursor != ""; pages++ {
		rec := do(h, "GET", "/v1/posts/p/history?limit=2&cursor="+cursor, "")
		if strings.Contains(rec.Body.String(), "secret") {
			t.Errorf("a text: %s", rec.Body)
		}
		page := decode[History](t, rec.Body.Bytes())
		got, cursor = append(got, page.Events...), page.NextCursor
		if cursor != "" {
			wantProblem(t, do(h, "GET", "/v1/posts/q/history?cursor="+cursor, ""), 422, "invalid")
			wantProblem(t, do(h, "GET", "/v1/posts/p/history?cursor="+cursor, "", "Authorization", "Bearer "+otherKey), 422, "invalid")
		}
	}
	want := []HistoryEvent{
		{Type: "PostPublished", Outcome: "created", Version: 1, RecordedAt: noon},
		{Type: "PostEdited", Outcome: "replaced", Version: 2, RecordedAt: noon},
		{Type: "PostEdited", Outcome: "void_conflict", Void: true, Version: 2, RecordedAt: noon},
		{Type: "PostEdited", Outcome: "replaced", Version: 3, RecordedAt: noon},
	}
	if diff := cmp.Diff(want, got); diff != "" || pages != 2 {
		t.Errorf("%d pages: %s", pages, diff)
	}
}

func TestFeed(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	put := func(id, author, audience string, day int) {
		t.Helper()
		body := fmt.Sprintf(`{"author":%q,"audience":%q,"body":"text of %s","published_at":"2026-01-%02dT00:00:00Z"}`, author, audience, id, day)
		if rec := do(h, "PUT", "/v1/posts/"+id, body); rec.Code != http.StatusCreated {
			t.Fatal(rec.Code, rec.Body)
		}
	}
	put("a", "ann", "everyone", 1)
	put("b", "ben", "everyone", 3)
	put("c", "ann", "audience:friends", 3)
	put("d", "ann", "everyone", 2)
	put("e", "ann", "everyone", 4)
	do(h, "DELETE", "/v1/posts/e", "")
	do(h, "POST", "/v1/views", strings.ReplaceAll(twoViews, `"p"`, `"c"`))
	do(h, "PUT", "/v1/posts/theirs", `{"author":"ann"}`, "Authorization", "Bearer "+otherKey)
	for query, want := range map[string]string{
		"":                                    "c b d a",
		"author=ann":                          "c d a",
		"audience=everyone":                   "b d a",
		"author=ann&audience=everyone":        "d a",
		"author=nobody":                       "",
		"audience=author":                     "",
		"author=ann&audience=audience:others": "",
	} {
		var got []string
		cursor := ""
		for page := 0; page == 0 || cursor != ""; page++ {
			rec := do(h, "GET", "/v1/posts?limit=1&"+query+"&cursor="+cursor, "")
			feed := decode[Feed](t, rec.Body.Bytes())
			for _, p := range feed.Posts {
				got = append(got, p.ID)
				if one := decode[Post](t, do(h, "GET", "/v1/posts/"+p.ID, "").Body.Bytes()); !cmp.Equal(one, p) {
					t.Errorf("in the feed %+v, alone %+v", p, one)
				}
			}
			if cursor = feed.NextCursor; cursor != "" {
				wantProblem(t, do(h, "GET", "/v1/posts?author=other&cursor="+cursor, ""), 422, "invalid")
				wantProblem(t, do(h, "GET", "/v1/posts?"+query+"&cursor="+cursor, "", "Authorization", "Bearer "+otherKey), 422, "invalid")
			}
			if want == "" && !strings.Contains(rec.Body.String(), `"posts":[]`) {
				t.Errorf("%s: %s", query, rec.Body)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s", query, got, want)
		}
	}
}

// The posts of an erased person cannot be found by the id, which is as one that nobody ever had; they stand in the feed
// of all, unnamed.
func TestFeedOfAnErasedAuthor(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	for _, id := range []string{"a", "b"} {
		do(h, "PUT", "/v1/posts/"+id, `{"author":"ann"}`)
	}
	cursor := decode[Feed](t, do(h, "GET", "/v1/posts?author=ann&limit=1", "").Body.Bytes()).NextCursor
	token := do(h, "DELETE", "/v1/people/ann", "").Header().Get("Seenby-Position")
	do(h, "PUT", "/v1/posts/c", `{"author":"ann"}`)
	unknown := do(h, "GET", "/v1/posts?author=nobody", "").Body.String()
	for _, query := range []string{"author=ann", "author=ann&audience=everyone", "author=ann&limit=1&cursor=" + cursor} {
		if rec := do(h, "GET", "/v1/posts?"+query, "", "Seenby-Wait-For", token); rec.Code != 200 || rec.Body.String() != unknown {
			t.Errorf("%s: %d %s", query, rec.Code, rec.Body)
		}
	}
	if all := decode[Feed](t, do(h, "GET", "/v1/posts", "").Body.Bytes()); len(all.Posts) != 3 || all.Posts[0].Author != nil {
		t.Errorf("of all: %+v", all)
	}
	do(h, "PUT", "/v1/posts/theirs", `{"author":"ann"}`, "Authorization", "Bearer "+otherKey)
	if theirs := decode[Feed](t, do(h, "GET", "/v1/posts?author=ann", "", "Authorization", "Bearer "+otherKey).Body.Bytes()); len(theirs.Posts) != 1 {
		t.Errorf("another tenant's: %+v", theirs)
	}
}

// Counts and names of a page are asked for once, however long it is.
func TestFeedReadsInSets(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	for i := range 20 {
		do(h, "PUT", fmt.Sprintf("/v1/posts/p%d", i), `{"author":"ann"}`)
	}
	w.reads = 0
	if feed := decode[Feed](t, do(h, "GET", "/v1/posts", "").Body.Bytes()); len(feed.Posts) != 20 {
		t.Fatalf("%d posts", len(feed.Posts))
	}
	if w.reads != 4 {
		t.Errorf("%d reads, want 4: posts, impressions, unique viewers, names", w.reads)
	}
}

func FuzzPatch(f *testing.F) {
	for _, s := range []string{`{"body":"b","audience":"everyone","published_at":"2026-11-23T12:00:00Z"}`, `{"body":null}`, `{}`, `[`, `{"author":null}`, `{"audience":"audience:\u0000"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		event, text, err := parsePatch(raw)
		if err != nil {
			if p := (&server{}).problemOf(t.Context(), err); p.Status >= 500 {
				t.Errorf("an internal error: %v", err)
			}
			return
		}
		event.PostRef, event.EventID = domain.PostKey{Tenant: "acme", Post: "p"}, domain.EventID{1}
		if err := (posts.Projection{}).Check(domain.Record{Event: event, Time: noon}); err != nil || domain.CheckBody(text) != nil {
			t.Errorf("accepted %+v, which would be parked: %v", event, err)
		}
		if event.Body == nil && event.Audience == nil && event.PublishedAt.IsZero() || event.Body == nil && text != "" {
			t.Errorf("accepted %+v with %q", event, text)
		}
	})
}
