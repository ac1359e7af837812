package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// EndpointStatus is how the calls of an endpoint go.
type EndpointStatus struct {
	Waiting       int64      // posts that it was not told yet, as they stand now
	Milestones    int64      // calls of milestones that wait
	Parked        int64      // posts and milestones that it refused
	FailingSince  *time.Time // nil: the last call worked, or there was none
	Attempts      int        // since then
	NextAttemptAt *time.Time
	LastError     string
	LastSuccessAt *time.Time
}

var statusSQL = projections.SQL("relay.status", `
SELECT (SELECT count(*)
        FROM relay_partitions p
        LEFT JOIN relay_cursors u ON u.tenant = @tenant AND u.endpoint = @endpoint AND u.partition = p.partition
        JOIN relay_counts c ON c.tenant = @tenant AND c.partition = p.partition AND c.record_offset >= COALESCE(u.next_offset, 0)),
       (SELECT count(*) FROM relay_milestones m WHERE m.tenant = @tenant AND m.endpoint = @endpoint),
       (SELECT count(*) FROM relay_parked p WHERE p.tenant = @tenant AND p.endpoint = @endpoint),
       e.failing_since, COALESCE(e.attempts, 0), e.next_attempt_at, COALESCE(e.last_error, ''), e.last_success_at
FROM (SELECT) one
LEFT JOIN relay_endpoints e ON e.tenant = @tenant AND e.endpoint = @endpoint`)

// Status tells how the calls of an endpoint go.
func Status(ctx context.Context, q projections.Querier, tenant domain.TenantID, endpoint string) (s EndpointStatus, err error) {
	if err := q.QueryRow(ctx, statusSQL, endpointKey{tenant, endpoint}.args()).Scan(
		&s.Waiting, &s.Milestones, &s.Parked, &s.FailingSince, &s.Attempts, &s.NextAttemptAt, &s.LastError, &s.LastSuccessAt,
	); err != nil {
		return s, fmt.Errorf("read how an endpoint does: %w", err)
	}
	return s, nil
}

// ParkedItem is what an endpoint has refused.
type ParkedItem struct {
	Endpoint    string
	Post        domain.PostID
	Milestone   int64 // 0: the post's counts
	Revision    int64
	Impressions int64
	Partition   int32
	Reason      string // status and the answer's first words
	ParkedAt    time.Time
}

var parkedSQL = projections.SQL("relay.parked", `
SELECT p.endpoint, p.post, p.milestone, p.revision, p.impressions, p.partition, p.reason, p.parked_at
FROM relay_parked p
WHERE p.tenant = @tenant AND (@endpoint = '' OR p.endpoint = @endpoint) AND (@post = '' OR p.post = @post)
ORDER BY p.endpoint, p.post, p.milestone
LIMIT @limit`)

// Parked lists what the endpoints of a tenant have refused; of one endpoint or post where they are not empty.
func Parked(ctx context.Context, q projections.Querier, tenant domain.TenantID, endpoint string, post domain.PostID, limit int) ([]ParkedItem, error) {
	args := endpointKey{tenant, endpoint}.args()
	args["post"], args["limit"] = string(post), limit
	rows, err := q.Query(ctx, parkedSQL, args)
	if err != nil {
		return nil, fmt.Errorf("list what is parked: %w", err)
	}
	items, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ParkedItem])
	if err != nil {
		return nil, fmt.Errorf("list what is parked: %w", err)
	}
	return items, nil
}

var redrivenSQL = projections.SQL("relay.redriven", `
DELETE FROM relay_parked p
WHERE p.tenant = @tenant AND p.endpoint = @endpoint AND p.post = @post AND p.milestone = @milestone`)

// Redrive has parked items sent again: a milestone by its own call, a post's counts by telling them once more, under the next
// revision.
func Redrive(ctx context.Context, tx projections.Tx, tenant domain.TenantID, items []ParkedItem) error {
	var wishes []wish
	var calls []milestone
	for _, one := range items {
		args := endpointKey{tenant, one.Endpoint}.args()
		args["post"], args["milestone"] = string(one.Post), one.Milestone
		if _, err := tx.Exec(ctx, redrivenSQL, args); err != nil {
			return fmt.Errorf("take up what was parked: %w", err)
		}
		if one.Milestone == 0 {
			wishes = append(wishes, wish{domain.PostKey{Tenant: tenant, Post: one.Post}, one.Partition, one.Revision})
			continue
		}
		calls = append(calls, milestone{
			item:   item{post: one.Post, partition: one.Partition, impressions: one.Impressions, revision: one.Revision, milestone: one.Milestone},
			tenant: tenant, endpoint: one.Endpoint,
		})
	}
	if err := resend(ctx, tx, wishes); err != nil {
		return err
	}
	return insertMilestones(ctx, tx, calls)
}
