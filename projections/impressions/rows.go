package impressions

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

var rowsSQL = projections.SQL("impressions.rows", `
SELECT c.tenant, c.post, c.shard, c.impressions, c.anonymous_impressions
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
	if _, err := pgx.ForEachRow(rows, []any{(*string)(&key.Tenant), (*string)(&key.Post), &shard, &c.Impressions, &c.AnonymousImpressions}, func() error {
		f(key, shard, c)
		return nil
	}); err != nil {
		return fmt.Errorf("read all impressions: %w", err)
	}
	return nil
}
