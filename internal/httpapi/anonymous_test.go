package httpapi

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
)

// An anonymous viewer has a key of its own kind and no name, in the log as in the memory of this process.
func TestAnonymousViews(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	long := strings.Repeat("s", domain.IDBytesMax)
	rec := do(h, "POST", "/v1/views", `{"views":[
		{"anonymous":"same","post":"p","viewed_at":"2026-11-23T12:00:00Z"},
		{"viewer":"same","post":"p","viewed_at":"2026-11-23T12:00:00Z","anonymous":null},
		{"anonymous":"same","post":"p","id":"`+viewUUID+`"},
		{"anonymous":"`+long+`","post":"p","id":"`+viewUUID+`"}
	]}`)
	if rec.Code != 202 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	session := func(id string) domain.PersonRef {
		return domain.PersonRef{Tenant: acme.ID, Person: domain.NewPersonKey(acme.Key, domain.PersonAnonymous, id)}
	}
	same, known := session("same"), person("same")
	id, err := domain.ParseViewID(viewUUID)
	if err != nil {
		t.Fatal(err)
	}
	want := []domain.Event{
		domain.ViewReported{Viewer: same, ViewID: domain.DeriveViewID(same.Person, "p", noon), Post: "p", ViewedAt: noon, Anonymous: true},
		domain.PersonNamed{Ref: known, ID: "same"},
		domain.ViewReported{Viewer: known, ViewID: domain.DeriveViewID(known.Person, "p", noon), Post: "p", ViewedAt: noon},
		domain.ViewReported{Viewer: same, ViewID: id, Post: "p", Anonymous: true},
		domain.ViewReported{Viewer: session(long), ViewID: id, Post: "p", Anonymous: true},
	}
	if diff := cmp.Diff([][]domain.Event{want}, w.appends); diff != "" {
		t.Error(diff)
	}
}

func TestAnonymousImpressionsAreShownApart(t *testing.T) {
	w := newWorld()
	h := w.api(t, Config{})
	do(h, "PUT", "/v1/posts/p", `{"author":"ann"}`)
	do(h, "POST", "/v1/views", `{"views":[
		{"anonymous":"s","post":"p","viewed_at":"2026-11-23T12:00:00Z"},
		{"anonymous":"t","post":"p","viewed_at":"2026-11-23T12:00:00Z"},
		{"viewer":"s","post":"p","viewed_at":"2026-11-23T12:00:00Z"}]}`)
	post := decode[Post](t, do(h, "GET", "/v1/posts/p", "").Body.Bytes())
	if post.Impressions != 3 || post.AnonymousImpressions != 2 || post.UniqueViewers != 1 {
		t.Errorf("%+v", post)
	}
	want := []PostCount{{Post: "p", Impressions: 3, AnonymousImpressions: 2, UniqueViewers: 1}, {Post: "q"}}
	counts := decode[Counts](t, do(h, "GET", "/v1/counts?post=p&post=q", "").Body.Bytes())
	if diff := cmp.Diff(want, counts.Counts); diff != "" {
		t.Error(diff)
	}
	if viewers := decode[Viewers](t, do(h, "GET", "/v1/posts/p/viewers", "").Body.Bytes()); len(viewers.Viewers) != 1 {
		t.Errorf("%+v", viewers)
	}
}
