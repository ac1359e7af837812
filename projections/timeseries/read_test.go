package timeseries_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/projectiontest"
	"seenby/projections/timeseries"
)

// verdicts folds them, each in a partition of its own, so that the reads have shards to add up.
func verdicts(t *testing.T, d *projectiontest.Database, all ...domain.Verdict) {
	t.Helper()
	var b domain.Batch
	for i := range all {
		part := domain.Partition{Topic: domain.TopicVerdicts, TopicID: projectiontest.TopicID(domain.TopicVerdicts), Partition: int32(i)} //nolint:gosec // small
		b.Records = append(b.Records, domain.Record{Partition: part, Event: &all[i]})
		b.Next = append(b.Next, part.At(1))
	}
	if err := d.Deliver(t.Context(), timeseries.Projection{}, b); err != nil {
		t.Fatal(err)
	}
}

func view(post domain.PostKey, at time.Time, reason domain.Reason) domain.Verdict {
	return domain.Verdict{
		Viewer: domain.PersonRef{Tenant: post.Tenant, Person: projectiontest.Person("v")}, Post: post.Post, PostVersion: 1,
		ViewedAt: at, Received: at, Reason: reason,
	}
}

// Reads add up the shards of each bucket and reason, take From in and leave To out, and see nothing of other posts,
// tenants or units.
func TestReads(t *testing.T) {
	d := projectiontest.Open(t, migrated(t))
	p, q := projectiontest.Post("p"), projectiontest.Post("q")
	foreign := domain.PostKey{Tenant: "acme", Post: p.Post}
	day := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	at := func(hour, minute int) time.Time {
		return day.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
	}
	verdicts(t, d,
		view(p, at(0, 0), ""), view(p, at(0, 59), ""), view(p, at(2, 0), ""), view(p, at(2, 30), domain.ReasonDuplicate),
		view(p, at(2, 31), domain.ReasonDuplicate), view(p, at(2, 32), domain.ReasonPostCap), view(p, at(23, 59), ""), view(p, at(24, 0), ""),
		view(p, at(-1, 59), ""), view(q, at(2, 0), ""), view(foreign, at(2, 0), ""), view(foreign, at(2, 0), domain.ReasonOwnView),
	)
	refused := map[domain.Reason]int64{domain.ReasonDuplicate: 2, domain.ReasonPostCap: 1}
	for name, c := range map[string]struct {
		in           timeseries.Range
		post, tenant []timeseries.Bucket
	}{
		"hours": {
			timeseries.Range{Unit: timeseries.Hour, From: at(0, 0), To: at(24, 0)},
			[]timeseries.Bucket{{at(0, 0), 2, nil}, {at(2, 0), 1, refused}, {at(23, 0), 1, nil}},
			[]timeseries.Bucket{{at(0, 0), 2, nil}, {at(2, 0), 2, refused}, {at(23, 0), 1, nil}},
		},
		"an hour": {
			timeseries.Range{Unit: timeseries.Hour, From: at(2, 0), To: at(3, 0)},
			[]timeseries.Bucket{{at(2, 0), 1, refused}},
			[]timeseries.Bucket{{at(2, 0), 2, refused}},
		},
		"days": {
			timeseries.Range{Unit: timeseries.Day, From: at(-24, 0), To: at(48, 0)},
			[]timeseries.Bucket{{at(-24, 0), 1, nil}, {at(0, 0), 4, refused}, {at(24, 0), 1, nil}},
			[]timeseries.Bucket{{at(-24, 0), 1, nil}, {at(0, 0), 5, refused}, {at(24, 0), 1, nil}},
		},
		"nothing": {timeseries.Range{Unit: timeseries.Day, From: at(48, 0), To: at(96, 0)}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := timeseries.OfPost(t.Context(), d.Pool, p, c.in)
			if diff := cmp.Diff(c.post, got); diff != "" || err != nil {
				t.Errorf("the post (%v):\n%s", err, diff)
			}
			got, err = timeseries.OfTenant(t.Context(), d.Pool, p.Tenant, c.in)
			if diff := cmp.Diff(c.tenant, got); diff != "" || err != nil {
				t.Errorf("the tenant (%v):\n%s", err, diff)
			}
		})
	}
}

// However much has been seen, days are one range of the key: no row of an hour, or of another post, is read for them.
func TestDaysAreOneRange(t *testing.T) {
	d := projectiontest.Open(t, migrated(t))
	ctx := t.Context()
	for _, sql := range []string{`
		CREATE VIEW buckets AS
		SELECT u.unit, b AS bucket, s::smallint AS shard
		FROM generate_series(0, 7) s, (VALUES ('day', '1 day'::interval), ('hour', '1 hour')) u (unit, step),
		     generate_series('2026-01-01Z'::timestamptz, '2026-05-31Z', u.step) b`, `
		INSERT INTO timeseries_v1.timeseries_posts (tenant, post, unit, bucket, reason, shard, views)
		SELECT 'demo', 'p' || p, unit, bucket, '', shard, 1 FROM generate_series(1, 2) p, buckets`, `
		INSERT INTO timeseries_v1.timeseries_tenants (tenant, unit, bucket, reason, shard, views)
		SELECT 'demo', unit, bucket, '', shard, 1 FROM buckets`,
		`ANALYZE timeseries_v1.timeseries_posts, timeseries_v1.timeseries_tenants`,
	} {
		if _, err := d.Pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"timeseries.of_post", "timeseries.of_tenant"} {
		scan, err := d.Scan(ctx, name, pgx.NamedArgs{
			"tenant": "demo", "post": "p1", "unit": string(timeseries.Day),
			"from": time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), "to": time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC),
		})
		if err != nil {
			t.Fatal(err)
		}
		const rows = (28 + 31 + 30) * projections.Shards
		if !strings.Contains(scan.Type, "Index") && !strings.Contains(scan.Type, "Bitmap") || scan.Rows != rows || scan.Removed+scan.Rechecked > 0 {
			t.Errorf("%s: %+v, want %d rows of an index", name, scan, rows)
		}
	}
}
