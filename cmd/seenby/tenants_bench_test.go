package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/postgres"
	"seenby/internal/tenancy"
)

// What BenchmarkTenants does: one tenant's import beside another's views, among many.
const (
	manyTenants     = 200
	importPosts     = 1_000_000
	importMembers   = 10_000_000
	quietFor        = 30 * time.Second
	steadyEvery     = 20 * time.Millisecond
	steadyViews     = 4 // views at each tick: 200 a second
	steadyPosts     = 1000
	steadyViewers   = 100_000
	importTenant    = domain.TenantID("tenant-000")
	other           = domain.TenantID("tenant-001")
	importAudiences = 1000
	settleFor       = 5 * time.Second
)

// importRates leave the machine room, so that what full speed adds can be told from what the import itself costs.
var importRates = []int64{2_000, 5_000, 10_000}

// BenchmarkTenants tells how long the views of one tenant wait for their final verdict, in an installation of 200:
// on posts that are projected, before and while another tenant imports a million posts and ten million memberships;
// and how long the views of posts that are published meanwhile wait.
func BenchmarkTenants(b *testing.B) {
	for b.Loop() {
		in, key := install(b)
		log, store, closeBoth := in.open(b)
		makeTenants(b, log)
		fill(b, log, steadyPosts, func(i int, _ *mathrand.Rand) domain.Event { return openPost(other, benchPost(i)) })
		p := in.serve(key, "api,gate,projector,keeper")
		awaitDrained(b, log, store, domain.TopicPosts, "posts")

		w := newWatch(b, log)
		w.steady(quietFor) // warm
		report := func(during string, took []time.Duration, busy float64) {
			b.ReportMetric(percentile(took, 50), "p50-"+during+"-ms")
			b.ReportMetric(percentile(took, 99), "p99-"+during+"-ms")
			b.ReportMetric(busy, "busy-"+during+"-%")
		}
		busy := startBusy(b)
		report("quiet", w.steady(quietFor), busy())
		started := time.Now()
		imported := newImport(log)
		for _, rate := range importRates {
			imported.rate.Store(rate)
			w.steady(settleFor)
			busy := startBusy(b)
			report(fmt.Sprintf("import-%d/s", rate), w.steady(quietFor), busy())
		}
		imported.rate.Store(0)
		busy = startBusy(b)
		var during []time.Duration
		for done := false; !done; {
			w.publish(b)
			during = append(during, w.steady(time.Second)...)
			select {
			case err := <-imported.done:
				if err != nil {
					b.Fatal(err)
				}
				imported.done <- nil // for the next round
				done = drained(b, log, store)
			default:
			}
		}
		report("import-full", during, busy())
		fresh := w.await(w.fresh)
		b.ReportMetric(percentile(fresh, 50)/1000, "p50-new-post-s")
		b.ReportMetric(percentile(fresh, 100)/1000, "max-new-post-s")
		b.ReportMetric(time.Since(started).Seconds(), "import-s")
		w.stop()
		p.stop()
		closeBoth()
	}
}

func makeTenants(b *testing.B, log *eventlog.Log) {
	b.Helper()
	secret, err := tenancy.NewSecret("0123456789abcdef0123456789abcdef")
	if err != nil {
		b.Fatal(err)
	}
	var all []domain.Event
	for i := range manyTenants {
		var in domain.Installation
		events, err := tenancy.CreateTenant(&in, rand.Reader, time.Now(), secret, domain.TenantID(fmt.Sprintf("tenant-%03d", i)), "")
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, events...)
	}
	if _, err := log.Append(b.Context(), all...); err != nil {
		b.Fatal(err)
	}
}

func openPost(tenant domain.TenantID, id domain.PostID) domain.Event {
	return domain.PostPublished{PostRef: domain.PostKey{Tenant: tenant, Post: id}, EventID: newID(), Audience: domain.AudienceEveryone}
}

// importing is the import of one tenant, while it runs.
type importing struct {
	rate atomic.Int64 // events a second; 0: as fast as it goes
	done chan error
}

func newImport(log *eventlog.Log) *importing {
	im := &importing{done: make(chan error, 1)}
	im.rate.Store(importRates[0])
	go func() {
		err := im.append(log, importPosts, func(i int, _ *mathrand.Rand) domain.Event {
			return domain.PostPublished{PostRef: domain.PostKey{Tenant: importTenant, Post: benchPost(i)}, EventID: newID(), Audience: domain.Audience(fmt.Sprintf("audience:group-%d", i%importAudiences))}
		})
		if err == nil {
			err = im.append(log, importMembers, func(i int, _ *mathrand.Rand) domain.Event {
				var person domain.PersonKey
				binary.BigEndian.PutUint64(person[:], uint64(i/importAudiences)*0x9e3779b97f4a7c15) //nolint:gosec // a spread of small numbers
				return domain.AudienceMemberAdded{Tenant: importTenant, Audience: fmt.Sprintf("group-%d", i%importAudiences), Person: person, EventID: newID()}
			})
		}
		im.done <- err
	}()
	return im
}

// append appends n events at the rate of the moment.
func (im *importing) append(log *eventlog.Log, n int, event func(i int, rng *mathrand.Rand) domain.Event) error {
	return appendAll(context.Background(), log, n, event, func(events int) {
		if rate := im.rate.Load(); rate > 0 {
			time.Sleep(appenders * time.Duration(events) * time.Second / time.Duration(rate))
		}
	})
}

// startBusy measures the share of the machine's processors that is busy, in percent, until the function is called.
func startBusy(b *testing.B) func() float64 {
	b.Helper()
	read := func() (idle, all float64) {
		text, err := os.ReadFile("/proc/stat")
		if err != nil {
			b.Fatal(err)
		}
		line, _, _ := strings.Cut(string(text), "\n")
		for i, f := range strings.Fields(line)[1:] {
			ticks, _ := strconv.ParseFloat(f, 64)
			all += ticks
			if i == 3 || i == 4 { // idle, and waiting for a disk
				idle += ticks
			}
		}
		return idle, all
	}
	idle0, all0 := read()
	return func() float64 {
		idle, all := read()
		return 100 * (1 - (idle-idle0)/(all-all0))
	}
}

func drained(b *testing.B, log *eventlog.Log, store *postgres.Store) bool {
	b.Helper()
	all, err := store.Positions(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, topic := range []domain.Topic{domain.TopicPosts, domain.TopicAudiences} {
		ends, err := log.Ends(b.Context(), topic)
		if err != nil {
			b.Fatal(err)
		}
		for _, end := range ends {
			if passedOffset(all["posts"], topic, end.Partition) < end.NextOffset {
				return false
			}
		}
	}
	return true
}

// watch reports views and reads their verdicts.
type watch struct {
	log  *eventlog.Log
	stop func()

	mu      sync.Mutex
	waiting map[domain.ViewID]time.Time // reported, without a final verdict
	took    map[domain.ViewID]time.Duration
	fresh   []domain.ViewID
	refused int // for good
	seq     uint64
}

func newWatch(b *testing.B, log *eventlog.Log) *watch {
	b.Helper()
	reader, err := log.NewReader()
	if err != nil {
		b.Fatal(err)
	}
	ends, err := log.Ends(b.Context(), domain.TopicVerdicts)
	if err == nil {
		err = reader.Seek(b.Context(), ends)
	}
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	w := &watch{log: log, waiting: map[domain.ViewID]time.Time{}, took: map[domain.ViewID]time.Duration{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			batch, err := reader.Poll(ctx, 10_000)
			if err != nil && ctx.Err() == nil {
				b.Error(err)
				return
			}
			w.take(batch.Records)
		}
	}()
	w.stop = func() { cancel(); <-done; reader.Close() }
	return w
}

func (w *watch) take(records []domain.Record) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range records {
		v, ok := r.Event.(*domain.Verdict)
		if !ok || v.Reason == domain.ReasonUndecided {
			continue
		}
		if at, mine := w.waiting[v.ViewID]; mine {
			w.took[v.ViewID] = now.Sub(at)
			if !v.Counted() {
				w.refused++
			}
			delete(w.waiting, v.ViewID)
		}
	}
}

func (w *watch) view(post domain.PostID) domain.ViewReported {
	w.seq++
	v := domain.ViewReported{Viewer: domain.PersonRef{Tenant: other}, ViewID: newID(), Post: post}
	binary.LittleEndian.PutUint64(v.Viewer.Person[:], (w.seq%steadyViewers)*0x9e3779b97f4a7c15)
	return v
}

func (w *watch) report(views ...domain.ViewReported) error {
	now := time.Now()
	events := make([]domain.Event, len(views))
	w.mu.Lock()
	for i, v := range views {
		events[i], w.waiting[v.ViewID] = v, now
	}
	w.mu.Unlock()
	_, err := w.log.Append(context.Background(), events...)
	return err
}

// steady reports views of projected posts for a while and gives the times until their verdicts.
func (w *watch) steady(d time.Duration) []time.Duration {
	var ids []domain.ViewID
	tick := time.NewTicker(steadyEvery)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		views := make([]domain.ViewReported, steadyViews)
		for i := range views {
			views[i] = w.view(benchPost(mathrand.IntN(steadyPosts)))
			ids = append(ids, views[i].ViewID)
		}
		if err := w.report(views...); err != nil {
			panic(err)
		}
	}
	return w.await(ids)
}

// await gives the times of views once all of them have their verdicts.
func (w *watch) await(ids []domain.ViewID) []time.Duration {
	out := make([]time.Duration, 0, len(ids))
	for _, id := range ids {
		for {
			w.mu.Lock()
			took, ok := w.took[id]
			w.mu.Unlock()
			if ok {
				out = append(out, took)
				break
			}
			time.Sleep(time.Millisecond) // a benchmark: nothing is decided by it
		}
	}
	return out
}

// publish publishes a post and reports a view of it in one breath.
func (w *watch) publish(b *testing.B) {
	b.Helper()
	post := domain.PostID(fmt.Sprintf("new-%d", len(w.fresh)))
	if _, err := w.log.Append(b.Context(), openPost(other, post)); err != nil {
		b.Fatal(err)
	}
	v := w.view(post)
	w.fresh = append(w.fresh, v.ViewID)
	if err := w.report(v); err != nil {
		b.Fatal(err)
	}
}

// percentile is in milliseconds.
func percentile(of []time.Duration, p int) float64 {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return float64(of[min(len(of)-1, len(of)*p/100)].Microseconds()) / 1000
}
