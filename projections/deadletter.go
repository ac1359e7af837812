package projections

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
)

// DeadLetter is a record to be parked.
type DeadLetter struct {
	Record   domain.Record
	OrderKey string // empty: nothing waits behind it
	Reason   string // for people
	Follows  bool   // parked only because an earlier letter has its order key
}

const (
	orderKeyBytesMax = 512  // longer than any key of ours, short enough for an index entry
	reasonBytesMax   = 1024 // for people to read; the record itself is the evidence
)

// boundOrderKey keeps the key of a foreign record, which may be of any length, short enough for an index.
func boundOrderKey(key string) string {
	if len(key) <= orderKeyBytesMax {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return "sha256:" + string(sum[:])
}

var parkedKeysSQL = SQL("dead_letters.parked_keys", `
SELECT DISTINCT d.order_key
FROM dead_letters d
WHERE d.projection = @projection AND d.version = @version AND d.order_key <> '' AND d.order_key = ANY(@keys::bytea[])`)

// parkedKeys gives those of the order keys (bounded) that have letters parked.
func parkedKeys(ctx context.Context, q Querier, m ReadModel, keys [][]byte) (map[string]bool, error) {
	parked := map[string]bool{}
	if len(keys) == 0 {
		return parked, nil
	}
	args := m.Args()
	args["keys"] = keys
	rows, err := q.Query(ctx, parkedKeysSQL, args)
	if err != nil {
		return nil, fmt.Errorf("look for parked keys: %w", err)
	}
	var key []byte
	if _, err = pgx.ForEachRow(rows, []any{&key}, func() error {
		parked[string(key)] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look for parked keys: %w", err)
	}
	return parked, nil
}

var countLettersSQL = SQL("dead_letters.count", `
SELECT count(*) FROM dead_letters d WHERE d.projection = @projection AND d.version = @version AND NOT d.follows`)

// CountLetters is how many dead letters of a version are parked for what they are, and not only because
// they follow another.
func CountLetters(ctx context.Context, q Querier, m ReadModel) (n int64, err error) {
	if err := q.QueryRow(ctx, countLettersSQL, m.Args()).Scan(&n); err != nil {
		return 0, fmt.Errorf("count dead letters: %w", err)
	}
	return n, nil
}

var parkSQL = SQL("dead_letters.park", `
INSERT INTO dead_letters (projection, version, topic_id, partition, record_offset, topic, order_key, reason, follows,
                          event_type, record_key, record_value, recorded_at, parked_at)
SELECT @projection::text, @version::integer, l.*, @parked_at::timestamptz
FROM unnest(@topic_ids::uuid[], @partitions::integer[], @offsets::bigint[], @topics::text[], @order_keys::bytea[],
            @reasons::text[], @follows::boolean[], @event_types::text[], @record_keys::bytea[], @values::bytea[],
            @times::timestamptz[]) AS l`)

// park writes dead letters; at is the time of the parking.
func park(ctx context.Context, tx Tx, m ReadModel, letters []DeadLetter, at time.Time) error {
	n := len(letters)
	offsets, orderKeys, reasons, follows := make([]int64, n), make([][]byte, n), make([]string, n), make([]bool, n)
	types, keys, values, times := make([]string, n), make([][]byte, n), make([][]byte, n), make([]time.Time, n)
	for i, l := range letters {
		r := l.Record
		offsets[i], orderKeys[i], reasons[i], follows[i] = r.Offset, []byte(l.OrderKey), storable(l.Reason), l.Follows
		if r.Event != nil {
			types[i] = r.Event.EventType()
		}
		keys[i], values[i], times[i] = append([]byte{}, r.Key...), r.Value, clampTime(r.Time)
	}
	args := pgx.NamedArgs{
		"projection": m.Name(), "version": m.Version, "parked_at": at, "offsets": offsets, "order_keys": orderKeys,
		"reasons": reasons, "follows": follows, "event_types": types, "record_keys": keys, "values": values, "times": times,
	}
	addPartitions(args, letters, func(l DeadLetter) domain.Partition { return l.Record.Partition })
	if _, err := tx.Exec(ctx, parkSQL, args); err != nil {
		return fmt.Errorf("park dead letters: %w", err)
	}
	return nil
}

// storable makes any text one that PostgreSQL keeps.
func storable(s string) string {
	s = strings.ReplaceAll(s, "\x00", "\\0")
	if len(s) > reasonBytesMax {
		s = s[:reasonBytesMax]
	}
	if s = strings.ToValidUTF8(s, "?"); s == "" {
		return "no reason given"
	}
	if len(s) > reasonBytesMax { // "?" may not be longer than what it replaces, but be sure
		s = s[:reasonBytesMax]
	}
	return s
}

// clampTime makes any record timestamp one that PostgreSQL keeps: a foreign producer may have set it to
// anything.
func clampTime(t time.Time) time.Time {
	if domain.CheckTime("", t) != nil || t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}
