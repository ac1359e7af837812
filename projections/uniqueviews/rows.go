package uniqueviews

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

var viewerRowsSQL = projections.SQL("uniqueviews.viewer_rows", `
SELECT u.tenant, u.post, u.viewer, u.first_viewed_at, u.last_viewed_at, u.views, u.shard
FROM unique_views u
WHERE (@tenant = '' OR u.tenant = @tenant) AND (@post = '' OR u.post = @post)`)

// ViewerRows hands out every row of unique_views, in any order; of one tenant or post where they are not empty.
func ViewerRows(ctx context.Context, q projections.Querier, of domain.PostKey, f func(key domain.PostKey, v Viewer, shard int16)) error {
	rows, err := q.Query(ctx, viewerRowsSQL, pgx.NamedArgs{"tenant": string(of.Tenant), "post": string(of.Post)})
	if err != nil {
		return fmt.Errorf("read all unique views: %w", err)
	}
	var key domain.PostKey
	var person []byte
	var v Viewer
	var shard int16
	into := []any{(*string)(&key.Tenant), (*string)(&key.Post), &person, &v.FirstViewedAt, &v.LastViewedAt, &v.Views, &shard}
	if _, err := pgx.ForEachRow(rows, into, func() error {
		v.Person = domain.PersonKey(person)
		f(key, v, shard)
		return nil
	}); err != nil {
		return fmt.Errorf("read all unique views: %w", err)
	}
	return nil
}

var countRowsSQL = projections.SQL("uniqueviews.count_rows", `
SELECT c.tenant, c.post, c.shard, c.unique_viewers
FROM unique_view_counts c
WHERE (@tenant = '' OR c.tenant = @tenant) AND (@post = '' OR c.post = @post)`)

// CountRows hands out every row of unique_view_counts, as ViewerRows does.
func CountRows(ctx context.Context, q projections.Querier, of domain.PostKey, f func(key domain.PostKey, shard int16, viewers int64)) error {
	rows, err := q.Query(ctx, countRowsSQL, pgx.NamedArgs{"tenant": string(of.Tenant), "post": string(of.Post)})
	if err != nil {
		return fmt.Errorf("read all counts of unique viewers: %w", err)
	}
	var key domain.PostKey
	var shard int16
	var viewers int64
	if _, err := pgx.ForEachRow(rows, []any{(*string)(&key.Tenant), (*string)(&key.Post), &shard, &viewers}, func() error {
		f(key, shard, viewers)
		return nil
	}); err != nil {
		return fmt.Errorf("read all counts of unique viewers: %w", err)
	}
	return nil
}
