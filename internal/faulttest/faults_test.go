// Package faulttest_test breaks an installation of real processes.
//
// The system under test is the program itself, `seenby serve`, as ten processes: two of each role. They reach three
// brokers and a PostgreSQL, in containers of the test's own, over proxies (proxy_test.go), a set for each process, so that a
// process can be cut off, or its answers lost, alone; the brokers reach each other over proxies too. A load (load_test.go)
// reports views until they are acknowledged, and some again, at once or much later; what it knows is in a ledger
// (ledger_test.go), where everything about a view follows from its number. A reader of its own (watch_test.go) checks every
// verdict as it comes, and a core system (core_test.go) whatever it is told. After each kind of fault (fault_*_test.go) all is
// left alone until nothing moves, and the check (check_test.go) holds ledger, verdicts, read models and core system against
// each other.
//
// The clock of one api is stepped in a build of the program with the tag faultclock: see cmd/seenby/clock_fault.go.
package faulttest_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

var (
	longFlag    = flag.Bool("faults.long", false, "strike every kind of fault, then all mixed, for faults.minutes")
	minutesFlag = flag.Int("faults.minutes", 30, "how long the long form goes on")
	kindFlag    = flag.String("faults.kind", "", "strike these kinds alone, comma-separated")
	seedFlag    = flag.Uint64("faults.seed", 0, "of what is struck and when; 0: another one each time")
	rateFlag    = flag.Int("faults.rate", 400, "views a second")
	logsFlag    = flag.String("faults.logs", "", "an existing directory that keeps the processes' logs")
	brokerFlag  = flag.String("faults.brokers", "", "settings of the brokers, as name=value, comma-separated")
	tableFlag   = flag.String("faults.table", "", "a file for the table, as Markdown")
)

// TestFaults breaks an installation of real processes, brokers and a database, and proves after each kind of fault that
// nothing was lost and nothing counted twice. In its short form the faults are few, and strike all at once.
func TestFaults(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1_000_000) + 1
	}
	t.Logf("seed %d (-faults.seed)", seed)
	kinds, err := pick(*kindFlag)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	settings := map[string]string{}
	for setting := range strings.SplitSeq(*brokerFlag, ",") {
		if name, value, ok := strings.Cut(setting, "="); ok {
			settings[name] = value
		}
	}
	batchViews = max(batchViews, *rateFlag/batchesPerSecond)
	w := newWorld(t, seed, *rateFlag, settings)
	random := rand.New(rand.NewPCG(seed, 1))
	var rows rows
	defer func() { report(t, seed, rows) }()
	if !*longFlag && *kindFlag == "" {
		rows.add(w.round(t, mixed, 0, whyLasts, func(ctx context.Context) (int, time.Duration, error) {
			return w.strikeTogether(ctx, shortForm(random), random)
		}))
		return
	}
	enough := func() bool { return time.Since(began) > time.Duration(*minutesFlag)*time.Minute }
	for once := true; once || *longFlag && !enough(); once = false {
		for _, f := range kinds {
			rows.add(w.round(t, f.name, f.goal, f.why, func(ctx context.Context) (int, time.Duration, error) {
				pause, err := w.strikeOnce(ctx, f, random)
				return 1, pause, err
			}))
		}
		for !enough() && *longFlag {
			rows.add(w.round(t, mixed, 0, whyLasts, func(ctx context.Context) (int, time.Duration, error) {
				return w.strikeTogether(ctx, longForm(kinds, random), random)
			}))
		}
	}
}

const mixed = "all mixed"

func report(t *testing.T, seed uint64, rows rows) {
	t.Helper()
	text := table(seed, rows)
	t.Log("\n" + text)
	if *tableFlag != "" {
		if err := os.WriteFile(*tableFlag, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
}

// round runs strikes under load, lets everything settle, checks, and makes the line of the table.
func (w *world) round(t *testing.T, name string, goal time.Duration, why string, strikes func(context.Context) (int, time.Duration, error)) row {
	t.Helper()
	ctx, began := t.Context(), time.Now()
	before, logged := w.counts(), map[*process]int{}
	for _, p := range w.processes {
		logged[p] = p.logged()
	}
	w.load.resume()
	n, pause, err := strikes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.settle(ctx); err != nil {
		t.Fatalf("after %s: %v", name, err)
	}
	f, err := w.check(ctx)
	if err != nil {
		t.Fatalf("check after %s: %v", name, err)
	}
	after := w.counts()
	r := row{
		name: name, strikes: n, pause: pause, goal: goal, why: why, took: time.Since(began), lost: f.lost, doubled: f.doubled,
		acked: after.acked - before.acked, counted: after.counted - before.counted, refused: after.refused - before.refused,
		undecided: after.undecided - before.undecided, repeats: after.repeats - before.repeats,
		failedAnswers: after.failedAnswers - before.failedAnswers,
	}
	for p, from := range logged {
		r.restore = max(r.restore, p.opened(from))
	}
	calls, called := w.core.totals()
	t.Logf("%s: %d struck in %v: %d acknowledged (%d again, %d requests failed), %d counted, %d refused (%d undecided at first), %d lost, %d doubled, longest pause %v; the core system: %d calls, %d milestones",
		name, r.strikes, r.took.Round(time.Second), r.acked, r.repeats, r.failedAnswers, r.counted, r.refused, r.undecided, r.lost, r.doubled, r.pause.Round(time.Millisecond), calls, called)
	for _, p := range f.problems {
		t.Errorf("after %s: %s", name, p)
	}
	if f.lost+f.doubled > 0 || t.Failed() {
		t.Fatalf("after %s: %d lost, %d doubled (seed %d)", name, f.lost, f.doubled, w.seed)
	}
	return r
}

// counts are the totals until now.
func (w *world) counts() (r row) {
	r.acked, r.repeats = w.ledger.totals()
	w.watch.mu.Lock()
	defer w.watch.mu.Unlock()
	r.counted, r.refused, r.undecided = w.watch.totals.counted, w.watch.totals.refused, w.watch.totals.undecided
	r.failedAnswers = int(w.load.failed.Load())
	return r
}
