package posts

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// erasure is what a batch of post events takes the right to a text from.
type erasure struct {
	events []eventKey       // void ones: the texts that they name
	posts  []domain.PostKey // deleted ones: all their texts
}

func (e erasure) empty() bool { return len(e.events)+len(e.posts) == 0 }

// A text and the event that names it stand on two topics, so two transactions may fold them at the same time, and
// neither would see the other's row: the text of a void event would stay. So whoever erases excludes whoever writes
// texts; writers, the common case, do not exclude each other. The lock is taken once a transaction, after the
// rows of positions and posts, which the two do not share.
const bodiesLock = "7306916001"

var (
	lockBodiesSQL       = projections.SQL("posts.lock_bodies", `SELECT pg_advisory_xact_lock(`+bodiesLock+`)`)
	lockBodiesSharedSQL = projections.SQL("posts.lock_bodies_shared", `SELECT pg_advisory_xact_lock_shared(`+bodiesLock+`)`)
)

func lockBodies(ctx context.Context, tx projections.Tx, lost erasure, writes bool) error {
	sql := lockBodiesSQL
	switch {
	case !lost.empty():
	case writes:
		sql = lockBodiesSharedSQL
	default:
		return nil
	}
	if _, err := tx.Exec(ctx, sql); err != nil {
		return fmt.Errorf("lock texts: %w", err)
	}
	return nil
}

var (
	eraseOfEventsSQL = projections.SQL("posts.erase_bodies_of_events", `
UPDATE post_bodies b
SET body = '', erasable = true
FROM unnest(@tenants::text[], @posts::text[], @ids::uuid[]) AS e (tenant, post, event_id)
WHERE b.tenant = e.tenant AND b.post = e.post AND b.event_id = e.event_id AND NOT b.erasable`)
	eraseOfPostsSQL = projections.SQL("posts.erase_bodies_of_posts", `
UPDATE post_bodies b
SET body = '', erasable = true
FROM unnest(@tenants::text[], @posts::text[]) AS d (tenant, post)
WHERE b.tenant = d.tenant AND b.post = d.post AND NOT b.erasable`)
)

// eraseBodies empties the texts that are there, and marks them for the keeper. Those that come later are marked as
// they come.
func eraseBodies(ctx context.Context, tx projections.Tx, lost erasure) error {
	if len(lost.events) > 0 {
		slices.SortFunc(lost.events, compareEventKeys)
		if _, err := tx.Exec(ctx, eraseOfEventsSQL, eventKeyArgs(lost.events)); err != nil {
			return fmt.Errorf("erase texts of void events: %w", err)
		}
	}
	if len(lost.posts) > 0 {
		slices.SortFunc(lost.posts, compareKeys)
		tenants, posts := projections.PostKeyArgs(lost.posts)
		if _, err := tx.Exec(ctx, eraseOfPostsSQL, pgx.NamedArgs{"tenants": tenants, "posts": posts}); err != nil {
			return fmt.Errorf("erase texts of deleted posts: %w", err)
		}
	}
	return nil
}

var erasableSQL = projections.SQL("posts.erasable", `
SELECT b.tenant, b.post, b.event_id
FROM post_bodies b
WHERE b.erasable
ORDER BY b.tenant, b.post, b.event_id
LIMIT @limit`)

// Erasable gives tombstones of texts that still stand on the topic bodies and must not, at most limit. They are given
// again until the projection has read them: a repeat is harmless.
func Erasable(ctx context.Context, q projections.Querier, limit int) ([]domain.PostBodyErased, error) {
	rows, err := q.Query(ctx, erasableSQL, pgx.NamedArgs{"limit": limit})
	if err != nil {
		return nil, fmt.Errorf("read texts to erase: %w", err)
	}
	var erased []domain.PostBodyErased
	var e domain.PostBodyErased
	if _, err := pgx.ForEachRow(rows, []any{(*string)(&e.PostRef.Tenant), (*string)(&e.PostRef.Post), (*[16]byte)(&e.EventID)}, func() error {
		erased = append(erased, e)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read texts to erase: %w", err)
	}
	return erased, nil
}
