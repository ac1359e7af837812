package uniqueviews_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"seenby/domain"
	"seenby/projections/projectiontest"
	"seenby/projections/uniqueviews"
)

func TestViewersPageByPage(t *testing.T) {
	ctx := t.Context()
	d := projectiontest.Open(t, migrated(t))
	part := projectiontest.PartitionOf(domain.TopicVerdicts, nil)
	post := projectiontest.Post("p")
	var b domain.Batch
	const n = 23
	for i := range int64(n) { // three at a time share their first view
		v := &domain.Verdict{
			Viewer: domain.PersonRef{Tenant: post.Tenant, Person: projectiontest.Person(fmt.Sprintf("v%02d", i))}, Post: post.Post,
			ViewOffset: i, ViewedAt: projectiontest.Start.Add(time.Duration(i/3) * time.Second),
		}
		b.Records = append(b.Records, domain.Record{Partition: part, Offset: i, Event: v})
	}
	b.Next = []domain.Position{part.At(n)}
	if err := d.Deliver(ctx, uniqueviews.Projection{}, b); err != nil {
		t.Fatal(err)
	}
	all, err := uniqueviews.Viewers(ctx, d.Pool, post, nil, 100)
	if err != nil || len(all) != n || !all[0].FirstViewedAt.After(all[n-1].FirstViewedAt) {
		t.Fatalf("%d viewers (%v)", len(all), err)
	}
	var paged []uniqueviews.Viewer
	var after *uniqueviews.ViewersCursor
	for {
		page, err := uniqueviews.Viewers(ctx, d.Pool, post, after, 4)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		paged = append(paged, page...)
		last := page[len(page)-1]
		after = &uniqueviews.ViewersCursor{FirstViewedAt: last.FirstViewedAt, Person: last.Person}
	}
	if !slices.Equal(all, paged) {
		t.Errorf("pages give %v, not %v", paged, all)
	}
	counts, err := uniqueviews.Counts(ctx, d.Pool, []domain.PostKey{post, post, projectiontest.Post("none")})
	if err != nil || len(counts) != 1 || counts[post] != n {
		t.Errorf("counts %v (%v)", counts, err)
	}
}
