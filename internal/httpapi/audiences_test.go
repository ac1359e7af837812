package httpapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"seenby/domain"
)

func membersOf(t *testing.T, body string) (names []string, next string) {
	t.Helper()
	var page Members
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatal(err)
	}
	for _, m := range page.Members {
		names = append(names, *m.Viewer)
	}
	return names, page.NextCursor
}

func TestMembers(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	if rec := do(h, "PUT", "/v1/audiences/close%20friends/members/ann%2Fa", ""); rec.Code != 202 || rec.Body.String() != "{\"accepted\":1}\n" || rec.Header().Get("Seenby-Position") == "" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	rec := do(h, "POST", "/v1/audiences/close%20friends/members:batch", `{"add":["ben","cleo","ben"],"remove":["ann/a","nobody"]}`)
	if rec.Code != 202 || rec.Body.String() != "{\"accepted\":5}\n" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	for _, p := range w.names {
		if p == "nobody" {
			t.Error("to remove somebody names them")
		}
	}
	do(h, "PUT", "/v1/audiences/close%20friends/members/dora", "")
	do(h, "DELETE", "/v1/audiences/close%20friends/members/dora", "")
	rec = do(h, "GET", "/v1/audiences/close%20friends/members", "", "Seenby-Wait-For", rec.Header().Get("Seenby-Position"))
	names, next := membersOf(t, rec.Body.String())
	slices.Sort(names)
	if rec.Code != 200 || fmt.Sprint(names) != "[ben cleo]" || next != "" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := do(h, "GET", "/v1/audiences/nobody/members", ""); rec.Code != 200 || rec.Body.String() != "{\"members\":[]}\n" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestMembersPages(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	var ids []string
	for i := range 7 {
		ids = append(ids, fmt.Sprintf("%q", fmt.Sprint("viewer", i)))
	}
	do(h, "POST", "/v1/audiences/a/members:batch", `{"add":[`+strings.Join(ids, ",")+`]}`)
	var all []string
	path := "/v1/audiences/a/members?limit=3"
	for cursor := ""; ; {
		rec := do(h, "GET", path+"&cursor="+cursor, "")
		names, next := membersOf(t, rec.Body.String())
		all = append(all, names...)
		if next == "" {
			break
		}
		wantProblem(t, do(h, "GET", "/v1/audiences/b/members?cursor="+next, ""), 422, "invalid")
		cursor = next
	}
	slices.Sort(all)
	if fmt.Sprint(all) != "[viewer0 viewer1 viewer2 viewer3 viewer4 viewer5 viewer6]" {
		t.Errorf("%v", all)
	}
}

func TestPostsHaveAudiences(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	for _, audience := range []domain.Audience{domain.AudienceEveryone, domain.AudienceAuthor, "audience:close friends"} {
		rec := do(h, "PUT", "/v1/posts/p", fmt.Sprintf(`{"author":"ann","audience":%q}`, audience))
		if rec.Code/100 != 2 || !strings.Contains(rec.Body.String(), fmt.Sprintf(`"audience":%q`, audience)) {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
	}
}
