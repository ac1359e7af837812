package rebuild

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// caughtUpEvents is how little may be left to read before the versions are compared.
const caughtUpEvents = 10_000

// catchUp folds everything that there is, by the ordinary code, until little is left.
func (r *run) catchUp(ctx context.Context) error {
	for {
		left, err := r.follow(ctx, nil)
		if err != nil || left < caughtUpEvents {
			return err
		}
	}
}

// follow folds what lies between the new version's positions and a vector, nil: the present ends of the log, and tells
// how many offsets that were.
func (r *run) follow(ctx context.Context, to []domain.Position) (events int64, err error) {
	starts, ends, err := r.bounds(ctx)
	if err != nil {
		return 0, err
	}
	if to == nil {
		to = ends
	}
	f, err := r.follower(ctx, to)
	if err != nil {
		return 0, err
	}
	from := make([]domain.Position, len(to))
	for i, end := range to {
		row := f.rows[end.In()]
		from[i] = row.Position
		if start := startOf(starts, end); row.NextOffset < start.NextOffset {
			return 0, lost(r.model, end, start.NextOffset, row.NextOffset)
		}
		events += max(0, end.NextOffset-row.NextOffset)
	}
	r.reading(starts, ends, f.rows)
	if err := r.deps.Log.ReadRanges(ctx, from, to, func(records []domain.Record) error { return f.take(ctx, records) }); err != nil {
		return 0, err
	}
	return events, f.end(ctx)
}

func lost(m projections.ReadModel, in domain.Position, start, needed int64) error {
	return domain.Errorf(domain.CodeDataLoss, "%s/%d starts at %d, and %s needs it from %d: the events below are lost, and the read model cannot be rebuilt from the log; the live version is untouched",
		in.Topic, in.Partition, start, m, needed)
}

func startOf(starts []domain.Position, of domain.Position) domain.Position {
	i := slices.IndexFunc(starts, func(p domain.Position) bool { return p.In() == of.In() })
	if i < 0 {
		return of.In().At(0)
	}
	return starts[i]
}

// own keeps others from taking the rebuild over until tx ends. Once projectors follow the new version it is anybody's.
func (r *run) own(ctx context.Context, tx projections.Tx) error {
	if r.row.Phase == PhaseSwap {
		return nil
	}
	return r.hold(ctx, tx)
}

// checkLive tells whether the log is the one that the live version was made from. One that was made anew, or has lost
// its end, says less than the live version does.
func (r *run) checkLive(ctx context.Context) error {
	if !r.row.Proven {
		return nil
	}
	var rows []projections.PositionRow
	if err := r.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
		rows, err = projections.PositionsOf(ctx, q, r.live)
		return err
	}); err != nil {
		return err
	}
	_, ends, err := r.bounds(ctx) // after the positions, which go on moving
	if err != nil {
		return err
	}
	for _, row := range rows {
		i := slices.IndexFunc(ends, func(end domain.Position) bool { return end.In() == row.In() })
		switch {
		case i < 0 && row.NextOffset > 0:
			return domain.Errorf(domain.CodeDataLoss, "the topic %s is not the one that %s was made from: it was made anew; restore the topic, or the database to a time that fits it. The live version is untouched", row.Topic, r.live)
		case i >= 0 && row.NextOffset > ends[i].NextOffset:
			return domain.Errorf(domain.CodeDataLoss, "%s/%d ends at %d, and %s has read it to %d: the log has lost what that one holds; do not rebuild from it, the live version is untouched",
				row.Topic, row.Partition, ends[i].NextOffset, r.live, row.NextOffset)
		}
	}
	return nil
}

// bounds asks where the projection's topics start and end. A compacted topic, or one that was never cut, starts at 0.
func (r *run) bounds(ctx context.Context) (starts, ends []domain.Position, err error) {
	for _, topic := range r.model.Topics() {
		s, err := r.deps.Log.Starts(ctx, topic)
		if err != nil {
			return nil, nil, err
		}
		e, err := r.deps.Log.Ends(ctx, topic)
		if err != nil {
			return nil, nil, err
		}
		starts, ends = append(starts, s...), append(ends, e...)
	}
	return starts, ends, nil
}

// follower folds records into the new version by the ordinary projector's transaction.
type follower struct {
	run     *run
	rows    map[domain.Partition]projections.PositionRow
	to      map[domain.Partition]int64
	given   map[domain.Position]bool // records that operators gave up
	records []domain.Record
}

func (r *run) follower(ctx context.Context, to []domain.Position) (*follower, error) {
	given, err := r.given(ctx)
	if err != nil {
		return nil, err
	}
	f := &follower{run: r, to: map[domain.Partition]int64{}, given: given}
	parts := make([]domain.Partition, len(to))
	for i, p := range to {
		parts[i], f.to[p.In()] = p.In(), p.NextOffset
	}
	if err := r.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		if err := projections.InsertMissing(ctx, tx, r.model, parts); err != nil {
			return err
		}
		return r.own(ctx, tx)
	}); err != nil {
		return nil, err
	}
	return f, f.load(ctx)
}

// load reads the positions again.
func (f *follower) load(ctx context.Context) error {
	return f.run.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		rows, err := projections.PositionsOf(ctx, tx, f.run.model)
		if err != nil {
			return err
		}
		f.rows = map[domain.Partition]projections.PositionRow{}
		for _, row := range rows {
			f.rows[row.In()] = row
		}
		for part := range f.to {
			if _, ok := f.rows[part]; !ok {
				return errTakenOver // the version was dropped
			}
		}
		return nil
	})
}

func (f *follower) take(ctx context.Context, records []domain.Record) error {
	f.records = append(f.records, records...)
	if len(f.records) < f.run.opts.BatchEventsMax {
		return nil
	}
	return f.write(ctx, nextOf(f.records))
}

// nextOf is where records end, in each of their partitions.
func nextOf(records []domain.Record) []domain.Position {
	next := map[domain.Partition]domain.Position{}
	for _, r := range records {
		next[r.Partition] = r.Partition.At(r.Offset + 1)
	}
	return slices.SortedFunc(maps.Values(next), func(a, b domain.Position) int { return domain.ComparePartitions(a.In(), b.In()) })
}

// advance moves positions, and tells by how much in all.
func advance(rows map[domain.Partition]projections.PositionRow, moves []projections.Move) (by int64) {
	for _, m := range moves {
		row := rows[m.From.In()]
		by += m.NextOffset - row.NextOffset
		row.NextOffset, row.Epoch, row.ViewNextOffset = m.NextOffset, m.Epoch, m.ViewNextOffset
		rows[m.From.In()] = row
	}
	return by
}

// end moves the positions over what is no record: the ends of transactions, and what compaction took.
func (f *follower) end(ctx context.Context) error {
	next := make([]domain.Position, 0, len(f.to))
	for part, offset := range f.to {
		next = append(next, part.At(offset))
	}
	return f.write(ctx, next)
}

func (f *follower) write(ctx context.Context, next []domain.Position) error {
	if err := f.run.mayGoOn(ctx); err != nil {
		return err
	}
	batch := domain.Batch{Records: f.records, Next: next}
	for {
		work := projections.Cut(f.rows, batch)
		if len(work.Moves) == 0 {
			break
		}
		work.ParkedAt, work.LettersMax, work.Given = f.run.deps.Now(), f.run.lettersMax(), f.given
		err := f.run.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
			done, err := projections.Write(ctx, tx, f.run.model, work)
			if err != nil {
				return err
			}
			if err := f.run.checkParked(ctx, tx, done.Parked); err != nil {
				return err
			}
			return f.run.own(ctx, tx)
		})
		switch domain.CodeOf(err) {
		case domain.CodePositionBehind: // somebody else moved them
			if f.run.handsOver.Load() {
				return err
			}
		case domain.CodeUnavailable:
			if isFull(err) {
				return err
			}
			if err := f.run.waitABit(ctx, err); err != nil {
				return err
			}
		default:
			if err != nil {
				return err
			}
			advance(f.rows, work.Moves)
			f.run.moved(f.rows)
			f.records = f.records[:0]
			return nil
		}
		if err := f.load(ctx); err != nil {
			return err
		}
	}
	f.records = f.records[:0]
	return nil
}

// lettersMax is how many events may be parked: where there is a live version to compare with, what it holds, far beyond
// which this is; else as many as the live version might have, as a projector's LettersMax.
func (r *run) lettersMax() int64 {
	if r.row.Proven {
		return 1 << 20
	}
	return 1000
}

// checkParked refuses what the new version parks and the live one has applied: the program understands less than the one
// that folded it.
func (r *run) checkParked(ctx context.Context, q projections.Querier, parked []projections.DeadLetter) error {
	var places []projections.LetterPlace
	for _, l := range parked {
		if !l.Follows {
			places = append(places, projections.LetterPlace{Topic: l.Record.Partition.Topic, Partition: l.Record.Partition.Partition, Offset: l.Record.Offset})
		}
	}
	if len(places) == 0 || !r.row.Proven {
		return nil
	}
	letters, err := projections.Letters(ctx, q, projections.LetterFilter{Of: r.live, Places: places, Limit: len(places)})
	if err != nil {
		return err
	}
	known := map[domain.Position]bool{}
	for _, l := range letters {
		known[l.Position()] = true
	}
	rows, err := projections.PositionsOf(ctx, q, r.live)
	if err != nil {
		return err
	}
	for _, l := range parked {
		passed := slices.ContainsFunc(rows, func(row projections.PositionRow) bool {
			return row.In() == l.Record.Partition && row.NextOffset > l.Record.Offset
		})
		if !l.Follows && passed && !known[l.Record.Partition.At(l.Record.Offset)] {
			return domain.Errorf(domain.CodeConflict, "%s cannot be applied (%s), and it is no dead letter of the live version, which was past it: the live version is untouched. Rebuild with a program that can apply it",
				projections.At(l.Record), l.Reason)
		}
	}
	return nil
}

// waitABit pauses after an error that may pass.
func (r *run) waitABit(ctx context.Context, why error) error {
	r.deps.Logger.WarnContext(ctx, "retrying", "err", why)
	if err := waitOrEnd(ctx, retryAfter); err != nil {
		return fmt.Errorf("%w (%w)", err, why)
	}
	return nil
}

const retryAfter = 500 * time.Millisecond
