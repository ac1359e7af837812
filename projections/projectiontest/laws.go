// Package projectiontest holds every projection to the laws that make a read model trustworthy.
//
// Laws is its main function: it makes up logs from a seed, delivers each in the ways that a running system
// might, and compares all that was written. RunScripts runs examples for people to read: events in, rows out.
// A failure prints its seed; SEENBY_LAWS_SEED=n runs that one again, SEENBY_LAWS_ROUNDS=n runs more of them.
package projectiontest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"seenby/domain"
	"seenby/projections"
)

const (
	seedVariable   = "SEENBY_LAWS_SEED"
	roundsVariable = "SEENBY_LAWS_ROUNDS"
	roundsDefault  = 3 // other seeds in every run; a few are enough where all runs together try many
)

// Generator makes up a log. It may use anything that the projection can meet, poison and repeated events
// included; with poison false, only what can be folded.
type Generator func(l *Log, poison bool)

// law is one way to deliver a log; it leaves in the database what is compared with a plain replay.
type law struct {
	name string
	run  func(ctx context.Context, d *Database, p projections.Projection, l *Log) error
	// compacts: the comparison is with a rebuild from the compacted log, so there must be no poison in it: what
	// was parked behind a record that compaction took away is no longer so.
	compacts bool
	// bulk: the law is about projections that are loaded in bulk.
	bulk bool
}

var laws = []law{
	{name: "replay equals live", run: live},
	{name: "the same offsets delivered twice change nothing", run: twice},
	{name: "a projector that lost its partition writes nothing", run: zombie},
	{name: "a transaction that failed leaves nothing", run: failing},
	{name: "where a batch ends does not matter", run: single},
	{name: "how partitions interleave does not matter", run: interleaved},
	{name: "two projectors at once", run: two},
	{name: "parked and redriven is as never parked", run: redriven},
	{name: "a rebuild's dump is identical", run: rebuilt},
	{name: "loaded in bulk is as live", run: bulkLoaded, bulk: true},
	{name: "a rebuild from the compacted log is identical", run: rebuilt, compacts: true},
}

// Laws checks every law on logs made up by generate.
func Laws(t *testing.T, dsn string, p projections.Projection, generate Generator) {
	d := Open(t, dsn)
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			for i, w := range laws {
				if _, loader := p.(projections.BulkLoader); w.bulk && !loader {
					continue // a law about another kind of projection
				}
				t.Run(strings.ReplaceAll(w.name, " ", "_"), func(t *testing.T) {
					l := NewLog(rand.New(rand.NewPCG(seed, uint64(i)))) //nolint:gosec // repeatable
					generate(l, !w.compacts)
					check(t, d, p, l, w)
					if t.Failed() {
						t.Logf("again with %s=%d", seedVariable, seed)
					}
				})
			}
		})
	}
}

func seeds(t *testing.T) []uint64 {
	t.Helper()
	if text := os.Getenv(seedVariable); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
		return []uint64{seed}
	}
	rounds := roundsDefault
	if text := os.Getenv(roundsVariable); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("%s: %v", roundsVariable, err)
		}
		rounds = n
	}
	all := make([]uint64, rounds)
	for i := range all {
		all[i] = rand.Uint64() //nolint:gosec // no secret
	}
	return all
}

// check runs a law and compares with a replay of the same log, each partition from its start to its end.
func check(t *testing.T, d *Database, p projections.Projection, l *Log, w law) {
	t.Helper()
	ctx := t.Context()
	run := func(what string, f func(context.Context, *Database, projections.Projection, *Log) error, l *Log) string {
		if err := d.Reset(ctx, p); err != nil {
			t.Fatal(err)
		}
		if err := f(ctx, d, p, l); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		dump, err := d.Dump(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		return dump
	}
	got := run("law", w.run, l)
	again := l
	if w.compacts {
		again = l.Compact()
	}
	want := run("replay", replay, again)
	if diff := difference(want, got); diff != "" {
		t.Errorf("a replay (-) and this (+) differ:\n%s", diff)
	}
}

// difference lists the lines that only one of two dumps has.
func difference(want, got string) string {
	if want == got {
		return ""
	}
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out []string
	for _, line := range w {
		if !slices.Contains(g, line) {
			out = append(out, "- "+line)
		}
	}
	for _, line := range g {
		if !slices.Contains(w, line) {
			out = append(out, "+ "+line)
		}
	}
	const linesMax = 40 // enough to see what is wrong
	if len(out) > linesMax {
		out = append(out[:linesMax], "...")
	}
	return strings.Join(out, "\n")
}

func upTo(r *rand.Rand, n int) func() int { return func() int { return 1 + r.IntN(n) } }

func always(n int) func() int { return func() int { return n } }

func deliver(ctx context.Context, d *Database, p projections.Projection, batches []domain.Batch) error {
	for _, b := range batches {
		if err := d.Deliver(ctx, p, b); err != nil {
			return err
		}
	}
	return nil
}

// replay reads partition after partition in large batches.
func replay(ctx context.Context, d *Database, p projections.Projection, l *Log) error {
	for _, part := range l.Parts() {
		if err := deliver(ctx, d, p, l.Batches(l.Rand, []domain.Partition{part}, always(5000))); err != nil {
			return err
		}
	}
	return nil
}

func live(ctx context.Context, d *Database, p projections.Projection, l *Log) error {
	return deliver(ctx, d, p, l.Batches(l.Rand, l.Parts(), upTo(l.Rand, 40)))
}

func rebuilt(ctx context.Context, d *Database, p projections.Projection, l *Log) error {
	if err := live(ctx, d, p, l); err != nil {
		return err
	}
	before, err := d.Dump(ctx, p)
	if err != nil {
		return err
	}
	if err := d.Reset(ctx, p); err != nil {
		return err
	}
	if err := deliver(ctx, d, p, l.Batches(l.Rand, l.Parts(), always(1000))); err != nil {
		return err
	}
	after, err := d.Dump(ctx, p)
	if err == nil && before != after {
		err = errors.New("the rebuild differs:\n" + difference(before, after))
	}
	return err
}

func single(ctx context.Context, d *Database, p projections.Projection, l *Log) error {
	return deliver(ctx, d, p, l.Batches(l.Rand, l.Parts(), always(1)))
}

func interleaved(ctx context.Context, d *Database, p projections.Projection, l *Log) error {
	parts := l.Parts()
	l.Rand.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	for len(parts) > 0 { // some partitions wholly before others
		n := 1 + l.Rand.IntN(len(parts))
		if err := deliver(ctx, d, p, l.Batches(l.Rand, parts[:n], always(100))); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

// twice delivers old batches again and again, also ones that reach beyond the position.
func twice(ctx context.Context, d *Database, p projections.Projection, l *Log) error {
	batches := l.Batches(l.Rand, l.Parts(), upTo(l.Rand, 40))
	for i, b := range batches {
		from := i - l.Rand.IntN(min(i, 3)+1)
		for _, old := range batches[from:i] {
			b = join(old, b)
		}
		if err := deliver(ctx, d, p, []domain.Batch{b, batches[l.Rand.IntN(i+1)]}); err != nil {
			return err
		}
	}
	return deliver(ctx, d, p, batches)
}

func join(a, b domain.Batch) domain.Batch {
	next := slices.Clone(b.Next)
	for _, n := range a.Next {
		if !slices.ContainsFunc(next, func(m domain.Position) bool { return m.In() == n.In() }) {
			next = append(next, n)
		}
	}
	return domain.Batch{Records: slices.Concat(a.Records, b.Records), Next: next}
}

// zombie lets a projector that read its positions earlier write the same batch after its successor did.
func zombie(ctx context.Context, d *Database, p projections.Projection, l *Log) error {
	for _, b := range l.Batches(l.Rand, l.Parts(), upTo(l.Rand, 40)) {
		parts := make([]domain.Partition, len(b.Next))
		for i, n := range b.Next {
			parts[i] = n.In()
		}
		rows, err := d.Positions(ctx, p, parts)
		if err != nil {
			return err
		}
		if err := d.Deliver(ctx, p, b); err != nil {
			return err
		}
		if err := d.Write(ctx, p, projections.Cut(rows, b), nil); !errors.Is(err, projections.ErrMoved) {
			return fmt.Errorf("a zombie's write gave %w, not ErrMoved", err)
		}
	}
	return nil
}

// failing lets every transaction fail once at its end.
func failing(ctx context.Context, d *Database, p projections.Projection, l *Log) error {
	lost := errors.New("the connection is lost")
	for _, b := range l.Batches(l.Rand, l.Parts(), upTo(l.Rand, 40)) {
		parts := make([]domain.Partition, len(b.Next))
		for i, n := range b.Next {
			parts[i] = n.In()
		}
		rows, err := d.Positions(ctx, p, parts)
		if err != nil {
			return err
		}
		if err := d.Write(ctx, p, projections.Cut(rows, b), lost); !errors.Is(err, lost) {
			return fmt.Errorf("the transaction gave %w", err)
		}
		if err := d.Deliver(ctx, p, b); err != nil {
			return err
		}
	}
	return nil
}

// two lets two projectors work at once, each on its own partitions.
func two(ctx context.Context, d *Database, p projections.Projection, l *Log) error {
	parts := l.Parts()
	l.Rand.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	half := len(parts) / 2
	work := [][]domain.Batch{
		l.Batches(l.Rand, parts[:half], upTo(l.Rand, 60)),
		l.Batches(l.Rand, parts[half:], upTo(l.Rand, 60)),
	}
	errs := make([]error, len(work))
	var wg sync.WaitGroup
	for i, batches := range work {
		wg.Go(func() { errs[i] = deliver(ctx, d, p, batches) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
