package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// TestIntake is what an api takes in, end to end.
func TestIntake(t *testing.T) {
	in, key := install(t)
	p := in.serve(key, "api,gate,projector,keeper")
	rateStory(t, p, in)
}

// rateStory: an api follows its tenant's rate while it runs.
func rateStory(t *testing.T, p *process, in *installation) {
	send := func(status int, policy string) func() error {
		return func() error {
			a, err := p.do("POST", "/v1/views", nil, viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: "rate", Viewer: "ben"}}})
			if got := a.header.Get("RateLimit-Policy"); err != nil || a.status != status || got != policy {
				return fmt.Errorf("%d, %s: %s %w", a.status, got, a.body, err)
			}
			var problem struct{ Code string }
			if status == http.StatusTooManyRequests && (json.Unmarshal(a.body, &problem) != nil || problem.Code != "rate_limited" ||
				a.header.Get("Retry-After") != "1" || a.header.Get("RateLimit") == "") {
				t.Errorf("%v %s", a.header, a.body)
			}
			return nil
		}
	}
	if err := send(http.StatusAccepted, `"views";q=2000;w=2`)(); err != nil {
		t.Error(err)
	}
	in.setLimits(func(l *domain.Limits) { l.IntakeViewsPerSecond = 1 })
	eventually(t, 10*time.Second, "a view over the new rate to be refused", send(http.StatusTooManyRequests, `"views";q=2;w=2`))
	if a, err := p.do("GET", "/metrics", nil, nil); err != nil || !strings.Contains(string(a.body), `seenby_views_rejected_total{code="rate_limited"} 1`) {
		t.Errorf("no metric of the views over the rate: %v", err)
	}
	in.setLimits(unlimited)
	eventually(t, 10*time.Second, "a view at the next rate to be accepted", send(http.StatusAccepted, `"views";q=20000000;w=2`))
}

// setLimits appends another revision of the tenant demo's limits, as an operator's command does.
func (in *installation) setLimits(change func(*domain.Limits)) {
	in.t.Helper()
	log, err := eventlog.Open(eventlog.Config{Brokers: in.brokers, Prefix: in.prefix})
	if err != nil {
		in.t.Fatal(err)
	}
	defer log.Close()
	now, err := log.Installation(in.t.Context())
	if err != nil {
		in.t.Fatal(err)
	}
	limits := now.Tenants[demoTenant].Limits
	limits.Revision++
	change(&limits)
	if err := limits.Validate(); err != nil {
		in.t.Fatal(err)
	}
	if _, err := log.Append(in.t.Context(), domain.LimitsSet{Tenant: demoTenant, Limits: limits, SetAt: time.Now()}); err != nil {
		in.t.Fatal(err)
	}
}

// unlimited is for tests that send more at once than an api takes by default.
func unlimited(l *domain.Limits) { l.IntakeViewsPerSecond = 10_000_000 }
