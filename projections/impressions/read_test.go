package impressions_test

import (
	"maps"
	"testing"

	"seenby/domain"
	"seenby/projections/impressions"
	"seenby/projections/projectiontest"
)

// Counts adds up the shards of a post, anonymous views apart.
func TestCounts(t *testing.T) {
	d := projectiontest.Open(t, migrated(t))
	seen, other := projectiontest.Post("seen"), projectiontest.Post("other")
	for partition, views := range [][]bool{{false, true, false}, {true}, {false}} { // anonymous or not
		part := projectiontest.PartitionOf(domain.TopicVerdicts, nil)
		part.Partition = int32(partition) //nolint:gosec // below 3
		var b domain.Batch
		for i, anonymous := range views {
			v := &domain.Verdict{
				Viewer: domain.PersonRef{Tenant: seen.Tenant, Person: projectiontest.Person("v")}, Post: seen.Post,
				ViewOffset: int64(i), ViewedAt: projectiontest.Start, Anonymous: anonymous,
			}
			b.Records = append(b.Records, domain.Record{Partition: part, Offset: int64(i), Event: v})
		}
		b.Next = []domain.Position{part.At(int64(len(views)))}
		if err := d.Deliver(t.Context(), impressions.Projection{}, b); err != nil {
			t.Fatal(err)
		}
	}
	got, err := impressions.Counts(t.Context(), d.Pool, []domain.PostKey{seen, other, seen})
	want := map[domain.PostKey]impressions.Count{seen: {Impressions: 5, AnonymousImpressions: 2}}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v (%v), want %v", got, err, want)
	}
}
