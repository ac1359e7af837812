package posts

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// eventKey names a post event, and the text that it names.
type eventKey struct {
	post domain.PostKey
	id   domain.EventID
}

// outcome is a row of post_events.
type outcome struct {
	eventKey
	domain.Outcome
	eventType string
	at        time.Time
	partition int32
	offset    int64
}

// Apply implements projections.Projection.
func (Projection) Apply(ctx context.Context, tx projections.Tx, batch []domain.Record) error {
	var events []domain.Record
	bodies := map[eventKey]*string{}
	memberships := map[Member]*membership{}
	member := func(m Member, r domain.Record) {
		if memberships[m] == nil {
			memberships[m] = &membership{}
		}
		memberships[m].apply(r.Event, projections.Micros(r.Time))
	}
	for _, r := range batch {
		switch e := r.Event.(type) {
		case domain.PostBodyWritten:
			bodies[eventKey{e.PostRef, e.EventID}] = &e.Text
		case domain.PostBodyErased:
			bodies[eventKey{e.PostRef, e.EventID}] = nil
		case domain.PostEvent:
			events = append(events, r)
		case domain.AudienceMemberAdded:
			member(Member{e.Tenant, e.Audience, e.Person}, r)
		case domain.AudienceMemberRemoved:
			member(Member{e.Tenant, e.Audience, e.Person}, r)
		}
	}
	var lost erasure
	if len(events) > 0 {
		var err error
		if lost, err = applyEvents(ctx, tx, events); err != nil {
			return err
		}
	}
	if err := lockBodies(ctx, tx, lost, len(bodies) > 0); err != nil {
		return err
	}
	if err := eraseBodies(ctx, tx, lost); err != nil {
		return err
	}
	if err := applyBodies(ctx, tx, bodies); err != nil {
		return err
	}
	return applyMembers(ctx, tx, memberships)
}

// applyEvents folds post events, and tells whose texts are to be erased.
func applyEvents(ctx context.Context, tx projections.Tx, events []domain.Record) (erasure, error) {
	touched := map[domain.PostKey]bool{}
	for _, r := range events {
		touched[r.Event.(domain.PostEvent).PostKey()] = true //nolint:forcetypeassert // Apply chose them so
	}
	states, err := load(ctx, tx, slices.SortedFunc(maps.Keys(touched), compareKeys))
	if err != nil {
		return erasure{}, err
	}
	known, err := knownEvents(ctx, tx, events)
	if err != nil {
		return erasure{}, err
	}
	var outcomes []outcome
	var lost erasure
	changed := map[domain.PostKey]bool{}
	for _, r := range events {
		e := storable(r.Event.(domain.PostEvent)) //nolint:forcetypeassert // Apply chose them so
		k := eventKey{e.PostKey(), e.ID()}
		if known[k] {
			continue
		}
		known[k] = true
		p := states[k.post]
		at := projections.Micros(r.Time)
		o := p.Apply(e, at)
		states[k.post] = p
		if !o.Void() && o.Kind != domain.OutcomeUnchanged {
			changed[k.post] = true
		}
		switch {
		case o.Void():
			lost.events = append(lost.events, k)
		case o.Kind == domain.OutcomeDeleted:
			lost.posts = append(lost.posts, k.post)
		}
		outcomes = append(outcomes, outcome{k, o, e.EventType(), at, r.Partition.Partition, r.Offset})
	}
	if err := writePosts(ctx, tx, slices.SortedFunc(maps.Keys(changed), compareKeys), states); err != nil {
		return erasure{}, err
	}
	return lost, writeOutcomes(ctx, tx, outcomes)
}

func compareKeys(a, b domain.PostKey) int {
	return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Post, b.Post))
}

func compareEventKeys(a, b eventKey) int {
	return cmp.Or(compareKeys(a.post, b.post), bytes.Compare(a.id[:], b.id[:]))
}

const postColumns = `p.tenant, p.post, p.version, p.deleted, p.author, p.audience, p.published_at, p.created_at, p.updated_at,
       p.body_digest, p.body_event_id, p.baseline_impressions, p.baseline_unique_viewers, p.baseline_as_of`

var loadSQL = projections.SQL("posts.load", `
SELECT `+postColumns+`
FROM posts p
WHERE (p.tenant, p.post) IN (SELECT * FROM unnest(@tenants::text[], @posts::text[]))
ORDER BY p.tenant, p.post
FOR UPDATE`)

func load(ctx context.Context, tx projections.Tx, keys []domain.PostKey) (map[domain.PostKey]domain.Post, error) {
	tenants, posts := projections.PostKeyArgs(keys)
	rows, err := tx.Query(ctx, loadSQL, pgx.NamedArgs{"tenants": tenants, "posts": posts})
	if err != nil {
		return nil, fmt.Errorf("load posts: %w", err)
	}
	states := make(map[domain.PostKey]domain.Post, len(keys))
	var row postRow
	if _, err := pgx.ForEachRow(rows, row.scan(), func() error {
		states[row.key] = row.post()
		return nil
	}); err != nil {
		return nil, fmt.Errorf("load posts: %w", err)
	}
	return states, nil
}

var knownSQL = projections.SQL("posts.known_events", `
SELECT e.tenant, e.post, e.event_id
FROM post_events e
WHERE (e.tenant, e.post, e.event_id) IN (SELECT * FROM unnest(@tenants::text[], @posts::text[], @ids::uuid[]))`)

func knownEvents(ctx context.Context, tx projections.Tx, events []domain.Record) (map[eventKey]bool, error) {
	keys, ids := make([]domain.PostKey, len(events)), make([][16]byte, len(events))
	for i, r := range events {
		e := r.Event.(domain.PostEvent) //nolint:forcetypeassert // Apply chose them so
		keys[i], ids[i] = e.PostKey(), e.ID()
	}
	tenants, posts := projections.PostKeyArgs(keys)
	rows, err := tx.Query(ctx, knownSQL, pgx.NamedArgs{"tenants": tenants, "posts": posts, "ids": ids})
	if err != nil {
		return nil, fmt.Errorf("look for known post events: %w", err)
	}
	known := make(map[eventKey]bool, len(events))
	var k eventKey
	if _, err := pgx.ForEachRow(rows, []any{(*string)(&k.post.Tenant), (*string)(&k.post.Post), (*[16]byte)(&k.id)}, func() error {
		known[k] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look for known post events: %w", err)
	}
	return known, nil
}

var writePostsSQL = projections.SQL("posts.write", `
INSERT INTO posts (tenant, post, version, deleted, author, audience, published_at, created_at, updated_at,
                   body_digest, body_event_id, baseline_impressions, baseline_unique_viewers, baseline_as_of)
SELECT * FROM unnest(@tenants::text[], @posts::text[], @versions::bigint[], @deleted::boolean[], @authors::bytea[],
                     @audiences::text[], @published::timestamptz[], @created::timestamptz[], @updated::timestamptz[],
                     @digests::bytea[], @body_events::uuid[], @impressions::bigint[], @unique_viewers::bigint[],
                     @as_of::timestamptz[])
ON CONFLICT (tenant, post) DO UPDATE
SET version = EXCLUDED.version, deleted = EXCLUDED.deleted, author = EXCLUDED.author, audience = EXCLUDED.audience,
    published_at = EXCLUDED.published_at, created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at,
    body_digest = EXCLUDED.body_digest, body_event_id = EXCLUDED.body_event_id,
    baseline_impressions = EXCLUDED.baseline_impressions, baseline_unique_viewers = EXCLUDED.baseline_unique_viewers,
    baseline_as_of = EXCLUDED.baseline_as_of`)

// writePosts writes the states of keys, which are sorted.
func writePosts(ctx context.Context, tx projections.Tx, keys []domain.PostKey, states map[domain.PostKey]domain.Post) error {
	n := len(keys)
	if n == 0 {
		return nil
	}
	versions, deleted, authors, audiences := make([]int64, n), make([]bool, n), make([][]byte, n), make([]string, n)
	published, created, updated, asOf := make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n)
	digests, bodyEvents := make([][]byte, n), make([]*[16]byte, n)
	impressions, uniqueViewers := make([]int64, n), make([]int64, n)
	for i, k := range keys {
		p := states[k]
		versions[i], deleted[i], authors[i], audiences[i] = p.Version, p.Deleted, p.Author[:], string(p.Audience)
		published[i], created[i], updated[i] = given(p.PublishedAt), given(p.CreatedAt), given(p.UpdatedAt)
		impressions[i], uniqueViewers[i], asOf[i] = p.Baseline.Impressions, p.Baseline.UniqueViewers, given(p.Baseline.AsOf)
		if p.Body != (domain.Digest{}) {
			digests[i], bodyEvents[i] = p.Body[:], (*[16]byte)(&p.BodyEvent)
		}
	}
	tenants, posts := projections.PostKeyArgs(keys)
	_, err := tx.Exec(ctx, writePostsSQL, pgx.NamedArgs{
		"tenants": tenants, "posts": posts, "versions": versions, "deleted": deleted, "authors": authors,
		"audiences": audiences, "published": published, "created": created, "updated": updated, "digests": digests,
		"body_events": bodyEvents, "impressions": impressions, "unique_viewers": uniqueViewers, "as_of": asOf,
	})
	if err != nil {
		return fmt.Errorf("write posts: %w", err)
	}
	return nil
}

func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

var writeOutcomesSQL = projections.SQL("posts.write_outcomes", `
INSERT INTO post_events (tenant, post, event_id, event_type, outcome, version, recorded_at, partition, record_offset)
SELECT * FROM unnest(@tenants::text[], @posts::text[], @ids::uuid[], @types::text[], @outcomes::text[], @versions::bigint[],
                     @times::timestamptz[], @partitions::integer[], @offsets::bigint[])`)

func writeOutcomes(ctx context.Context, tx projections.Tx, outcomes []outcome) error {
	n := len(outcomes)
	if n == 0 {
		return nil
	}
	slices.SortFunc(outcomes, func(a, b outcome) int { return compareEventKeys(a.eventKey, b.eventKey) })
	keys, ids, types, kinds := make([]domain.PostKey, n), make([][16]byte, n), make([]string, n), make([]string, n)
	versions, times, partitions, offsets := make([]int64, n), make([]time.Time, n), make([]int32, n), make([]int64, n)
	for i, o := range outcomes {
		keys[i], ids[i], types[i], kinds[i] = o.post, o.id, o.eventType, string(o.Kind)
		versions[i], times[i], partitions[i], offsets[i] = o.Version, o.at, o.partition, o.offset
	}
	tenants, posts := projections.PostKeyArgs(keys)
	_, err := tx.Exec(ctx, writeOutcomesSQL, pgx.NamedArgs{
		"tenants": tenants, "posts": posts, "ids": ids, "types": types, "outcomes": kinds, "versions": versions,
		"times": times, "partitions": partitions, "offsets": offsets,
	})
	if err != nil {
		return fmt.Errorf("write outcomes of post events: %w", err)
	}
	return nil
}
