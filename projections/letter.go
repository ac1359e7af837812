package projections

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
)

// Letter is a dead letter as it stands in the table.
type Letter struct {
	Partition  domain.Partition
	Offset     int64
	OrderKey   string // empty: nothing waits behind it
	Key        []byte // of the record
	EventType  string // empty: it could not be decoded
	Reason     string
	Follows    bool
	Discarding bool // an operator is giving it up: only a discard may take it away
	ValueBytes int  // of the value that is kept in the table; -1: it is read from the log
	RecordedAt time.Time
	ParkedAt   time.Time
}

// Position is where the letter's record stands: its NextOffset is the record's offset.
func (l Letter) Position() domain.Position { return l.Partition.At(l.Offset) }

// Is tells whether a record that was read from the log again is the one that was parked: a log that was cut off behind
// it and has grown past it since holds another in its place.
func (l Letter) Is(r domain.Record) bool {
	return r.Partition == l.Partition && r.Offset == l.Offset && bytes.Equal(r.Key, l.Key) &&
		Micros(clampTime(r.Time)).Equal(l.RecordedAt) && (l.EventType == "" || r.Event != nil && r.Event.EventType() == l.EventType)
}

// LetterPlace names a letter as people do, without the topic's id.
type LetterPlace struct {
	Topic     domain.Topic
	Partition int32
	Offset    int64
}

// LetterFilter chooses dead letters of one version.
type LetterFilter struct {
	Of      ReadModel
	Tenant  domain.TenantID // empty: of all
	Keys    [][]byte        // of the record; none: all
	Places  []LetterPlace   // none: all
	Follow  *Letter         // only those behind it, with its order key
	After   domain.Position // only those behind this one, in the order of partitions and offsets
	Without []string        // order keys left out
	Limit   int
}

const lettersWhere = `
WHERE d.projection = @projection AND d.version = @version
  AND (@tenant::bytea = ''::bytea OR substr(d.record_key, 1, octet_length(@tenant::bytea)) = @tenant::bytea)
  AND (cardinality(@keys::bytea[]) = 0 OR d.record_key = ANY(@keys::bytea[]))
  AND (cardinality(@offsets::bigint[]) = 0 OR (d.topic, d.partition, d.record_offset) IN
       (SELECT * FROM unnest(@topics::text[], @partitions::integer[], @offsets::bigint[])))
  AND (@follow_key::bytea = ''::bytea OR d.order_key = @follow_key::bytea AND d.order_key <> '' AND d.topic_id = @follow_topic_id::uuid
       AND d.partition = @follow_partition::integer AND d.record_offset > @follow_offset::bigint)`

var lettersSQL = SQL("dead_letters.list", `
SELECT d.topic, d.topic_id, d.partition, d.record_offset, d.order_key, d.record_key, d.event_type, d.reason, d.follows,
       d.discarding, COALESCE(octet_length(d.record_value), -1), d.recorded_at, d.parked_at
FROM dead_letters d`+lettersWhere+`
  AND (d.topic, d.topic_id, d.partition, d.record_offset) >
      (@after_topic::text COLLATE "C", @after_topic_id::uuid, @after_partition::integer, @after_offset::bigint)
  AND d.order_key <> ALL(@without::bytea[])
ORDER BY d.topic, d.topic_id, d.partition, d.record_offset
LIMIT @limit`)

func (f LetterFilter) args() pgx.NamedArgs {
	n := len(f.Places)
	topics, partitions, offsets := make([]string, n), make([]int32, n), make([]int64, n)
	for i, p := range f.Places {
		topics[i], partitions[i], offsets[i] = string(p.Topic), p.Partition, p.Offset
	}
	keys, without, tenant := make([][]byte, 0, len(f.Keys)), make([][]byte, len(f.Without)), []byte{}
	keys = append(keys, f.Keys...)
	for i, key := range f.Without {
		without[i] = []byte(key)
	}
	if f.Tenant != "" {
		tenant = domain.TenantPrefix(f.Tenant)
	}
	args := pgx.NamedArgs{
		"projection": f.Of.Name(), "version": f.Of.Version, "tenant": tenant, "keys": keys, "without": without, "limit": f.Limit,
		"topics": topics, "partitions": partitions, "offsets": offsets,
		"after_topic": string(f.After.Topic), "after_topic_id": [16]byte(f.After.TopicID), "after_partition": f.After.Partition, "after_offset": f.After.NextOffset,
		"follow_key": []byte{}, "follow_topic_id": [16]byte{}, "follow_partition": int32(0), "follow_offset": int64(0),
	}
	if l := f.Follow; l != nil {
		args["follow_key"], args["follow_topic_id"] = []byte(l.OrderKey), [16]byte(l.Partition.TopicID)
		args["follow_partition"], args["follow_offset"] = l.Partition.Partition, l.Offset
	}
	return args
}

// Letters gives dead letters in the order of partitions and offsets, at most the filter's limit.
func Letters(ctx context.Context, q Querier, f LetterFilter) ([]Letter, error) {
	rows, err := q.Query(ctx, lettersSQL, f.args())
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	letters, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Letter, err error) {
		var orderKey []byte
		err = row.Scan((*string)(&l.Partition.Topic), (*[16]byte)(&l.Partition.TopicID), &l.Partition.Partition, &l.Offset, &orderKey, &l.Key,
			&l.EventType, &l.Reason, &l.Follows, &l.Discarding, &l.ValueBytes, &l.RecordedAt, &l.ParkedAt)
		l.OrderKey, l.RecordedAt, l.ParkedAt = string(orderKey), l.RecordedAt.UTC(), l.ParkedAt.UTC()
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return letters, nil
}

// LetterCount is how many dead letters are parked: for what they are, and because they follow others.
type LetterCount struct {
	Letters int64
	Follow  int64
	Oldest  time.Time // when the first of them was parked; zero: there is none
}

var countFilteredSQL = SQL("dead_letters.count_filtered", `
SELECT count(*) FILTER (WHERE NOT d.follows), count(*) FILTER (WHERE d.follows), COALESCE(min(d.parked_at), 'epoch')
FROM dead_letters d`+lettersWhere)

// CountFiltered counts the dead letters that Letters would give without limit, After and Without.
func CountFiltered(ctx context.Context, q Querier, f LetterFilter) (n LetterCount, err error) {
	if err := q.QueryRow(ctx, countFilteredSQL, f.args()).Scan(&n.Letters, &n.Follow, &n.Oldest); err != nil {
		return LetterCount{}, fmt.Errorf("count dead letters: %w", err)
	}
	n.Oldest = FromEpoch(n.Oldest)
	return n, nil
}

var countAllSQL = SQL("dead_letters.count_all", `
SELECT r.projection, count(*) FILTER (WHERE NOT d.follows), count(*) FILTER (WHERE d.follows)
FROM read_models r
JOIN dead_letters d ON d.projection = r.projection AND d.version = r.live_version
GROUP BY r.projection`)

// CountAllLetters counts the dead letters of the given projections' live versions. All of them are in the answer.
func CountAllLetters(ctx context.Context, q Querier, of []Projection) (map[string]LetterCount, error) {
	counts := map[string]LetterCount{}
	for _, p := range of {
		counts[p.Name()] = LetterCount{}
	}
	rows, err := q.Query(ctx, countAllSQL)
	if err != nil {
		return nil, fmt.Errorf("count all dead letters: %w", err)
	}
	var name string
	var n LetterCount
	if _, err := pgx.ForEachRow(rows, []any{&name, &n.Letters, &n.Follow}, func() error {
		if _, asked := counts[name]; asked {
			counts[name] = n
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("count all dead letters: %w", err)
	}
	return counts, nil
}

var letterValuesSQL = SQL("dead_letters.values", `
SELECT d.record_offset, d.record_value
FROM dead_letters d
WHERE d.projection = @projection AND d.version = @version AND d.topic_id = @topic_id AND d.partition = @partition
  AND d.record_offset = ANY(@offsets::bigint[]) AND d.record_value IS NOT NULL`)

// LetterValues gives the values that are kept in the table, by offset, of letters of one partition.
func LetterValues(ctx context.Context, q Querier, m ReadModel, in domain.Partition, offsets []int64) (map[int64][]byte, error) {
	rows, err := q.Query(ctx, letterValuesSQL, letterArgs(m, in, offsets))
	if err != nil {
		return nil, fmt.Errorf("read values of dead letters: %w", err)
	}
	values := map[int64][]byte{}
	var at int64
	var value []byte
	if _, err := pgx.ForEachRow(rows, []any{&at, &value}, func() error {
		values[at], value = value, nil
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read values of dead letters: %w", err)
	}
	return values, nil
}

func letterArgs(m ReadModel, in domain.Partition, offsets []int64) pgx.NamedArgs {
	return pgx.NamedArgs{
		"projection": m.Name(), "version": m.Version, "topic_id": [16]byte(in.TopicID), "partition": in.Partition, "offsets": offsets,
	}
}
