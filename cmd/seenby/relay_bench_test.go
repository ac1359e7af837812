package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/tenancy"
)

const (
	tellPosts      = 1000
	tellRate       = 5000 // views a second
	tellBatch      = 100
	tellFor        = 30 * time.Second
	tellViewers    = 20_000 // so that none is refused for being one of many
	tellTenants    = 1000
	tellTenantRate = 2000
	tellSmallBatch = 10
	tellWithin     = 3 * time.Minute
)

// telling is a core system that measures: from a view's 202 until a value that has it was told.
type telling struct {
	url string

	mu    sync.Mutex
	posts map[string]*tellingPost // by tenant and post
	took  []time.Duration
	calls []time.Time
	over  int    // batches that were answered with anything but 202: the machine cannot take the rate
	hangs string // tenant whose calls are not answered
}

// tellingPost is one post. A value of n is the first n views that were accepted.
type tellingPost struct {
	tenant   string
	accepted []time.Time
	told     int
	toldAt   time.Time
}

func newTelling(b *testing.B) *telling {
	b.Helper()
	m := &telling{posts: map[string]*tellingPost{}}
	server := httptest.NewServer(http.HandlerFunc(m.serve))
	b.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	m.url = server.URL
	return m
}

func (m *telling) serve(w http.ResponseWriter, req *http.Request) {
	var body callBody
	if req.Method == http.MethodGet {
		io.WriteString(w, `{"posts":[]}`) //nolint:errcheck // the command says so
		return
	}
	if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	hangs := m.hangs == body.Data.Tenant
	m.mu.Unlock()
	if hangs {
		io.Copy(io.Discard, req.Body) //nolint:errcheck // so that the end of the connection is seen
		<-req.Context().Done()
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.calls = append(m.calls, now)
	for _, p := range body.Data.Posts {
		post := m.post(body.Data.Tenant, p.Post)
		for n := post.told; n < min(int(p.Impressions), len(post.accepted)); n++ {
			m.took = append(m.took, now.Sub(post.accepted[n]))
		}
		post.told, post.toldAt = max(post.told, int(p.Impressions)), now
	}
	w.WriteHeader(http.StatusNoContent)
}

func (m *telling) post(tenant, id string) *tellingPost {
	key := tenant + "/" + id
	if m.posts[key] == nil {
		m.posts[key] = &tellingPost{tenant: tenant}
	}
	return m.posts[key]
}

// accept notes views that got their 202 now.
func (m *telling) accept(tenant string, views []viewItem) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, v := range views {
		post := m.post(tenant, v.Post)
		post.accepted = append(post.accepted, now)
		if len(post.accepted) <= post.told { // told before its reporter knew
			m.took = append(m.took, 0)
		}
	}
}

// settle waits until all is told, but to the one that hangs, and hands out how long that took.
func (m *telling) settle(b *testing.B) (took []time.Duration, calls []time.Time) {
	b.Helper()
	eventually(b, tellWithin, "everything to be told", func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		for key, p := range m.posts {
			if p.told < len(p.accepted) && p.tenant != m.hangs {
				return fmt.Errorf("%d of %d of %s", p.told, len(p.accepted), key)
			}
		}
		return nil
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	took, calls = m.took, m.calls
	if m.over > 0 {
		b.Logf("%d batches were not accepted", m.over)
	}
	m.took, m.calls, m.over = nil, nil, 0
	return took, calls
}

// report sends batches at a rate, whether or not those before were answered.
func (m *telling) report(b *testing.B, api string, every, lasts time.Duration, batch func() (tenant, key string, views []viewItem)) {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	var under sync.WaitGroup
	defer under.Wait()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for end := time.Now().Add(lasts); time.Now().Before(end); <-tick.C {
		tenant, key, views := batch()
		under.Go(func() {
			text, _ := json.Marshal(viewsBody{Views: views}) // of a struct of strings
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, api+"/v1/views", bytes.NewReader(text))
			if err != nil {
				b.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Authorization", "Bearer "+key)
			a, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			defer a.Body.Close()
			if a.StatusCode != http.StatusAccepted {
				m.mu.Lock()
				m.over++
				m.mu.Unlock()
				return
			}
			m.accept(tenant, views)
		})
	}
}

func tellViews(n, posts int) []viewItem {
	views := make([]viewItem, n)
	for i := range views {
		views[i] = viewItem{ID: uuid.NewString(), Post: string(benchPost(mathrand.IntN(posts))), Viewer: fmt.Sprintf("viewer-%d", mathrand.IntN(tellViewers))}
	}
	return views
}

// BenchmarkRelay reports 5,000 views a second, and tells how long it takes from a view's 202 until the core system is told a
// count that has it; over 1,000 posts, and all on one, where calls a second count too. All roles and the core system share the
// machine with Kafka and PostgreSQL.
func BenchmarkRelay(b *testing.B) {
	for _, tt := range []struct {
		name        string
		posts, rate int
	}{{"1000-posts", tellPosts, tellRate}, {"1000-posts-half-the-rate", tellPosts, tellRate / 2}, {"viral", 1, tellRate}} {
		b.Run(tt.name, func(b *testing.B) {
			for b.Loop() {
				in, key := install(b)
				in.setLimits(unlimited)
				log, store, closeBoth := in.open(b)
				core := newTelling(b)
				in.command("relay", "endpoints", "create", "demo", core.url+"/seenby", "--allow-private")
				in.command("relay", "enable", "demo")
				fill(b, log, tellPosts, func(i int, _ *mathrand.Rand) domain.Event { return openPost(demoTenant, benchPost(i)) })
				p := in.serve(key, relayRoles)
				awaitDrained(b, log, store, domain.TopicPosts, "posts")
				batch := func() (string, string, []viewItem) { return "demo", key, tellViews(tellBatch, tt.posts) }
				every := tellBatch * time.Second / time.Duration(tt.rate)
				core.report(b, p.api, every, settleFor, batch) // warm
				core.settle(b)
				busy := startBusy(b)
				core.report(b, p.api, every, tellFor, batch)
				percent := busy()
				took, calls := core.settle(b)
				b.ReportMetric(float64(len(took))/tellFor.Seconds(), "views/s")
				b.ReportMetric(percentile(took, 50), "p50-ms")
				b.ReportMetric(percentile(took, 99), "p99-ms")
				b.ReportMetric(float64(len(calls))/tellFor.Seconds(), "calls/s")
				b.ReportMetric(float64(mostWithin(calls, 10*time.Second))/10, "most-calls/s-over-10s")
				b.ReportMetric(percent, "busy-%")
				p.stop()
				closeBoth()
			}
		})
	}
}

// mostWithin is the greatest number of times that lie within a window.
func mostWithin(times []time.Time, window time.Duration) (most int) {
	slices.SortFunc(times, time.Time.Compare)
	first := 0
	for i, at := range times {
		for at.Sub(times[first]) >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// BenchmarkRelayTenants reports 2,000 views a second over 1,000 tenants with an endpoint each, and tells how long it takes until
// the core systems are told, first while all answer, then the others' while one hangs.
func BenchmarkRelayTenants(b *testing.B) {
	for b.Loop() {
		in, key := install(b)
		log, store, closeBoth := in.open(b)
		core := newTelling(b)
		keys := tellTenantsOf(b, log, core.url)
		p := in.serve(key, relayRoles)
		awaitDrained(b, log, store, domain.TopicPosts, "posts")
		batch := func() (string, string, []viewItem) {
			n := mathrand.IntN(tellTenants)
			return string(tellTenant(n)), keys[n], tellViews(tellSmallBatch, 1)
		}
		every := tellSmallBatch * time.Second / tellTenantRate
		core.report(b, p.api, every, settleFor, batch) // warm
		core.settle(b)
		for _, hangs := range []string{"", string(tellTenant(0))} {
			core.mu.Lock()
			core.hangs = hangs
			core.mu.Unlock()
			busy := startBusy(b)
			core.report(b, p.api, every, tellFor, batch)
			percent := busy()
			took, calls := core.settle(b)
			during := "all-answer"
			if hangs != "" {
				during = "one-hangs"
			}
			b.ReportMetric(percentile(took, 50), "p50-"+during+"-ms")
			b.ReportMetric(percentile(took, 99), "p99-"+during+"-ms")
			b.ReportMetric(float64(len(calls))/tellFor.Seconds(), "calls/s-"+during)
			b.ReportMetric(percent, "busy-"+during+"-%")
		}
		p.stop()
		closeBoth()
	}
}

func tellTenant(n int) domain.TenantID { return domain.TenantID(fmt.Sprintf("tenant-%04d", n)) }

// tellTenantsOf makes tenants with a key, an endpoint, a relay that is enabled, and a post, and gives the keys.
func tellTenantsOf(b *testing.B, log *eventlog.Log, url string) (keys []string) {
	b.Helper()
	secret, err := tenancy.NewSecret("0123456789abcdef0123456789abcdef")
	if err != nil {
		b.Fatal(err)
	}
	var in domain.Installation
	var all, published []domain.Event
	now, on := time.Now(), true
	decide := func(events []domain.Event, err error) {
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range events {
			in.Apply(e)
		}
		all = append(all, events...)
	}
	for n := range tellTenants {
		id := tellTenant(n)
		decide(tenancy.CreateTenant(&in, rand.Reader, now, secret, id, ""))
		plain, issued, err := tenancy.IssueKey(&in, rand.Reader, now, id, "")
		decide([]domain.Event{issued}, err)
		keys = append(keys, plain)
		_, events, err := tenancy.CreateEndpoint(&in, rand.Reader, now, id, url+"/"+string(id), true)
		decide(events, err)
		_, events, err = tenancy.SetRelay(&in, now, id, &on, nil)
		decide(events, err)
		published = append(published, openPost(id, benchPost(0)))
	}
	if _, err := log.Append(b.Context(), append(all, published...)...); err != nil {
		b.Fatal(err)
	}
	return keys
}
