package httpapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
	"seenby/internal/strictjson"
)

const viewUUID = "01939a2b-7c3d-7e4f-8a5b-6c7d8e9f0a1b"

func TestReportViews(t *testing.T) {
	w := newWorld()
	accepted, rejected := 0, 0
	deps := w.deps()
	deps.Metrics.ViewsAccepted = func(n int) { accepted += n }
	deps.Metrics.ViewsRejected = func(n int) { rejected += n }
	h, err := build(Config{}.withDefaults(), deps, w)
	if err != nil {
		t.Fatal(err)
	}
	rec := do(h, "POST", "/v1/views", `{"views":[
		{"id":"`+strings.ToUpper(viewUUID)+`","post":"p","viewer":"ann","mood":1,
		 "context":{"app":"web","surface":"feed","dwell_ms":1200,"visible_ratio":0.5,"tilt":1}},
		{"post":"p\u002fq","viewer":"ann","viewed_at":"2026-11-23T12:00:00.1234567+01:00","mood":2},
		{"post":"p","viewer":"bob"},
		{"id":"`+viewUUID+`","post":"p","viewer":"bob","viewed_at":null,"context":null}
	],"sent_at":"2026-11-23T11:59:00Z","batch":7}`)
	want := `{"accepted":3,"rejected":[{"index":2,"code":"invalid","message":"id: is required, or viewed_at"}],"ignored":["batch","mood","context.tilt"]}` + "\n"
	if rec.Code != 202 || rec.Body.String() != want || rec.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %s\nwant %s", rec.Code, rec.Body, want)
	}
	if rec.Header().Get("Seenby-Position") == "" || accepted != 3 || rejected != 1 {
		t.Errorf("position %q, metrics %d and %d", rec.Header().Get("Seenby-Position"), accepted, rejected)
	}
	sent := noon.Add(-time.Minute)
	ann, bob := person("ann"), person("bob")
	id := domain.ViewID{0x01, 0x93, 0x9a, 0x2b, 0x7c, 0x3d, 0x7e, 0x4f, 0x8a, 0x5b, 0x6c, 0x7d, 0x8e, 0x9f, 0x0a, 0x1b}
	dwell, ratio := int64(1200), 0.5
	at := time.Date(2026, 11, 23, 11, 0, 0, 123456000, time.UTC)
	events := []domain.Event{
		domain.PersonNamed{Ref: ann, ID: "ann"},
		domain.ViewReported{Viewer: ann, ViewID: id, Post: "p", SentAt: sent, Context: &domain.ViewContext{App: "web", Surface: "feed", DwellMS: &dwell, VisibleRatio: &ratio}},
		domain.ViewReported{Viewer: ann, ViewID: domain.DeriveViewID(ann.Person, "p/q", at), Post: "p/q", ViewedAt: at, SentAt: sent},
		domain.PersonNamed{Ref: bob, ID: "bob"},
		domain.ViewReported{Viewer: bob, ViewID: id, Post: "p", SentAt: sent},
	}
	if diff := cmp.Diff([][]domain.Event{events}, w.appends); diff != "" {
		t.Error(diff)
	}
	// Known people are named once, by this process.
	do(h, "POST", "/v1/views", `{"views":[{"id":"`+viewUUID+`","post":"p","viewer":"bob"}]}`)
	if last := w.appends[1]; len(last) != 1 {
		t.Errorf("appended %v", last)
	}
}

func person(id string) domain.PersonRef {
	return domain.PersonRef{Tenant: acme.ID, Person: domain.NewPersonKey(acme.Key, domain.PersonKnown, id)}
}

func TestRejectedViews(t *testing.T) {
	long := strings.Repeat("a", 256)
	for _, c := range []struct{ item, message string }{
		{`7`, "view: must be a JSON object"},
		{`null`, "view: must be a JSON object"},
		{`{"viewer":"v","post":"p"}`, "id: is required, or viewed_at"},
		{`{"id":"` + viewUUID + `","post":"p"}`, "viewer: is required, or anonymous"},
		{`{"id":"` + viewUUID + `","viewer":null,"anonymous":null,"post":"p"}`, "viewer: is required, or anonymous"},
		{`{"id":"` + viewUUID + `","viewer":"v","anonymous":"s","post":"p"}`, "anonymous: cannot stand beside viewer"},
		{`{"id":"` + viewUUID + `","anonymous":"","post":"p"}`, "anonymous: must not be empty"},
		{`{"id":"` + viewUUID + `","anonymous":true,"post":"p"}`, "anonymous: must be a string"},
		{`{"id":"` + viewUUID + `","anonymous":"s","anonymous":"s","post":"p"}`, "anonymous: stands twice"},
		{`{"id":"` + viewUUID + `","anonymous":"` + long + `","post":"p"}`, "anonymous: is 256 bytes long; at most 255 are allowed"},
		{`{"id":"` + viewUUID + `","anonymous":"s\u0000","post":"p"}`, "anonymous: must be printable UTF-8"},
		{`{"id":"` + viewUUID + `","viewer":"v"}`, "post: is required"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":null}`, "post: is required"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":""}`, "post: must not be empty"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":5}`, "post: must be a string"},
		{`{"id":"` + viewUUID + `","viewer":["v"],"post":"p"}`, "viewer: must be a string"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"p","post":"q"}`, "post: stands twice"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"` + long + `"}`, "post: is 256 bytes long; at most 255 are allowed"},
		{`{"id":"` + viewUUID + `","viewer":"` + long + `","post":"p"}`, "viewer: is 256 bytes long; at most 255 are allowed"},
		{`{"id":"` + viewUUID + `","viewer":"v\n","post":"p"}`, "viewer: must be printable UTF-8"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"` + "\xff" + `"}`, "post: must be printable UTF-8"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"` + "\\u0041\xff" + `"}`, "post: must be UTF-8"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"\ud800"}`, "post: must be UTF-8"},
		{`{"id":"one","viewer":"v","post":"p"}`, "id: must be a UUID, e.g. 01939a2b-7c3d-7e4f-8a5b-6c7d8e9f0a1b"},
		{`{"id":"01939a2b-7c3d-7e4f-8a5b-6c7d8e9f0a1g","viewer":"v","post":"p"}`, "id: must be a UUID, e.g. 01939a2b-7c3d-7e4f-8a5b-6c7d8e9f0a1b"},
		{`{"id":"01939a2b77c3d-7e4f-8a5b-6c7d8e9f0a1b","viewer":"v","post":"p"}`, "id: must be a UUID, e.g. 01939a2b-7c3d-7e4f-8a5b-6c7d8e9f0a1b"},
		{`{"id":"00000000-0000-0000-0000-000000000000","viewer":"v","post":"p"}`, "id: must not be the nil UUID"},
		{`{"viewed_at":"12:00","viewer":"v","post":"p"}`, "viewed_at: must be a time of RFC 3339, e.g. 2026-11-23T12:00:00Z"},
		{`{"viewed_at":1764000000,"viewer":"v","post":"p"}`, "viewed_at: must be a string"},
		{`{"viewed_at":"0001-01-01T00:00:00Z","viewer":"v","post":"p"}`, "viewed_at: must lie between the years 1970 and 3000"},
		{`{"viewed_at":"3000-01-01T00:00:00Z","viewer":"v","post":"p"}`, "viewed_at: must lie between the years 1970 and 3000"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"p","context":"web"}`, "context: must be a JSON object"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"p","context":{"app":1}}`, "context.app: must be a string"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"p","context":{"surface":"` + long + `"}}`, "context.surface: must be at most 64 bytes of printable UTF-8"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"p","context":{"dwell_ms":1.5}}`, "context.dwell_ms: must be a whole number"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"p","context":{"dwell_ms":-1}}`, "context.dwell_ms: must be 0 to 86400000"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"p","context":{"visible_ratio":1.1}}`, "context.visible_ratio: must be 0 to 1"},
		{`{"id":"` + viewUUID + `","viewer":"v","post":"p","context":{"visible_ratio":"1"}}`, "context.visible_ratio: must be a number"},
	} {
		w := newWorld()
		h := w.api(t, Config{})
		p := wantProblem(t, do(h, "POST", "/v1/views", `{"views":[`+c.item+`],"x":1}`), 422, "invalid")
		if diff := cmp.Diff([]Rejected{{Index: 0, Code: "invalid", Message: c.message}}, p.Rejected); diff != "" {
			t.Errorf("%s: %s", c.item, diff)
		}
		if diff := cmp.Diff([]string{"x"}, p.Ignored); diff != "" {
			t.Error(diff)
		}
		if len(w.log) > 0 {
			t.Errorf("%s: appended %v", c.item, w.log)
		}
		// It does not cost a good one, and a viewer who has no acceptable view is not named.
		good := `{"views":[` + c.item + `,{"id":"` + viewUUID + `","viewer":"good","post":"p"}]}`
		if rec := do(h, "POST", "/v1/views", good); rec.Code != 202 || len(w.log) != 2 {
			t.Errorf("%s: %d %s, appended %v", c.item, rec.Code, rec.Body, w.log)
		}
	}
}

func TestIgnoredIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `,"%s%d":[{"a":"]}\"\\"}]`, strings.Repeat("é", 50), i)
	}
	w := newWorld()
	body := `{"views":[{"id":"` + viewUUID + `","viewer":"v","post":"p","\u00e9\ud800":1` + b.String() + `,"n":1}` +
		`,{"id":"` + viewUUID + `","viewer":"v","post":"p"` + strings.ReplaceAll(b.String(), "é", "x") + `}]}`
	got := decode[ViewsAccepted](t, do(w.api(t, Config{}), "POST", "/v1/views", body).Body.Bytes())
	if got.Accepted != 2 || len(got.Ignored) > ignoredMax || len(got.Ignored) < 3 {
		t.Errorf("%+v", got)
	}
	for _, name := range got.Ignored {
		if len(name) > strictjson.NameBytesMax {
			t.Errorf("%q has %d bytes", name, len(name))
		}
	}
}

func TestRepeatsOfABatchAreAllAppended(t *testing.T) {
	w := newWorld()
	view := `{"id":"` + viewUUID + `","viewer":"v","post":"p"}`
	rec := do(w.api(t, Config{}), "POST", "/v1/views", `{"views":[`+view+strings.Repeat(","+view, 999)+`]}`)
	if rec.Code != 202 || len(w.log) != 1001 || len(w.appends) != 1 {
		t.Errorf("%d %s: %d events in %d appends", rec.Code, rec.Body, len(w.log), len(w.appends))
	}
}
