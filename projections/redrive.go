package projections

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
)

// Redriving is what one transaction tries: letters of one partition, with their records read again.
type Redriving struct {
	In domain.Partition
	// Offsets of the letters.
	Offsets []int64
	// Records by offset. A letter whose record is not here stays.
	Records map[int64]domain.Record
	// Discarded are offsets that an operator's decision on the topic tenants gives up.
	Discarded map[int64]bool
	// Overtaken, where given, tells which of the offsets a later record of their key has passed that waits for
	// nothing, such as the tombstone of a text. It is called once the position, given to it, is locked.
	Overtaken func(ctx context.Context, nextOffset int64) (map[int64]bool, error)
}

// Fate is what became of a dead letter.
type Fate string

// The fates. Only the first applies the event; the last two leave the letter where it is.
const (
	FateApplied   Fate = "applied"   // folded into the tables
	FateDiscarded Fate = "discarded" // an operator had given it up: taken away
	FateOvertaken Fate = "overtaken" // what it says was taken back by a later record: taken away
	FateAbsent    Fate = "absent"    // somebody else redrove or discarded it
	FatePoison    Fate = "poison"    // it still cannot be applied
	FateWaits     Fate = "waits"     // an earlier letter with its key stays
)

// Redriven is one letter's fate.
type Redriven struct {
	Offset   int64
	OrderKey string
	Fate     Fate
	Reason   string // why it stays
}

// Stays tells whether the letter is still parked.
func (r Redriven) Stays() bool { return r.Fate == FatePoison || r.Fate == FateWaits }

// Redrive tries dead letters again in tx: it locks the partition's position, so that the projector neither parks nor
// applies anything of the partition meanwhile, looks which of the letters still stand, checks their records anew,
// applies those that can be, in order, by the projection's own Apply, and deletes their letters. So each event is
// applied once, or its letter stays. Within an order key nothing passes a letter that stays, chosen or not. The
// caller rolls back on any error. The position does not move: it is past these records already.
func Redrive(ctx context.Context, tx Tx, m ReadModel, w Redriving) ([]Redriven, error) {
	next, err := lockPosition(ctx, tx, m, w.In)
	if err != nil {
		return nil, err
	}
	if err := CheckFold(ctx, tx, m); err != nil {
		return nil, err
	}
	var overtaken map[int64]bool
	if w.Overtaken != nil {
		if overtaken, err = w.Overtaken(ctx, next); err != nil {
			return nil, err
		}
	}
	standing, err := standingLetters(ctx, tx, m, w)
	if err != nil {
		return nil, err
	}
	fates, good, stays := judge(m, w, standing, overtaken)
	if len(good) > 0 {
		if err := m.Apply(ctx, tx, good); err != nil {
			return nil, fmt.Errorf("apply to %s: %w", m.Name(), err)
		}
	}
	var gone []int64
	for _, f := range fates {
		if !f.Stays() && f.Fate != FateAbsent {
			gone = append(gone, f.Offset)
		}
	}
	if err := deleteLetters(ctx, tx, m, w.In, gone); err != nil {
		return nil, err
	}
	return fates, explainLetters(ctx, tx, m, w.In, stays)
}

// standing is a letter as it is found under the lock.
type standing struct {
	offset     int64
	orderKey   string
	discarding bool
	waits      bool // behind one that is not among the chosen
}

// judge decides each letter's fate, in the order of the log. good are the records to apply; stays are the letters
// whose reason to stay is known, as sift would have it.
func judge(p Projection, w Redriving, letters []standing, overtaken map[int64]bool) (fates []Redriven, good []domain.Record, stays []Redriven) {
	found := make(map[int64]bool, len(letters))
	stuck := map[string]bool{}
	for _, l := range letters {
		found[l.offset] = true
		f := Redriven{Offset: l.offset, OrderKey: l.orderKey}
		r, have := w.Records[l.offset]
		bad := r.Err
		if have && bad == nil {
			bad = p.Check(r)
		}
		switch {
		case w.Discarded[l.offset]:
			f.Fate = FateDiscarded
		case l.discarding:
			f.Fate, f.Reason = FatePoison, "an operator began to discard it: run that discard again, to its end"
		case !have:
			f.Fate, f.Reason = FatePoison, "the log no longer holds it, and the table has no copy"
		case overtaken[l.offset]:
			f.Fate = FateOvertaken
		case errors.Is(bad, domain.ErrUnknownEvent):
			f.Fate, f.Reason = FatePoison, bad.Error() // said, but not written down: it is a fault of this process
		case bad != nil:
			f.Fate, f.Reason = FatePoison, bad.Error()
			stays = append(stays, f)
		case l.waits || stuck[l.orderKey]:
			f.Fate, f.Reason = FateWaits, followsReason
			stays = append(stays, f)
		default:
			f.Fate = FateApplied
			good = append(good, r)
		}
		if f.Stays() && l.orderKey != "" {
			stuck[l.orderKey] = true
		}
		fates = append(fates, f)
	}
	for _, offset := range w.Offsets {
		if !found[offset] {
			fates = append(fates, Redriven{Offset: offset, Fate: FateAbsent})
		}
	}
	return fates, good, stays
}

// Overtakes tells whether a record takes back what an earlier letter with its record key says: it is one that waits
// for nothing, in a projection where that letter's kind does wait, such as the tombstone of a text.
func Overtakes(p Projection, later domain.Record, orderKey string) bool {
	return orderKey != "" && later.Err == nil && p.OrderKey(later) == "" && p.Check(later) == nil
}

// lockPosition locks a partition's position and gives where it stands.
func lockPosition(ctx context.Context, tx Tx, m ReadModel, in domain.Partition) (next int64, err error) {
	args := m.Args()
	addPartitions(args, []domain.Partition{in}, func(p domain.Partition) domain.Partition { return p })
	var id [16]byte
	var partition int32
	if err := tx.QueryRow(ctx, lockPositionsSQL, args).Scan(&id, &partition, &next, nil); err != nil {
		return 0, fmt.Errorf("lock the position of %s in %s partition %d: %w", m, in.Topic, in.Partition, err)
	}
	return next, nil
}

var standingSQL = SQL("dead_letters.standing", `
WITH chosen AS (
    SELECT d.record_offset, d.order_key, d.discarding
    FROM dead_letters d
    WHERE d.projection = @projection AND d.version = @version AND d.topic_id = @topic_id AND d.partition = @partition
      AND d.record_offset = ANY(@offsets::bigint[])
), others AS (
    SELECT e.order_key, min(e.record_offset) AS record_offset
    FROM dead_letters e
    WHERE e.projection = @projection AND e.version = @version AND e.topic_id = @topic_id AND e.partition = @partition
      AND e.order_key <> '' AND e.order_key IN (SELECT c.order_key FROM chosen c) AND e.record_offset <> ALL(@offsets::bigint[])
    GROUP BY e.order_key
)
SELECT c.record_offset, c.order_key, c.discarding, COALESCE(o.record_offset < c.record_offset, false)
FROM chosen c
LEFT JOIN others o ON o.order_key = c.order_key
ORDER BY c.record_offset`)

func standingLetters(ctx context.Context, q Querier, m ReadModel, w Redriving) ([]standing, error) {
	rows, err := q.Query(ctx, standingSQL, letterArgs(m, w.In, w.Offsets))
	if err != nil {
		return nil, fmt.Errorf("look for dead letters: %w", err)
	}
	letters, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s standing, err error) {
		var orderKey []byte
		err = row.Scan(&s.offset, &orderKey, &s.discarding, &s.waits)
		s.orderKey = string(orderKey)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for dead letters: %w", err)
	}
	return letters, nil
}

var deleteLettersSQL = SQL("dead_letters.delete", `
DELETE FROM dead_letters d
WHERE d.projection = @projection AND d.version = @version AND d.topic_id = @topic_id AND d.partition = @partition
  AND d.record_offset = ANY(@offsets::bigint[])`)

// deleteLetters deletes letters that the caller has found under the lock.
func deleteLetters(ctx context.Context, tx Tx, m ReadModel, in domain.Partition, offsets []int64) error {
	if len(offsets) == 0 {
		return nil
	}
	tag, err := tx.Exec(ctx, deleteLettersSQL, letterArgs(m, in, offsets))
	if err != nil {
		return fmt.Errorf("delete dead letters: %w", err)
	}
	if n := tag.RowsAffected(); n != int64(len(offsets)) {
		return domain.Errorf(domain.CodeInternal, "%d dead letters were there, and %d could be deleted", len(offsets), n)
	}
	return nil
}

// After an upgrade an event may be poison that only followed before, and the other way round.
var explainLettersSQL = SQL("dead_letters.explain", `
UPDATE dead_letters d
SET reason = n.reason, follows = n.follows
FROM unnest(@offsets::bigint[], @reasons::text[], @follows::boolean[]) AS n (record_offset, reason, follows)
WHERE d.projection = @projection AND d.version = @version AND d.topic_id = @topic_id AND d.partition = @partition
  AND d.record_offset = n.record_offset AND (d.follows <> n.follows OR d.reason <> n.reason)`)

// explainLetters writes down why letters stay.
func explainLetters(ctx context.Context, tx Tx, m ReadModel, in domain.Partition, letters []Redriven) error {
	if len(letters) == 0 {
		return nil
	}
	offsets, reasons, follows := make([]int64, len(letters)), make([]string, len(letters)), make([]bool, len(letters))
	for i, l := range letters {
		offsets[i], reasons[i], follows[i] = l.Offset, storable(l.Reason), l.Fate == FateWaits
	}
	args := letterArgs(m, in, offsets)
	args["reasons"], args["follows"] = reasons, follows
	if _, err := tx.Exec(ctx, explainLettersSQL, args); err != nil {
		return fmt.Errorf("write the reasons of dead letters: %w", err)
	}
	return nil
}
