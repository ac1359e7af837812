package posts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// View is a post as readers see it.
type View struct {
	domain.Post
	Text string // empty where there is none, where it is erased, or where it has not come yet
}

// postRow receives postColumns.
type postRow struct {
	key                                domain.PostKey
	version                            int64
	deleted                            bool
	author, digest                     []byte
	audience                           string
	published, created, updated, asOf  *time.Time
	bodyEvent                          *[16]byte
	baseImpressions, baseUniqueViewers int64
}

func (r *postRow) scan() []any {
	return []any{
		(*string)(&r.key.Tenant), (*string)(&r.key.Post), &r.version, &r.deleted, &r.author, &r.audience,
		&r.published, &r.created, &r.updated, &r.digest, &r.bodyEvent, &r.baseImpressions, &r.baseUniqueViewers, &r.asOf,
	}
}

func (r *postRow) post() domain.Post {
	p := domain.Post{
		Version: r.version, Deleted: r.deleted, Author: domain.PersonKey(r.author), Audience: domain.Audience(r.audience),
		PublishedAt: taken(r.published), CreatedAt: taken(r.created), UpdatedAt: taken(r.updated),
		Baseline: domain.Baseline{Impressions: r.baseImpressions, UniqueViewers: r.baseUniqueViewers, AsOf: taken(r.asOf)},
	}
	if r.bodyEvent != nil {
		p.Body, p.BodyEvent = domain.Digest(r.digest), *r.bodyEvent
	}
	return p
}

func taken(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

var readSQL = projections.SQL("posts.read", `
SELECT `+postColumns+`, COALESCE(b.body, '')
FROM posts p
LEFT JOIN post_bodies b ON b.tenant = p.tenant AND b.post = p.post AND b.event_id = p.body_event_id
WHERE p.version > 0 AND (p.tenant, p.post) IN (SELECT * FROM unnest(@tenants::text[], @posts::text[]))`)

// Read gives the posts that are, or were, there; a deleted one says so.
func Read(ctx context.Context, q projections.Querier, keys []domain.PostKey) (map[domain.PostKey]View, error) {
	tenants, posts := projections.PostKeyArgs(keys)
	rows, err := q.Query(ctx, readSQL, pgx.NamedArgs{"tenants": tenants, "posts": posts})
	if err != nil {
		return nil, fmt.Errorf("read posts: %w", err)
	}
	views := make(map[domain.PostKey]View, len(keys))
	var row postRow
	var text string
	if _, err := pgx.ForEachRow(rows, append(row.scan(), &text), func() error {
		views[row.key] = View{Post: row.post(), Text: text}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read posts: %w", err)
	}
	return views, nil
}

var baselinesSQL = projections.SQL("posts.baselines", `
SELECT p.tenant, p.post, p.baseline_impressions, p.baseline_unique_viewers, p.baseline_as_of
FROM posts p
WHERE p.baseline_as_of IS NOT NULL AND (p.tenant, p.post) IN (SELECT * FROM unnest(@tenants::text[], @posts::text[]))`)

// Baselines gives what posts counted elsewhere, published here or not; one without imported counts is not in the map.
func Baselines(ctx context.Context, q projections.Querier, keys []domain.PostKey) (map[domain.PostKey]domain.Baseline, error) {
	tenants, posts := projections.PostKeyArgs(keys)
	rows, err := q.Query(ctx, baselinesSQL, pgx.NamedArgs{"tenants": tenants, "posts": posts})
	if err != nil {
		return nil, fmt.Errorf("read imported counts: %w", err)
	}
	found := map[domain.PostKey]domain.Baseline{}
	var k domain.PostKey
	var b domain.Baseline
	if _, err := pgx.ForEachRow(rows, []any{(*string)(&k.Tenant), (*string)(&k.Post), &b.Impressions, &b.UniqueViewers, &b.AsOf}, func() error {
		b.AsOf = b.AsOf.UTC()
		found[k] = b
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read imported counts: %w", err)
	}
	return found, nil
}

var deletedSQL = projections.SQL("posts.deleted", `
SELECT p.post
FROM posts p
WHERE p.tenant = @tenant AND p.post = ANY(@posts::text[]) AND p.deleted`)

// Deleted gives those of a tenant's posts that were deleted, which is for good.
func Deleted(ctx context.Context, q projections.Querier, tenant domain.TenantID, of []domain.PostID) (map[domain.PostID]bool, error) {
	ids := make([]string, len(of))
	for i := range of {
		ids[i] = string(of[i])
	}
	rows, err := q.Query(ctx, deletedSQL, pgx.NamedArgs{"tenant": string(tenant), "posts": ids})
	if err != nil {
		return nil, fmt.Errorf("read deleted posts: %w", err)
	}
	deleted := map[domain.PostID]bool{}
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error {
		deleted[domain.PostID(id)] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read deleted posts: %w", err)
	}
	return deleted, nil
}

var outcomeSQL = projections.SQL("posts.outcome", `
SELECT e.outcome, e.version
FROM post_events e
WHERE e.tenant = @tenant AND e.post = @post AND e.event_id = @id`)

// OutcomeOf tells what became of a post event; ok is false where it has not been folded (yet).
func OutcomeOf(ctx context.Context, q projections.Querier, key domain.PostKey, id domain.EventID) (o domain.Outcome, ok bool, err error) {
	err = q.QueryRow(ctx, outcomeSQL, pgx.NamedArgs{"tenant": string(key.Tenant), "post": string(key.Post), "id": [16]byte(id)}).
		Scan((*string)(&o.Kind), &o.Version)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return domain.Outcome{}, false, nil
	case err != nil:
		return domain.Outcome{}, false, fmt.Errorf("read the outcome of a post event: %w", err)
	}
	return o, true, nil
}
