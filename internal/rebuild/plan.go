package rebuild

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// Plan is what a rebuild would do, as far as that can be known before.
type Plan struct {
	Projection string
	Live       int
	Version    int      // that it would make, or go on with
	GoesOnAt   Phase    // of an unfinished rebuild; empty: it would begin
	Refused    []string // why it would be refused; empty: it would not
	OtherFold  int      // the live version's, where it is another one: rows will differ; 0: it is this program's

	Events int64 // offsets to read

	// What the new version needs in PostgreSQL beyond what it has; how much is free there cannot be seen from outside.
	TableBytes, IndexBytes int64
	// TempBytes may go to temporary files of this process.
	TempBytes int64
	SizeFrom  Basis

	Takes    time.Duration // until the swap; 0: not known
	TimeFrom Basis
	Sampled  int64 // events of the sample
}

// Basis says what an estimate is made from.
type Basis string

// What there may be.
const (
	BasisLive    Basis = "live version"
	BasisHistory Basis = "last rebuild"
	BasisSample  Basis = "sample" // folded the ordinary way, which is slower than loading in bulk
	BasisNothing Basis = "nothing"
)

const (
	// sampleTime is how long a sample may take.
	sampleTime = 2 * time.Second
	// comparablePart is how much of the log something must have folded to be a measure of the whole.
	comparablePart = 0.1
)

// Look tells what a rebuild would do. It changes nothing.
func Look(ctx context.Context, deps Deps, p projections.Projection, opts Options) (Plan, error) {
	opts = opts.withDefaults()
	l, err := List(ctx, deps)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{Projection: p.Name(), SizeFrom: BasisNothing, TimeFrom: BasisNothing}
	var last, open Row // the last one that was swapped, and the unfinished one
	for _, row := range slices.Backward(l.Rebuilds) {
		switch {
		case row.Projection != p.Name():
			continue
		case row.Outcome == "swapped":
			last = row
		case row.Outcome == "":
			open, plan.GoesOnAt = row, row.Phase
		}
		plan.Version = max(plan.Version, row.Version+1)
	}
	for _, v := range l.Versions {
		if v.Projection != p.Name() {
			continue
		}
		plan.Version = max(plan.Version, v.Version+1)
		if v.Live {
			plan.Live = v.Version
			if v.FoldVersion != p.FoldVersion() {
				plan.OtherFold = v.FoldVersion
			}
		}
	}
	if open.ID != 0 {
		plan.Version = open.Version
	}
	r := &run{deps: deps, opts: opts, row: open, model: projections.ReadModel{Projection: p, Version: plan.Version}, live: projections.ReadModel{Projection: p, Version: plan.Live}}
	r.deps.Progress = nil
	if err := refusal(p, opts, l.Versions, open, open.ID != 0); err != nil {
		plan.Refused = append(plan.Refused, err.Error())
	}
	if err := exclusively(ctx, deps, p.Name(), func(context.Context) error { return nil }); errors.Is(err, errTaken) {
		plan.Refused = append(plan.Refused, err.Error())
	} else if err != nil {
		return Plan{}, err
	}
	return plan, r.estimate(ctx, &plan, last)
}

// estimate adds what is to be read, and what that takes.
func (r *run) estimate(ctx context.Context, plan *Plan, last Row) error {
	at, err := r.positions(ctx)
	if err != nil {
		return err
	}
	starts, ends, err := r.bounds(ctx)
	if err != nil {
		return err
	}
	var whole int64
	from := make([]domain.Position, len(ends))
	for i, end := range ends {
		start, stands := startOf(starts, end), at[end.In()].NextOffset
		if stands < start.NextOffset {
			plan.Refused = append(plan.Refused, lost(r.model, end, start.NextOffset, stands).Error())
		}
		from[i] = start
		whole += end.NextOffset - start.NextOffset
		plan.Events += max(0, end.NextOffset-max(stands, start.NextOffset))
	}
	var folded, tables, indexes, haveTables, haveIndexes int64
	if err := r.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
		rows, err := projections.PositionsOf(ctx, q, r.live)
		if err != nil {
			return err
		}
		for _, row := range rows {
			folded += row.NextOffset
		}
		if tables, indexes, err = size(ctx, q, r.live); err != nil {
			return err
		}
		haveTables, haveIndexes, err = size(ctx, q, r.model) // 0 where it does not stand
		return err
	}); err != nil {
		return err
	}
	fromLive, fromHistory := represents(folded, whole), last.EndedAt != nil && represents(last.EventsDone, whole)
	var s sample
	if whole > 0 && (!fromLive || !fromHistory) {
		if s, err = r.sample(ctx, from, ends); err != nil {
			return err
		}
	}
	plan.Sampled = s.events
	switch {
	case fromLive:
		plan.SizeFrom, plan.TableBytes, plan.IndexBytes = BasisLive, scaled(tables, whole, folded), scaled(indexes, whole, folded)
	case s.events > 0:
		plan.SizeFrom, plan.TableBytes, plan.IndexBytes = BasisSample, scaled(s.tables, whole, s.events), scaled(s.indexes, whole, s.events)
	}
	switch {
	case fromHistory:
		plan.TimeFrom, plan.Takes = BasisHistory, time.Duration(scaled(int64(last.EndedAt.Sub(last.StartedAt)), plan.Events, last.EventsDone))
	case s.events > 0:
		plan.TimeFrom, plan.Takes = BasisSample, time.Duration(scaled(int64(s.took), plan.Events, s.events))
	}
	if _, bulk := r.model.Projection.(projections.BulkLoader); bulk && plan.TableBytes > r.opts.MemoryBytes {
		plan.TempBytes = plan.TableBytes
	}
	plan.TableBytes, plan.IndexBytes = max(0, plan.TableBytes-haveTables), max(0, plan.IndexBytes-haveIndexes)
	return nil
}

func represents(part, whole int64) bool {
	return part > 0 && float64(part) >= comparablePart*float64(whole)
}

// scaled is what the whole takes where a part takes n.
func scaled(n, whole, part int64) int64 { return int64(float64(n) * float64(whole) / float64(part)) }

// sample is what some events cost.
type sample struct {
	events          int64
	took            time.Duration
	tables, indexes int64 // bytes
}

var (
	errEnough = domain.Errorf(domain.CodeInternal, "the sample is large enough")
	// errUndo rolls back what was only tried.
	errUndo = domain.Errorf(domain.CodeInternal, "undone")
)

var tempSizeSQL = projections.SQL("rebuild.temp_size", `
SELECT COALESCE(sum(pg_table_size(c.oid)), 0)::bigint, COALESCE(sum(pg_indexes_size(c.oid)), 0)::bigint
FROM pg_class c
WHERE c.relnamespace = pg_my_temp_schema() AND c.relkind = 'r'`)

// sample folds the log from its start for a moment, the ordinary way, into temporary tables that are never committed.
func (r *run) sample(ctx context.Context, from, to []domain.Position) (s sample, err error) {
	begun := r.deps.Now()
	var batch []domain.Record
	fold := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
			if err := r.foldSample(ctx, tx, batch, &s); err != nil {
				return err
			}
			return errUndo
		})
		batch = batch[:0]
		if !errors.Is(err, errUndo) {
			return err
		}
		return nil
	}
	err = r.deps.Log.ReadRanges(ctx, from, to, func(records []domain.Record) error {
		batch = append(batch, records...)
		if len(batch) >= r.opts.BatchEventsMax {
			if err := fold(); err != nil {
				return err
			}
		}
		if r.deps.Now().Sub(begun) > sampleTime {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return s, err
	}
	if err := fold(); err != nil {
		return s, err
	}
	s.took = r.deps.Now().Sub(begun)
	return s, nil
}

func (r *run) foldSample(ctx context.Context, tx projections.Tx, batch []domain.Record, s *sample) error {
	for _, table := range r.model.Tables() { // an unqualified name means these first
		if _, err := tx.Exec(ctx, fmt.Sprintf("CREATE TEMPORARY TABLE %s (LIKE %s INCLUDING ALL)", pgx.Identifier{table}.Sanitize(), qualified(r.live, table))); err != nil {
			return fmt.Errorf("make a table for the sample: %w", err)
		}
	}
	good := make([]domain.Record, 0, len(batch))
	for _, record := range batch {
		letter, err := projections.Judge(r.model, record)
		if err != nil {
			return err
		}
		if letter == nil {
			good = append(good, record)
		}
	}
	if err := r.model.Apply(ctx, tx, good); err != nil {
		return fmt.Errorf("fold the sample: %w", err)
	}
	var tables, indexes int64
	if err := tx.QueryRow(ctx, tempSizeSQL).Scan(&tables, &indexes); err != nil {
		return fmt.Errorf("measure the sample: %w", err)
	}
	s.events += int64(len(batch))
	s.tables += tables
	s.indexes += indexes
	return nil
}
