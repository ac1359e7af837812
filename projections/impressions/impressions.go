// Package impressions is the read model of how often each post was seen: every counted view, not unique.
//
// It folds verdicts into the table impressions, spread over projections.Shards rows per post. The fold is an
// addition, so order does not matter; that no verdict is added twice is the positions' doing. It fails only as
// PostgreSQL does: Check parks what the table could not hold.
package impressions

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// Name is the projection's name.
const Name = "impressions"

// Projection folds counted views into impressions.
type Projection struct{}

var _ projections.Projection = Projection{}

// Name implements projections.Projection.
func (Projection) Name() string { return Name }

// FoldVersion implements projections.Projection.
func (Projection) FoldVersion() int { return 1 }

// Topics implements projections.Projection.
func (Projection) Topics() []domain.Topic { return []domain.Topic{domain.TopicVerdicts} }

// Tables implements projections.Projection.
func (Projection) Tables() []string { return []string{"impressions"} }

// Check implements projections.Projection.
func (Projection) Check(r domain.Record) error {
	_, _, err := projections.CheckCounted(r)
	return err
}

// OrderKey implements projections.Projection: an addition waits for nothing.
func (Projection) OrderKey(domain.Record) string { return "" }

type rowKey struct {
	post  domain.PostKey
	shard int16
}

// Count is how often a post was seen.
type Count struct {
	Impressions          int64 // all
	AnonymousImpressions int64 // those by viewers that are not known
	ImportedImpressions  int64 // those that were imported, view by view
}

// rule is the fold of one record, live and in bulk: what it adds to which post.
func rule(r *domain.Record) (post domain.PostKey, adds Count, counts bool) {
	v, ok := r.Event.(*domain.Verdict)
	if !ok || !v.Counted() {
		return domain.PostKey{}, Count{}, false
	}
	adds.Impressions = 1
	if v.Anonymous {
		adds.AnonymousImpressions = 1
	}
	if v.Imported {
		adds.ImportedImpressions = 1
	}
	return domain.PostKey{Tenant: v.Viewer.Tenant, Post: v.Post}, adds, true
}

// The rows come sorted by key, as every projector sends them, so that two of them cannot deadlock.
var addSQL = projections.SQL("impressions.add", `
INSERT INTO impressions AS c (tenant, post, shard, impressions, anonymous_impressions, imported_impressions)
SELECT * FROM unnest(@tenants::text[], @posts::text[], @shards::smallint[], @impressions::bigint[], @anonymous::bigint[], @imported::bigint[])
ON CONFLICT (tenant, post, shard) DO UPDATE
SET impressions = c.impressions + EXCLUDED.impressions,
    anonymous_impressions = c.anonymous_impressions + EXCLUDED.anonymous_impressions,
    imported_impressions = c.imported_impressions + EXCLUDED.imported_impressions`)

// Apply implements projections.Projection.
func (Projection) Apply(ctx context.Context, tx projections.Tx, batch []domain.Record) error {
	rows := map[rowKey]Count{}
	for _, r := range batch {
		post, adds, counts := rule(&r)
		if !counts {
			continue
		}
		k := rowKey{post, projections.Shard(r.Partition.Partition)}
		c := rows[k]
		c.Impressions += adds.Impressions
		c.AnonymousImpressions += adds.AnonymousImpressions
		c.ImportedImpressions += adds.ImportedImpressions
		rows[k] = c
	}
	if len(rows) == 0 {
		return nil
	}
	n := len(rows)
	keys := make([]rowKey, 0, n)
	for k := range rows {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b rowKey) int {
		return cmp.Or(cmp.Compare(a.post.Tenant, b.post.Tenant), cmp.Compare(a.post.Post, b.post.Post), cmp.Compare(a.shard, b.shard))
	})
	tenants, posts, shards := make([]string, n), make([]string, n), make([]int16, n)
	impressions, anonymous, imported := make([]int64, n), make([]int64, n), make([]int64, n)
	for i, k := range keys {
		tenants[i], posts[i], shards[i] = string(k.post.Tenant), string(k.post.Post), k.shard
		impressions[i], anonymous[i], imported[i] = rows[k].Impressions, rows[k].AnonymousImpressions, rows[k].ImportedImpressions
	}
	_, err := tx.Exec(ctx, addSQL, pgx.NamedArgs{
		"tenants": tenants, "posts": posts, "shards": shards, "impressions": impressions, "anonymous": anonymous, "imported": imported,
	})
	if err != nil {
		return fmt.Errorf("add impressions: %w", err)
	}
	return nil
}

var countsSQL = projections.SQL("impressions.counts", `
SELECT k.tenant, k.post, sum(c.impressions)::bigint, sum(c.anonymous_impressions)::bigint, sum(c.imported_impressions)::bigint
FROM (SELECT DISTINCT * FROM unnest(@tenants::text[], @posts::text[])) AS k (tenant, post)
JOIN impressions c ON c.tenant = k.tenant AND c.post = k.post
GROUP BY k.tenant, k.post`)

// Counts gives the counts of posts, a repeated key counting once; one that was never seen is not in the map.
func Counts(ctx context.Context, q projections.Querier, keys []domain.PostKey) (map[domain.PostKey]Count, error) {
	tenants, posts := projections.PostKeyArgs(keys)
	rows, err := q.Query(ctx, countsSQL, pgx.NamedArgs{"tenants": tenants, "posts": posts})
	if err != nil {
		return nil, fmt.Errorf("read impressions: %w", err)
	}
	counts := make(map[domain.PostKey]Count, len(keys))
	var k domain.PostKey
	var c Count
	into := []any{(*string)(&k.Tenant), (*string)(&k.Post), &c.Impressions, &c.AnonymousImpressions, &c.ImportedImpressions}
	if _, err := pgx.ForEachRow(rows, into, func() error {
		counts[k] = c
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read impressions: %w", err)
	}
	return counts, nil
}
