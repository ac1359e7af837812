package rebuild

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"seenby/domain"
	"seenby/projections"
)

// load fills the tables where the projection can be loaded in bulk; where not, its keys come first, and catching up
// reads everything.
//
// A shard's rows come with the positions of its partitions in one transaction: so a shard is loaded whole or not at all,
// and the next process goes on with those that are missing.
func (r *run) load(ctx context.Context) error {
	loader, ok := r.model.Projection.(projections.BulkLoader)
	if !ok {
		return nil
	}
	starts, ends, err := r.bounds(ctx)
	if err != nil {
		return err
	}
	given, err := r.given(ctx)
	if err != nil {
		return err
	}
	loaded, err := r.positions(ctx)
	if err != nil {
		return err
	}
	r.reading(starts, ends, loaded)
	shards := map[int16]*shard{}
	for _, end := range ends {
		if start := startOf(starts, end); start.NextOffset > 0 {
			return lost(r.model, end, start.NextOffset, 0)
		}
		if _, done := loaded[end.In()]; done {
			continue
		}
		n := projections.Shard(end.Partition)
		if shards[n] == nil {
			shards[n] = &shard{run: r, loader: loader, number: n, given: given, rows: map[domain.Partition]projections.PositionRow{}}
		}
		shards[n].to = append(shards[n].to, end)
		shards[n].rows[end.In()] = projections.PositionRow{Position: end.In().At(0)}
	}
	workers := max(1, min(r.opts.Workers, len(shards)))
	room := projections.BulkRoom{MemoryBytes: r.opts.MemoryBytes / int64(workers), Dir: r.opts.TempDir}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for _, n := range slices.Sorted(maps.Keys(shards)) {
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := shards[n].load(ctx, room); err != nil {
				return fmt.Errorf("shard %d: %w", n, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// shard is one load: of the partitions whose rows meet.
type shard struct {
	run     *run
	loader  projections.BulkLoader
	number  int16
	to      []domain.Position
	rows    map[domain.Partition]projections.PositionRow
	given   map[domain.Position]bool
	letters []projections.DeadLetter
}

func (s *shard) load(ctx context.Context, room projections.BulkRoom) error {
	load, err := s.loader.BulkLoad(s.number, room)
	if err != nil {
		return err
	}
	defer load.Close() //nolint:errcheck // it only gives back
	from := make([]domain.Position, len(s.to))
	for i, end := range s.to {
		from[i] = end.In().At(0)
	}
	if err := s.run.deps.Log.ReadRanges(ctx, from, s.to, func(records []domain.Record) error { return s.add(ctx, load, records) }); err != nil {
		return err
	}
	if runs, bytes := load.Spilled(); runs > 0 {
		s.run.deps.Logger.InfoContext(ctx, "rebuild: rows that memory did not hold were sorted on disk", "projection", s.run.model.Name(), "batches", runs, "bytes", bytes)
	}
	return s.run.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error { return s.write(ctx, tx, load) })
}

// add folds records, and leaves out what the ordinary projector leaves out or parks.
func (s *shard) add(ctx context.Context, load projections.BulkLoad, records []domain.Record) error {
	if err := s.run.mayGoOn(ctx); err != nil {
		return err
	}
	work := projections.Cut(s.rows, domain.Batch{Records: records, Next: nextOf(records)})
	read := advance(s.rows, work.Moves)
	good := work.Records[:0]
	for _, r := range work.Records {
		if s.given[r.Partition.At(r.Offset)] {
			continue
		}
		letter, err := projections.Judge(s.loader, r)
		switch {
		case err != nil:
			return err
		case letter != nil:
			s.letters = append(s.letters, *letter)
			if len(s.letters)%checkLettersEvery == 0 {
				if err := s.checkLast(ctx); err != nil {
					return err
				}
			}
		default:
			good = append(good, r)
		}
	}
	if most := s.run.lettersMax(); int64(len(s.letters)) > most {
		return domain.Errorf(domain.CodeTooLarge, "more than %d events cannot be applied: this is a wrong program, and no stray event", most)
	}
	if err := load.Add(good); err != nil {
		return err
	}
	s.run.tell(func(p *Progress) { p.Done += read })
	return nil
}

// checkLettersEvery is after how many poison events a wrong program is looked for, and not only when all is read.
const checkLettersEvery = 1000

func (s *shard) checkLast(ctx context.Context) error {
	return s.run.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		return s.run.checkParked(ctx, q, s.letters[len(s.letters)-checkLettersEvery:])
	})
}

// write fills the tables and says how far they go.
func (s *shard) write(ctx context.Context, tx projections.Tx, load projections.BulkLoad) error {
	if err := load.Copy(func(t projections.BulkTable) error {
		_, err := s.run.deps.Store.Copy(ctx, tx, t.CopySQL(s.run.model), t.Rows)
		return err
	}); err != nil {
		return err
	}
	rows := make([]projections.PositionRow, 0, len(s.to))
	rest := int64(0)
	for _, end := range s.to {
		row := s.rows[end.In()]
		rest += end.NextOffset - row.NextOffset
		row.NextOffset = end.NextOffset // over the end of the last transaction
		rows = append(rows, row)
	}
	if err := projections.InsertLoaded(ctx, tx, s.run.model, rows, s.letters, s.run.deps.Now()); err != nil {
		return err
	}
	if err := s.run.checkParked(ctx, tx, s.letters); err != nil {
		return err
	}
	s.run.tell(func(p *Progress) { p.Done += rest })
	return s.run.hold(ctx, tx)
}

// given are the records that operators gave up.
func (r *run) given(ctx context.Context) (map[domain.Position]bool, error) {
	if r.givenUp != nil {
		return r.givenUp, nil
	}
	in, err := r.deps.Log.Installation(ctx)
	if err != nil {
		return nil, err
	}
	given := map[domain.Position]bool{}
	for at := range in.Discards[r.model.Name()] {
		given[at] = true
	}
	return given, nil
}

// positions are those of the new version.
func (r *run) positions(ctx context.Context) (map[domain.Partition]projections.PositionRow, error) {
	at := map[domain.Partition]projections.PositionRow{}
	err := r.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		rows, err := projections.PositionsOf(ctx, q, r.model)
		for _, row := range rows {
			at[row.In()] = row
		}
		return err
	})
	return at, err
}
