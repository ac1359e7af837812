package relay

import (
	"context"
	"testing"

	"seenby/domain"
	"seenby/projections"
)

// stubWriter writes nothing.
type stubWriter struct{}

func (stubWriter) Commit(context.Context, []domain.Event) ([]int64, error) { return nil, nil }
func (stubWriter) Close()                                                  {}

// A partition is taken over whose marks begin within what is read for others: not told yet, or being looked at just now.
func TestRewindReadsAgainWhatWasReadForOthers(t *testing.T) {
	part := domain.Partition{Topic: domain.TopicVerdicts}
	for _, tt := range []struct{ from, want int64 }{{50, 50}, {150, 150}, {250, 200}} {
		tl := newTeller(New(Deps{}), &stubSource{at: map[domain.Partition]int64{}}, false)
		tl.marks.seek([]domain.Position{part.At(200)})
		tl.marks.heaps[part] = []heap{{from: 100, to: 200}}
		tl.rewind([]domain.Position{part.At(tt.from)})
		if got := tl.reading.wanted; len(got) != 1 || got[0] != part.At(tt.want) {
			t.Errorf("marks from %d on: read again is %v, not from %d on", tt.from, got, tt.want)
		}
	}
}

// A partition that is given up and taken again while every post is looked at needs another look: what was found of it was
// taken off.
func TestSweepOfAPartitionThatComesBack(t *testing.T) {
	stages := sweepStages
	defer func() { sweepStages = stages }()
	none := func(context.Context, projections.Querier, domain.PostKey, int) ([]domain.PostKey, error) {
		return nil, nil
	}
	sweepStages = []func(context.Context, projections.Querier, domain.PostKey, int) ([]domain.PostKey, error){none, none}
	tl := newTeller(New(Deps{PartitionOf: func(domain.PostKey) int32 { return 0 }}), &stubSource{at: map[domain.Partition]int64{}}, false)
	stays, comes := domain.Partition{Topic: domain.TopicImpressions}, domain.Partition{Topic: domain.TopicImpressions, Partition: 1}
	for _, part := range []domain.Partition{stays, comes} {
		tl.owned[part] = &owned{part: part, writer: stubWriter{}, sweeping: true}
	}
	look := func() {
		if err := tl.lookAtEveryPost(t.Context(), nil, "v1", nil); err != nil {
			t.Fatal(err)
		}
	}
	look()
	tl.give(comes)
	tl.owned[comes] = &owned{part: comes, writer: stubWriter{}, sweeping: true}
	look()
	if tl.owned[stays].sweeping || !tl.owned[comes].sweeping {
		t.Errorf("still to be looked at: %v and %v", tl.owned[stays].sweeping, tl.owned[comes].sweeping)
	}
	look()
	look()
	if tl.owned[comes].sweeping {
		t.Error("it is not looked at again")
	}
}

// Milestones that views of today pass are called, also while every post is looked at after a swap; those that were passed before
// anything was marked are not, whether a look or a view comes upon the post first.
func TestWhichPostsAreSilent(t *testing.T) {
	seen, unseen := domain.ImpressionsChanged{Revision: 1}, domain.ImpressionsChanged{}
	post := domain.PostKey{Tenant: "shop", Post: "p"}
	mark, look := (*teller).mark, (*teller).lookAt
	for _, tt := range []struct {
		what     string
		markless bool
		found    []func(*teller, domain.PostKey)
		told     *domain.ImpressionsChanged
		want     bool
	}{
		{"marked", false, []func(*teller, domain.PostKey){mark}, &unseen, false},
		{"looked at", false, []func(*teller, domain.PostKey){look}, &unseen, true},
		{"looked at, told before", false, []func(*teller, domain.PostKey){look}, &seen, false},
		{"marked and looked at", false, []func(*teller, domain.PostKey){mark, look}, &unseen, false},
		{"looked at and marked", false, []func(*teller, domain.PostKey){look, mark}, &unseen, false},
		{"marked at the first start", true, []func(*teller, domain.PostKey){mark}, &unseen, true},
		{"looked at and marked at the first start", true, []func(*teller, domain.PostKey){look, mark}, &unseen, true},
		{"told before, marked at the first start", true, []func(*teller, domain.PostKey){mark}, &seen, false},
	} {
		tl := newTeller(New(Deps{PartitionOf: func(domain.PostKey) int32 { return 0 }}), &stubSource{at: map[domain.Partition]int64{}}, false)
		tl.owned[domain.Partition{}] = &owned{markless: tt.markless}
		for _, find := range tt.found {
			find(tl, post)
		}
		if got := tl.due[post].silent(tt.told); got != tt.want {
			t.Errorf("%s: silent is %v", tt.what, got)
		}
	}
}
