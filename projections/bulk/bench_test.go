package bulk_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"runtime"
	"syscall"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/uniqueviews"
)

// The load of projectiontest.BenchmarkApply, as much as a shard of 12 partitions gets of 4 million: posts by Zipf's law,
// viewers evenly, every tenth anonymous.
const (
	benchVerdicts = 1_000_000
	benchPosts    = 100_000
	benchZipf     = 1.1
	benchViewers  = 1_000_000
	benchBatch    = 2000
)

var benchPartition = domain.Partition{Topic: domain.TopicVerdicts, Partition: 3}

type wire struct{ key, value []byte }

func benchWire(b *testing.B) []wire {
	b.Helper()
	r := rand.New(rand.NewSource(1))                     //nolint:gosec // repeatable
	posts := rand.NewZipf(r, benchZipf, 1, benchPosts-1) //nolint:gosec // repeatable
	at := time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC)
	records := make([]wire, benchVerdicts)
	for i := range records {
		v := domain.Verdict{
			Viewer: domain.PersonRef{Tenant: "demo"}, ViewOffset: int64(i), Post: domain.PostID(fmt.Sprintf("post-%d", posts.Uint64())),
			AudienceKind: "everyone", PostVersion: 1, LimitsRevision: 1, Anonymous: i%10 == 0,
			ClaimedAt: at, ViewedAt: at.Add(time.Duration(r.Int63n(int64(24 * time.Hour)))), Received: at, QuotaFullAt: at,
		}
		// Person keys are digests: evenly spread over all their bits.
		viewer := uint64(r.Intn(benchViewers))
		binary.BigEndian.PutUint64(v.Viewer.Person[:], viewer*0x9e3779b97f4a7c15)
		binary.BigEndian.PutUint64(v.Viewer.Person[8:], viewer*0xc2b2ae3d27d4eb4f)
		r.Read(v.ViewID[:]) //nolint:gosec // repeatable
		r.Read(v.Author[:]) //nolint:gosec // repeatable
		key, value, err := eventlog.Encode(&v)
		if err != nil {
			b.Fatal(err)
		}
		records[i] = wire{key, value}
	}
	return records
}

func decode(b *testing.B, batch []wire, from int, into []domain.Record) []domain.Record {
	b.Helper()
	into = into[:0]
	for i, w := range batch {
		e, err := eventlog.Decode(domain.TopicVerdicts, w.key, w.value)
		if err != nil {
			b.Fatal(err)
		}
		into = append(into, domain.Record{Partition: benchPartition, Offset: int64(from + i), Event: e, Key: w.key})
	}
	return into
}

// eachBatch decodes the verdicts batch by batch, as reading them does.
func eachBatch(b *testing.B, records []wire, f func([]domain.Record) error) {
	b.Helper()
	var batch []domain.Record
	for from := 0; from < len(records); from += benchBatch {
		batch = decode(b, records[from:min(from+benchBatch, len(records))], from, batch)
		if err := f(batch); err != nil {
			b.Fatal(err)
		}
	}
}

// cost adds up the processor's time, which does not depend on what else the machine does.
type cost struct{ spent, since time.Duration }

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (c *cost) start(b *testing.B) {
	runtime.GC() // what was left before is nobody's now
	c.since = processorTime(b)
}

func (c *cost) stop(b *testing.B) { c.spent += processorTime(b) - c.since }

func (c *cost) report(b *testing.B, records []wire) {
	b.Helper()
	bytes := 0
	for _, w := range records {
		bytes += len(w.key) + len(w.value)
	}
	seconds := c.spent.Seconds() / float64(b.N)
	b.ReportMetric(float64(len(records))/seconds, "verdicts/cpu-s")
	b.ReportMetric(float64(bytes)/seconds/1e6, "MB/cpu-s")
	b.ReportMetric(seconds/float64(len(records))*1e9, "cpu-ns/verdict")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLoad measures the steps of a bulk load beside their bound, which is decoding: decoding alone, with the check that
// the caller makes, and with the fold; then the rows, which go nowhere. 64 MiB hold all, 8 MiB make several runs.
func BenchmarkLoad(b *testing.B) {
	records := benchWire(b)
	b.Run("decode", func(b *testing.B) {
		var c cost
		for b.Loop() {
			c.start(b)
			eachBatch(b, records, func([]domain.Record) error { return nil })
			c.stop(b)
		}
		c.report(b, records)
	})
	for _, p := range []projections.BulkLoader{impressions.Projection{}, uniqueviews.Projection{}} {
		b.Run(p.Name()+"/decode,check", func(b *testing.B) {
			var c cost
			for b.Loop() {
				c.start(b)
				eachBatch(b, records, func(batch []domain.Record) (err error) {
					for i := 0; i < len(batch) && err == nil; i++ {
						err = p.Check(batch[i])
					}
					return err
				})
				c.stop(b)
			}
			c.report(b, records)
		})
		for _, mib := range []int64{64, 8} {
			b.Run(fmt.Sprintf("%s/%dMiB", p.Name(), mib), func(b *testing.B) {
				var fold, rows cost
				for b.Loop() {
					fold.start(b)
					load, err := p.BulkLoad(projections.Shard(benchPartition.Partition), projections.BulkRoom{MemoryBytes: mib << 20, Dir: b.TempDir()})
					if err != nil {
						b.Fatal(err)
					}
					eachBatch(b, records, load.Add)
					fold.stop(b)
					rows.start(b)
					if err := load.Copy(func(t projections.BulkTable) error {
						_, err := io.Copy(io.Discard, struct{ io.Reader }{t.Rows})
						return err
					}); err != nil {
						b.Fatal(err)
					}
					rows.stop(b)
					runs, _ := load.Spilled()
					b.ReportMetric(float64(runs), "runs")
					if err := load.Close(); err != nil {
						b.Fatal(err)
					}
				}
				fold.report(b, records)
				b.ReportMetric(rows.spent.Seconds()/float64(b.N)/float64(len(records))*1e9, "rows-cpu-ns/verdict")
			})
		}
	}
}
