package posts

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

var (
	writeBodiesSQL = projections.SQL("posts.write_bodies", `
INSERT INTO post_bodies (tenant, post, event_id, body)
SELECT * FROM unnest(@tenants::text[], @posts::text[], @ids::uuid[], @bodies::text[])
ON CONFLICT (tenant, post, event_id) DO UPDATE SET body = EXCLUDED.body`)
	eraseBodiesSQL = projections.SQL("posts.erase_bodies", `
DELETE FROM post_bodies b
USING unnest(@tenants::text[], @posts::text[], @ids::uuid[]) AS e (tenant, post, event_id)
WHERE b.tenant = e.tenant AND b.post = e.post AND b.event_id = e.event_id`)
)

// applyBodies writes the texts, and erases those that are nil. A text's records are all in one partition, so
// nobody else holds a lock on its row.
func applyBodies(ctx context.Context, tx projections.Tx, bodies map[eventKey]*string) error {
	var written, erased []eventKey
	var texts []string
	for _, k := range slices.SortedFunc(maps.Keys(bodies), compareEventKeys) {
		if text := bodies[k]; text != nil {
			written, texts = append(written, k), append(texts, *text)
		} else {
			erased = append(erased, k)
		}
	}
	if len(written) > 0 {
		args := eventKeyArgs(written)
		args["bodies"] = texts
		if _, err := tx.Exec(ctx, writeBodiesSQL, args); err != nil {
			return fmt.Errorf("write texts: %w", err)
		}
	}
	if len(erased) > 0 {
		if _, err := tx.Exec(ctx, eraseBodiesSQL, eventKeyArgs(erased)); err != nil {
			return fmt.Errorf("erase texts: %w", err)
		}
	}
	return nil
}

func eventKeyArgs(keys []eventKey) pgx.NamedArgs {
	posts, ids := make([]domain.PostKey, len(keys)), make([][16]byte, len(keys))
	for i, k := range keys {
		posts[i], ids[i] = k.post, k.id
	}
	tenants, names := projections.PostKeyArgs(posts)
	return pgx.NamedArgs{"tenants": tenants, "posts": names, "ids": ids}
}
