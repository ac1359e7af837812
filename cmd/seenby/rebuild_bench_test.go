package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"seenby/domain"
	"seenby/projections"
)

// rebuildVerdicts is how many verdicts BenchmarkRebuild rebuilds from, unless SEENBY_BENCH_VERDICTS says otherwise.
const rebuildVerdicts = 1_000_000

// rebuildMemoryMax is the default of --memory, which the process must not exceed.
const rebuildMemoryMax = 512 << 20

// BenchmarkRebuild rebuilds impressions and uniqueviews by the real program from real topics, and reports how many
// verdicts a second that is beside what bounds it, in the same run: reading and decoding alone, and copying the same rows
// into a table without an index and making its key, each beside the same by the tools of Kafka and PostgreSQL.
func BenchmarkRebuild(b *testing.B) {
	binary, err := builtBinary()
	if err != nil {
		b.Fatal(err)
	}
	for _, verdicts := range benchVerdicts(b, rebuildVerdicts) {
		b.Run(fmt.Sprint(verdicts), func(b *testing.B) {
			in, _ := install(b)
			fill := newVerifyFill(b, in, verdicts)
			fill.verdictsOnly = true
			fill.topics()
			bench := &rebuildBench{B: b, in: in, binary: binary, verdicts: fill.written()}
			for b.Loop() {
				bench.run()
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

type rebuildBench struct {
	*testing.B
	in       *installation
	binary   string
	verdicts int64
}

func (b *rebuildBench) report(took time.Duration, name string) float64 {
	rate := float64(b.verdicts) / took.Seconds()
	b.ReportMetric(rate/1000, "k/s-"+name)
	return rate
}

func (b *rebuildBench) run() {
	read := b.report(b.consume(), "read")
	tool := b.report(b.consumeByTool(), "read-by-kafka")
	b.ReportMetric(read/tool, "read/kafka")
	rebuilt := b.report(b.rebuild("impressions"), "impressions")
	b.ReportMetric(rebuilt/read, "impressions/read")
	live := 0.0
	if b.verdicts <= liveVerdictsMax {
		live = b.report(b.projector(), "live-uniqueviews")
	}
	rebuilt = b.report(b.rebuild("uniqueviews"), "uniqueviews")
	if live > 0 {
		b.ReportMetric(rebuilt/live, "uniqueviews/live")
	}
	ours, tools, second := b.copyAndKey()
	copied := b.report(ours, "copy-and-key")
	b.ReportMetric(copied/b.report(tools, "copy-and-key-by-psql"), "copy/psql")
	b.ReportMetric(rebuilt/copied, "uniqueviews/copy")
	b.ReportMetric(rebuilt/b.report(ours+second, "copy-and-both-indexes"), "uniqueviews/copy-and-both")
	b.in.command("rebuild", "--drop-old", "--all")
}

// liveVerdictsMax bounds how long the ordinary projector is waited for. What it holds is then what the rebuild is proven by.
const liveVerdictsMax = 6_000_000

// projector is the time that the ordinary projector takes for all of it, in a process of its own, from its first batch on.
func (b *rebuildBench) projector() time.Duration {
	log, err := b.in.openLog()
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	ends, err := log.Ends(b.Context(), domain.TopicVerdicts)
	if err != nil {
		b.Fatal(err)
	}
	want := int64(0)
	for _, end := range ends {
		want += end.NextOffset
	}
	conn, err := pgx.Connect(b.Context(), b.in.database)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(context.Background())
	cmd := exec.CommandContext(b.Context(), b.binary, "serve", "--roles", "projector", "--projections", "uniqueviews", "--allow-undurable", "--http-addr", freeAddr(b))
	cmd.Env = b.in.environ
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() }()
	var started time.Time
	for {
		var done int64
		if err := conn.QueryRow(b.Context(), `SELECT COALESCE(sum(next_offset), 0) FROM positions WHERE projection = 'uniqueviews' AND version = 1`).Scan(&done); err != nil {
			b.Fatal(err)
		}
		switch {
		case done >= want:
			return time.Since(started)
		case done > 0 && started.IsZero():
			started = time.Now()
		}
		time.Sleep(20 * time.Millisecond) // a benchmark: it looks, and nothing is decided by it
	}
}

// consume reads and decodes the log as a rebuild does, and does nothing with it.
func (b *rebuildBench) consume() time.Duration {
	log, err := b.in.openLog()
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	ends, err := log.Ends(b.Context(), domain.TopicVerdicts)
	if err != nil {
		b.Fatal(err)
	}
	defer boundHeap()()
	var n atomic.Int64
	started := time.Now()
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(2)
	for shard := range int16(projections.Shards) {
		var from, to []domain.Position
		for _, end := range ends {
			if projections.Shard(end.Partition) == shard {
				from, to = append(from, end.In().At(0)), append(to, end)
			}
		}
		group.Go(func() error {
			return rebuildLog{log}.ReadRanges(ctx, from, to, func(records []domain.Record) error {
				n.Add(int64(len(records)))
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil || n.Load() != b.verdicts {
		b.Fatalf("%d of %d verdicts were read: %v", n.Load(), b.verdicts, err)
	}
	return time.Since(started)
}

var perfLine = regexp.MustCompile(`(?m)^\d{4}-.*$`)

// consumeByTool is Kafka's own measurement of the same topic, without the start of its JVM and of its group.
func (b *rebuildBench) consumeByTool() time.Duration {
	out, err := exec.CommandContext(b.Context(), "docker", "run", "--rm", "--network", "host", "--entrypoint", "/opt/kafka/bin/kafka-consumer-perf-test.sh",
		os.Getenv("KAFKA_IMAGE"), "--bootstrap-server", b.in.brokers[0], "--topic", b.in.prefix+string(domain.TopicVerdicts),
		"--messages", fmt.Sprint(b.verdicts), "--timeout", "60000").CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	// start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, ...
	fields := strings.Split(perfLine.FindString(string(out)), ",")
	if len(fields) < 8 {
		b.Fatalf("not understood:\n%s", out)
	}
	n, errN := strconv.ParseInt(strings.TrimSpace(fields[4]), 10, 64)
	millis, errMillis := strconv.ParseInt(strings.TrimSpace(fields[7]), 10, 64)
	if errN != nil || errMillis != nil || n < b.verdicts {
		b.Fatalf("not understood:\n%s", out)
	}
	return time.Duration(float64(millis) / float64(n) * float64(b.verdicts) * float64(time.Millisecond))
}

var tookPhase = regexp.MustCompile(`(load|keys|catch up) ([0-9.a-zµ]+)`)

// rebuild is the time that loading, keys and catching up take, and watches the memory.
func (b *rebuildBench) rebuild(name string) time.Duration {
	cmd := exec.CommandContext(b.Context(), b.binary, "rebuild", name, "--lag-max", "0")
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = b.in.environ, &out, &out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	used := watchRSS(cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		b.Fatalf("%v\n%s", err, &out)
	}
	peak := <-used
	b.ReportMetric(float64(peak)/(1<<20), "MiB-"+name)
	b.ReportMetric((cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()).Seconds()/(float64(b.verdicts)/1e6), "cpu-s/M-"+name)
	if peak == 0 || peak > rebuildMemoryMax {
		b.Errorf("%s took %d MiB", name, peak>>20)
	}
	all := time.Duration(0)
	_, line, _ := strings.Cut(out.String(), "\nTook: ")
	line, _, _ = strings.Cut(line, "\n")
	for _, m := range tookPhase.FindAllStringSubmatch(line, -1) {
		took, err := time.ParseDuration(m[2])
		if err != nil {
			b.Fatalf("%v\n%s", err, &out)
		}
		all += took
		b.ReportMetric(took.Seconds(), "s-"+name+"-"+strings.ReplaceAll(m[1], " ", "-"))
	}
	if all == 0 {
		b.Fatalf("no times in:\n%s", &out)
	}
	return all
}

// copyAndKey copies the rows of unique_views, which the rebuild has made, into tables without indexes and makes their key;
// second is what the other index of that table takes.
func (b *rebuildBench) copyAndKey() (ours, tool, second time.Duration) {
	conn, err := pgx.Connect(b.Context(), b.in.database)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(context.Background())
	file, err := os.Create(filepath.Join(b.TempDir(), "rows"))
	if err != nil {
		b.Fatal(err)
	}
	defer os.Remove(file.Name()) //nolint:errcheck // it is in a directory that goes
	defer file.Close()
	if _, err := conn.PgConn().CopyTo(b.Context(), file, "COPY (TABLE unique_views) TO STDOUT (FORMAT binary)"); err != nil {
		b.Fatal(err)
	}
	empty := `DROP TABLE IF EXISTS bound; CREATE TABLE bound (LIKE uniqueviews_v1.unique_views)`
	key := `ALTER TABLE bound ADD PRIMARY KEY (tenant, post, viewer)`
	b.in.mustChange(conn, empty)
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		b.Fatal(err)
	}
	started := time.Now()
	if _, err := conn.PgConn().CopyFrom(b.Context(), file, "COPY bound FROM STDIN (FORMAT binary)"); err != nil {
		b.Fatal(err)
	}
	b.in.mustChange(conn, key)
	ours = time.Since(started)
	started = time.Now()
	b.in.mustChange(conn, `CREATE INDEX ON bound (tenant, post, first_viewed_at, viewer)`)
	second = time.Since(started)
	b.in.mustChange(conn, empty)
	started = time.Now()
	if out, err := exec.CommandContext(b.Context(), "psql", "-v", "ON_ERROR_STOP=1", "-c", `\copy bound from '`+file.Name()+`' (format binary)`, "-c", key, b.in.database).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	tool = time.Since(started)
	b.in.mustChange(conn, "DROP TABLE bound")
	return ours, tool, second
}
