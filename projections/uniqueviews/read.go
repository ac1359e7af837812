package uniqueviews

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

var countsSQL = projections.SQL("uniqueviews.counts", `
SELECT k.tenant, k.post, sum(c.unique_viewers)::bigint
FROM (SELECT DISTINCT * FROM unnest(@tenants::text[], @posts::text[])) AS k (tenant, post)
JOIN unique_view_counts c ON c.tenant = k.tenant AND c.post = k.post
GROUP BY k.tenant, k.post`)

// Counts gives how many known viewers each post has; one that nobody known saw is not in the map.
func Counts(ctx context.Context, q projections.Querier, keys []domain.PostKey) (map[domain.PostKey]int64, error) {
	tenants, posts := projections.PostKeyArgs(keys)
	rows, err := q.Query(ctx, countsSQL, pgx.NamedArgs{"tenants": tenants, "posts": posts})
	if err != nil {
		return nil, fmt.Errorf("read unique viewers: %w", err)
	}
	counts := make(map[domain.PostKey]int64, len(keys))
	var k domain.PostKey
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{(*string)(&k.Tenant), (*string)(&k.Post), &n}, func() error {
		counts[k] = n
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read unique viewers: %w", err)
	}
	return counts, nil
}

// Viewer is a known person who saw a post.
type Viewer struct {
	Person        domain.PersonKey
	FirstViewedAt time.Time
	LastViewedAt  time.Time
	Views         int64
}

// ViewersCursor is the last row of a page.
type ViewersCursor struct {
	FirstViewedAt time.Time
	Person        domain.PersonKey
}

// beforeAll stands before every row: later than any time that Check lets in.
var beforeAll = ViewersCursor{FirstViewedAt: time.Date(3001, 1, 1, 0, 0, 0, 0, time.UTC)}

var viewersSQL = projections.SQL("uniqueviews.viewers", `
SELECT u.viewer, u.first_viewed_at, u.last_viewed_at, u.views
FROM unique_views u
WHERE u.tenant = @tenant AND u.post = @post AND (u.first_viewed_at, u.viewer) < (@first_viewed_at::timestamptz, @viewer::bytea)
ORDER BY u.first_viewed_at DESC, u.viewer DESC
LIMIT @limit`)

// Viewers gives a page of a post's viewers by first_viewed_at, newest first, ties by person; after is the last
// row of the page before, nil for the first one. A viewer whose first view moves to an earlier time meanwhile
// (an old view that was reported late) may stand on two pages, and is never left out.
func Viewers(ctx context.Context, q projections.Querier, key domain.PostKey, after *ViewersCursor, limit int) ([]Viewer, error) {
	if after == nil {
		after = &beforeAll
	}
	rows, err := q.Query(ctx, viewersSQL, pgx.NamedArgs{
		"tenant": string(key.Tenant), "post": string(key.Post),
		"first_viewed_at": after.FirstViewedAt, "viewer": after.Person[:], "limit": limit,
	})
	if err != nil {
		return nil, fmt.Errorf("read viewers: %w", err)
	}
	viewers := make([]Viewer, 0, min(limit, 1000))
	var person []byte
	var v Viewer
	if _, err := pgx.ForEachRow(rows, []any{&person, &v.FirstViewedAt, &v.LastViewedAt, &v.Views}, func() error {
		v.Person = domain.PersonKey(person)
		v.FirstViewedAt, v.LastViewedAt = v.FirstViewedAt.UTC(), v.LastViewedAt.UTC()
		viewers = append(viewers, v)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read viewers: %w", err)
	}
	return viewers, nil
}
