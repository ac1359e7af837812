package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
	"seenby/internal/tenancy"
)

func TestReadiness(t *testing.T) {
	ok := func(context.Context) error { return nil }
	away := func(context.Context) error {
		return domain.Errorf(domain.CodeUnavailable, "PostgreSQL does not answer").Because(errors.New("10.0.0.7 refused"))
	}
	for _, c := range []struct {
		name   string
		checks map[string]func(context.Context) error
		status int
		want   Readiness
	}{
		{"all well", map[string]func(context.Context) error{"kafka": ok, "tenants": ok, "postgres": ok}, 200,
			Readiness{"ready", map[string]string{"kafka": "ok", "tenants": "ok", "postgres": "ok"}}},
		{"views are accepted without PostgreSQL", map[string]func(context.Context) error{"kafka": ok, "postgres": away}, 200,
			Readiness{"degraded", map[string]string{"kafka": "ok", "postgres": "missing: PostgreSQL does not answer"}}},
		{"nothing goes without Kafka", map[string]func(context.Context) error{"kafka": func(context.Context) error { return errors.New("10.0.0.8 refused") }, "postgres": away}, 503,
			Readiness{"unready", map[string]string{"kafka": "missing", "postgres": "missing: PostgreSQL does not answer"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			deps := w.deps()
			deps.Checks = c.checks
			deps.MetricsHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "seenby_up 1") })
			h, err := build(Config{}.withDefaults(), deps, w)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range []http.Handler{h, Health(Config{}, deps)} {
				rec := do(h, "GET", "/readyz", "", "Authorization", "")
				if rec.Code != c.status {
					t.Errorf("status %d", rec.Code)
				}
				if diff := cmp.Diff(c.want, decode[Readiness](t, rec.Body.Bytes())); diff != "" {
					t.Error(diff)
				}
				if rec := do(h, "GET", "/healthz", "", "Authorization", ""); rec.Code != 200 {
					t.Errorf("/healthz: %d", rec.Code)
				}
				if rec := do(h, "GET", "/metrics", "", "Authorization", ""); rec.Body.String() != "seenby_up 1" {
					t.Errorf("/metrics: %s", rec.Body)
				}
				wantProblem(t, do(h, "POST", "/healthz", ""), 405, "method_not_allowed")
				wantProblem(t, do(h, "GET", "/", ""), 404, "not_found")
			}
		})
	}
}

// Probes come every few seconds for as long as an outage lasts: the log tells its beginning and its end.
func TestReadinessIsLoggedOnChange(t *testing.T) {
	w := newWorld()
	deps := w.deps()
	var log strings.Builder
	deps.Logger = slog.New(slog.NewTextHandler(&log, nil))
	var away error
	deps.Checks = map[string]func(context.Context) error{"kafka": func(context.Context) error { return away }}
	h := Health(Config{}, deps)
	for _, now := range []error{nil, nil, errors.New("refused"), errors.New("refused again"), nil, nil} {
		away = now
		do(h, "GET", "/readyz", "")
	}
	if got, want := strings.Count(log.String(), "not ready"), 1; got != want {
		t.Errorf("%d times not ready, want %d:\n%s", got, want, log.String())
	}
	if got, want := strings.Count(log.String(), "\n"), 2; got != want {
		t.Errorf("%d lines, want %d:\n%s", got, want, log.String())
	}
}

type tenantsFunc func(string) (tenancy.TenantHandle, error)

func (f tenantsFunc) Authenticate(bearer string) (tenancy.TenantHandle, error) { return f(bearer) }
func (tenantsFunc) Limits(domain.TenantID) (domain.Limits, bool)               { return domain.DefaultLimits(), true }

func TestTenantsNotReadYet(t *testing.T) {
	w := newWorld()
	deps := w.deps()
	deps.Tenants = tenantsFunc(func(string) (tenancy.TenantHandle, error) {
		return tenancy.TenantHandle{}, domain.Errorf(domain.CodeUnavailable, "the tenants are not read yet")
	})
	h, err := build(Config{}.withDefaults(), deps, w)
	if err != nil {
		t.Fatal(err)
	}
	wantProblem(t, do(h, "POST", "/v1/views", twoViews), 503, "unavailable")
}

func TestPanicIsAnInternalProblem(t *testing.T) {
	w := newWorld()
	deps := w.deps()
	var log strings.Builder
	deps.Logger = slog.New(slog.NewTextHandler(&log, nil))
	type call struct {
		method, route string
		status        int
	}
	var calls []call
	deps.Metrics.Request = func(method, route string, status int, _ time.Duration) {
		calls = append(calls, call{method, route, status})
	}
	deps.Tenants = tenantsFunc(func(bearer string) (tenancy.TenantHandle, error) {
		if bearer == acmeKey {
			panic("what now?")
		}
		return acme, nil
	})
	h, err := build(Config{}.withDefaults(), deps, w)
	if err != nil {
		t.Fatal(err)
	}
	p := wantProblem(t, do(h, "GET", "/v1/posts/a", ""), 500, "internal")
	if !strings.Contains(log.String(), "what now?") || !strings.Contains(log.String(), p.RequestID) {
		t.Errorf("logged: %s", log.String())
	}
	do(h, "GET", "/v1/posts/a", "", "Authorization", "Bearer x")
	do(h, "GET", "/nothing", "")
	do(h, "BREW", "/v1/views", "")
	want := []call{{"GET", "/v1/posts/{id}", 500}, {"GET", "/v1/posts/{id}", 404}, {"GET", "none", 404}, {"other", "none", 405}}
	if diff := cmp.Diff(want, calls, cmp.AllowUnexported(call{})); diff != "" {
		t.Error(diff)
	}
}

// Over a real connection: what is HTTP and not ours must hold together too.
func TestServer(t *testing.T) {
	w := newWorld()
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = Config{}.Server(w.api(t, Config{}))
	srv.Start()
	defer srv.Close()
	for _, c := range []struct {
		name   string
		body   string
		chunks bool
		status int
	}{
		{"views", twoViews, false, 202},
		{"views in chunks", twoViews, true, 202},
		{"too large", strings.Repeat(" ", requestBytesMax+1), false, 413},
		{"too large in chunks", strings.Repeat(" ", requestBytesMax+1), true, 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/v1/views", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.chunks {
				r.ContentLength = -1
			}
			r.Header.Set("Authorization", "Bearer "+acmeKey)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded") // what curl -d sends
			res, err := srv.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != c.status {
				t.Errorf("status %d", res.StatusCode)
			}
		})
	}
}

func TestConfigValidate(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	err := Config{AppendTimeout: -1, AppendsMax: -1, ApplyTimeout: 1 << 44}.Validate()
	for _, part := range []string{"append timeout must not be negative", "must fit into the request timeout", "limits must not be negative"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}
