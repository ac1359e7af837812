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
	// A text may come after its event lost, or after its post was deleted.
	writeBodiesSQL = projections.SQL("posts.write_bodies", `
INSERT INTO post_bodies (tenant, post, event_id, body, erasable)
SELECT w.tenant, w.post, w.event_id, CASE WHEN v.erasable THEN '' ELSE w.body END, v.erasable
FROM unnest(@tenants::text[], @posts::text[], @ids::uuid[], @bodies::text[]) AS w (tenant, post, event_id, body)
CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM posts p WHERE p.tenant = w.tenant AND p.post = w.post AND p.deleted)
        OR EXISTS (SELECT FROM post_events e
                   WHERE e.tenant = w.tenant AND e.post = w.post AND e.event_id = w.event_id AND starts_with(e.outcome, 'void_'))
) AS v (erasable)
ON CONFLICT (tenant, post, event_id) DO UPDATE SET body = EXCLUDED.body, erasable = EXCLUDED.erasable`)
	removeBodiesSQL = projections.SQL("posts.remove_bodies", `
DELETE FROM post_bodies b
USING unnest(@tenants::text[], @posts::text[], @ids::uuid[]) AS e (tenant, post, event_id)
WHERE b.tenant = e.tenant AND b.post = e.post AND b.event_id = e.event_id`)
)

// applyBodies writes the texts, and removes those that are nil: their tombstone has come. The caller holds
// lockBodies.
func applyBodies(ctx context.Context, tx projections.Tx, bodies map[eventKey]*string) error {
	var written, removed []eventKey
	var texts []string
	for _, k := range slices.SortedFunc(maps.Keys(bodies), compareEventKeys) {
		if text := bodies[k]; text != nil {
			written, texts = append(written, k), append(texts, *text)
		} else {
			removed = append(removed, k)
		}
	}
	if len(written) > 0 {
		args := eventKeyArgs(written)
		args["bodies"] = texts
		if _, err := tx.Exec(ctx, writeBodiesSQL, args); err != nil {
			return fmt.Errorf("write texts: %w", err)
		}
	}
	if len(removed) > 0 {
		if _, err := tx.Exec(ctx, removeBodiesSQL, eventKeyArgs(removed)); err != nil {
			return fmt.Errorf("remove texts: %w", err)
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
