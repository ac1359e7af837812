package telemetry

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"seenby/domain"
)

var update = flag.Bool("update", false, "write the golden files")

// used calls every method once, so that every metric has a series.
func used() *Metrics {
	m := NewMetrics(Build{Version: "v1", Revision: "abc", Go: "go1"})
	m.ViewsAccepted(3)
	m.ViewsRejected(domain.CodeInvalid, 2)
	m.Verdicts(domain.ReasonNone, 5)
	m.Verdicts(domain.ReasonDuplicate, 1)
	m.GateBatch(100, 4*time.Millisecond)
	m.GateRestored(1, 500_000, time.Second)
	m.GatePartitions("running", 2)
	m.GateLagEvents(5, 8)
	m.GateLagEvents(4, 8)
	m.ForgetGateLag(4)
	m.GateFailed(1, domain.CodeUnavailable)
	m.ProjectionLagEvents("posts", domain.TopicPosts, 3, 7)
	m.ProjectionLagEvents("posts", domain.TopicPosts, 4, 7)
	m.ForgetProjectionLag("posts", domain.TopicPosts, 4)
	m.ProjectionLag("posts", 1500*time.Millisecond)
	m.ProjectionStopped("posts", 1)
	m.StableOffsetDistance(domain.TopicVerdicts, 0, 9)
	m.StableOffsetDistance(domain.TopicVerdicts, 1, 9)
	m.ForgetStableOffsetDistance(domain.TopicVerdicts, 1)
	m.ProjectionBatch("posts", 40, 1, 5*time.Millisecond)
	m.DeadLetters("posts", 3, 2)
	m.ProjectionRetry("posts")
	m.Request(http.MethodGet, "/v1/posts/{id}", 200, time.Millisecond)
	m.Request("BREW", "", 42, time.Millisecond)
	m.KeeperPending(4)
	m.KeeperReadmitted(6)
	m.KeeperErased(3)
	m.RelayWaiting(5)
	m.RelayTold(7)
	m.RelayCalled("delivered", time.Second)
	m.RelayMilestone()
	m.RelayParked()
	m.RelayDisabled()
	return m
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// Dashboards and alerts hang on names, labels and meanings: a change shows here.
func TestMetricsAreContract(t *testing.T) {
	families, err := used().Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "seenby_") {
			continue
		}
		labels := []string{}
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		_, _ = fmt.Fprintf(&b, "%s{%s} %s\n  %s\n", f.GetName(), strings.Join(labels, ","), strings.ToLower(f.GetType().String()), f.GetHelp())
	}
	const path = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the metrics differ from %s (go test -update writes it):\n%s", path, b.String())
	}
}

func TestMetricsFollowPrometheusHabits(t *testing.T) {
	families, err := used().Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), "seenby_") })
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(families) == 0 {
		t.Fatal(len(families), err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestScrape(t *testing.T) {
	got := scrape(t, used())
	for _, want := range []string{
		"seenby_views_accepted_total 3\n",
		`seenby_views_rejected_total{code="invalid"} 2`,
		`seenby_verdicts_total{reason="counted"} 5`,
		`seenby_verdicts_total{reason="duplicate"} 1`,
		`seenby_verdicts_total{reason="viewer_quota"} 0`, // known before it happens
		`seenby_gate_transaction_seconds_bucket{le="0.005"} 1`,
		`seenby_gate_partitions{state="running"} 2`,
		"seenby_gate_restored_verdicts_total 500000\n",
		`seenby_gate_failures_total{code="unavailable"} 1`,
		`seenby_projection_events_total{projection="posts"} 40`,
		`seenby_dead_letters_parked_total{projection="posts"} 1`,
		`seenby_projection_batch_seconds_count{projection="posts"} 1`,
		`seenby_projection_retries_total{projection="posts"} 1`,
		`seenby_projection_lag_events{partition="3",projection="posts",topic="posts"} 7`,
		`seenby_projection_lag_seconds{projection="posts"} 1.5`,
		`seenby_log_stable_offset_distance_events{partition="0",topic="verdicts"} 9`,
		`seenby_http_request_duration_seconds_count{method="GET",route="/v1/posts/{id}",status="2xx"} 1`,
		`seenby_http_request_duration_seconds_count{method="other",route="unmatched",status="other"} 1`,
		`seenby_build_info{go="go1",revision="abc",version="v1"} 1`,
		"go_goroutines ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q", want)
		}
	}
	for _, gone := range []string{`partition="4"`, `partition="1"`} {
		if strings.Contains(got, gone) {
			t.Errorf("%s was forgotten and still shows", gone)
		}
	}
	if b := ReadBuild(); b.Go == "" || b.Version == "" {
		t.Errorf("build %+v", b)
	}
}

func TestLogger(t *testing.T) {
	var b bytes.Buffer
	for _, test := range []struct{ level, format, want string }{
		{"info", "text", `level=INFO msg=shown role=gate`},
		{"warn", "json", ``},
		{"debug", "json", `"msg":"shown","role":"gate"`},
		{"loud", "text", `error: log level "loud" must be`},
		{"info", "xml", `error: log format "xml" must be`},
	} {
		b.Reset()
		log, err := NewLogger(&b, test.level, test.format)
		if err != nil {
			b.WriteString("error: " + err.Error())
		} else {
			log.Info("shown", "role", "gate")
		}
		if got := b.String(); !strings.Contains(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%s, %s: got %q, want %q", test.level, test.format, got, test.want)
		}
	}
}

func TestLimitMemory(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "") // restored at the end
	_ = os.Unsetenv("GOMEMLIMIT")
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	fails := func(err error) memlimit.Provider { return func() (uint64, error) { return 0, err } }

	if err := limitMemory(log, fails(memlimit.ErrNoCgroup)); err != nil || b.Len() > 0 {
		t.Errorf("outside a container: %v, %s", err, &b)
	}
	if err := limitMemory(log, fails(memlimit.ErrNoLimit)); err != nil || b.Len() > 0 || debug.SetMemoryLimit(-1) != math.MaxInt64 {
		t.Errorf("without a limit: %v, %s", err, &b)
	}
	if err := limitMemory(log, fails(errors.New("away"))); err == nil || !strings.Contains(err.Error(), "limit memory:") {
		t.Errorf("unreadable: %v", err)
	}
	if err := limitMemory(log, memlimit.Limit(10<<30)); err != nil || debug.SetMemoryLimit(-1) != 9<<30 || !strings.Contains(b.String(), "memory_limit_bytes=9663676416") {
		t.Errorf("with a limit: %v, %d, %s", err, debug.SetMemoryLimit(-1), &b)
	}
}
