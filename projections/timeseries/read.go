package timeseries

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// Unit is how long a bucket is.
type Unit string

// The units. A day is one of UTC, so all are of one length.
const (
	Hour Unit = "hour"
	Day  Unit = "day"
)

var units = []Unit{Day, Hour} // by name

// Length is that of a bucket.
func (u Unit) Length() time.Duration {
	if u == Day {
		return 24 * time.Hour
	}
	return time.Hour
}

// Start is when the bucket starts that a time falls into.
func (u Unit) Start(t time.Time) time.Time { return t.UTC().Truncate(u.Length()) }

// Range are the buckets of a unit that start at From or later and before To.
type Range struct {
	Unit     Unit
	From, To time.Time
}

// Bucket is what happened from Start until a unit later.
type Bucket struct {
	Start       time.Time
	Impressions int64                   // counted views
	Refused     map[domain.Reason]int64 // by reason; nil: none
}

var ofPostSQL = projections.SQL("timeseries.of_post", `
SELECT t.bucket, t.reason, sum(t.views)::bigint
FROM timeseries_posts t
WHERE t.tenant = @tenant AND t.post = @post AND t.unit = @unit AND t.bucket >= @from AND t.bucket < @to
GROUP BY t.bucket, t.reason
ORDER BY t.bucket, t.reason`)

// OfPost gives a post's buckets in order, those without views left out.
func OfPost(ctx context.Context, q projections.Querier, key domain.PostKey, in Range) ([]Bucket, error) {
	buckets, err := read(ctx, q, ofPostSQL, key, in)
	if err != nil {
		return nil, fmt.Errorf("read views of a post by time: %w", err)
	}
	return buckets, nil
}

var ofTenantSQL = projections.SQL("timeseries.of_tenant", `
SELECT t.bucket, t.reason, sum(t.views)::bigint
FROM timeseries_tenants t
WHERE t.tenant = @tenant AND t.unit = @unit AND t.bucket >= @from AND t.bucket < @to
GROUP BY t.bucket, t.reason
ORDER BY t.bucket, t.reason`)

// OfTenant gives a tenant's buckets as OfPost does: all posts, and views that were refused without one.
func OfTenant(ctx context.Context, q projections.Querier, tenant domain.TenantID, in Range) ([]Bucket, error) {
	buckets, err := read(ctx, q, ofTenantSQL, domain.PostKey{Tenant: tenant}, in)
	if err != nil {
		return nil, fmt.Errorf("read views of a tenant by time: %w", err)
	}
	return buckets, nil
}

func read(ctx context.Context, q projections.Querier, sql string, key domain.PostKey, in Range) ([]Bucket, error) {
	rows, err := q.Query(ctx, sql, pgx.NamedArgs{
		"tenant": string(key.Tenant), "post": string(key.Post), "unit": string(in.Unit), "from": in.From, "to": in.To,
	})
	if err != nil {
		return nil, err
	}
	var buckets []Bucket
	var start time.Time
	var reason domain.Reason
	var views int64
	if _, err := pgx.ForEachRow(rows, []any{&start, (*string)(&reason), &views}, func() error {
		if n := len(buckets); n == 0 || !buckets[n-1].Start.Equal(start) {
			buckets = append(buckets, Bucket{Start: start.UTC()})
		}
		b := &buckets[len(buckets)-1]
		if reason == domain.ReasonNone {
			b.Impressions = views
			return nil
		}
		if b.Refused == nil {
			b.Refused = map[domain.Reason]int64{}
		}
		b.Refused[reason] = views
		return nil
	}); err != nil {
		return nil, err
	}
	return buckets, nil
}
