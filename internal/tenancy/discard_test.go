package tenancy_test

import (
	"strings"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/tenancy"
)

func TestDiscard(t *testing.T) {
	now := time.UnixMilli(5)
	posts := domain.Partition{Topic: domain.TopicPosts, TopicID: domain.TopicID{1}, Partition: 3}
	letters := []tenancy.Discarded{
		{Projection: "posts", Record: posts.At(7), Key: domain.PostKey{Tenant: "shop", Post: "p"}.Key()},
		{Projection: "posts", Record: posts.At(8), Key: []byte("anything\x00at all")},
		{Projection: "posts", Record: posts.At(9), Key: []byte("no tenant")},
	}
	var in domain.Installation
	in.Apply(domain.TenantCreated{Tenant: "shop", CreatedAt: now})
	events, err := tenancy.Discard(&in, now, "ann", "broken", letters)
	if err != nil || len(events) != 3 {
		t.Fatalf("%v, %v", events, err)
	}
	ids := map[string]bool{}
	for i, e := range events {
		d := e.(domain.DecisionRecorded)
		if want := map[int]domain.TenantID{0: "shop"}[i]; d.Tenant != want || d.By != "ann" || d.Reason != "broken" || d.Projection != "posts" || d.DecidedAt != now || d.About[0] != letters[i].Record {
			t.Errorf("decision %d: %+v", i, d)
		}
		ids[d.DecisionID] = true
		in.Apply(e)
	}
	if len(ids) != 3 {
		t.Errorf("decisions share a key: %v", ids)
	}
	if again, err := tenancy.Discard(&in, now, "ben", "other", letters); err != nil || len(again) != 0 {
		t.Errorf("decided again: %v, %v", again, err)
	}
	if got := in.Discarded("posts"); len(got) != 3 {
		t.Errorf("the fold holds %v", got)
	}
	for name, c := range map[string][2]string{
		"no reason": {"ann", ""}, "nobody": {"", "broken"}, "no text": {"ann", "a\x00b"}, "a long reason": {"ann", strings.Repeat("x", 256)},
	} {
		if _, err := tenancy.Discard(&in, now, c[0], c[1], letters); domain.CodeOf(err) != domain.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
