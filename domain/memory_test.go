package domain_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"seenby/domain"
)

// TestRestoredMemoryJudgesAlike is the law that lets the gate keep no other state than its log: a memory
// folded anew from the verdicts that lie within the longest window judges whatever comes as the one that
// lived through all of it.
func TestRestoredMemoryJudgesAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := domain.Limits{
			Revision: 1, DuplicateWindow: 10 * time.Minute, Stale: 9 * time.Minute, Future: time.Minute,
			Quota:   domain.Quota{ViewsPerMinute: 60, BurstViews: 5},
			PostCap: domain.PostCap{Views: 3, Window: 4 * time.Minute},
		}
		lived := domain.NewMemory(limits)
		type committed struct {
			verdict *domain.Verdict
			at      time.Time
		}
		var log []committed
		now := noon
		overlay, batch := lived.Begin(), []committed(nil)
		next := func() domain.ViewRecord {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 900, 1000, 30_000, 240_000, 700_000}).Draw(t, "ms")) * time.Millisecond)
			return domain.ViewRecord{Appended: now, View: domain.ViewReported{
				Viewer: domain.PersonRef{Tenant: tenant, Person: domain.PersonKey{rapid.Byte().Draw(t, "viewer") % 3}},
				ViewID: id(rapid.Byte().Draw(t, "id") % 40),
				Post:   domain.PostID(rapid.SampledFrom([]string{"p", "q"}).Draw(t, "post")),

				Imported: rapid.IntRange(0, 4).Draw(t, "imported") == 0,
			}}
		}
		for range rapid.IntRange(1, 200).Draw(t, "views") {
			v := overlay.Judge(next(), everyones, limits)
			batch = append(batch, committed{v, overlay.Now()})
			switch rapid.IntRange(0, 9).Draw(t, "end of batch") {
			case 0:
				overlay.Commit()
				log, batch = append(log, batch...), nil
				overlay = lived.Begin()
			case 1: // aborted
				overlay, batch = lived.Begin(), nil
			}
		}
		overlay.Commit()
		log = append(log, batch...)

		restored := domain.RestoreMemory(limits, lived.Now())
		for _, c := range log {
			if !c.at.Before(lived.Now().Add(-limits.Window())) {
				restored.Remember(c.verdict, c.at)
			}
		}
		a, b := lived.Begin(), restored.Begin()
		for range 50 {
			r := next()
			if diff := cmp.Diff(a.Judge(r, everyones, limits), b.Judge(r, everyones, limits)); diff != "" {
				t.Fatalf("restored memory judges otherwise (-lived +restored):\n%s", diff)
			}
		}
	})
}

// fill remembers n views, evenly over the duplicate window, by viewers of a view each.
func fill(memory *domain.Memory, n int) {
	rng := rand.New(rand.NewPCG(1, 2))
	step := limits.DuplicateWindow / time.Duration(n)
	for i := range n {
		v := &domain.Verdict{Viewer: domain.PersonRef{Tenant: tenant}, Post: "post-1234567890"}
		for j := range 8 {
			v.Viewer.Person[j], v.ViewID[j] = byte(rng.Uint32()), byte(rng.Uint32())
		}
		at := noon.Add(step * time.Duration(i))
		v.QuotaFullAt = at.Add(100 * time.Millisecond)
		memory.Remember(v, at)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMemoryBytes prints what a remembered view takes: the sizes lie between and at the ends of a
// table's growth.
func BenchmarkMemoryBytes(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000, 1_250_000, 1_600_000, 3_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var bytes float64
			for b.Loop() {
				before := heap()
				memory := domain.NewMemory(limits)
				fill(memory, n)
				bytes = float64(heap()-before) / float64(n)
				runtime.KeepAlive(memory)
			}
			b.ReportMetric(bytes, "bytes/view")
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "views/s")
		})
	}
}

func BenchmarkJudge(b *testing.B) {
	memory := domain.NewMemory(limits)
	fill(memory, 1_000_000)
	rng := rand.New(rand.NewPCG(3, 4))
	now := memory.Now()
	for b.Loop() {
		overlay := memory.Begin()
		for i := range 5000 {
			r := domain.ViewRecord{Offset: int64(i), Appended: now, View: domain.ViewReported{Viewer: domain.PersonRef{Tenant: tenant}, Post: "post-1234567890"}}
			for j := range 8 {
				r.View.Viewer.Person[j], r.View.ViewID[j] = byte(rng.Uint32()), byte(rng.Uint32())
			}
			overlay.Judge(r, everyones, limits)
		}
		overlay.Commit()
		now = now.Add(time.Second)
	}
	b.ReportMetric(5000*float64(b.N)/b.Elapsed().Seconds(), "views/s")
}
