package httpapi

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
	"seenby/internal/tenancy"
)

const twoViews = `{"views":[
	{"viewer":"ann","post":"p","viewed_at":"2026-11-23T11:00:00Z"},
	{"viewer":"bob","post":"p","viewed_at":"2026-11-23T11:00:00Z"}]}`

func TestReadCounts(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/p", `{"author":"ann","body":"hello"}`)
	do(h, "POST", "/v1/views", twoViews)
	post := decode[Post](t, do(h, "GET", "/v1/posts/p", "").Body.Bytes())
	if post.Impressions != 2 || post.UniqueViewers != 2 || post.Body != "hello" || !post.AsOf.Equal(noon) {
		t.Errorf("%+v", post)
	}
	got := decode[Counts](t, do(h, "GET", "/v1/counts?post=q&post=p&post=q", "").Body.Bytes())
	want := Counts{Counts: []PostCount{{Post: "q"}, {Post: "p", Impressions: 2, UniqueViewers: 2}}, AsOf: &noon}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if rec := do(h, "HEAD", "/v1/posts/p", ""); rec.Code != 200 {
		t.Errorf("HEAD: %d", rec.Code)
	}
}

// Counts from elsewhere are in the sums, and both parts are shown; where there are none, nothing is.
func TestReadImportedCounts(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
	do(h, "PUT", "/v1/posts/plain", `{"author":"ann"}`)
	do(h, "POST", "/v1/views", twoViews)
	lastYear := noon.AddDate(-1, 0, 0)
	positions, err := w.Append(t.Context(),
		domain.CountsImported{PostRef: domain.PostKey{Tenant: acme.ID, Post: "p"}, EventID: domain.EventID{91}, Impressions: 120000, UniqueViewers: 345, AsOf: lastYear},
		domain.CountsImported{PostRef: domain.PostKey{Tenant: acme.ID, Post: "elsewhere"}, EventID: domain.EventID{92}, Impressions: 7, AsOf: lastYear})
	if err != nil {
		t.Fatal(err)
	}
	parts := CountParts{&CountedPart{Impressions: 2, UniqueViewers: 2}, &ImportedPart{Impressions: 120000, UniqueViewers: 345, AsOf: lastYear}}
	post := decode[Post](t, do(h, "GET", "/v1/posts/p", "").Body.Bytes())
	if diff := cmp.Diff(parts, post.CountParts); diff != "" || post.Impressions != 120002 || post.UniqueViewers != 347 {
		t.Errorf("%+v %s", post, diff)
	}
	feed := decode[Feed](t, do(h, "GET", "/v1/posts", "").Body.Bytes())
	for _, shown := range feed.Posts {
		if imported := shown.ID == "p"; shown.Impressions == 120002 != imported || shown.Imported != nil != imported || shown.Counted != nil != imported {
			t.Errorf("in the feed: %+v", shown)
		}
	}
	got := decode[Counts](t, do(h, "GET", "/v1/counts?post=p&post=elsewhere&post=plain", "").Body.Bytes())
	want := []PostCount{
		{Post: "p", Impressions: 120002, UniqueViewers: 347, CountParts: parts},
		{Post: "elsewhere", Impressions: 7, CountParts: CountParts{&CountedPart{}, &ImportedPart{Impressions: 7, AsOf: lastYear}}},
		{Post: "plain"},
	}
	if diff := cmp.Diff(want, got.Counts); diff != "" {
		t.Error(diff)
	}
	if plain := do(h, "GET", "/v1/counts?post=plain", "").Body.String(); strings.Contains(plain, "imported") {
		t.Errorf("nothing was imported: %s", plain)
	}
	// They come from the read model of posts, so counts wait for it.
	w.hold(projectionPosts)
	more, err := w.Append(t.Context(), domain.CountsImported{PostRef: domain.PostKey{Tenant: acme.ID, Post: "p"}, EventID: domain.EventID{93}, Impressions: 1, AsOf: noon})
	if err != nil {
		t.Fatal(err)
	}
	for token, status := range map[string]int{tenancy.SealPositions(acme.Key, positions): 200, tenancy.SealPositions(acme.Key, more): 504} {
		if rec := do(h, "GET", "/v1/counts?post=p", "", "Seenby-Wait-For", token, "Prefer", "wait=0"); rec.Code != status {
			t.Errorf("%d, want %d: %s", rec.Code, status, rec.Body)
		}
	}
}

func TestNamesThatAreNotKnownAreNull(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
	do(h, "POST", "/v1/views", twoViews)
	clear(w.names)
	w.asOfTime = time.Time{}
	if body := do(h, "GET", "/v1/posts/p", "").Body.String(); !strings.Contains(body, `"author":null`) || !strings.Contains(body, `"as_of":null`) {
		t.Error(body)
	}
	if body := do(h, "GET", "/v1/posts/p/viewers", "").Body.String(); !strings.Contains(body, `"viewer":null`) {
		t.Error(body)
	}
}

func TestViewersPages(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
	do(h, "PUT", "/v1/posts/q", `{"author":"ann"}`)
	if body := do(h, "GET", "/v1/posts/p/viewers", "").Body.String(); !strings.Contains(body, `"viewers":[]`) {
		t.Errorf("no viewers: %s", body)
	}
	for i := range 5 {
		do(h, "POST", "/v1/views", fmt.Sprintf(`{"views":[{"viewer":"v%d","post":"p","viewed_at":"2026-11-23T11:00:00Z"}]}`, i))
	}
	var seen []string
	path, pages := "/v1/posts/p/viewers?limit=2", 0
	for cursor := ""; pages == 0 || cursor != ""; pages++ {
		got := decode[Viewers](t, do(h, "GET", path+"&cursor="+cursor, "").Body.Bytes())
		for _, v := range got.Viewers {
			seen = append(seen, *v.Viewer)
		}
		cursor = got.NextCursor
		if cursor != "" {
			wantProblem(t, do(h, "GET", "/v1/posts/q/viewers?cursor="+cursor, ""), 422, "invalid")
			wantProblem(t, do(h, "GET", path+"&cursor="+cursor, "", "Authorization", "Bearer "+otherKey), 422, "invalid")
		}
	}
	if diff := cmp.Diff([]string{"v0", "v1", "v2", "v3", "v4"}, seen); diff != "" || pages != 3 {
		t.Errorf("%d pages: %s", pages, diff)
	}
}

// Another tenant's post cannot be told from one that never was: status, headers and body are the same bytes.
func TestAnotherTenantsPostIsUnknown(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/mine", `{"author":"ann"}`)
	do(h, "POST", "/v1/views", strings.ReplaceAll(twoViews, `"p"`, `"mine"`))
	for _, path := range []string{"/v1/posts/%s", "/v1/posts/%s/viewers", "/v1/posts/%s/history", "/v1/posts/%s/timeseries", "/v1/counts?post=%s"} {
		answers := map[string]*httptest.ResponseRecorder{}
		for _, id := range []string{"mine", "none"} {
			answers[id] = do(h, "GET", fmt.Sprintf(path, id), "", "Authorization", "Bearer "+otherKey)
		}
		mine, none := answers["mine"], answers["none"]
		// Counts name the post that was asked for; nothing else may differ.
		if mine.Code != none.Code || strings.ReplaceAll(mine.Body.String(), "mine", "none") != none.Body.String() {
			t.Errorf("%s: %d %s against %d %s", path, mine.Code, mine.Body, none.Code, none.Body)
		}
		if !strings.Contains(path, "counts") && mine.Body.String() != none.Body.String() {
			t.Errorf("%s: the body names the post", path)
		}
		if diff := cmp.Diff(mine.Header(), none.Header()); diff != "" {
			t.Error(diff)
		}
	}
	// Writing it makes a post of the other tenant's own.
	if rec := do(h, "PUT", "/v1/posts/mine", `{"author":"eve"}`, "Authorization", "Bearer "+otherKey); rec.Code != 201 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if v := w.state[domain.PostKey{Tenant: "acme", Post: "mine"}]; v.Version != 1 {
		t.Errorf("the first tenant's post has version %d", v.Version)
	}
}

func TestPostgreSQLAway(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	token := do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`).Header().Get("Seenby-Position")
	for _, err := range []error{domain.Errorf(domain.CodeUnavailable, "PostgreSQL is away"), sqlState("57P01"), fmt.Errorf("read: %w", errTimeout{})} {
		w.modelsErr = err
		for _, path := range []string{"/v1/posts/p", "/v1/posts/p/viewers", "/v1/counts?post=p", "/v1/posts/p/timeseries", "/v1/timeseries"} {
			wantProblem(t, do(h, "GET", path, ""), 503, "unavailable")
		}
		wantProblem(t, do(h, "GET", "/v1/posts/p", "", "Seenby-Wait-For", token), 503, "unavailable")
		if rec := do(h, "POST", "/v1/views", twoViews); rec.Code != 202 {
			t.Errorf("views: %d %s", rec.Code, rec.Body)
		}
	}
	w.modelsErr = fmt.Errorf("secret detail")
	p := wantProblem(t, do(h, "GET", "/v1/posts/p", ""), 500, "internal")
	if p.RequestID == "" || strings.Contains(p.Detail, "secret") {
		t.Errorf("%+v", p)
	}
}

type sqlState string

func (s sqlState) Error() string    { return "SQLSTATE " + string(s) }
func (s sqlState) SQLState() string { return string(s) }

type errTimeout struct{}

func (errTimeout) Error() string   { return "i/o timeout" }
func (errTimeout) Timeout() bool   { return true }
func (errTimeout) Temporary() bool { return true }
