package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	freshVerdicts = 3_000_000 // in the log and in the live read models when it begins, unless SEENBY_BENCH_VERDICTS says otherwise
	freshViews    = 20        // a request
	freshEvery    = 20 * time.Millisecond
	freshQuiet    = 15 * time.Second
	freshPosts    = 100
)

// BenchmarkRebuildFreshness reports how long it takes from a view's report until a read shows it, while nothing else
// happens and while each of two read models is rebuilt beside it, throttled as by default, on the same machine.
func BenchmarkRebuildFreshness(b *testing.B) {
	binary, err := builtBinary()
	if err != nil {
		b.Fatal(err)
	}
	in, key := install(b)
	in.setLimits(unlimited)
	fill := newVerifyFill(b, in, benchVerdicts(b, freshVerdicts)[0])
	fill.topics()
	fill.tables()
	conn, err := pgx.Connect(b.Context(), in.database)
	if err != nil {
		b.Fatal(err)
	}
	in.mustChange(conn, `ALTER TABLE uniqueviews_v1.unique_views ADD CONSTRAINT unique_views_pkey PRIMARY KEY (tenant, post, viewer);
		CREATE INDEX unique_views_first_viewed_at_idx ON uniqueviews_v1.unique_views (tenant, post, first_viewed_at, viewer); ANALYZE`)
	conn.Close(b.Context())
	api := in.serve(key, "api,gate,projector,keeper")
	for i := range freshPosts {
		api.must(http.StatusCreated, http.MethodPut, fmt.Sprintf("/v1/posts/fresh-%d", i), nil, map[string]any{"author": "author", "audience": "everyone"}, nil)
	}
	for b.Loop() {
		report := func(during string, took []time.Duration) {
			for _, p := range []int{50, 99, 100} {
				b.ReportMetric(percentile(took, p), fmt.Sprintf("ms-p%d-%s", p, during))
			}
		}
		f := startFresh(b, api)
		time.Sleep(freshQuiet) // a benchmark: this is how long it measures
		report("quiet", f.take())
		for _, name := range []string{"uniqueviews", "impressions"} {
			cmd := exec.CommandContext(b.Context(), binary, "rebuild", name)
			var out bytes.Buffer
			cmd.Env, cmd.Stdout, cmd.Stderr = in.environ, &out, &out
			started := time.Now()
			if err := cmd.Run(); err != nil {
				b.Fatalf("%v\n%s", err, &out)
			}
			b.ReportMetric(time.Since(started).Seconds(), "s-"+name)
			report(name, f.take())
			b.Log(out.String())
		}
		f.stop()
		in.command("rebuild", "--drop-old", "--all")
	}
}

// fresh reports views and reads the post with the position that the report gave.
type fresh struct {
	mu   sync.Mutex
	took []time.Duration
	stop func()
}

func startFresh(b *testing.B, api *process) *fresh {
	b.Helper()
	f := &fresh{}
	ending, ended := make(chan struct{}), sync.WaitGroup{}
	f.stop = func() { close(ending); ended.Wait() }
	ended.Go(func() {
		tick := time.NewTicker(freshEvery)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ending:
				return
			case <-tick.C:
			}
			ended.Go(func() { f.one(b, api, n%freshPosts) })
		}
	})
	return f
}

func (f *fresh) one(b *testing.B, api *process, post int) {
	views := make([]any, freshViews)
	for i := range views {
		views[i] = map[string]any{"id": uuid.NewString(), "post": fmt.Sprintf("fresh-%d", post), "viewer": uuid.NewString()}
	}
	started := time.Now()
	a, err := api.do(http.MethodPost, "/v1/views", nil, map[string]any{"views": views})
	if err != nil || a.status != http.StatusAccepted {
		b.Errorf("views: %v %v", a.status, err)
		return
	}
	status, err := api.get(fmt.Sprintf("/v1/posts/fresh-%d", post), waitFor(a.header.Get("Seenby-Position")), nil)
	if err != nil || status != http.StatusOK {
		b.Errorf("read: %d %v", status, err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.took = append(f.took, time.Since(started))
}

func (f *fresh) take() []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	took := f.took
	f.took = nil
	return took
}
