package gate

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/testenv"
)

// restorePerSecondGoal is what a restore is to reach; the benchmark prints beside it and does not judge.
const restorePerSecondGoal = 1_000_000

// cpuSeconds is what this process has used: on a busy machine it says more than the clock.
func cpuSeconds() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// BenchmarkRestore opens a partition whose verdicts' topic holds verdicts of the last 20 hours, all counted.
func BenchmarkRestore(b *testing.B) {
	const n = 1_000_000
	for name, kind := range map[string][]testenv.Kind{"kfake": nil, "testenv": {testenv.Given, testenv.Containers}} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, worldOption{kind: kind})
			w.fillVerdicts(n)
			// The views themselves are not read: only their end must be past the last verdict's.
			g, err := New(w.cfg, w.deps(nil))
			check(b, err)
			s := &session{w: newWorker(g, w.views[0]), client: w.client}
			s.windows = windowsOf(domain.DefaultLimits())
			b.ResetTimer()
			cpu := cpuSeconds()
			for b.Loop() {
				read, err := s.restore(w.ctx)
				check(b, err)
				if read != n || s.memory.Len() != n {
					b.Fatalf("read %d, remembers %d", read, s.memory.Len())
				}
			}
			b.ReportMetric(n*float64(b.N)/(cpuSeconds()-cpu), "views/CPU-s") // kfake's part included
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), fmt.Sprintf("views/s(goal:%d)", restorePerSecondGoal))
		})
	}
}

func (w *world) fillVerdicts(n int) {
	w.t.Helper()
	client, err := kgo.NewClient(append(w.kafka.ClientOpts(), kgo.TransactionalID(w.kafka.TransactionalID("fill")),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ManualFlushing(), kgo.MaxBufferedRecords(batchViewsDefault))...)
	check(w.t, err)
	defer client.Close()
	first := time.Now().Add(-30 * time.Hour) // Kafka refuses times that are far ahead of its clock
	for i := 0; i < n; {
		check(w.t, client.BeginTransaction())
		for range batchViewsDefault {
			at := first.Add(time.Duration(i) * (20 * time.Hour / time.Duration(n))).Truncate(time.Millisecond)
			v := view(i%50_000, i, ids(i%1000))
			r, err := w.kafka.NewRecord(&domain.Verdict{
				Viewer: v.Viewer, ViewID: v.ViewID, Post: v.Post, ViewOffset: int64(i), Author: person(9), PostVersion: 1, AudienceKind: "everyone",
				LimitsRevision: 1, ViewedAt: at, Received: at, QuotaFullAt: at.Add(time.Second),
			}, 0, at)
			check(w.t, err)
			client.Produce(w.ctx, r, func(_ *kgo.Record, err error) {
				if err != nil {
					w.t.Errorf("fill: %v", err)
				}
			})
			i++
		}
		check(w.t, client.Flush(w.ctx))
		check(w.t, client.EndTransaction(w.ctx, kgo.TryCommit))
	}
}

// BenchmarkGate drains 12 partitions of views through the gate alone: posts come from memory.
func BenchmarkGate(b *testing.B) {
	const partitions, each = 12, 50_000
	for name, kind := range map[string][]testenv.Kind{"kfake": nil, "testenv": {testenv.Given, testenv.Containers}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				w := newWorld(b, worldOption{kind: kind, partitions: partitions})
				for i := range 1000 {
					w.posts.publish(ids(i))
				}
				w.fillViews(partitions, each)
				left := make(chan struct{})
				remaining := int64(partitions * each)
				var reasons = map[domain.Reason]int{}
				a := &fakeAssigner{changed: make(chan struct{})}
				a.assign(w.views...)
				deps := w.deps(a)
				counts := make(chan [2]any, 1024)
				deps.Hooks.Verdicts = func(r domain.Reason, n int) { counts <- [2]any{r, n} }
				go func() {
					for c := range counts {
						reasons[c[0].(domain.Reason)] += c[1].(int)
						if remaining -= int64(c[1].(int)); remaining == 0 {
							close(left)
							return
						}
					}
				}()
				g, err := New(w.cfg, deps)
				check(b, err)
				ctx, cancel := context.WithCancel(w.ctx)
				done := make(chan struct{})
				b.StartTimer()
				begun, cpu := time.Now(), cpuSeconds()
				go func() { defer close(done); _ = g.Run(ctx) }()
				<-left
				took := time.Since(begun)
				b.ReportMetric(partitions*each/(cpuSeconds()-cpu), "views/CPU-s")
				b.StopTimer()
				cancel()
				<-done
				b.ReportMetric(partitions*each/took.Seconds(), "views/s")
				b.Log(reasons)
				b.StartTimer()
			}
		})
	}
}

func (w *world) fillViews(partitions int32, each int) {
	w.t.Helper()
	client, err := kgo.NewClient(append(w.kafka.ClientOpts(), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.MaxBufferedRecords(100_000))...)
	check(w.t, err)
	defer client.Close()
	for i := range each {
		for p := range partitions {
			n := i*int(partitions) + int(p)
			r, err := w.kafka.NewRecord(view(n%60_000, n, ids(n%1000)), p, time.Time{})
			check(w.t, err)
			client.Produce(w.ctx, r, func(_ *kgo.Record, err error) {
				if err != nil {
					w.t.Errorf("fill: %v", err)
				}
			})
		}
	}
	check(w.t, client.Flush(w.ctx))
}
