package impressions

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

var rowsSQL = projections.SQL("impressions.rows", `
SELECT c.tenant, c.post, c.shard, c.impressions, c.anonymous_impressions, c.imported_impressions
FROM impressions c
WHERE (@tenant = '' OR c.tenant = @tenant) AND (@post = '' OR c.post = @post)`)

// Rows hands out every row of the table, in any order; of one tenant or post where they are not empty.
func Rows(ctx context.Context, q projections.Querier, of domain.PostKey, f func(key domain.PostKey, shard int16, c Count)) error {
	rows, err := q.Query(ctx, rowsSQL, pgx.NamedArgs{"tenant": string(of.Tenant), "post": string(of.Post)})
	if err != nil {
		return fmt.Errorf("read all impressions: %w", err)
	}
	var key domain.PostKey
	var shard int16
	var c Count
	into := []any{(*string)(&key.Tenant), (*string)(&key.Post), &shard, &c.Impressions, &c.AnonymousImpressions, &c.ImportedImpressions}
	if _, err := pgx.ForEachRow(rows, into, func() error {
		f(key, shard, c)
		return nil
	}); err != nil {
		return fmt.Errorf("read all impressions: %w", err)
	}
	return nil
}

// A post has up to eight rows, which lie side by side in the key: it is read in its order as far as the page goes.
var postsSQL = projections.SQL("impressions.posts", `
SELECT DISTINCT c.tenant, c.post
FROM impressions c
WHERE (c.tenant, c.post) > (@tenant, @post)
ORDER BY c.tenant, c.post
LIMIT @limit`)

// Posts gives a page of the posts that were seen; see projections.PostPage.
func Posts(ctx context.Context, q projections.Querier, after domain.PostKey, limit int) ([]domain.PostKey, error) {
	return projections.PostPage(ctx, q, postsSQL, after, limit)
}
