package telemetry

import (
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"seenby/domain"
)

// Metrics is every metric of a process. Durations are seconds, lags are events unless they say seconds.
type Metrics struct {
	registry *prometheus.Registry

	viewsAccepted prometheus.Counter
	viewsRejected *prometheus.CounterVec

	verdicts    *prometheus.CounterVec
	batchViews  prometheus.Histogram
	transaction prometheus.Histogram
	restore     prometheus.Histogram
	restored    prometheus.Counter
	failures    *prometheus.CounterVec
	partitions  *prometheus.GaugeVec
	unjudged    *prometheus.GaugeVec

	batchSeconds *prometheus.HistogramVec
	events       *prometheus.CounterVec
	retries      *prometheus.CounterVec

	lagEvents      *prometheus.GaugeVec
	lagSeconds     *prometheus.GaugeVec
	stopped        *prometheus.GaugeVec
	stableDistance *prometheus.GaugeVec
	deadLetters    *prometheus.CounterVec
	parked         *prometheus.GaugeVec

	requests *prometheus.HistogramVec

	keeperPending    prometheus.Gauge
	keeperReadmitted prometheus.Counter
	keeperErased     prometheus.Counter

	relayWaiting    prometheus.Gauge
	relayTold       prometheus.Counter
	relayCalls      *prometheus.HistogramVec
	relayMilestones prometheus.Counter
	relayParked     prometheus.Counter
	relayDisabled   prometheus.Counter
}

// Build says what is running.
type Build struct{ Version, Revision, Go string }

// ReadBuild gives the version and the revision that the Go tool wrote into the binary.
func ReadBuild() Build {
	b := Build{Version: "unknown", Revision: "unknown", Go: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Go = info.GoVersion
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}

// Bucket bounds: a Kafka transaction takes 3 to 4 ms and times out at 6 s; a restore reads up to 25 h of
// verdicts at half a million a second or more; a request waits 30 s at the most.
var (
	transactionBuckets = []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 6}
	restoreBuckets     = []float64{.05, .1, .5, 1, 5, 10, 30, 60, 300}
	batchBuckets       = []float64{1, 10, 50, 100, 500, 1000, 2000, 5000, 10_000, 50_000}
	requestBuckets     = []float64{.001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 5, 10, 30}
)

// NewMetrics makes the metrics in a registry of their own, with those of Go and of the process.
func NewMetrics(build Build) *Metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := &Metrics{
		registry: r,

		viewsAccepted: counter(r, "seenby_views_accepted_total", "Views that stand in the log and were answered with 202."),
		viewsRejected: counters(r, "seenby_views_rejected_total", "Views that the api did not append, by code.", "code"),

		verdicts:    counters(r, "seenby_verdicts_total", "Verdicts whose transaction was committed, by reason; counted: an impression.", "reason"),
		batchViews:  histogram(r, "seenby_gate_batch_views", "Views judged in one Kafka transaction.", batchBuckets),
		transaction: histogram(r, "seenby_gate_transaction_seconds", "Time of one Kafka transaction of the gate, from its begin to its answered commit.", transactionBuckets),
		restore:     histogram(r, "seenby_gate_restore_seconds", "Time in which the gate restored its memory of one partition.", restoreBuckets),
		restored:    counter(r, "seenby_gate_restored_verdicts_total", "Verdicts read to restore memories."),
		failures:    counters(r, "seenby_gate_failures_total", "Sessions of a partition that ended in an error and were opened anew or stopped, by code.", "code"),
		partitions:  gauges(r, "seenby_gate_partitions", "Partitions of views that this process holds, by state; in paused a look-up fails, stopped needs a person.", "state"),
		unjudged:    gauges(r, "seenby_gate_lag_events", "Views without a verdict yet, for partitions that this process judges.", "partition"),

		lagEvents: gauges(r, "seenby_projection_lag_events",
			"Events between a projection's position and the end of the log, for partitions that this process projects.", "projection", "topic", "partition"),
		lagSeconds: gauges(r, "seenby_projection_lag_seconds", "How long ago a projection held everything that was accepted; 0 while it holds everything, whether views wait for a verdict or verdicts for the projection.", "projection"),
		stopped:    gauges(r, "seenby_projection_stopped_workers", "Workers of a projection that have stopped for good, or stand still until dead letters are redriven or discarded: their log line says why.", "projection"),
		stableDistance: gauges(r, "seenby_log_stable_offset_distance_events",
			"High watermark minus last stable offset: what an open transaction holds back from every reader.", "topic", "partition"),
		batchSeconds: histograms(r, "seenby_projection_batch_seconds", "Time of one PostgreSQL transaction of a projector.", transactionBuckets, "projection"),
		events:       counters(r, "seenby_projection_events_total", "Events that a projection passed for good: applied, parked or repeated.", "projection"),
		retries:      counters(r, "seenby_projection_retries_total", "Batches that failed and were tried again.", "projection"),
		deadLetters:  counters(r, "seenby_dead_letters_parked_total", "Events parked because they, or one before them with their key, could not be applied.", "projection"),
		parked: gauges(r, "seenby_dead_letters",
			"Events that are parked now, by whether they only follow another with their key. The same in every process with the role projector.", "projection", "follows"),

		requests: histograms(r, "seenby_http_request_duration_seconds", "HTTP requests by method, route pattern and class of status.", requestBuckets, "method", "route", "status"),

		keeperPending:    gauge(r, "seenby_keeper_pending_views", "Undecided views that wait to be appended again."),
		keeperReadmitted: counter(r, "seenby_keeper_readmitted_views_total", "Undecided views that the keeper appended again."),
		keeperErased:     counter(r, "seenby_keeper_erased_texts_total", "Texts of void events and deleted posts whose tombstones the keeper appended."),

		relayWaiting:    gauge(r, "seenby_relay_waiting_posts", "Posts whose counts may have changed and were not told yet, for partitions that this process tells."),
		relayTold:       counter(r, "seenby_relay_told_total", "Changed counts that were written to the topic impressions."),
		relayCalls:      histograms(r, "seenby_relay_call_seconds", "Calls of tenants' endpoints, from begin to answer, by outcome: delivered, refused, failed, limited, gone.", requestBuckets, "outcome"),
		relayMilestones: counter(r, "seenby_relay_milestones_total", "Calls of milestones that were acknowledged."),
		relayParked:     counter(r, "seenby_relay_parked_total", "Posts and milestones that an endpoint refused and that were parked."),
		relayDisabled:   counter(r, "seenby_relay_disabled_endpoints_total", "Endpoints that were disabled because no call worked for a day, or on their own wish (410)."),
	}
	info := gauges(r, "seenby_build_info", "Always 1; the labels say what is running.", "version", "revision", "go")
	info.WithLabelValues(build.Version, build.Revision, build.Go).Set(1)

	// A rate over a counter that first shows at 1 misses that 1, so the known ones begin at 0.
	m.verdicts.WithLabelValues(reasonLabel(domain.ReasonNone))
	for _, reason := range domain.Reasons {
		m.verdicts.WithLabelValues(reasonLabel(reason))
	}
	for _, code := range []domain.Code{domain.CodeInvalid, domain.CodeTooLarge, domain.CodeRateLimited, domain.CodeUnavailable} {
		m.viewsRejected.WithLabelValues(string(code))
	}
	return m
}

// Registry takes the metrics of libraries; only cmd uses it.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Handler's bounds: a scrape costs a pass over every metric.
const (
	scrapesMax    = 4
	scrapeTimeout = 10 * time.Second
)

// Handler answers /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesMax, Timeout: scrapeTimeout})
}

// ViewsAccepted counts views that were answered with 202.
func (m *Metrics) ViewsAccepted(views int) { m.viewsAccepted.Add(float64(views)) }

// ViewsRejected counts views that were not appended.
func (m *Metrics) ViewsRejected(code domain.Code, views int) {
	m.viewsRejected.WithLabelValues(string(code)).Add(float64(views))
}

// Verdicts counts verdicts of one reason, ReasonNone for counted ones. To be called after the commit.
func (m *Metrics) Verdicts(reason domain.Reason, verdicts int) {
	m.verdicts.WithLabelValues(reasonLabel(reason)).Add(float64(verdicts))
}

func reasonLabel(reason domain.Reason) string {
	if reason == domain.ReasonNone {
		return "counted"
	}
	return string(reason)
}

// GateBatch observes a committed batch: its views and the time of its transaction.
func (m *Metrics) GateBatch(views int, transaction time.Duration) {
	m.batchViews.Observe(float64(views))
	m.transaction.Observe(transaction.Seconds())
}

// GateRestored observes the opening of a partition: the verdicts read and the time it took.
func (m *Metrics) GateRestored(_ int32, verdicts int64, took time.Duration) {
	m.restored.Add(float64(verdicts))
	m.restore.Observe(took.Seconds())
}

// GatePartitions sets how many partitions of views are in a state.
func (m *Metrics) GatePartitions(state string, partitions int) {
	m.partitions.WithLabelValues(state).Set(float64(partitions))
}

// GateLagEvents sets how many views of a partition have no verdict yet.
func (m *Metrics) GateLagEvents(partition int32, views int64) {
	m.unjudged.WithLabelValues(number(partition)).Set(float64(views))
}

// ForgetGateLag drops a partition that this process no longer judges.
func (m *Metrics) ForgetGateLag(partition int32) { m.unjudged.DeleteLabelValues(number(partition)) }

// GateFailed counts a session of a partition that ended in an error.
func (m *Metrics) GateFailed(_ int32, code domain.Code) {
	m.failures.WithLabelValues(string(code)).Inc()
}

// ProjectionBatch observes a committed batch of a projection: the events read, the ones of them that were
// parked, and the time of its transaction.
func (m *Metrics) ProjectionBatch(projection string, read, parked int, took time.Duration) {
	m.events.WithLabelValues(projection).Add(float64(read))
	m.deadLetters.WithLabelValues(projection).Add(float64(parked))
	m.batchSeconds.WithLabelValues(projection).Observe(took.Seconds())
}

// DeadLetters sets how many events of a projection are parked: for what they are, and because they follow others.
func (m *Metrics) DeadLetters(projection string, letters, follow int64) {
	m.parked.WithLabelValues(projection, "false").Set(float64(letters))
	m.parked.WithLabelValues(projection, "true").Set(float64(follow))
}

// ProjectionRetry counts a batch that is tried again.
func (m *Metrics) ProjectionRetry(projection string) { m.retries.WithLabelValues(projection).Inc() }

// ProjectionLagEvents sets how far a projection is behind in one partition.
func (m *Metrics) ProjectionLagEvents(projection string, topic domain.Topic, partition int32, events int64) {
	m.lagEvents.WithLabelValues(projection, string(topic), number(partition)).Set(float64(events))
}

// ForgetProjectionLag drops a partition that this process no longer projects: its last lag would stand for
// ever, beside that of the new owner.
func (m *Metrics) ForgetProjectionLag(projection string, topic domain.Topic, partition int32) {
	m.lagEvents.DeleteLabelValues(projection, string(topic), number(partition))
}

// ProjectionStopped sets how many workers of a projection have stopped until a person acts.
func (m *Metrics) ProjectionStopped(projection string, workers int) {
	m.stopped.WithLabelValues(projection).Set(float64(workers))
}

// ProjectionLag sets how long ago a projection held everything that was accepted.
func (m *Metrics) ProjectionLag(projection string, lag time.Duration) {
	m.lagSeconds.WithLabelValues(projection).Set(lag.Seconds())
}

// StableOffsetDistance sets high watermark minus last stable offset of a partition.
func (m *Metrics) StableOffsetDistance(topic domain.Topic, partition int32, events int64) {
	m.stableDistance.WithLabelValues(string(topic), number(partition)).Set(float64(events))
}

// ForgetStableOffsetDistance drops a partition that this process no longer asks about.
func (m *Metrics) ForgetStableOffsetDistance(topic domain.Topic, partition int32) {
	m.stableDistance.DeleteLabelValues(string(topic), number(partition))
}

// Request observes an HTTP request. Route is the pattern that matched, e.g. /v1/posts/{id}, never the path;
// empty where none did.
func (m *Metrics) Request(method, route string, status int, took time.Duration) {
	if route == "" {
		route = "unmatched"
	}
	m.requests.WithLabelValues(methodLabel(method), route, statusClass(status)).Observe(took.Seconds())
}

// methodLabel folds methods that a client made up into one.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

func statusClass(status int) string {
	if status < 100 || status > 599 {
		return "other"
	}
	return strconv.Itoa(status/100) + "xx"
}

// KeeperPending sets how many undecided views wait.
func (m *Metrics) KeeperPending(views int) { m.keeperPending.Set(float64(views)) }

// KeeperReadmitted counts views that were appended again.
func (m *Metrics) KeeperReadmitted(views int) { m.keeperReadmitted.Add(float64(views)) }

// KeeperErased counts texts whose tombstones were appended.
func (m *Metrics) KeeperErased(texts int) { m.keeperErased.Add(float64(texts)) }

func number(partition int32) string { return strconv.Itoa(int(partition)) }

// RelayWaiting sets how many posts wait to be told.
func (m *Metrics) RelayWaiting(posts int) { m.relayWaiting.Set(float64(posts)) }

// RelayTold counts changed counts on the topic impressions.
func (m *Metrics) RelayTold(posts int) { m.relayTold.Add(float64(posts)) }

// RelayCalled observes one call of an endpoint.
func (m *Metrics) RelayCalled(outcome string, took time.Duration) {
	m.relayCalls.WithLabelValues(outcome).Observe(took.Seconds())
}

// RelayMilestone counts an acknowledged call of a milestone.
func (m *Metrics) RelayMilestone() { m.relayMilestones.Inc() }

// RelayParked counts what an endpoint refused.
func (m *Metrics) RelayParked() { m.relayParked.Inc() }

// RelayDisabled counts an endpoint that was given up.
func (m *Metrics) RelayDisabled() { m.relayDisabled.Inc() }
