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
	for _, tt := range []struct{ from, want int64 }{{50, 50}, {100, 100}, {150, 100}, {250, 100}} {
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
