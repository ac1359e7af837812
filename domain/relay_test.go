package domain_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
)

func TestTell(t *testing.T) {
	post := domain.PostKey{Tenant: "shop", Post: "p"}
	noon := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	told := func(impressions, unique, imported, revision, highest int64, called ...int64) domain.ImpressionsChanged {
		return domain.ImpressionsChanged{
			PostRef: post, Impressions: impressions, UniqueViewers: unique, Imported: imported, Revision: revision, AsOf: noon,
			HighestMilestone: highest, Milestones: called,
		}
	}
	now := func(impressions, unique, imported int64) domain.PostCounts {
		return domain.PostCounts{Impressions: impressions, UniqueViewers: unique, Imported: imported, AsOf: noon}
	}
	at := domain.Telling{Milestones: []int64{100, 1000}}
	for name, c := range map[string]struct {
		given domain.ImpressionsChanged
		when  domain.PostCounts
		how   domain.Telling
		then  domain.ImpressionsChanged // the zero value: nothing
	}{
		"the first view":               {when: now(1, 1, 0), then: told(1, 1, 0, 1, 0)},
		"another view":                 {given: told(1, 1, 0, 1, 0), when: now(2, 1, 0), then: told(2, 1, 0, 2, 0)},
		"nothing new":                  {given: told(2, 1, 0, 2, 0), when: now(2, 1, 0)},
		"the viewers alone":            {given: told(2, 1, 0, 2, 0), when: now(2, 2, 0), then: told(2, 2, 0, 3, 0)},
		"a resend":                     {given: told(2, 1, 0, 2, 0), when: now(2, 1, 0), how: domain.Telling{Resend: true}, then: told(2, 1, 0, 3, 0)},
		"the core is ahead":            {given: told(2, 1, 0, 2, 0), when: now(2, 1, 0), how: domain.Telling{Resend: true, Above: 9}, then: told(2, 1, 0, 10, 0)},
		"a milestone":                  {given: told(99, 9, 0, 5, 0), when: now(100, 9, 0), how: at, then: told(100, 9, 0, 6, 100, 100)},
		"two at once":                  {given: told(99, 9, 0, 5, 0), when: now(1000, 9, 0), how: at, then: told(1000, 9, 0, 6, 1000, 100, 1000)},
		"a milestone, once":            {given: told(100, 9, 0, 6, 100, 100), when: now(101, 9, 0), how: at, then: told(101, 9, 0, 7, 100)},
		"an import passes it":          {given: told(50, 9, 0, 5, 0), when: now(150, 9, 100), how: at, then: told(150, 9, 100, 6, 100)},
		"an import and a view":         {given: told(50, 9, 0, 5, 0), when: now(100, 9, 49), how: at, then: told(100, 9, 49, 6, 100, 100)},
		"the view before the import":   {given: told(99, 9, 0, 5, 0), when: now(1000, 9, 900), how: at, then: told(1000, 9, 900, 6, 1000, 1000)},
		"nobody saw it passed":         {when: now(5000, 9, 0), how: domain.Telling{Milestones: at.Milestones, Silent: true}, then: told(5000, 9, 0, 1, 1000)},
		"a new threshold, long passed": {given: told(700, 9, 0, 5, 100), when: now(701, 9, 0), how: domain.Telling{Milestones: []int64{100, 500}}, then: told(701, 9, 0, 6, 500)},
		"the count falls":              {given: told(100, 9, 0, 6, 100), when: now(98, 9, 0), how: at, then: told(98, 9, 0, 7, 100)},
		"and rises again":              {given: told(98, 9, 0, 7, 100), when: now(100, 9, 0), how: at, then: told(100, 9, 0, 8, 100)},
	} {
		t.Run(name, func(t *testing.T) {
			next, changed := domain.Tell(post, c.given, c.when, c.how)
			if changed != (c.then.Revision > 0) {
				t.Fatalf("changed: %v", changed)
			}
			if diff := cmp.Diff(c.then, next); changed && diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A read model that is being filled again knows less than what was told, or how much it knows not at all.
func TestBehind(t *testing.T) {
	noon := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	told := domain.ImpressionsChanged{AsOf: noon}
	for at, want := range map[time.Time]bool{{}: true, noon.Add(-time.Second): true, noon: false, noon.Add(time.Second): false} {
		if got := (domain.PostCounts{AsOf: at}).Behind(&told); got != want {
			t.Errorf("as of %v: %v", at, got)
		}
	}
	if (domain.PostCounts{}).Behind(&domain.ImpressionsChanged{}) {
		t.Error("behind nothing")
	}
}
