package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/projections"
)

// What BenchmarkVerify verifies, unless SEENBY_BENCH_VERDICTS says otherwise: posts by popularity (Zipf 1.1), four of
// five pairs of post and viewer seen once, the others twice.
const (
	verifyVerdicts    = 1_000_000
	benchVerdictsName = "SEENBY_BENCH_VERDICTS"
	verifyPosts       = 100_000
	verifyPartitions  = 12
	// verifyRSSMax is the promise: 10 million verdicts under it.
	verifyRSSMax = 256_000_000
)

// BenchmarkVerify runs the real program over real topics and tables that were filled directly, and reports how many
// verdicts it compares a second and its peak resident memory, which the kernel measures.
func BenchmarkVerify(b *testing.B) {
	verdicts := benchVerdicts(b, verifyVerdicts)[0]
	in, _ := install(b)
	binary, err := builtBinary()
	if err != nil {
		b.Fatal(err)
	}
	fill := newVerifyFill(b, in, verdicts)
	fill.topics()
	fill.tables()
	var peak int64
	for b.Loop() {
		cmd := exec.CommandContext(b.Context(), binary, "verify")
		var out bytes.Buffer
		cmd.Env, cmd.Stdout, cmd.Stderr = in.environ, &out, &out
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		used := watchRSS(cmd.Process.Pid)
		if err := cmd.Wait(); err != nil {
			b.Fatalf("%v\n%s", err, &out)
		}
		peak = max(peak, <-used)
		b.ReportMetric((cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()).Seconds()/(float64(verdicts)/1e6), "seenby-cpu-s/M")
	}
	b.ReportMetric(float64(verdicts)*float64(b.N)/b.Elapsed().Seconds(), "verdicts/s")
	b.ReportMetric(float64(peak)/(1<<20), "MiB-peak-RSS")
	b.ReportMetric(float64(fill.pairs), "pairs")
	if peak == 0 || peak > verifyRSSMax {
		b.Errorf("%d verdicts took %d MiB", verdicts, peak>>20)
	}
}

// benchVerdicts are the numbers of verdicts that somebody asks for, with commas between them.
func benchVerdicts(b *testing.B, otherwise int) (sizes []int) {
	b.Helper()
	text := os.Getenv(benchVerdictsName)
	if text == "" {
		return []int{otherwise}
	}
	for _, s := range strings.Split(text, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			b.Fatalf("%s: %v", benchVerdictsName, err)
		}
		sizes = append(sizes, n)
	}
	return sizes
}

// watchRSS gives the peak resident memory of a process once it has ended. What wait4 says of it is no use: there the
// peak of the process that forked is in it.
func watchRSS(pid int) <-chan int64 {
	used := make(chan int64, 1)
	go func() {
		peak := int64(0)
		for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			_, rest, ok := strings.Cut(string(text), "VmHWM:")
			if err != nil || !ok { // it has no memory any more
				used <- peak
				return
			}
			fields := strings.Fields(rest)
			kib, _ := strconv.ParseInt(fields[0], 10, 64)
			peak = max(peak, kib<<10)
		}
	}()
	return used
}

// verifyFill writes topics and tables that belong together, without gate and projectors, which would take longer than
// what is measured. A pair is a function of its number, so that nothing has to be remembered.
type verifyFill struct {
	b     *testing.B
	in    *installation
	pairs int                     // per installation
	of    [verifyPosts + 1]int    // pairs below of[i+1] and not below of[i] are about post i
	base  time.Time               // partition time of everything
	views [verifyPartitions]int64 // offsets

	verdictsOnly bool // for those who do not ask for the views
}

// written is how many verdicts there are.
func (f *verifyFill) written() (n int64) {
	for _, views := range f.views {
		n += views
	}
	return n
}

func newVerifyFill(b *testing.B, in *installation, verdicts int) *verifyFill {
	f := &verifyFill{b: b, in: in, pairs: verdicts * 5 / 6, base: time.Now().Truncate(time.Millisecond)}
	zipf := rand.NewZipf(rand.New(rand.NewPCG(7, 8)), 1.1, 1, verifyPosts-1)
	var counts [verifyPosts]int
	for range f.pairs {
		counts[zipf.Uint64()]++
	}
	for i, n := range counts {
		f.of[i+1] = f.of[i] + n
	}
	return f
}

// each calls f with the pairs of a partition: every verifyPartitions-th of each post.
func (f *verifyFill) each(partition int, do func(pair, post int)) {
	for post := range verifyPosts {
		for pair := f.of[post]; pair < f.of[post+1]; pair++ {
			if pair%verifyPartitions == partition {
				do(pair, post)
			}
		}
	}
}

func (f *verifyFill) viewer(pair int) (p domain.PersonKey) {
	binary.LittleEndian.PutUint64(p[:], uint64(pair)*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(p[8:], uint64(pair))
	return p
}

// times is how often a pair was seen, and twice is every fifth.
func (f *verifyFill) times(pair int) int {
	if (pair/verifyPartitions)%5 == 0 {
		return 2
	}
	return 1
}

func (f *verifyFill) viewedAt(pair, time0 int) time.Time {
	return f.base.Add(-time.Duration(pair%3600_000) * time.Millisecond).Add(time.Duration(time0) * time.Second)
}

func (f *verifyFill) topics() {
	cfg := eventlog.Config{Brokers: f.in.brokers, Prefix: f.in.prefix}
	client, err := kgo.NewClient(append(cfg.ClientOpts(), kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(50_000),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()))...)
	if err != nil {
		f.b.Fatal(err)
	}
	defer client.Close()
	var failed atomic.Pointer[error]
	done := func(_ *kgo.Record, err error) {
		if err != nil {
			failed.CompareAndSwap(nil, &err)
		}
	}
	var work sync.WaitGroup
	for _, verdictsToo := range []bool{false, true} {
		if f.verdictsOnly && !verdictsToo {
			continue
		}
		// Views first: a broker that stamps them is asked afterwards what time they got.
		for p := range verifyPartitions {
			stamps := f.stamps(verdictsToo && !f.verdictsOnly, int32(p))
			work.Go(func() {
				next := int64(0)
				f.each(p, func(pair, post int) {
					for i := range f.times(pair) {
						view := domain.ViewReported{
							Viewer: domain.PersonRef{Tenant: demoTenant, Person: f.viewer(pair)}, Post: benchPost(post), ViewedAt: f.viewedAt(pair, i),
						}
						copy(view.ViewID[:], view.Viewer.Person[:])
						view.ViewID[15] = byte(i + 1)
						var e domain.Event = view
						at := time.Time{}
						if verdictsToo {
							if at = f.base; stamps != nil {
								at = stamps(next)
							}
							e = &domain.Verdict{
								Viewer: view.Viewer, ViewID: view.ViewID, ViewOffset: next, Post: view.Post, Author: domain.PersonKey{1}, PostVersion: 1,
								AudienceKind: "everyone", LimitsRevision: 1, ClaimedAt: view.ViewedAt, ViewedAt: view.ViewedAt, Received: at,
								QuotaFullAt: at.Add(time.Second),
							}
						}
						r, err := cfg.NewRecord(e, int32(p), at)
						done(nil, err)
						client.Produce(context.Background(), r, done)
						next++
					}
				})
				f.views[p] = next
			})
		}
		work.Wait()
		if err := client.Flush(f.b.Context()); err != nil {
			f.b.Fatal(err)
		}
		if err := failed.Load(); err != nil {
			f.b.Fatal(*err)
		}
	}
}

// stamps gives the partition time of each view, in order: the time of the append, as the gate takes it from the log.
func (f *verifyFill) stamps(written bool, partition int32) func(offset int64) time.Time {
	if !written {
		return nil
	}
	log, err := f.in.openLog()
	if err != nil {
		f.b.Fatal(err)
	}
	f.b.Cleanup(log.Close)
	ends, err := log.Ends(f.b.Context(), domain.TopicViews)
	if err != nil {
		f.b.Fatal(err)
	}
	from, times := ends[partition].In().At(0), make(chan time.Time, 10_000)
	go func() {
		defer close(times)
		now := time.Time{}
		if err := log.ReadRange(f.b.Context(), from, ends[partition].NextOffset, func(records []domain.Record) error {
			for _, r := range records {
				if r.Time.After(now) {
					now = r.Time
				}
				times <- now
			}
			return nil
		}); err != nil {
			f.b.Error(err)
		}
	}()
	return func(int64) time.Time { return <-times }
}

func (f *verifyFill) tables() {
	conn, err := pgx.Connect(f.b.Context(), f.in.database)
	if err != nil {
		f.b.Fatal(err)
	}
	defer conn.Close(f.b.Context())
	// The tables are read as they lie, without an index; making one would take the time.
	f.in.mustChange(conn, `ALTER TABLE uniqueviews_v1.unique_views DROP CONSTRAINT unique_views_pkey; DROP INDEX uniqueviews_v1.unique_views_first_viewed_at_idx`)
	type shard struct{ impressions, viewers int64 }
	counts := make([][projections.Shards]shard, verifyPosts)
	rows := make(chan []any, 10_000)
	go func() {
		defer close(rows)
		for p := range verifyPartitions {
			s := projections.Shard(int32(p))
			f.each(p, func(pair, post int) {
				n := f.times(pair)
				counts[post][s].impressions += int64(n)
				counts[post][s].viewers++
				viewer := f.viewer(pair)
				rows <- []any{string(demoTenant), string(benchPost(post)), viewer[:], f.viewedAt(pair, 0), f.viewedAt(pair, n-1), int64(n), s}
			})
		}
	}()
	copyIn := func(projection, table string, columns []string, next func() ([]any, error)) {
		f.b.Helper()
		if _, err := conn.CopyFrom(f.b.Context(), pgx.Identifier{projection + "_v1", table}, columns, pgx.CopyFromFunc(next)); err != nil {
			f.b.Fatal(err)
		}
	}
	copyIn("uniqueviews", "unique_views", []string{"tenant", "post", "viewer", "first_viewed_at", "last_viewed_at", "views", "shard"}, func() ([]any, error) { return <-rows, nil })
	var impressions, viewers [][]any
	for post := range counts {
		for s, c := range counts[post] {
			if c.viewers > 0 {
				impressions = append(impressions, []any{string(demoTenant), string(benchPost(post)), int16(s), c.impressions, int64(0)})
				viewers = append(viewers, []any{string(demoTenant), string(benchPost(post)), int16(s), c.viewers})
			}
		}
	}
	list := func(rows [][]any) func() ([]any, error) {
		return func() (row []any, _ error) {
			if len(rows) > 0 {
				row, rows = rows[0], rows[1:]
			}
			return row, nil
		}
	}
	copyIn("impressions", "impressions", []string{"tenant", "post", "shard", "impressions", "anonymous_impressions"}, list(impressions))
	copyIn("uniqueviews", "unique_view_counts", []string{"tenant", "post", "shard", "unique_viewers"}, list(viewers))
	log, err := f.in.openLog()
	if err != nil {
		f.b.Fatal(err)
	}
	defer log.Close()
	ends, err := log.Ends(f.b.Context(), domain.TopicVerdicts)
	if err != nil {
		f.b.Fatal(err)
	}
	for _, end := range ends {
		for _, name := range []string{"impressions", "uniqueviews"} {
			if _, err := conn.Exec(f.b.Context(), `INSERT INTO positions (projection, version, topic_id, partition, topic, next_offset, view_next_offset) VALUES ($1, 1, $2, $3, $4, $5, $6)`,
				name, [16]byte(end.TopicID), end.Partition, string(end.Topic), end.NextOffset, f.views[end.Partition]); err != nil {
				f.b.Fatal(fmt.Errorf("set the positions: %w", err))
			}
		}
	}
}
