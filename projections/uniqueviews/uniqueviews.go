// Package uniqueviews is the read model of who saw each post: one row per post and known viewer, and how many
// such rows each post has.
//
// It folds verdicts into unique_views and unique_view_counts. Least and greatest time and an addition do not
// depend on order. A viewer's views are all in one partition, so one projector at a time writes a pair, and a
// pair that its statement inserted is new for certain. Anonymous views never come here. It fails only as
// PostgreSQL does: Check parks what the tables could not hold.
package uniqueviews

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/bulk"
)

// Name is the projection's name.
const Name = "uniqueviews"

// Projection folds counted views of known viewers into pairs of post and viewer.
type Projection struct{}

var _ projections.Projection = Projection{}

// Name implements projections.Projection.
func (Projection) Name() string { return Name }

// FoldVersion implements projections.Projection.
func (Projection) FoldVersion() int { return 1 }

// Topics implements projections.Projection.
func (Projection) Topics() []domain.Topic { return []domain.Topic{domain.TopicVerdicts} }

// Tables implements projections.Projection.
func (Projection) Tables() []string { return []string{"unique_views", "unique_view_counts"} }

// Check implements projections.Projection.
func (Projection) Check(r domain.Record) error {
	v, counted, err := projections.CheckCounted(r)
	if err != nil || !counted || v.Anonymous {
		return err
	}
	return projections.CheckGivenTime("viewed_at", v.ViewedAt)
}

// OrderKey implements projections.Projection: the fold does not depend on order.
func (Projection) OrderKey(domain.Record) string { return "" }

type pairKey struct {
	post   domain.PostKey
	viewer domain.PersonKey
}

// pair is what a batch adds to a row.
type pair struct {
	pairKey
	bulk.Span
	shard int16
}

// rule is the fold of one record, live and in bulk: who saw which post when, in microseconds.
func rule(r *domain.Record) (post domain.PostKey, viewer domain.PersonKey, at int64, counts bool) {
	v, ok := r.Event.(*domain.Verdict)
	if !ok || !v.Counted() || v.Anonymous {
		return domain.PostKey{}, domain.PersonKey{}, 0, false
	}
	return domain.PostKey{Tenant: v.Viewer.Tenant, Post: v.Post}, v.Viewer.Person, v.ViewedAt.UnixMicro(), true
}

// xmax is 0 in a row that this statement inserted, and holds our lock in one that it updated. Rows come sorted
// by key, and so do the counts, so that two projectors cannot deadlock.
var addSQL = projections.SQL("uniqueviews.add", `
WITH pairs AS (
    INSERT INTO unique_views AS u (tenant, post, viewer, first_viewed_at, last_viewed_at, views, shard)
    SELECT * FROM unnest(@tenants::text[], @posts::text[], @viewers::bytea[], @first::timestamptz[], @last::timestamptz[],
                         @views::bigint[], @shards::smallint[])
    ON CONFLICT (tenant, post, viewer) DO UPDATE
    SET first_viewed_at = LEAST(u.first_viewed_at, EXCLUDED.first_viewed_at),
        last_viewed_at = GREATEST(u.last_viewed_at, EXCLUDED.last_viewed_at),
        views = u.views + EXCLUDED.views
    RETURNING tenant, post, shard, xmax = 0 AS new
)
INSERT INTO unique_view_counts AS c (tenant, post, shard, unique_viewers)
SELECT tenant, post, shard, count(*)
FROM pairs
WHERE new
GROUP BY tenant, post, shard
ORDER BY tenant, post, shard
ON CONFLICT (tenant, post, shard) DO UPDATE
SET unique_viewers = c.unique_viewers + EXCLUDED.unique_viewers`)

// Apply implements projections.Projection.
func (Projection) Apply(ctx context.Context, tx projections.Tx, batch []domain.Record) error {
	pairs := fold(batch)
	if len(pairs) == 0 {
		return nil
	}
	n := len(pairs)
	tenants, posts, viewers := make([]string, n), make([]string, n), make([][]byte, n)
	first, last := make([]time.Time, n), make([]time.Time, n)
	views, shards := make([]int64, n), make([]int16, n)
	for i := range pairs {
		p := &pairs[i]
		tenants[i], posts[i], viewers[i] = string(p.post.Tenant), string(p.post.Post), p.viewer[:]
		first[i], last[i], views[i], shards[i] = time.UnixMicro(p.First), time.UnixMicro(p.Last), p.Times, p.shard
	}
	_, err := tx.Exec(ctx, addSQL, pgx.NamedArgs{
		"tenants": tenants, "posts": posts, "viewers": viewers, "first": first, "last": last, "views": views, "shards": shards,
	})
	if err != nil {
		return fmt.Errorf("add unique views: %w", err)
	}
	return nil
}

// fold gives what the batch adds to each pair, sorted by key.
func fold(batch []domain.Record) []pair {
	places := make(map[pairKey]int, len(batch))
	pairs := make([]pair, 0, len(batch))
	for _, r := range batch {
		post, viewer, at, counts := rule(&r)
		if !counts {
			continue
		}
		k := pairKey{post, viewer}
		i, seen := places[k]
		if !seen {
			places[k] = len(pairs)
			pairs = append(pairs, pair{pairKey: k, Span: bulk.SpanAt(at), shard: projections.Shard(r.Partition.Partition)})
			continue
		}
		pairs[i].Span = pairs[i].And(bulk.SpanAt(at))
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.post.Tenant, b.post.Tenant), cmp.Compare(a.post.Post, b.post.Post), bytes.Compare(a.viewer[:], b.viewer[:]))
	})
	return pairs
}
