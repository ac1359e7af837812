package posts

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// HistoryEvent is what became of one event of a post.
type HistoryEvent struct {
	EventType string
	domain.Outcome
	RecordedAt   time.Time
	RecordOffset int64 // its place in the log: a post's events are all in one partition
}

var historySQL = projections.SQL("posts.history", `
SELECT e.event_type, e.outcome, e.version, e.recorded_at, e.record_offset
FROM post_events e
WHERE e.tenant = @tenant AND e.post = @post AND e.record_offset > @after
ORDER BY e.record_offset
LIMIT @limit`)

// History gives a page of a post's events in log order; after is the record offset of the last one of the page
// before, -1 for the first page. It holds no text.
func History(ctx context.Context, q projections.Querier, key domain.PostKey, after int64, limit int) ([]HistoryEvent, error) {
	rows, err := q.Query(ctx, historySQL, pgx.NamedArgs{
		"tenant": string(key.Tenant), "post": string(key.Post), "after": after, "limit": limit,
	})
	if err != nil {
		return nil, fmt.Errorf("read the history of a post: %w", err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e HistoryEvent, err error) {
		err = row.Scan(&e.EventType, (*string)(&e.Kind), &e.Version, &e.RecordedAt, &e.RecordOffset)
		e.RecordedAt = e.RecordedAt.UTC()
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the history of a post: %w", err)
	}
	return events, nil
}
