package projectiontest

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"seenby/domain"
	"seenby/projections"
)

var update = flag.Bool("update", false, "write the rows of txtar scripts instead of comparing them")

// RunScripts runs every script testdata/*.txtar: its file "events" is folded, and what the projection then holds
// must be its file "rows". With -update, rows is written.
//
// A line of events is an event's type and its fields (see parseEvent); a line "commit" ends a batch; text after
// # is a comment.
func RunScripts(t *testing.T, dsn string, p projections.Projection) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata (%v)", err)
	}
	d := Open(t, dsn)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Files) != 2 || a.Files[0].Name != "events" || a.Files[1].Name != "rows" {
				t.Fatal("a script has the files events and rows, in this order")
			}
			if err := d.Reset(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if err := d.play(t.Context(), p, string(a.Files[0].Data)); err != nil {
				t.Fatal(err)
			}
			got, err := d.Dump(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if want := string(a.Files[1].Data); got == want {
				return
			} else if !*update {
				t.Fatalf("the rows differ (-update writes them):\n%s", difference(want, got))
			}
			a.Files[1].Data = []byte(got)
			if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil { //nolint:gosec // a source file
				t.Fatal(err)
			}
		})
	}
}

// play folds the events of a script, batch by batch.
func (d *Database) play(ctx context.Context, p projections.Projection, events string) error {
	l := NewLog(rand.New(steady{}))
	done := map[domain.Partition]int{}
	commit := func() error {
		var b domain.Batch
		for _, part := range l.Parts() {
			records := l.Records[part]
			b.Records = append(b.Records, records[done[part]:]...)
			b.Next = append(b.Next, part.At(l.next[part]))
			done[part] = len(records)
		}
		return d.Deliver(ctx, p, b)
	}
	for n, line := range strings.Split(events, "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "commit":
			if err := commit(); err != nil {
				return fmt.Errorf("line %d: %w", n+1, err)
			}
		default:
			if err := appendLine(l, words); err != nil {
				return fmt.Errorf("line %d: %w", n+1, err)
			}
		}
	}
	return commit()
}

// steady is a source of no chance at all: in a script's log there are no gaps and no repeats, and the same time
// passes between any two records.
type steady struct{}

// Uint64 gives a number that rand never rejects as biased, which it would ask again for ever.
func (steady) Uint64() uint64 { return 0x9e3779b97f4a7c15 }
