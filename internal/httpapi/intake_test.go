package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"seenby/domain"
)

// intakeWorld is an api whose clock stands until it is moved.
type intakeWorld struct {
	*world
	http.Handler
	now     time.Time
	limited int // views
}

func newIntakeWorld(t *testing.T, viewsPerSecond int64) *intakeWorld {
	t.Helper()
	w := &intakeWorld{world: newWorld(), now: noon}
	w.limits.IntakeViewsPerSecond = viewsPerSecond
	deps := w.deps()
	deps.Now = func() time.Time { return w.now }
	deps.Metrics.ViewsRateLimited = func(n int) { w.limited += n }
	var err error
	if w.Handler, err = build(Config{}.withDefaults(), deps, w.world); err != nil {
		t.Fatal(err)
	}
	return w
}

// send reports n views and checks the fields that say what is left.
func (w *intakeWorld) send(t *testing.T, n int, want, rateLimit, policy string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	view := `{"id":"` + viewUUID + `","viewer":"v","post":"p"}`
	rec := do(w, "POST", "/v1/views", `{"views":[`+view+strings.Repeat(","+view, n-1)+`]}`, headers...)
	if rec.Result().Status != want || rec.Header().Get("RateLimit") != rateLimit || rec.Header().Get("RateLimit-Policy") != policy {
		t.Errorf("%d views: %s, RateLimit: %s, RateLimit-Policy: %s\nwant %s, %s, %s", n,
			rec.Result().Status, rec.Header().Get("RateLimit"), rec.Header().Get("RateLimit-Policy"), want, rateLimit, policy)
	}
	return rec
}

const (
	statusAccepted = "202 Accepted"
	statusLimited  = "429 Too Many Requests"
)

func TestIntakeRate(t *testing.T) {
	const policy = `"views";q=20;w=2`
	w := newIntakeWorld(t, 10)
	w.send(t, 13, statusAccepted, `"views";r=7;t=2`, policy)
	before := len(w.log)
	rec := w.send(t, 8, statusLimited, `"views";r=7;t=2`, policy)
	wantProblem(t, rec, 429, "rate_limited")
	if got := rec.Header().Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After %q, want 1", got)
	}
	if len(w.log) != before || w.limited != 8 {
		t.Errorf("appended %d, %d views limited", len(w.log)-before, w.limited)
	}
	w.send(t, 7, statusAccepted, `"views";r=0;t=2`, policy)
	w.send(t, 1, statusLimited, `"views";r=0;t=2`, policy)
	// The bucket of another tenant is its own.
	w.send(t, 20, statusAccepted, `"views";r=0;t=2`, policy, "Authorization", "Bearer "+otherKey)
	// Retry-After is long enough, and the whole seconds that it counts in are rounded up.
	if got := w.send(t, 12, statusLimited, `"views";r=0;t=2`, policy).Header().Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q, want 2", got)
	}
	w.now = w.now.Add(1200 * time.Millisecond)
	w.send(t, 12, statusAccepted, `"views";r=0;t=2`, policy)
	// No more than the burst gathers.
	w.now = w.now.Add(time.Hour)
	w.send(t, 1, statusAccepted, `"views";r=19;t=1`, policy)
}

// More views than the burst are not refused for ever: a full bucket lets them pass and is in debt for them.
func TestIntakeOfMoreThanTheBurst(t *testing.T) {
	const policy = `"views";q=2;w=2`
	w := newIntakeWorld(t, 1)
	w.send(t, 1, statusAccepted, `"views";r=1;t=1`, policy)
	if got := w.send(t, 7, statusLimited, `"views";r=1;t=1`, policy).Header().Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After %q, want 1", got)
	}
	w.now = w.now.Add(time.Second)
	w.send(t, 7, statusAccepted, `"views";r=0;t=7`, policy)
	if got := w.send(t, 1, statusLimited, `"views";r=0;t=7`, policy).Header().Get("Retry-After"); got != "6" {
		t.Errorf("Retry-After %q, want 6", got)
	}
	w.now = w.now.Add(6 * time.Second)
	w.send(t, 1, statusAccepted, `"views";r=0;t=2`, policy)
}

func TestIntakeFollowsTheLimits(t *testing.T) {
	w := newIntakeWorld(t, 10)
	w.send(t, 20, statusAccepted, `"views";r=0;t=2`, `"views";q=20;w=2`)
	w.limits.IntakeViewsPerSecond = 100
	w.send(t, 1, statusLimited, `"views";r=0;t=2`, `"views";q=200;w=2`)
	w.now = w.now.Add(time.Second)
	w.send(t, 100, statusAccepted, `"views";r=0;t=2`, `"views";q=200;w=2`)
	w.limits.IntakeViewsPerSecond = 2
	w.now = w.now.Add(time.Minute)
	w.send(t, 1, statusAccepted, `"views";r=3;t=1`, `"views";q=4;w=2`)
}

// A request that nothing can be done about takes nothing from the bucket.
func TestIntakeOfBadBodies(t *testing.T) {
	w := newIntakeWorld(t, 10)
	for range 50 {
		wantProblem(t, do(w, "POST", "/v1/views", `{"views":[`), 400, "malformed")
		wantProblem(t, do(w, "POST", "/v1/views", `{"views":{}}`), 422, "invalid")
	}
	w.send(t, 1, statusAccepted, `"views";r=19;t=1`, `"views";q=20;w=2`)
	// The views of one that can be read do, whatever is wrong with them: they cost as much.
	wantProblem(t, do(w, "POST", "/v1/views", `{"views":[{},{}]}`), 422, "invalid")
	w.send(t, 1, statusAccepted, `"views";r=16;t=1`, `"views";q=20;w=2`)
}

// A tenant that is closed after its key was read is one that is not there.
func TestIntakeOfAClosedTenant(t *testing.T) {
	w := newIntakeWorld(t, 10)
	deps := w.deps()
	deps.Tenants = closedTenants{w.world}
	h, err := build(Config{}.withDefaults(), deps, w.world)
	if err != nil {
		t.Fatal(err)
	}
	wantProblem(t, do(h, "POST", "/v1/views", twoViews), 401, "unauthorized")
	if len(w.log) > 0 {
		t.Errorf("appended %v", w.log)
	}
}

type closedTenants struct{ *world }

func (closedTenants) Limits(domain.TenantID) (domain.Limits, bool) { return domain.Limits{}, false }
