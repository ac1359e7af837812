package posts_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections/posts"
	"seenby/projections/projectiontest"
)

// Whatever the size of a page, each post with imported counts stands on one of them, in the key's order, whether it was
// published here or not; a post without does not.
func TestBaselinePosts(t *testing.T) {
	d := projectiontest.Open(t, migrated(t))
	part := projectiontest.PartitionOf(domain.TopicPosts, nil)
	var b domain.Batch
	add := func(e domain.PostEvent) {
		b.Records = append(b.Records, domain.Record{Partition: part, Offset: int64(len(b.Records)), Key: e.PostKey().Key(), Event: e, Time: projectiontest.Start})
	}
	var want []domain.PostKey
	for i, k := range strings.Fields("acme/p1 acme/p3 demo/P demo/p demo/p1 demo/p10 demo/p2 demo/é") {
		tenant, post, _ := strings.Cut(k, "/")
		want = append(want, domain.PostKey{Tenant: domain.TenantID(tenant), Post: domain.PostID(post)})
		published := domain.PostPublished{PostRef: want[i], EventID: domain.EventID{byte(i), 1}, Author: projectiontest.Person("ann"), Audience: domain.AudienceEveryone}
		if i%2 == 0 {
			add(published)
		}
		published.PostRef.Post += "0"
		if k != "demo/p1" { // demo/p10 has imported counts
			add(published)
		}
	}
	for i := range want { // another order than the key's
		add(domain.CountsImported{PostRef: want[len(want)-1-i], EventID: domain.EventID{byte(i), 2}, AsOf: projectiontest.Start})
	}
	b.Next = []domain.Position{part.At(int64(len(b.Records)))}
	if page, err := posts.BaselinePosts(t.Context(), d.Pool, domain.PostKey{}, 10); err != nil || len(page) != 0 {
		t.Errorf("of no posts: %v (%v)", page, err)
	}
	if err := d.Deliver(t.Context(), posts.Projection{}, b); err != nil {
		t.Fatal(err)
	}
	projectiontest.Pages(t, want, func(after domain.PostKey, limit int) ([]domain.PostKey, error) {
		return posts.BaselinePosts(t.Context(), d.Pool, after, limit)
	})
}

// However many posts there are, a page reads no further than it goes.
func TestBaselinePostsReadOnePage(t *testing.T) {
	d := projectiontest.Open(t, migrated(t))
	const limit, every = 200, 10 // posts with imported counts
	if _, err := d.Pool.Exec(t.Context(), `
		INSERT INTO posts_v1.posts (tenant, post, version, deleted, author, audience, created_at, updated_at, published_at, baseline_as_of)
		SELECT 'demo', 'p' || lpad(p::text, 6, '0'), 1, false, 'sixteen bytes it', 'everyone', 'epoch', 'epoch', 'epoch', CASE WHEN p % 10 = 0 THEN 'epoch'::timestamptz END
		FROM generate_series(1, 100000) p ORDER BY md5(p::text)`); err != nil {
		t.Fatal(err)
	}
	for _, statistics := range []string{"none", "some"} {
		if statistics == "some" {
			if _, err := d.Pool.Exec(t.Context(), "ANALYZE posts_v1.posts"); err != nil {
				t.Fatal(err)
			}
		}
		for _, after := range []string{"", "p005", "p080"} {
			scan, err := d.Scan(t.Context(), "posts.baseline_posts", pgx.NamedArgs{"tenant": "demo", "post": after, "limit": limit})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(scan.Type, "Index") || scan.Rows != limit || scan.Removed > limit*every || scan.Rechecked > 0 {
				t.Errorf("statistics %s, after %q: %+v", statistics, after, scan)
			}
		}
	}
}
