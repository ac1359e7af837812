package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"seenby/domain"
)

// Work is what one transaction of a projection does.
type Work struct {
	Moves      []Move
	Records    []domain.Record // what the moves pass, repeats left out
	ParkedAt   time.Time
	Given      map[domain.Position]bool // records that operators gave up, by their offset: neither applied nor parked; nil: none
	LettersMax int64                    // how many dead letters of the projection may be parked in all, not counting those that follow others
}

// Done says what became of a Work's records.
type Done struct {
	Applied int
	Parked  []DeadLetter
}

// ErrMoved says that somebody else moved a position: nothing may be committed, and the positions are to be
// read again.
var ErrMoved = domain.Errorf(domain.CodePositionBehind, "a position was moved by another projector")

// Cut takes from a batch what lies beyond the positions: it leaves out partitions without a row, records below
// next_offset, and verdicts whose view offset is below view_next_offset, which are repeats. The moves go to
// where the batch ends.
func Cut(rows map[domain.Partition]PositionRow, b domain.Batch) Work {
	var w Work
	moves := make(map[domain.Partition]*Move, len(b.Next))
	w.Moves = make([]Move, 0, len(b.Next))
	for _, next := range b.Next {
		row, ok := rows[next.In()]
		if !ok || next.NextOffset <= row.NextOffset {
			continue
		}
		w.Moves = append(w.Moves, Move{From: row.Position, NextOffset: next.NextOffset, Epoch: next.Epoch, ViewNextOffset: row.ViewNextOffset})
		moves[next.In()] = &w.Moves[len(w.Moves)-1]
	}
	w.Records = make([]domain.Record, 0, len(b.Records))
	for _, r := range b.Records {
		m := moves[r.Partition]
		if m == nil || r.Offset < m.From.NextOffset || r.Offset >= m.NextOffset {
			continue
		}
		if v, ok := r.Event.(*domain.Verdict); ok {
			if v.ViewOffset < m.ViewNextOffset {
				continue
			}
			m.ViewNextOffset = v.ViewOffset + 1
		}
		w.Records = append(w.Records, r)
	}
	return w
}

// Write does a Work in tx: the positions first, then the fold of what can be folded, then the dead letters.
// It fails with ErrMoved where a position does not stand where the work was cut, with domain.ErrUnknownEvent
// where the process is too old, and with a Full where more letters than allowed would be parked; the caller rolls
// back on any error.
func Write(ctx context.Context, tx Tx, m ReadModel, w Work) (Done, error) {
	ok, err := Advance(ctx, tx, m, w.Moves)
	if err != nil {
		return Done{}, err
	}
	if !ok {
		return Done{}, ErrMoved
	}
	good, letters, err := sift(ctx, tx, m, w.Records, w.Given)
	if err != nil {
		return Done{}, err
	}
	if len(good) > 0 {
		if err := m.Apply(ctx, tx, good); err != nil {
			return Done{}, fmt.Errorf("apply to %s: %w", m.Name(), err)
		}
	}
	if len(letters) > 0 {
		if err := roomFor(ctx, tx, m, letters, w.LettersMax); err != nil {
			return Done{}, err
		}
		if err := park(ctx, tx, m, letters, w.ParkedAt); err != nil {
			return Done{}, err
		}
	}
	return Done{Applied: len(good), Parked: letters}, nil
}

// Full says that the projection has as many dead letters as it may, and that Record would be one more. It is a
// domain.Error of CodeTooLarge: an operator redrives or discards some, and the same work can be done.
type Full struct {
	Record domain.Record
	err    *domain.Error
}

func (f *Full) Error() string { return f.err.Error() }

func (f *Full) Unwrap() error { return f.err }

// It is the last lock of a transaction, so nobody who holds it waits for another. References to the row, which every
// new position and letter makes, do not wait for it.
var lockParkingSQL = SQL("dead_letters.lock_parking", `
SELECT FROM read_model_versions v WHERE v.projection = @projection AND v.version = @version FOR NO KEY UPDATE`)

// roomFor tells whether the letters may be parked. Those that follow others always may: an app that goes on writing
// one post must not stop the others. Projectors of one projection that park at once do so one after the other, or each
// would count without the other's.
func roomFor(ctx context.Context, tx Tx, m ReadModel, letters []DeadLetter, lettersMax int64) error {
	if _, err := tx.Exec(ctx, lockParkingSQL, m.Args()); err != nil {
		return fmt.Errorf("lock the parking of %s: %w", m, err)
	}
	n, err := CountLetters(ctx, tx, m)
	if err != nil {
		return err
	}
	for _, l := range letters {
		if l.Follows {
			continue
		}
		if n++; n > lettersMax {
			return &Full{Record: l.Record, err: domain.Errorf(domain.CodeTooLarge,
				"projection %s has %d dead letters, as many as it may, and stands still before %s (%s): this is no stray event; "+
					"look at them with `seenby deadletters list --projection %s`, then redrive or discard them: the projection goes on by itself",
				m.Name(), n-1, At(l.Record), l.Reason, m.Name())}
		}
	}
	return nil
}

// Until is the part of a batch that can be done without reaching a record of it: each partition ends before the first
// of its records that does not come before that record in the batch.
func Until(b domain.Batch, r domain.Record) domain.Batch {
	i := slices.IndexFunc(b.Records, func(o domain.Record) bool { return o.Partition == r.Partition && o.Offset == r.Offset })
	if i < 0 {
		return domain.Batch{}
	}
	left := map[domain.Partition]int64{}
	for _, o := range b.Records[i:] {
		if _, met := left[o.Partition]; !met {
			left[o.Partition] = o.Offset
		}
	}
	out := domain.Batch{Records: b.Records[:i], Next: slices.Clone(b.Next)}
	for n, next := range out.Next {
		if offset, cut := left[next.In()]; cut {
			out.Next[n] = next.In().At(offset) // the epoch of the record before it is not known: the batch has its last one's
		}
	}
	return out
}

const followsReason = "an earlier event with its key is parked"

// sift parts the records that can be folded from those to be parked: poison, and whatever follows a parked
// event with its order key. The positions are locked, so nobody redrives letters meanwhile.
func sift(ctx context.Context, q Querier, m ReadModel, records []domain.Record, given map[domain.Position]bool) (good []domain.Record, letters []DeadLetter, err error) {
	var keys [][]byte
	ordered := make([]string, len(records))
	seen := map[string]bool{}
	for i, r := range records {
		if key := boundOrderKey(m.OrderKey(r)); key != "" {
			ordered[i] = key
			if !seen[key] {
				seen[key] = true
				keys = append(keys, []byte(key))
			}
		}
	}
	parked, err := parkedKeys(ctx, q, m, keys)
	if err != nil {
		return nil, nil, err
	}
	good = make([]domain.Record, 0, len(records))
	for i, r := range records {
		if given[r.Partition.At(r.Offset)] {
			continue
		}
		letter, err := Judge(m, r)
		switch {
		case err != nil:
			return nil, nil, err
		case letter == nil && parked[ordered[i]]:
			letter = &DeadLetter{Record: r, Reason: followsReason, Follows: true}
		case letter == nil:
			good = append(good, r)
			continue
		}
		letter.OrderKey = ordered[i]
		letters = append(letters, *letter)
		if letter.OrderKey != "" {
			parked[letter.OrderKey] = true
		}
	}
	return good, letters, nil
}

// Judge tells whether a record by itself can be folded: nil, or the letter to be parked, without its order key. A program
// that is too old for the record fails with domain.ErrUnknownEvent.
func Judge(p Projection, r domain.Record) (*DeadLetter, error) {
	bad := r.Err
	if bad == nil {
		bad = p.Check(r)
	}
	switch {
	case bad == nil:
		return nil, nil //nolint:nilnil // as it says
	case errors.Is(bad, domain.ErrUnknownEvent):
		return nil, fmt.Errorf("%s: %w", At(r), bad)
	}
	return &DeadLetter{Record: r, Reason: bad.Error()}, nil
}

// At names a record for people: topic, partition and offset.
func At(r domain.Record) string {
	return fmt.Sprintf("%s partition %d offset %d", r.Partition.Topic, r.Partition.Partition, r.Offset)
}
