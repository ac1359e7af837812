package rebuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"seenby/domain"
	"seenby/internal/throttle"
	"seenby/projections"
)

// Log is Kafka.
type Log interface {
	// Starts and Ends are the first offsets that a topic's partitions still hold, and their high watermarks, one per
	// partition in their order.
	Starts(ctx context.Context, topic domain.Topic) ([]domain.Position, error)
	Ends(ctx context.Context, topic domain.Topic) ([]domain.Position, error)
	// ReadRanges hands out the committed records of partitions between two positions of each, in order per partition, by
	// one goroutine. The records are apply's own.
	ReadRanges(ctx context.Context, from, to []domain.Position, apply func([]domain.Record) error) error
	// Installation folds the topic tenants to its end.
	Installation(ctx context.Context) (*domain.Installation, error)
}

// Store is PostgreSQL; its errors are classified.
type Store interface {
	InTx(ctx context.Context, f func(ctx context.Context, tx projections.Tx) error) error
	Snapshot(ctx context.Context, f func(ctx context.Context, q projections.Querier) error) error
	// Copy runs COPY FROM STDIN with what from gives, and returns how many rows that were.
	Copy(ctx context.Context, tx projections.Tx, sql string, from io.Reader) (int64, error)
	// Exclusive runs f while nobody else runs one of the same name; where somebody does, it returns taken, wrapped. f's
	// context ends where that is no longer certain.
	Exclusive(ctx context.Context, name string, taken error, f func(ctx context.Context) error) error
}

// Options are how a rebuild is run.
type Options struct {
	// LagMax: while the live read models are further behind than this and moving, the rebuild waits for them. 0: it
	// never waits.
	LagMax time.Duration
	// AcceptDifferences names who takes responsibility for the swap though the versions differ; empty: nobody does, and
	// they must not.
	AcceptDifferences string
	// MemoryBytes is what loading in bulk may hold in memory, all workers together; more is sorted on disk. Default 384 MB.
	MemoryBytes int64
	// TempDir is where that goes. Default: the system's directory for temporary files.
	TempDir string
	// Workers is how many shards are loaded at once. Default: 2, so that one reads while PostgreSQL copies the other's
	// rows, or as many as there are processors.
	Workers int
	// BatchEventsMax is how many events one transaction folds while catching up. Default 5,000, as the projector's.
	BatchEventsMax int
}

func (o Options) withDefaults() Options {
	if o.BatchEventsMax == 0 {
		o.BatchEventsMax = 5000
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = 384 << 20
	}
	if o.Workers == 0 {
		o.Workers = max(2, runtime.GOMAXPROCS(0))
	}
	return o
}

// Deps are the parts that a rebuild is joined with.
type Deps struct {
	Log      Log
	Store    Store
	Now      func() time.Time
	Logger   *slog.Logger
	Progress func(Progress) // at each change and some times a second, by one goroutine at a time; nil: nobody asks
	// HandOver is how long projectors may take until they follow the versions that they should, and no others. Default
	// 4 s: they look each second.
	HandOver time.Duration
}

func (d Deps) handOver() time.Duration { return cmp.Or(d.HandOver, 4*time.Second) }

// Run rebuilds a projection, or goes on with its unfinished rebuild, to the end.
func Run(ctx context.Context, deps Deps, p projections.Projection, opts Options) (Result, error) {
	opts = opts.withDefaults()
	var result Result
	err := exclusively(ctx, deps, p.Name(), func(ctx context.Context) (err error) {
		r := &run{deps: deps, opts: opts, throttle: throttle.Throttle{Store: deps.Store, Now: deps.Now, LagMax: opts.LagMax}}
		if r.row, err = begin(ctx, deps, p, opts); err != nil {
			return err
		}
		r.model = projections.ReadModel{Projection: p, Version: r.row.Version}
		r.live = projections.ReadModel{Projection: p, Version: r.row.FromVersion}
		result, err = r.run(ctx)
		return err
	})
	return result, err
}

// errTaken says that a process works on the projection.
var errTaken = domain.Errorf(domain.CodeConflict, "another process works on it just now; see `seenby rebuild --list`")

// exclusively keeps all others from the rebuilds of a projection.
func exclusively(ctx context.Context, deps Deps, projection string, f func(context.Context) error) error {
	return deps.Store.Exclusive(ctx, "rebuild "+projection, errTaken, f)
}

// Result is what a rebuild came to.
type Result struct {
	Projection  string
	Version     int // live now
	Previous    int // kept for a rollback
	Events      int64
	Proven      bool          // compared with the live version
	Differences int64         // accepted
	AcceptedBy  string        // empty: there was nothing to accept
	Locked      time.Duration // how long readers may have waited for the swap
	Took        []Took        // this process's phases
}

// Took is how long a phase took.
type Took struct {
	Phase Phase
	For   time.Duration
}

// run is one process's work on a rebuild.
type run struct {
	deps  Deps
	opts  Options
	row   Row
	model projections.ReadModel // the one that is made
	live  projections.ReadModel // the one that readers see

	telling  sync.Mutex // one goroutine at a time hands the progress out
	mu       sync.Mutex // guards what follows
	progress Progress
	paused   chan struct{} // closed when it may go on; nil: it is not paused
	skipped  int64         // offsets below the log's starts
	since    time.Time     // when the present phase was begun
	doneThen int64         // progress.Done then
	throttle throttle.Throttle

	givenUp   map[domain.Position]bool // records that operators gave up, where that is known already
	handsOver atomic.Bool              // projectors follow the version, or will soon
	holding   atomic.Bool              // readers or projectors wait for this process, or rows are kept for it: it must not pause
}

// run goes through the phases that are left.
func (r *run) run(ctx context.Context) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		r.watch(ctx, cancel)
	}()
	result, err := r.phases(ctx)
	cause := context.Cause(ctx)
	cancel(nil)
	<-watching
	if err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause // it was cancelled, or taken over
	}
	if errors.Is(err, errCancelled) {
		err := r.drop(context.WithoutCancel(ctx))
		if errors.Is(err, errTakenOver) {
			err = cancelled(context.WithoutCancel(ctx), r.deps, r.model.Projection, r.row.ID) // it was through a moment before
		}
		if err != nil {
			return Result{}, err
		}
		return Result{}, domain.Errorf(domain.CodeConflict, "the rebuild of %s was cancelled; version %d is dropped", r.model.Name(), r.model.Version)
	}
	if err != nil {
		r.note(context.WithoutCancel(ctx), err)
	}
	return result, err
}

func (r *run) phases(ctx context.Context) (Result, error) {
	if err := r.checkLive(ctx); err != nil {
		return Result{}, err
	}
	var took []Took
	for {
		var err error
		var next Phase
		var result Result
		phase, began := r.row.Phase, r.deps.Now()
		r.enter(phase)
		switch r.row.Phase {
		case PhaseLoad:
			next, err = PhaseKeys, r.load(ctx)
		case PhaseKeys:
			next, err = PhaseCatchUp, r.keys(ctx)
		case PhaseCatchUp:
			next, err = PhaseProve, r.catchUp(ctx)
		case PhaseProve:
			next, err = PhaseSwap, r.prove(ctx)
		case PhaseSwap:
			result, err = r.swap(ctx)
			next = PhaseDone
		case PhaseDone:
			return Result{}, domain.Errorf(domain.CodeInternal, "rebuild %d has ended", r.row.ID)
		}
		if err != nil {
			return Result{}, fmt.Errorf("%s: %w", r.row.Phase, r.explain(ctx, err))
		}
		took = append(took, Took{phase, r.deps.Now().Sub(began)})
		if next == PhaseDone {
			result.Took = took
			return result, nil
		}
		if err := r.setPhase(ctx, next); err != nil {
			return Result{}, err
		}
	}
}
