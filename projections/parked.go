package projections

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
)

// ParkedRecord is where the record of a dead letter stands, and what waits behind it.
type ParkedRecord struct {
	Partition domain.Partition
	Offset    int64
	OrderKey  []byte
}

var liveParkedSQL = SQL("dead_letters.live_parked", `
SELECT d.projection, d.topic, d.topic_id, d.partition, d.record_offset, d.order_key
FROM dead_letters d
JOIN read_models r ON r.projection = d.projection AND r.live_version = d.version`)

// LiveParked hands out the dead letters of every projection's live version, in any order.
func LiveParked(ctx context.Context, q Querier, f func(projection string, r ParkedRecord)) error {
	rows, err := q.Query(ctx, liveParkedSQL)
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	var name string
	var r ParkedRecord
	into := []any{&name, (*string)(&r.Partition.Topic), (*[16]byte)(&r.Partition.TopicID), &r.Partition.Partition, &r.Offset, &r.OrderKey}
	if _, err := pgx.ForEachRow(rows, into, func() error {
		f(name, r)
		return nil
	}); err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	return nil
}
