package importer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"seenby/domain"
	"seenby/internal/tenancy"
	"seenby/internal/throttle"
	"seenby/projections"
)

// Log is Kafka.
type Log interface {
	// Append answers once all events are acknowledged, with one position per partition, past the last event there.
	// CodeUnavailable: some may stand in the log.
	Append(ctx context.Context, events ...domain.Event) ([]domain.Position, error)
	// Ends are the high watermarks, one per partition.
	Ends(ctx context.Context, topic domain.Topic) ([]domain.Position, error)
	// ReadRanges hands out the committed records of partitions between two positions of each.
	ReadRanges(ctx context.Context, from, to []domain.Position, apply func([]domain.Record) error) error
	// Installation folds the topic tenants to its end; ChangeTenants appends to it what is decided on that.
	Installation(ctx context.Context) (*domain.Installation, error)
	ChangeTenants(ctx context.Context, decide func(*domain.Installation) ([]domain.Event, error)) error
}

// ReadModels is PostgreSQL; its errors are classified.
type ReadModels interface {
	Snapshot(ctx context.Context, f func(ctx context.Context, q projections.Querier) error) error
}

// Erasures knows who was erased; Check fails until the topic people is read.
type Erasures interface {
	ErasedAt(person domain.PersonRef) (at time.Time, erased bool)
	Check(ctx context.Context) error
}

// Deps are the parts that an import is joined with.
type Deps struct {
	Log        Log
	ReadModels ReadModels
	Erasures   Erasures
	Now        func() time.Time
	NewRun     func() domain.RunID
	Progress   func(Progress) // by one goroutine; nil: nobody asks

	models models // nil: ReadModels; tests have others
}

// Options are what is imported, and how.
type Options struct {
	What   string // one of Whats
	Tenant tenancy.TenantHandle
	Source Source
	// Name is the import's; empty: it is known by the SHA-256 of its content, which must be a file then.
	Name string
	// Rejected is the file for lines that are not imported. It must not be there yet, but from an earlier process of the
	// same import.
	Rejected string
	// LagMax: while the live read models are further behind than this and moving, the import waits for them. 0: it never
	// waits.
	LagMax time.Duration
	DryRun bool // append nothing, record nothing, write no file

	// RecordEvery is how often it is recorded how far the import is. Default 10 s: each takes a transaction on tenants,
	// and a killed process leaves so much to look up.
	RecordEvery time.Duration

	batchLines int64 // default batchLinesMax
}

// Result is what an import came to, all its processes together.
type Result struct {
	Record  domain.ImportRecorded
	Already bool        // it was finished before
	Resumed bool        // it had been begun before
	First   []Rejection // of this process; the first few
	Waited  time.Duration
}

// Rejection is a line that is not imported, and why.
type Rejection struct {
	Line int64
	Why  string
	text []byte
}

func (r Rejection) String() string { return fmt.Sprintf("line %d: %s", r.Line, r.Why) }

// firstMax is how many rejected lines a result names.
const firstMax = 20

// Progress is how far an import is.
type Progress struct {
	Lines, Of          int64 // of the content; Of is 0 where that is not known
	Imported, Rejected int64
	PerSecond          float64 // lines, in this process
	Left               time.Duration
	Waiting            bool   // for the live read models
	Detail             string // what else it does; may be empty
}

const (
	recordEvery = 10 * time.Second
	// linesOpenMax bounds what stands in the log and in no record.
	linesOpenMax = 500_000
)

// Whats are the kinds of imports.
func Whats() []string { return []string{"posts", "views", "counts", "members"} }

// Run imports to the end.
func Run(ctx context.Context, deps Deps, opts Options) (Result, error) {
	opts.RecordEvery, opts.batchLines = cmp.Or(opts.RecordEvery, recordEvery), cmp.Or(opts.batchLines, batchLinesMax)
	if deps.models == nil {
		deps.models = stored{deps.ReadModels}
	}
	r, err := prepare(ctx, deps, opts)
	if err != nil {
		return Result{}, err
	}
	if opts.DryRun {
		return r.result, r.rehearse(ctx)
	}
	if r.result.Record.Finished() {
		r.result.Already = true
		return r.result, nil
	}
	if r.rejected, err = openRejected(opts.Rejected, r.result.Resumed, r.result.Record.Lines); err != nil {
		return r.result, err
	}
	defer func() { _ = r.rejected.close() }() // where work has failed, its error says more
	if err := r.begin(ctx); err != nil {
		return r.result, err
	}
	if r.result.Already {
		return r.result, nil
	}
	err = r.work(ctx)
	if closed := r.rejected.close(); err == nil {
		err = closed
	}
	return r.result, err
}

// run is one process's work on an import.
type run struct {
	deps     Deps
	opts     Options
	kind     kind
	parser   *parser
	throttle throttle.Throttle
	rejected *rejectedFile
	result   Result

	of       int64 // lines of the content
	standing map[mark]bool
	passing  []domain.Position // what a look at read models must have passed: what this process appended last
	recorded time.Time
	since    time.Time // for the rate
	from     int64
	progress Progress
}

// prepare looks at the content and at what is recorded of the import.
func prepare(ctx context.Context, deps Deps, opts Options) (*run, error) {
	kind, ok := kinds[opts.What]
	if !ok {
		return nil, domain.Invalid("what", "must be one of %v", Whats())
	}
	r := &run{deps: deps, opts: opts, kind: kind, throttle: throttle.Throttle{Store: deps.ReadModels, Now: deps.Now, LagMax: opts.LagMax}}
	id := opts.What + "/" + opts.Name
	if opts.Name != "" {
		if err := domain.CheckID("--name", opts.Name); err != nil {
			return nil, err
		}
	}
	switch content, known, err := opts.Source.digest(); {
	case err != nil:
		return nil, err
	case known:
		r.of = content.lines
		if opts.Name == "" {
			id = fmt.Sprintf("%s/%x", opts.What, content.sha256)
		}
	case opts.Name == "" && !opts.DryRun:
		return nil, domain.Invalid("--name", "is required where no file is read: it is what this import is known by when it is run again")
	}
	in, err := deps.Log.Installation(ctx)
	if err != nil {
		return nil, err
	}
	t, err := tenancy.TenantOf(in, opts.Tenant.ID)
	if err != nil {
		return nil, err
	}
	r.result.Record, r.result.Resumed = t.Imports[id]
	r.result.Record.Tenant, r.result.Record.ImportID = opts.Tenant.ID, id
	r.parser = newParser(opts.Tenant, id, deps.Now())
	return r, nil
}

// work imports what is left, batch by batch.
func (r *run) work(ctx context.Context) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	batches, err := r.read(reading, r.result.Record.Lines, r.result.Record.LinesSHA256)
	if err != nil {
		return err
	}
	defer func() {
		stop()
		for range batches {
			continue // what was under way
		}
	}()
	r.since, r.from, r.recorded = r.deps.Now(), r.result.Record.Lines, r.deps.Now()
	open := r.result.Record.Lines // what the last record says
	for {
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), r.pause(ctx))
		}
		var b batch
		select {
		case <-ctx.Done():
			continue
		case b = <-batches:
		}
		if b.err != nil && !errors.Is(b.err, io.EOF) {
			return errors.Join(b.err, r.pause(ctx))
		}
		if err := r.take(ctx, &b); err != nil {
			var before beforeAppending
			if errors.As(err, &before) {
				return errors.Join(before.error, r.pause(ctx))
			}
			// What the batch has appended is unknown, so what is open stays open.
			return errors.Join(err, r.record(ctx))
		}
		if b.err != nil {
			r.result.Record.FinishedAt = r.deps.Now()
			return r.pause(ctx)
		}
		if r.deps.Now().Sub(r.recorded) >= r.opts.RecordEvery || r.result.Record.Lines-open >= linesOpenMax {
			if r.result.Record.Since, err = r.deps.Log.Ends(ctx, r.kind.topic); err != nil {
				return errors.Join(err, r.pause(ctx))
			}
			if err := r.record(ctx); err != nil {
				return err
			}
			open = r.result.Record.Lines
		}
	}
}

// beforeAppending marks an error from before anything of a batch was appended.
type beforeAppending struct{ error }

// take imports a batch: it is done with when take returns nil.
func (r *run) take(ctx context.Context, b *batch) error {
	began := r.deps.Now()
	if err := r.throttle.Wait(ctx, r.waiting); err != nil {
		return beforeAppending{err}
	}
	r.result.Waited += r.deps.Now().Sub(began)
	fresh, stood := r.fresh(b.items)
	good, bad, err := r.check(ctx, fresh)
	if err != nil {
		return beforeAppending{err}
	}
	if err := r.append(ctx, good); err != nil {
		return err
	}
	bad = inOrder(b.rejected, bad)
	if err := r.rejected.write(bad); err != nil {
		return err
	}
	r.done(b, int64(len(good)+stood), bad)
	return nil
}

// done adds a batch up.
func (r *run) done(b *batch, imported int64, bad []Rejection) {
	record := &r.result.Record
	record.Lines, record.LinesSHA256 = b.lines, b.sum
	record.Imported += imported
	record.Rejected += int64(len(bad))
	for _, one := range bad {
		if len(r.result.First) < firstMax {
			r.result.First = append(r.result.First, one)
		}
	}
	r.tell(func(*Progress) {})
}

// rehearse looks at every line that is left and appends nothing.
func (r *run) rehearse(ctx context.Context) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	batches, err := r.read(reading, r.result.Record.Lines, r.result.Record.LinesSHA256)
	if err != nil {
		return err
	}
	r.since, r.from = r.deps.Now(), r.result.Record.Lines
	for b := range batches {
		if b.err != nil && !errors.Is(b.err, io.EOF) {
			return b.err
		}
		good, bad, err := r.check(ctx, b.items)
		if err != nil {
			return err
		}
		r.done(&b, int64(len(good)), inOrder(b.rejected, bad))
	}
	return context.Cause(ctx)
}

func (r *run) waiting(waiting bool) {
	r.tell(func(p *Progress) { p.Waiting = waiting })
}

// tell changes the progress and hands it out.
func (r *run) tell(change func(*Progress)) {
	change(&r.progress)
	p, record := &r.progress, &r.result.Record
	p.Lines, p.Of, p.Imported, p.Rejected = record.Lines, r.of, record.Imported, record.Rejected
	if took := r.deps.Now().Sub(r.since).Seconds(); took > 1 && p.Lines > r.from {
		p.PerSecond = float64(p.Lines-r.from) / took
		p.Left = time.Duration(float64(max(0, p.Of-p.Lines)) / p.PerSecond * float64(time.Second))
	}
	if r.deps.Progress != nil {
		r.deps.Progress(*p)
	}
}
