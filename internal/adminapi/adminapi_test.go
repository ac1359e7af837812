package adminapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/tenancy"
)

var update = flag.Bool("update", false, "rewrite golden files")

const (
	adminKey   = "an-admin-key-of-at-least-32-bytes"
	secretText = "0123456789abcdef0123456789abcdef"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// fakeLog is the topic tenants in memory.
type fakeLog struct {
	events    []domain.Event
	forgotten []domain.TenantID
	err       error // of every call
	overtaken bool  // ChangeTenants decides, and is too late
}

func (l *fakeLog) Installation(context.Context) (*domain.Installation, error) {
	if l.err != nil {
		return nil, l.err
	}
	var in domain.Installation
	for _, e := range l.events {
		in.Apply(e)
	}
	return &in, nil
}

func (l *fakeLog) ChangeTenants(ctx context.Context, decide func(*domain.Installation) ([]domain.Event, error)) error {
	in, err := l.Installation(ctx)
	if err != nil {
		return err
	}
	events, err := decide(in)
	if err == nil && l.overtaken {
		return domain.Errorf(domain.CodeConflict, "another command")
	}
	if err == nil {
		l.events = append(l.events, events...)
	}
	return err
}

func (l *fakeLog) ForgetTenant(_ context.Context, tenant domain.TenantID) (names, texts int, err error) {
	l.forgotten = append(l.forgotten, tenant)
	return 3, 2, l.err
}

type world struct {
	t       *testing.T
	log     *fakeLog
	handler http.Handler
}

func newWorld(t *testing.T, secret string) *world {
	t.Helper()
	s, err := tenancy.NewSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	log := &fakeLog{}
	server, err := New(Deps{
		Log: log, Secret: s, Key: adminKey, Now: func() time.Time { return noon }, Rand: rand.Reader,
		NewID: func() [16]byte { return [16]byte{1} }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, log: log, handler: server.Handler}
}

func (w *world) do(method, path, body, key string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+key)
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	return rec
}

func (w *world) must(status int, method, path, body string, into any) {
	w.t.Helper()
	rec := w.do(method, path, body, adminKey)
	if rec.Code != status || rec.Header().Get("Cache-Control") != "no-store" {
		w.t.Fatalf("%s %s: %d %v\n%s", method, path, rec.Code, rec.Header(), rec.Body)
	}
	if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
		w.t.Fatal(err)
	}
}

func TestTenantsAndKeys(t *testing.T) {
	w := newWorld(t, secretText)
	var list Tenants
	if w.must(200, "GET", "/v1/tenants", "", &list); list.Tenants == nil || len(list.Tenants) > 0 {
		t.Errorf("no tenants: %+v", list)
	}
	var created, shown Tenant
	w.must(201, "POST", "/v1/tenants", `{"id":"shop","name":"The shop"}`, &created)
	w.must(201, "POST", "/v1/tenants", `{"id":"app"}`, new(Tenant))
	w.must(200, "GET", "/v1/tenants/shop", "", &shown)
	if !reflect.DeepEqual(created, shown) || shown.Name != "The shop" || shown.Status != "open" || !shown.CreatedAt.Equal(noon) || shown.Limits.Revision != 1 || shown.Limits.Stale != "24h0m0s" {
		t.Errorf("created %+v, shown %+v", created, shown)
	}
	if w.must(200, "GET", "/v1/tenants", "", &list); len(list.Tenants) != 2 || list.Tenants[0].ID != "app" {
		t.Errorf("tenants: %+v", list)
	}

	var limits Limits
	w.must(200, "PATCH", "/v1/tenants/shop/limits", `{"post_cap_views":5,"own_views":"refuse","stale":"12h"}`, &limits)
	if limits.Revision != 2 || limits.PostCapViews != 5 || limits.OwnViews != "refuse" || limits.Stale != "12h0m0s" || limits.Future != "10m0s" || !limits.SetAt.Equal(noon) {
		t.Errorf("limits %+v", limits)
	}
	if w.must(200, "PATCH", "/v1/tenants/shop/limits", `{"post_cap_views":5}`, &limits); limits.Revision != 2 {
		t.Errorf("the same again: %+v", limits)
	}

	var key IssuedKey
	w.must(201, "POST", "/v1/tenants/shop/keys", `{"label":"web"}`, &key)
	if in, err := w.log.Installation(t.Context()); err != nil || in.KeysByHash[tenancy.HashKey(key.Text)] != (domain.KeyRef{Tenant: "shop", KeyID: key.ID}) {
		t.Errorf("the key %+v is not the one that stands: %v", key, err)
	}
	w.must(201, "POST", "/v1/tenants/shop/keys", `{}`, new(IssuedKey))
	var keys Keys
	w.must(200, "GET", "/v1/tenants/shop/keys", "", &keys)
	if len(keys.Keys) != 2 || strings.Contains(w.do("GET", "/v1/tenants/shop/keys", "", adminKey).Body.String(), key.Text) {
		t.Errorf("keys %+v", keys)
	}
	var revoked Key
	for range 2 {
		w.must(200, "DELETE", "/v1/tenants/shop/keys/"+key.ID, "", &revoked)
		if revoked.Status != "revoked" || !revoked.RevokedAt.Equal(noon) || revoked.Label != "web" {
			t.Errorf("revoked %+v", revoked)
		}
	}
	if w.must(200, "GET", "/v1/tenants/shop", "", &shown); shown.Keys != 1 {
		t.Errorf("%d keys are accepted, want 1", shown.Keys)
	}

	var closed Closed
	for range 2 {
		w.must(200, "DELETE", "/v1/tenants/shop", "", &closed)
		if closed.Tenant.Status != "closed" || closed.Tenant.Keys != 0 || closed.NamesForgotten != 3 || closed.TextsForgotten != 2 || len(closed.Remains) < 5 || closed.RepeatIfInDoubt == "" {
			t.Errorf("closed %+v", closed)
		}
	}
	if in, _ := w.log.Installation(t.Context()); !in.Tenants["shop"].Closed || in.Tenants["app"].Closed || len(w.log.forgotten) != 2 || w.log.forgotten[0] != "shop" {
		t.Errorf("after closing: %+v, forgotten %v", in.Tenants, w.log.forgotten)
	}
}

// TestBadInput: one clear problem each, nothing appended.
func TestBadInput(t *testing.T) {
	w := newWorld(t, secretText)
	w.must(201, "POST", "/v1/tenants", `{"id":"shop"}`, new(Tenant))
	before := len(w.log.events)
	for _, c := range []struct {
		name, method, path, body, key string
		status                        int
		code, field                   string
	}{
		{"no key", "GET", "/v1/tenants", "", "", 401, "unauthorized", ""},
		{"another key", "DELETE", "/v1/tenants/shop", "", adminKey + "x", 401, "unauthorized", ""},
		{"no such path", "GET", "/v1/tenant", "", adminKey, 404, "not_found", ""},
		{"method", "PUT", "/v1/tenants", "", adminKey, 405, "method_not_allowed", ""},
		{"create: no JSON", "POST", "/v1/tenants", "{", adminKey, 400, "malformed", "body"},
		{"create: no id", "POST", "/v1/tenants", "{}", adminKey, 422, "invalid", "tenant"},
		{"create: bad id", "POST", "/v1/tenants", `{"id":"A b"}`, adminKey, 422, "invalid", "tenant"},
		{"create: long name", "POST", "/v1/tenants", `{"id":"a","name":"` + strings.Repeat("n", 256) + `"}`, adminKey, 422, "invalid", "name"},
		{"create: unknown field", "POST", "/v1/tenants", `{"id":"a","limits":{}}`, adminKey, 422, "invalid", "limits"},
		{"create: there already", "POST", "/v1/tenants", `{"id":"shop"}`, adminKey, 409, "conflict", ""},
		{"get: unknown", "GET", "/v1/tenants/none", "", adminKey, 404, "not_found", ""},
		{"close: unknown", "DELETE", "/v1/tenants/none", "", adminKey, 404, "not_found", ""},
		{"set: nothing", "PATCH", "/v1/tenants/shop/limits", "{}", adminKey, 422, "invalid", "limits"},
		{"set: unknown limit", "PATCH", "/v1/tenants/shop/limits", `{"colour":1}`, adminKey, 422, "invalid", "colour"},
		{"set: revision", "PATCH", "/v1/tenants/shop/limits", `{"revision":9}`, adminKey, 422, "invalid", "revision"},
		{"set: type", "PATCH", "/v1/tenants/shop/limits", `{"post_cap_views":"5"}`, adminKey, 422, "invalid", "post_cap_views"},
		{"set: duration", "PATCH", "/v1/tenants/shop/limits", `{"stale":"a day"}`, adminKey, 422, "invalid", "stale"},
		{"set: contradiction", "PATCH", "/v1/tenants/shop/limits", `{"stale":"25h"}`, adminKey, 422, "invalid", "stale"},
		{"set: unknown tenant", "PATCH", "/v1/tenants/none/limits", `{"stale":"1h"}`, adminKey, 404, "not_found", ""},
		{"key: unknown tenant", "POST", "/v1/tenants/none/keys", `{}`, adminKey, 404, "not_found", ""},
		{"key: label", "POST", "/v1/tenants/shop/keys", `{"label":"a\u0000"}`, adminKey, 422, "invalid", "label"},
		{"keys: unknown tenant", "GET", "/v1/tenants/none/keys", "", adminKey, 404, "not_found", ""},
		{"revoke: unknown", "DELETE", "/v1/tenants/shop/keys/zzzzzzzz", "", adminKey, 404, "not_found", ""},
	} {
		rec := w.do(c.method, c.path, c.body, c.key)
		var p struct{ Code, Field string }
		if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || rec.Code != c.status || p.Code != c.code || p.Field != c.field || rec.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", c.name, rec.Code, rec.Body)
		}
	}
	if len(w.log.events) != before || len(w.log.forgotten) > 0 {
		t.Errorf("bad input appended %v", w.log.events[before:])
	}
}

func TestTroubles(t *testing.T) {
	w := newWorld(t, secretText)
	w.must(201, "POST", "/v1/tenants", `{"id":"shop"}`, new(Tenant))
	w.log.overtaken = true
	if rec := w.do("PATCH", "/v1/tenants/shop/limits", `{"stale":"1h"}`, adminKey); rec.Code != http.StatusConflict {
		t.Errorf("overtaken: %d %s", rec.Code, rec.Body)
	}
	w.log.overtaken = false
	w.log.err = domain.Errorf(domain.CodeUnavailable, "Kafka did not answer")
	for _, path := range []string{"/v1/tenants", "/v1/tenants/shop"} {
		if rec := w.do("GET", path, "", adminKey); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
			t.Errorf("without Kafka: %d %s", rec.Code, rec.Body)
		}
	}
	w.log.err = errors.New("with a detail")
	if rec := w.do("DELETE", "/v1/tenants/shop", "", adminKey); rec.Code != http.StatusInternalServerError || strings.Contains(rec.Body.String(), "detail of") || strings.Contains(rec.Body.String(), "with a detail") {
		t.Errorf("an internal error: %d %s", rec.Code, rec.Body)
	}
	w.log.err = nil
	// The secret was rotated while this process runs.
	w.log.events = append(w.log.events, domain.SecretRecorded{Fingerprint: "another"})
	if rec := w.do("POST", "/v1/tenants", `{"id":"new"}`, adminKey); rec.Code != http.StatusConflict || !strings.Contains(rec.Body.String(), "restart") {
		t.Errorf("after a rotation: %d %s", rec.Code, rec.Body)
	}
}

// Every limit can be set and is shown, under the names that package tenancy has.
func TestLimitsAreComplete(t *testing.T) {
	fields := func(v any) map[string]bool {
		out := map[string]bool{}
		for f := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			out[name] = true
		}
		return out
	}
	shown, settable := fields(Limits{}), fields(LimitsInput{})
	for _, name := range tenancy.LimitNames() {
		if !shown[name] || !settable[name] {
			t.Errorf("%s: shown %v, settable %v", name, shown[name], settable[name])
		}
	}
	text, n := "x", int64(1)
	in := LimitsInput{&text, &text, &text, &n, &n, &n, &text, &text, &text, &n}
	var names []string
	for _, c := range in.changes() {
		names = append(names, c.Name)
	}
	if !reflect.DeepEqual(names, tenancy.LimitNames()) {
		t.Errorf("set: %v", names)
	}
}

func TestOpenAPIIsCommitted(t *testing.T) {
	got, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("..", "..", "docs", "admin-openapi.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/admin-openapi.json is not what the code says; run: go test ./internal/adminapi -update")
	}
	if served := newWorld(t, secretText).do("GET", "/openapi.json", "", ""); !bytes.Equal(served.Body.Bytes(), got) {
		t.Error("/openapi.json serves another document")
	}
}
