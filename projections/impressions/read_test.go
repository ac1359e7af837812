package impressions_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/projectiontest"
)

// seen folds counted views of a post into the row of a shard.
func seen(t *testing.T, d *projectiontest.Database, post domain.PostKey, shard int32, views ...domain.Verdict) {
	t.Helper()
	part := projectiontest.PartitionOf(domain.TopicVerdicts, nil)
	part.Partition = shard
	rows, err := d.Positions(t.Context(), impressions.Projection{}, []domain.Partition{part})
	if err != nil {
		t.Fatal(err)
	}
	var b domain.Batch
	for _, v := range views {
		v.Viewer = domain.PersonRef{Tenant: post.Tenant, Person: projectiontest.Person("v")}
		v.Post, v.ViewOffset, v.ViewedAt = post.Post, rows[part].NextOffset+int64(len(b.Records)), projectiontest.Start
		b.Records = append(b.Records, domain.Record{Partition: part, Offset: v.ViewOffset, Event: &v})
	}
	b.Next = []domain.Position{part.At(rows[part].NextOffset + int64(len(views)))}
	if err := d.Deliver(t.Context(), impressions.Projection{}, b); err != nil {
		t.Fatal(err)
	}
}

// Counts adds up the shards of a post, anonymous and imported views apart.
func TestCounts(t *testing.T) {
	d := projectiontest.Open(t, migrated(t))
	post, other := projectiontest.Post("seen"), projectiontest.Post("other")
	var known domain.Verdict
	anonymous, imported := domain.Verdict{Anonymous: true}, domain.Verdict{Imported: true}
	seen(t, d, post, 0, known, anonymous, imported)
	seen(t, d, post, 0, imported, known)
	seen(t, d, post, 1, anonymous)
	seen(t, d, post, 2, domain.Verdict{Anonymous: true, Imported: true})
	got, err := impressions.Counts(t.Context(), d.Pool, []domain.PostKey{post, other, post})
	want := map[domain.PostKey]impressions.Count{post: {Impressions: 7, AnonymousImpressions: 3, ImportedImpressions: 3}}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v (%v), want %v", got, err, want)
	}
	rows := map[int16]impressions.Count{}
	if err := impressions.Rows(t.Context(), d.Pool, post, func(_ domain.PostKey, shard int16, c impressions.Count) { rows[shard] = c }); err != nil {
		t.Fatal(err)
	}
	if want := map[int16]impressions.Count{0: {5, 1, 2}, 1: {1, 1, 0}, 2: {1, 1, 1}}; !maps.Equal(rows, want) {
		t.Errorf("rows %v, want %v", rows, want)
	}
}

// Whatever the size of a page, each post stands on one of them, in the key's order, however many rows it has.
func TestPosts(t *testing.T) {
	d := projectiontest.Open(t, migrated(t))
	if page, err := impressions.Posts(t.Context(), d.Pool, domain.PostKey{}, 10); err != nil || len(page) != 0 {
		t.Errorf("of no posts: %v (%v)", page, err)
	}
	var want []domain.PostKey
	for _, k := range strings.Fields("acme/p1 acme/p3 demo/P demo/p demo/p1 demo/p10 demo/p2 demo/é") {
		tenant, post, _ := strings.Cut(k, "/")
		want = append(want, domain.PostKey{Tenant: domain.TenantID(tenant), Post: domain.PostID(post)})
	}
	for i := range want { // their order of being seen is another one
		k := want[len(want)-1-i]
		for shard := range int32(1 + i%4) {
			seen(t, d, k, 2*shard, domain.Verdict{})
		}
	}
	projectiontest.Pages(t, want, func(after domain.PostKey, limit int) ([]domain.PostKey, error) {
		return impressions.Posts(t.Context(), d.Pool, after, limit)
	})
}

// However many posts there are, a page reads the rows of its own.
func TestPostsReadOnePage(t *testing.T) {
	d := projectiontest.Open(t, migrated(t))
	const limit = 500
	if _, err := d.Pool.Exec(t.Context(), `
		INSERT INTO impressions_v1.impressions (tenant, post, shard, impressions, anonymous_impressions)
		SELECT 'demo', 'p' || p, shard, 1, 0 FROM generate_series(1, 15000) p, generate_series(0, 7) shard ORDER BY md5(p::text)`); err != nil {
		t.Fatal(err)
	}
	for _, statistics := range []string{"none", "some"} {
		if statistics == "some" {
			if _, err := d.Pool.Exec(t.Context(), "ANALYZE impressions_v1.impressions"); err != nil {
				t.Fatal(err)
			}
		}
		for _, after := range []string{"", "p5", "p99"} {
			scan, err := d.Scan(t.Context(), "impressions.posts", pgx.NamedArgs{"tenant": "demo", "post": after, "limit": limit})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(scan.Type, "Index") || scan.Rows == 0 || scan.Rows > (limit+1)*projections.Shards || scan.Removed+scan.Rechecked > 0 {
				t.Errorf("statistics %s, after %q: %+v", statistics, after, scan)
			}
		}
	}
}
