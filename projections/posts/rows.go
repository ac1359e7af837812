package posts

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

var baselineRowsSQL = projections.SQL("posts.baseline_rows", `
SELECT p.tenant, p.post, p.baseline_impressions, p.baseline_unique_viewers, COALESCE(p.baseline_as_of, 'epoch')
FROM posts p
WHERE (p.baseline_as_of IS NOT NULL OR p.baseline_impressions <> 0 OR p.baseline_unique_viewers <> 0)
  AND (@tenant = '' OR p.tenant = @tenant) AND (@post = '' OR p.post = @post)`)

// BaselineRows hands out the imported counts of every row that has some, in any order; of one tenant or post where they are
// not empty. AsOf is the epoch where there is none, which no import makes.
func BaselineRows(ctx context.Context, q projections.Querier, of domain.PostKey, f func(key domain.PostKey, b domain.Baseline)) error {
	rows, err := q.Query(ctx, baselineRowsSQL, pgx.NamedArgs{"tenant": string(of.Tenant), "post": string(of.Post)})
	if err != nil {
		return fmt.Errorf("read all imported counts: %w", err)
	}
	var key domain.PostKey
	var b domain.Baseline
	if _, err := pgx.ForEachRow(rows, []any{(*string)(&key.Tenant), (*string)(&key.Post), &b.Impressions, &b.UniqueViewers, &b.AsOf}, func() error {
		f(key, b)
		return nil
	}); err != nil {
		return fmt.Errorf("read all imported counts: %w", err)
	}
	return nil
}

var baselinePostsSQL = projections.SQL("posts.baseline_posts", `
SELECT p.tenant, p.post
FROM posts p
WHERE p.baseline_as_of IS NOT NULL AND (p.tenant, p.post) > (@tenant, @post)
ORDER BY p.tenant, p.post
LIMIT @limit`)

// BaselinePosts gives a page of the posts with imported counts, published here or not; see projections.PostPage.
func BaselinePosts(ctx context.Context, q projections.Querier, after domain.PostKey, limit int) ([]domain.PostKey, error) {
	return projections.PostPage(ctx, q, baselinePostsSQL, after, limit)
}
