package projections

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
)

// PositionRow is where one version of a projection stands in one partition.
type PositionRow struct {
	domain.Position
	// ViewNextOffset is, on verdicts, one past the highest view offset that was folded; else 0.
	ViewNextOffset int64
	// CompleteTo: everything accepted before this time is folded. Zero: not known yet.
	CompleteTo time.Time
}

// Move takes a partition from where the mover believes it stands to where its batch ends.
type Move struct {
	From           domain.Position
	NextOffset     int64
	Epoch          domain.LeaderEpoch
	ViewNextOffset int64
	CompleteTo     time.Time // zero: leave it as it is
}

const positionColumns = `p.topic, p.topic_id, p.partition, p.next_offset, p.leader_epoch, p.view_next_offset, p.complete_to`

var livePositionsSQL = SQL("positions.live", `
SELECT p.projection, `+positionColumns+`
FROM positions p
JOIN read_models r ON r.projection = p.projection AND r.live_version = p.version
ORDER BY p.projection, p.topic, p.topic_id, p.partition`)

// Positions gives the positions of every projection's live version, by the projection's name.
func Positions(ctx context.Context, q Querier) (map[string][]PositionRow, error) {
	rows, err := q.Query(ctx, livePositionsSQL)
	if err != nil {
		return nil, fmt.Errorf("read live positions: %w", err)
	}
	all := map[string][]PositionRow{}
	var name string
	var row PositionRow
	_, err = pgx.ForEachRow(rows, append([]any{&name}, row.scan()...), func() error {
		all[name] = append(all[name], row.scanned())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read live positions: %w", err)
	}
	return all, nil
}

var positionsOfSQL = SQL("positions.of", `
SELECT `+positionColumns+`
FROM positions p
WHERE p.projection = @projection AND p.version = @version
ORDER BY p.topic, p.topic_id, p.partition`)

// PositionsOf gives the positions of one version of a projection, live or not.
func PositionsOf(ctx context.Context, q Querier, m ReadModel) ([]PositionRow, error) {
	return collectPositions(ctx, q, positionsOfSQL, m)
}

func collectPositions(ctx context.Context, q Querier, sql string, m ReadModel) ([]PositionRow, error) {
	rows, err := q.Query(ctx, sql, m.Args())
	if err != nil {
		return nil, fmt.Errorf("read positions of %s: %w", m, err)
	}
	var all []PositionRow
	var row PositionRow
	if _, err = pgx.ForEachRow(rows, row.scan(), func() error {
		all = append(all, row.scanned())
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read positions of %s: %w", m, err)
	}
	return all, nil
}

// A read model none of whose partitions was ever assigned is complete to nothing.
var asOfSQL = SQL("positions.as_of", `
SELECT COALESCE(min(m.complete_to), 'epoch'), count(*)
FROM (
    SELECT COALESCE(min(p.complete_to), 'epoch') AS complete_to
    FROM read_models r
    LEFT JOIN positions p ON p.projection = r.projection AND p.version = r.live_version
    WHERE r.projection = ANY(@names::text[])
    GROUP BY r.projection
) m`)

// AsOf is the time to which the live versions of all the named projections are complete: the least of their
// partitions. Zero: at least one of them is complete to no known time.
func AsOf(ctx context.Context, q Querier, names ...string) (time.Time, error) {
	var at time.Time
	var known int
	if err := q.QueryRow(ctx, asOfSQL, pgx.NamedArgs{"names": names}).Scan(&at, &known); err != nil {
		return time.Time{}, fmt.Errorf("read as_of: %w", err)
	}
	if known != len(names) {
		return time.Time{}, domain.Errorf(domain.CodeInternal, "read as_of: only %d of the projections %v are read models", known, names)
	}
	return FromEpoch(at), nil
}

// A read model that never knew how complete it is has no projectors that keep it so.
var liveTimesSQL = SQL("positions.live_times", `
SELECT r.projection, min(p.complete_to)
FROM read_models r
JOIN positions p ON p.projection = r.projection AND p.version = r.live_version
GROUP BY r.projection
HAVING min(p.complete_to) > 'epoch'`)

// LiveTimes are the times to which the live read models are complete, by projection; those that never were are not there.
func LiveTimes(ctx context.Context, q Querier) (map[string]time.Time, error) {
	rows, err := q.Query(ctx, liveTimesSQL)
	if err != nil {
		return nil, fmt.Errorf("ask how far the live read models are: %w", err)
	}
	times := map[string]time.Time{}
	var name string
	var asOf time.Time
	if _, err := pgx.ForEachRow(rows, []any{&name, &asOf}, func() error {
		times[name] = asOf
		return nil
	}); err != nil {
		return nil, fmt.Errorf("ask how far the live read models are: %w", err)
	}
	return times, nil
}

var (
	otherTopicSQL = SQL("positions.other_topic", `
SELECT p.topic
FROM positions p
JOIN unnest(@topics::text[], @topic_ids::uuid[]) AS n (topic, topic_id) ON n.topic = p.topic AND n.topic_id <> p.topic_id
WHERE p.projection = @projection AND p.version = @version
ORDER BY p.topic
LIMIT 1`)
	insertMissingSQL = SQL("positions.insert_missing", `
INSERT INTO positions (projection, version, topic_id, partition, topic)
SELECT @projection::text, @version::integer, n.topic_id, n.partition, n.topic
FROM unnest(@topics::text[], @topic_ids::uuid[], @partitions::integer[]) AS n (topic, topic_id, partition)
WHERE EXISTS (SELECT FROM read_model_versions v WHERE v.projection = @projection AND v.version = @version FOR KEY SHARE)
ON CONFLICT (projection, version, topic_id, partition) DO NOTHING`)
)

// InsertMissing gives every partition that has no position yet the position 0. A topic that was made anew is
// refused with CodeDataLoss: its offsets say nothing about the old one's. A version that does not stand, since it was
// dropped, gets none.
func InsertMissing(ctx context.Context, tx Tx, m ReadModel, parts []domain.Partition) error {
	if len(parts) == 0 {
		return nil
	}
	parts = slices.SortedFunc(slices.Values(parts), domain.ComparePartitions)
	args := m.Args()
	addPartitions(args, parts, func(p domain.Partition) domain.Partition { return p })
	var topic string
	switch err := tx.QueryRow(ctx, otherTopicSQL, args).Scan(&topic); {
	case err == nil:
		return domain.Errorf(domain.CodeDataLoss, "the topic %s is not the one that the positions of projection %s are in: it was made anew; restore the topic, or the database to a time that fits it", topic, m.Name())
	case err != pgx.ErrNoRows: //nolint:errorlint // QueryRow returns it bare
		return fmt.Errorf("look for positions in other topics: %w", err)
	}
	if _, err := tx.Exec(ctx, insertMissingSQL, args); err != nil {
		return fmt.Errorf("insert positions: %w", err)
	}
	return nil
}

var (
	// Whoever writes to a version's tables locks its positions first. So this is where unqualified names come to mean
	// the tables of that version, to the end of the transaction.
	lockPositionsSQL = SQL("positions.lock", `
SELECT p.topic_id, p.partition, p.next_offset, set_config('search_path', quote_ident(@schema) || ', public', true)
FROM positions p
WHERE p.projection = @projection AND p.version = @version
  AND (p.topic_id, p.partition) IN (SELECT * FROM unnest(@topic_ids::uuid[], @partitions::integer[]))
ORDER BY p.topic, p.topic_id, p.partition
FOR UPDATE`)
	advanceSQL = SQL("positions.advance", `
UPDATE positions p
SET next_offset = m.next_offset, leader_epoch = m.leader_epoch, view_next_offset = m.view_next_offset, complete_to = GREATEST(p.complete_to, m.complete_to)
FROM unnest(@topic_ids::uuid[], @partitions::integer[], @next::bigint[], @epochs::integer[], @view_next::bigint[], @complete_to::timestamptz[])
    AS m (topic_id, partition, next_offset, leader_epoch, view_next_offset, complete_to)
WHERE p.projection = @projection AND p.version = @version AND p.topic_id = m.topic_id AND p.partition = m.partition`)
)

// Advance compares and sets: it locks the rows of the moves in order and moves them all, or, where one does
// not stand at its From, none, and tells so. The caller then rolls back and reads the positions again.
func Advance(ctx context.Context, tx Tx, m ReadModel, moves []Move) (ok bool, err error) {
	if len(moves) == 0 {
		return true, nil
	}
	moves = slices.SortedFunc(slices.Values(moves), func(a, b Move) int { return domain.ComparePartitions(a.From.In(), b.From.In()) })
	args := m.Args()
	addPartitions(args, moves, func(m Move) domain.Partition { return m.From.In() })
	rows, err := tx.Query(ctx, lockPositionsSQL, args)
	if err != nil {
		return false, fmt.Errorf("lock positions: %w", err)
	}
	var id [16]byte
	var partition int32
	var at int64
	n, match := 0, true
	if _, err = pgx.ForEachRow(rows, []any{&id, &partition, &at, nil}, func() error {
		if n < len(moves) {
			f := moves[n].From
			match = match && id == f.TopicID && partition == f.Partition && at == f.NextOffset
		}
		n++
		return nil
	}); err != nil {
		return false, fmt.Errorf("lock positions: %w", err)
	}
	if !match || n != len(moves) {
		return false, nil
	}
	next, epochs, view, complete := make([]int64, n), make([]int32, n), make([]int64, n), make([]time.Time, n)
	for i, m := range moves {
		next[i], epochs[i], view[i], complete[i] = m.NextOffset, int32(m.Epoch), m.ViewNextOffset, ToEpoch(m.CompleteTo)
	}
	args["next"], args["epochs"], args["view_next"], args["complete_to"] = next, epochs, view, complete
	if _, err := tx.Exec(ctx, advanceSQL, args); err != nil {
		return false, fmt.Errorf("advance positions: %w", err)
	}
	return true, nil
}

// The position must still be the one that the time was found for: a projector that lost its partition
// writes nothing, not even this.
var completeToSQL = SQL("positions.complete_to", `
UPDATE positions p
SET complete_to = m.complete_to
FROM unnest(@topic_ids::uuid[], @partitions::integer[], @next::bigint[], @complete_to::timestamptz[])
    AS m (topic_id, partition, next_offset, complete_to)
WHERE p.projection = @projection AND p.version = @version AND p.topic_id = m.topic_id AND p.partition = m.partition
  AND p.next_offset = m.next_offset AND p.complete_to < m.complete_to`)

var insertLoadedSQL = SQL("positions.insert_loaded", `
INSERT INTO positions (projection, version, topic_id, partition, topic, next_offset, view_next_offset)
SELECT @projection::text, @version::integer, n.*
FROM unnest(@topic_ids::uuid[], @partitions::integer[], @topics::text[], @next::bigint[], @view_next::bigint[]) AS n`)

// InsertLoaded writes, for a bulk load, how far it goes and what it could not apply. The partitions have no position yet.
func InsertLoaded(ctx context.Context, tx Tx, m ReadModel, rows []PositionRow, letters []DeadLetter, at time.Time) error {
	rows = slices.SortedFunc(slices.Values(rows), func(a, b PositionRow) int { return domain.ComparePartitions(a.In(), b.In()) })
	args := m.Args()
	addPartitions(args, rows, func(r PositionRow) domain.Partition { return r.In() })
	next, view := make([]int64, len(rows)), make([]int64, len(rows))
	for i, r := range rows {
		next[i], view[i] = r.NextOffset, r.ViewNextOffset
	}
	args["next"], args["view_next"] = next, view
	if _, err := tx.Exec(ctx, insertLoadedSQL, args); err != nil {
		return fmt.Errorf("insert loaded positions: %w", err)
	}
	if len(letters) == 0 {
		return nil
	}
	return park(ctx, tx, m, letters, at)
}

var lockAllSQL = SQL("positions.lock_all", `
SELECT `+positionColumns+`
FROM positions p
WHERE p.projection = @projection AND p.version = @version
ORDER BY p.topic, p.topic_id, p.partition
FOR UPDATE`)

// LockPositions gives the positions of a version and keeps its projectors from moving them until tx ends.
func LockPositions(ctx context.Context, tx Tx, m ReadModel) ([]PositionRow, error) {
	return collectPositions(ctx, tx, lockAllSQL, m)
}

// CompleteTo raises the times of partitions that stand where the rows say, when nothing else is to be written.
// The caller runs it after locking nothing else; rows that moved meanwhile are left alone.
func CompleteTo(ctx context.Context, tx Tx, m ReadModel, rows []PositionRow) error {
	if len(rows) == 0 {
		return nil
	}
	rows = slices.SortedFunc(slices.Values(rows), func(a, b PositionRow) int { return domain.ComparePartitions(a.In(), b.In()) })
	args := m.Args()
	addPartitions(args, rows, func(r PositionRow) domain.Partition { return r.In() })
	next, complete := make([]int64, len(rows)), make([]time.Time, len(rows))
	for i, r := range rows {
		next[i], complete[i] = r.NextOffset, ToEpoch(r.CompleteTo)
	}
	args["next"], args["complete_to"] = next, complete
	if _, err := tx.Exec(ctx, completeToSQL, args); err != nil {
		return fmt.Errorf("raise complete_to: %w", err)
	}
	return nil
}

// Args are those that most statements about a version have in common.
func (m ReadModel) Args() pgx.NamedArgs {
	return pgx.NamedArgs{"projection": m.Name(), "version": m.Version, "schema": m.Schema()}
}

func addPartitions[T any](args pgx.NamedArgs, of []T, in func(T) domain.Partition) {
	topics, ids, partitions := make([]string, len(of)), make([][16]byte, len(of)), make([]int32, len(of))
	for i, v := range of {
		p := in(v)
		topics[i], ids[i], partitions[i] = string(p.Topic), p.TopicID, p.Partition
	}
	args["topics"], args["topic_ids"], args["partitions"] = topics, ids, partitions
}

func (r *PositionRow) scan() []any {
	return []any{(*string)(&r.Topic), (*[16]byte)(&r.TopicID), &r.Partition, &r.NextOffset, (*int32)(&r.Epoch), &r.ViewNextOffset, &r.CompleteTo}
}

func (r *PositionRow) scanned() PositionRow {
	row := *r
	row.CompleteTo = FromEpoch(row.CompleteTo)
	return row
}

// ToEpoch is a time as tables have it: there the epoch stands for "not known", since a column that is NOT NULL can be compared
// plainly.
func ToEpoch(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}

// FromEpoch is a time that ToEpoch has written.
func FromEpoch(t time.Time) time.Time {
	if t.Unix() <= 0 {
		return time.Time{}
	}
	return t.UTC()
}
