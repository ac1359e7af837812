package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
)

// importViewers is how many people made the views of BenchmarkImport: each has a name to be appended once.
const importViewers = drainViews / 10

// BenchmarkImport imports views, and then has a gate judge them: an import is to be no slower than four fifths of that.
func BenchmarkImport(b *testing.B) {
	file := importBenchFile(b)
	for b.Loop() {
		b.StopTimer()
		in, key := install(b)
		log, store, closeBoth := in.open(b)
		in.publishPosts(b, key, log, store)
		b.StartTimer()
		started := time.Now()
		in.command("import", "views", file, "--tenant", string(demoTenant), "--lag-max", "0")
		imported := time.Since(started)
		b.StopTimer()
		started = time.Now()
		gate := in.serve(key, "gate")
		eventually(b, time.Minute, "the views to be judged", func() error {
			if n := gate.metric(`seenby_verdicts_total{reason="counted"}`); n < drainViews {
				return fmt.Errorf("%.0f of %d are", n, drainViews)
			}
			return nil
		})
		judged := time.Since(started)
		gate.stop()
		closeBoth()
		b.ReportMetric(drainViews/imported.Seconds(), "imported/s")
		b.ReportMetric(drainViews/judged.Seconds(), "judged/s")
		b.ReportMetric(judged.Seconds()/imported.Seconds(), "imported/judged")
		b.ReportMetric(0, "ns/op")
		b.StartTimer()
	}
}

// importBenchFile has views of a year, posts by popularity.
func importBenchFile(b *testing.B) string {
	b.Helper()
	file, err := os.Create(filepath.Join(b.TempDir(), "views.ndjson"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	rng := rand.New(rand.NewPCG(7, 8))
	zipf := rand.NewZipf(rng, 1.1, 1, drainPosts-1)
	from := time.Now().AddDate(-1, 0, 0)
	lines := bufio.NewWriter(file)
	for i := range drainViews {
		at := from.Add(time.Duration(i) * 365 * 24 * time.Hour / drainViews)
		fmt.Fprintf(lines, `{"id":%q,"post":%q,"viewer":"person-%d","viewed_at":%q}`+"\n",
			uuid.NewString(), benchPost(int(zipf.Uint64())), rng.IntN(importViewers), at.UTC().Format(time.RFC3339)) //nolint:gosec // below drainPosts
	}
	if err := lines.Flush(); err != nil {
		b.Fatal(err)
	}
	return file.Name()
}
