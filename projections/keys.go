package projections

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
)

// PostKeyArgs are keys as two parallel array arguments, @tenants and @posts.
func PostKeyArgs(keys []domain.PostKey) (tenants, posts []string) {
	tenants, posts = make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		tenants[i], posts[i] = string(k.Tenant), string(k.Post)
	}
	return tenants, posts
}

// PostPage runs a statement that gives a page of posts, of all tenants, by tenant and id: those behind (@tenant, @post), at most
// @limit. after is the last one of the page before, zero for the first page. Fewer than limit: there are no more.
func PostPage(ctx context.Context, q Querier, sql string, after domain.PostKey, limit int) ([]domain.PostKey, error) {
	rows, err := q.Query(ctx, sql, pgx.NamedArgs{"tenant": string(after.Tenant), "post": string(after.Post), "limit": limit})
	if err != nil {
		return nil, fmt.Errorf("read a page of posts: %w", err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByPos[domain.PostKey])
	if err != nil {
		return nil, fmt.Errorf("read a page of posts: %w", err)
	}
	return keys, nil
}
