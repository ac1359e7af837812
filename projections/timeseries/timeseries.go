// Package timeseries is the read model of when posts were seen: views per post and per tenant, by hour and by day of
// UTC, the counted ones and those that were refused, by reason.
//
// It folds verdicts into timeseries_posts and timeseries_tenants. The fold is an addition, so order does not matter;
// that no verdict is added twice is the positions' doing. A view stands where it was seen, by its corrected time, so
// an old view that was reported late changes an old bucket. The exceptions bound the tables:
//
//   - A view that was refused for its time, or could not be read, stands where it was received. Nobody believes such a
//     time, and whoever makes times up would else fill a bucket per view, from 1970 to 3000.
//   - A refused view stands at its post only where the gate knew that post; otherwise at its tenant alone. Whoever
//     makes ids up would else fill rows per view that nobody can ever read: there is no such post.
//   - An undecided view stands nowhere: it is judged again, and its last verdict stands here.
//   - A record whose key names no tenant stands nowhere: nobody could read it.
//
// So the rows of a post are bounded by its age, and a tenant's by the tenant's: per bucket at most one for each reason
// and shard. A counted view is always believed, of an unknown post too, where the tenant has these counted. It fails
// only as PostgreSQL does: Check parks what the tables could not hold.
package timeseries

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// Name is the projection's name.
const Name = "timeseries"

// Projection folds verdicts into hours and days.
type Projection struct{}

var _ projections.Projection = Projection{}

// Name implements projections.Projection.
func (Projection) Name() string { return Name }

// FoldVersion implements projections.Projection.
func (Projection) FoldVersion() int { return 1 }

// Topics implements projections.Projection.
func (Projection) Topics() []domain.Topic { return []domain.Topic{domain.TopicVerdicts} }

// Tables implements projections.Projection.
func (Projection) Tables() []string { return []string{"timeseries_posts", "timeseries_tenants"} }

// Check implements projections.Projection.
func (Projection) Check(r domain.Record) error {
	v, counted, err := projections.CheckCounted(r)
	if err != nil || !stands(v) {
		return err
	}
	if !counted && knownPost(v) {
		if err := projections.CheckPost(domain.PostKey{Tenant: v.Viewer.Tenant, Post: v.Post}); err != nil {
			return err
		}
	}
	at, field := seenAt(v)
	return projections.CheckGivenTime(field, at)
}

// OrderKey implements projections.Projection: an addition waits for nothing.
func (Projection) OrderKey(domain.Record) string { return "" }

// stands tells whether a verdict stands in the tables at all.
func stands(v *domain.Verdict) bool {
	return v.Reason != domain.ReasonUndecided && domain.CheckTenantID(string(v.Viewer.Tenant)) == nil
}

// knownPost tells whether a verdict stands at its post, too: the gate names the version of every post that it knows.
func knownPost(v *domain.Verdict) bool { return v.Counted() || v.PostVersion > 0 }

// seenAt is the time that a view stands at, and which of the verdict's it is.
func seenAt(v *domain.Verdict) (at time.Time, field string) {
	switch v.Reason {
	case domain.ReasonMalformed, domain.ReasonStale, domain.ReasonFuture:
		return v.Received, "received_at"
	}
	return v.ViewedAt, "viewed_at"
}

// rowKey is the key of a row; that of a tenant's has no post.
type rowKey struct {
	post   domain.PostKey
	unit   Unit
	bucket int64 // Unix time of its start
	reason domain.Reason
	shard  int16
}

func compareRows(a, b rowKey) int {
	return cmp.Or(
		cmp.Compare(a.post.Tenant, b.post.Tenant), cmp.Compare(a.post.Post, b.post.Post), cmp.Compare(a.unit, b.unit),
		cmp.Compare(a.bucket, b.bucket), cmp.Compare(a.reason, b.reason), cmp.Compare(a.shard, b.shard))
}

// rowsOf gives the rows that a record's view stands in: none, those of its tenant, or those of its post, too.
func rowsOf(r *domain.Record) (rows [4]rowKey, n int) {
	v, ok := r.Event.(*domain.Verdict)
	if !ok || !stands(v) {
		return rows, 0
	}
	at, _ := seenAt(v)
	for _, unit := range units {
		k := rowKey{domain.PostKey{Tenant: v.Viewer.Tenant}, unit, unit.Start(at).Unix(), v.Reason, projections.Shard(r.Partition.Partition)}
		rows[n] = k
		n++
		if knownPost(v) {
			k.post.Post = v.Post
			rows[n] = k
			n++
		}
	}
	return rows, n
}

var addPostsSQL = projections.SQL("timeseries.add_posts", `
INSERT INTO timeseries_posts AS t (tenant, post, unit, bucket, reason, shard, views)
SELECT * FROM unnest(@tenants::text[], @posts::text[], @units::text[], @buckets::timestamptz[], @reasons::text[], @shards::smallint[], @views::bigint[])
ON CONFLICT (tenant, post, unit, bucket, reason, shard) DO UPDATE
SET views = t.views + EXCLUDED.views`)

var addTenantsSQL = projections.SQL("timeseries.add_tenants", `
INSERT INTO timeseries_tenants AS t (tenant, unit, bucket, reason, shard, views)
SELECT * FROM unnest(@tenants::text[], @units::text[], @buckets::timestamptz[], @reasons::text[], @shards::smallint[], @views::bigint[])
ON CONFLICT (tenant, unit, bucket, reason, shard) DO UPDATE
SET views = t.views + EXCLUDED.views`)

// Apply implements projections.Projection. Rows come sorted by key, those of posts before those of tenants, so that two
// projectors cannot deadlock. The tenants' come last because every batch has some of the same few: they are locked for
// no longer than the commit takes.
func (Projection) Apply(ctx context.Context, tx projections.Tx, batch []domain.Record) error {
	posts, tenants := fold(batch)
	if err := add(ctx, tx, addPostsSQL, posts); err != nil {
		return fmt.Errorf("add views of posts by time: %w", err)
	}
	if err := add(ctx, tx, addTenantsSQL, tenants); err != nil {
		return fmt.Errorf("add views of tenants by time: %w", err)
	}
	return nil
}

// fold gives what a batch adds.
func fold(batch []domain.Record) (posts, tenants map[rowKey]int64) {
	posts, tenants = make(map[rowKey]int64, len(batch)), map[rowKey]int64{}
	for i := range batch {
		rows, n := rowsOf(&batch[i])
		for _, k := range rows[:n] {
			if k.post.Post == "" {
				tenants[k]++
			} else {
				posts[k]++
			}
		}
	}
	return posts, tenants
}

func add(ctx context.Context, tx projections.Tx, sql string, rows map[rowKey]int64) error {
	if len(rows) == 0 {
		return nil
	}
	n := len(rows)
	keys := make([]rowKey, 0, n)
	for k := range rows {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareRows)
	tenants, posts, units, reasons := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	buckets, shards, views := make([]time.Time, n), make([]int16, n), make([]int64, n)
	for i, k := range keys {
		tenants[i], posts[i], units[i], reasons[i] = string(k.post.Tenant), string(k.post.Post), string(k.unit), string(k.reason)
		buckets[i], shards[i], views[i] = time.Unix(k.bucket, 0), k.shard, rows[k]
	}
	_, err := tx.Exec(ctx, sql, pgx.NamedArgs{
		"tenants": tenants, "posts": posts, "units": units, "buckets": buckets, "reasons": reasons, "shards": shards, "views": views,
	})
	return err
}
