package domain

import (
	"cmp"
	"slices"
	"time"
)

// DecisionRecorded is what an operator decided, e.g. to discard a dead letter.
type DecisionRecorded struct {
	Tenant     TenantID // empty: of the installation
	DecisionID string
	Kind       string
	By         string
	Reason     string
	DecidedAt  time.Time
	About      []Position
	Projection string // of a discard: whose dead letter it was
}

// EventType implements Event.
func (DecisionRecorded) EventType() string { return "DecisionRecorded" }

// DecisionDiscard is the kind of a decision that events are not applied to a projection, for good. Each position that
// it is about is the record itself: its NextOffset is the record's offset.
const DecisionDiscard = "discard"

// Discard says who gave a dead letter up, and why.
type Discard struct {
	By, Reason string
	At         time.Time
}

// decided folds a decision. Those of other kinds are kept in the log for those who ask.
func (in *Installation) decided(e DecisionRecorded) {
	if e.Kind != DecisionDiscard {
		return
	}
	if in.Discards == nil {
		in.Discards = map[string]map[Position]Discard{}
	}
	of := in.Discards[e.Projection]
	if of == nil {
		of = map[Position]Discard{}
		in.Discards[e.Projection] = of
	}
	for _, p := range e.About {
		of[p.In().At(p.NextOffset)] = Discard{By: e.By, Reason: e.Reason, At: e.DecidedAt}
	}
}

// Discarded lists what operators gave up of a projection, in order. Each is a record, its NextOffset being the record's
// offset; there is no leader epoch in it. Whoever computes the projection from the log, in whatever version, leaves these
// records out: they are skipped, neither applied nor poison.
func (in *Installation) Discarded(projection string) []Position {
	records := make([]Position, 0, len(in.Discards[projection]))
	for p := range in.Discards[projection] {
		records = append(records, p)
	}
	slices.SortFunc(records, func(a, b Position) int {
		return cmp.Or(ComparePartitions(a.In(), b.In()), cmp.Compare(a.NextOffset, b.NextOffset))
	})
	return records
}
