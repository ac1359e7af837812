package domain_test

import (
	"slices"
	"testing"
	"time"

	"seenby/domain"
)

// TestDiscarded: the fold of tenants lists what operators gave up, per projection, in order, however often it is read.
func TestDiscarded(t *testing.T) {
	posts := domain.Partition{Topic: domain.TopicPosts, TopicID: domain.TopicID{1}, Partition: 3}
	people := domain.Partition{Topic: domain.TopicPeople, TopicID: domain.TopicID{2}}
	discard := func(projection string, about ...domain.Position) domain.DecisionRecorded {
		return domain.DecisionRecorded{
			Tenant: "shop", Kind: domain.DecisionDiscard, Projection: projection, By: "ann", Reason: "broken",
			DecidedAt: time.UnixMilli(1), About: about,
		}
	}
	var in domain.Installation
	for range 2 {
		for _, e := range []domain.Event{
			discard("posts", posts.At(9)), discard("posts", people.At(4)), discard("posts", posts.At(2)), discard("people", people.At(4)),
			domain.DecisionRecorded{Kind: "other", Projection: "posts", About: []domain.Position{posts.At(1)}},
		} {
			if !in.Apply(e) {
				t.Fatalf("%+v does not belong on tenants", e)
			}
		}
	}
	if got, want := in.Discarded("posts"), []domain.Position{people.At(4), posts.At(2), posts.At(9)}; !slices.Equal(got, want) {
		t.Errorf("discarded of posts: %v, want %v", got, want)
	}
	if got := in.Discarded("impressions"); len(got) != 0 {
		t.Errorf("discarded of impressions: %v", got)
	}
	if d := in.Discards["people"][people.At(4)]; d.By != "ann" || d.Reason != "broken" || d.At != time.UnixMilli(1) {
		t.Errorf("decided: %+v", d)
	}
	if len(in.Tenants) != 0 {
		t.Errorf("a decision made tenants: %v", in.Tenants)
	}
}
