package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/postgres"
	"seenby/projections"
)

// What BenchmarkDrain drains: posts by popularity (Zipf 1.1), viewers evenly.
const (
	drainViews   = 400_000
	drainPosts   = 20_000
	drainViewers = 1_000_000
)

// BenchmarkDrain fills the topic views and then measures how fast the gate and all projections work it off,
// while Kafka and PostgreSQL share the machine; CPU-seconds per million views by process.
func BenchmarkDrain(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		in, key := install(b)
		log, store, closeBoth := in.open(b)
		in.publishPosts(b, key, log, store)
		fillViews(b, log)
		before := cpuSeconds(b)
		b.StartTimer()
		started := time.Now()
		p := in.serve(key, "api,gate,projector,keeper")
		awaitDrained(b, log, store, domain.TopicViews, "impressions", "uniqueviews")
		took := time.Since(started)
		b.StopTimer()
		b.ReportMetric(drainViews/took.Seconds(), "views/s")
		for name, after := range cpuSeconds(b) {
			b.ReportMetric((after-before[name])/(drainViews/1e6), name+"-cpu-s/M")
		}
		p.stop()
		closeBoth()
		b.StartTimer()
	}
}

// open gives a benchmark its own way to Kafka and PostgreSQL, until it is closed.
func (in *installation) open(b *testing.B) (*eventlog.Log, *postgres.Store, func()) {
	b.Helper()
	log, err := eventlog.Open(eventlog.Config{Brokers: in.brokers, Prefix: in.prefix})
	if err != nil {
		b.Fatal(err)
	}
	store, err := postgres.Open(b.Context(), postgres.Config{URL: in.database})
	if err != nil {
		b.Fatal(err)
	}
	return log, store, func() { store.Close(); log.Close() }
}

// publishPosts fills the topic posts and its read model.
func (in *installation) publishPosts(b *testing.B, key string, log *eventlog.Log, store *postgres.Store) {
	b.Helper()
	fillPosts(b, log)
	projectors := in.serve(key, "projector")
	awaitDrained(b, log, store, domain.TopicPosts, "posts")
	projectors.stop()
}

func fillPosts(b *testing.B, log *eventlog.Log) {
	b.Helper()
	fill(b, log, drainPosts, func(i int, rng *rand.Rand) domain.Event {
		e := domain.PostPublished{PostRef: domain.PostKey{Tenant: demoTenant, Post: benchPost(i)}, Audience: domain.AudienceEveryone}
		e.EventID = newID()
		binary.LittleEndian.PutUint64(e.Author[:], rng.Uint64())
		return e
	})
}

func benchPost(i int) domain.PostID { return domain.PostID(fmt.Sprintf("post-%06d", i)) }

func fillViews(b *testing.B, log *eventlog.Log) {
	b.Helper()
	now := time.Now()
	zipf := rand.NewZipf(rand.New(rand.NewPCG(7, 8)), 1.1, 1, drainPosts-1)
	var mu sync.Mutex
	fill(b, log, drainViews, func(_ int, rng *rand.Rand) domain.Event {
		mu.Lock()
		post := int(zipf.Uint64()) //nolint:gosec // below drainPosts
		mu.Unlock()
		e := domain.ViewReported{Viewer: domain.PersonRef{Tenant: demoTenant}, ViewID: newID(), Post: benchPost(post), ViewedAt: now}
		binary.LittleEndian.PutUint64(e.Viewer.Person[:], rng.Uint64N(drainViewers)*0x9e3779b97f4a7c15)
		return e
	})
}

// fill appends n events as fast as it goes.
func fill(b *testing.B, log *eventlog.Log, n int, event func(i int, rng *rand.Rand) domain.Event) {
	b.Helper()
	if err := appendAll(b.Context(), log, n, event, func(int) {}); err != nil {
		b.Fatal(err)
	}
}

// appenders is how many goroutines append at the same time, so that filling is not what takes the time.
const appenders = 4

// appendAll appends n events; each appender calls pause after so many of them.
func appendAll(ctx context.Context, log *eventlog.Log, n int, event func(i int, rng *rand.Rand) domain.Event, pause func(events int)) error {
	const batch = 500
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for w := range uint64(appenders) {
		group.Go(func() error {
			rng := rand.New(rand.NewPCG(w, 1))
			for {
				from := int(next.Add(batch)) - batch
				if from >= n {
					return nil
				}
				events := make([]domain.Event, min(batch, n-from))
				for i := range events {
					events[i] = event(from+i, rng)
				}
				if _, err := log.Append(ctx, events...); err != nil {
					return err
				}
				pause(len(events))
			}
		})
	}
	return group.Wait()
}

// awaitDrained waits until projections have passed the end of an input topic.
func awaitDrained(b *testing.B, log *eventlog.Log, store *postgres.Store, topic domain.Topic, names ...string) {
	b.Helper()
	ends, err := log.Ends(b.Context(), topic)
	if err != nil {
		b.Fatal(err)
	}
	eventually(b, 1*time.Minute, "the topic to be drained", func() error {
		all, err := store.Positions(b.Context())
		if err != nil {
			return err
		}
		for _, name := range names {
			for _, end := range ends {
				if at := passedOffset(all[name], topic, end.Partition); at < end.NextOffset {
					return fmt.Errorf("%s stands at %d of %d in partition %d", name, at, end.NextOffset, end.Partition)
				}
			}
		}
		return nil
	})
}

func passedOffset(rows []projections.PositionRow, topic domain.Topic, partition int32) int64 {
	for _, r := range rows {
		switch {
		case r.Partition != partition:
		case topic == domain.TopicViews && r.Topic == domain.TopicVerdicts:
			return r.ViewNextOffset
		case r.Topic == topic:
			return r.NextOffset
		}
	}
	return 0
}

// cpuSeconds are those that the processes of this machine have used, ended children included.
func cpuSeconds(b *testing.B) map[string]float64 {
	b.Helper()
	const ticksPerSecond = 100
	out := map[string]float64{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		name, rest, ok := strings.Cut(string(text), ") ")
		if !ok {
			continue
		}
		_, name, _ = strings.Cut(name, "(")
		switch {
		case strings.HasSuffix(filepath.Dir(path), "/"+strconv.Itoa(os.Getpid())):
			name = "seenby"
		case name == "java":
			name = "kafka"
		case name != "postgres":
			continue
		}
		fields := strings.Fields(rest)
		for _, f := range fields[11:15] { // utime, stime and those of ended children
			ticks, _ := strconv.ParseFloat(f, 64)
			out[name] += ticks / ticksPerSecond
		}
	}
	return out
}

// BenchmarkIntake sends batches of 100 views to the api, and to a bare handler that decodes the same body and
// produces as many records of the same bytes to the same Kafka: the bound.
func BenchmarkIntake(b *testing.B) {
	in, key := install(b)
	in.setLimits(unlimited)
	p := in.serve(key, "api")
	bare := httptest.NewServer(bareHandler(b, in))
	b.Cleanup(bare.Close)
	b.Run("bare", func(b *testing.B) { intake(b, bare.URL, key) })
	b.Run("seenby", func(b *testing.B) { intake(b, p.api, key) })
}

const (
	intakeViews   = 100
	intakeClients = 8
)

func intake(b *testing.B, url, key string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: intakeClients}}
	b.SetParallelism(intakeClients / 2)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url+"/v1/views", bytes.NewReader(intakeBody()))
			if err != nil {
				b.Error(err)
				return
			}
			req.Header.Set("Authorization", "Bearer "+key)
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body) //nolint:errcheck // only its status matters
			resp.Body.Close()
			if resp.StatusCode != http.StatusAccepted {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
	b.ReportMetric(intakeViews*float64(b.N)/b.Elapsed().Seconds(), "views/s")
}

func intakeBody() []byte {
	body := viewsBody{Views: make([]viewItem, intakeViews)}
	at := time.Now().UTC()
	for i := range body.Views {
		body.Views[i] = viewItem{ID: uuid.NewString(), Post: fmt.Sprintf("post-%06d", rand.IntN(drainPosts)), Viewer: fmt.Sprintf("viewer-%d", rand.IntN(10_000)), ViewedAt: &at}
	}
	text, _ := json.Marshal(body) // of a struct of strings
	return text
}

func bareHandler(b *testing.B, in *installation) http.Handler {
	b.Helper()
	cfg := eventlog.Config{Brokers: in.brokers, Prefix: in.prefix}
	client, err := kgo.NewClient(append(cfg.ClientOpts(), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()))...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	var partition atomic.Int32
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		var body struct {
			Views []struct {
				ID       uuid.UUID `json:"id"`
				Post     string    `json:"post"`
				Viewer   string    `json:"viewer"`
				ViewedAt time.Time `json:"viewed_at"`
			} `json:"views"`
		}
		if err == nil {
			err = jsonv2.Unmarshal(text, &body)
		}
		records := make([]*kgo.Record, len(body.Views))
		for i, v := range body.Views {
			e := domain.ViewReported{Viewer: domain.PersonRef{Tenant: demoTenant}, ViewID: domain.ViewID(v.ID), Post: domain.PostID(v.Post), ViewedAt: v.ViewedAt}
			copy(e.Viewer.Person[:], v.Viewer)
			if records[i], err = cfg.NewRecord(e, partition.Add(1)%12, time.Time{}); err != nil {
				break
			}
		}
		if err == nil {
			err = client.ProduceSync(r.Context(), records...).FirstErr()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, `{"accepted":%d}`, len(records))
	})
}
