package keeper

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
)

func (l *ledger) take(offset int64, v *domain.Verdict) {
	_ = l.fold(domain.Record{Partition: verdictsPart, Offset: offset, Event: v})
}

func undecided(viewOffset int64, id int) *domain.Verdict {
	v := newView(1, id, "p")
	return &domain.Verdict{Viewer: v.Viewer, ViewID: v.ViewID, Post: v.Post, ViewOffset: viewOffset, Reason: domain.ReasonUndecided}
}

func TestLedgerResolves(t *testing.T) {
	l := newLedger(verdictsPart.At(0), 100)
	l.take(10, undecided(0, 1))
	l.take(11, undecided(1, 2))
	l.take(12, undecided(2, 2)) // the app repeats a view: a record of its own
	if l.hint() != 10 {
		t.Fatal(l.hint())
	}
	refused := undecided(3, 1)
	refused.Reason, refused.Readmits = domain.ReasonUnknownPost, new(int64)
	l.take(13, refused)
	if l.hint() != 11 || len(l.byOffset) != 2 {
		t.Fatal(l.hint(), len(l.byOffset))
	}
	other := undecided(4, 2)
	other.Reason, other.Viewer.Person[0] = domain.ReasonNone, 9
	l.take(14, other) // another viewer's view of the same id
	if len(l.byOffset) != 2 {
		t.Fatal("resolved by a stranger")
	}
	counted := undecided(5, 2)
	counted.Reason = domain.ReasonNone
	l.take(15, counted)
	if l.hint() != 16 || len(l.byOffset) != 0 || len(l.byID) != 0 {
		t.Fatal(l.hint(), len(l.byOffset))
	}
}

// A restored database makes a readmitted view undecided again: the first is resolved, the second waits.
func TestLedgerChain(t *testing.T) {
	l := newLedger(verdictsPart.At(0), 100)
	l.take(0, undecided(0, 1))
	again := undecided(7, 1)
	again.Readmits = new(int64)
	again.Received = start
	l.take(1, again)
	if l.byOffset[0] != nil || l.byOffset[7] == nil || l.hint() != 1 {
		t.Fatal(l.hint())
	}
	if r := readmission(again).Readmitted; r.Offset != 7 || !r.Received.Equal(start) {
		t.Fatalf("%+v", r)
	}
}

func TestReadmissionCarriesTheView(t *testing.T) {
	ratio := 0.5
	v := &domain.Verdict{
		Viewer: domain.PersonRef{Tenant: tenant, Person: domain.PersonKey{1}}, ViewID: domain.ViewID{2}, ViewOffset: 3, Post: "p",
		ClaimedAt: start.Add(-time.Hour), ViewedAt: start.Add(-2 * time.Hour), Received: start, Anonymous: true, Imported: true,
		Context: &domain.ViewContext{App: "web", VisibleRatio: &ratio}, Reason: domain.ReasonUndecided,
		WaitsFor: []domain.Position{{Topic: domain.TopicPosts, NextOffset: 4}},
	}
	want := domain.ViewReported{
		Viewer: v.Viewer, ViewID: v.ViewID, Post: "p", ViewedAt: start.Add(-time.Hour), Anonymous: true, Imported: true, Context: v.Context,
		Readmitted: &domain.Readmission{Offset: 3, Received: start, ViewedAt: start.Add(-2 * time.Hour), WaitedFor: v.WaitsFor},
	}
	if diff := cmp.Diff(want, readmission(v)); diff != "" {
		t.Fatal(diff)
	}
}

func TestLedgerIsBounded(t *testing.T) {
	l := newLedger(verdictsPart.At(0), 4)
	for i := range 10 {
		l.take(int64(i), undecided(int64(i), i))
	}
	if len(l.byOffset) != 4 || l.hint() != 0 || l.judged != 9 || l.passed != 4 {
		t.Fatalf("%d pending, hint %d, judged %d, passed over from %d", len(l.byOffset), l.hint(), l.judged, l.passed)
	}
	if _, ok := l.rewindTo(); ok {
		t.Fatal("reads again without room")
	}
	full := *l
	if full.order = nil; full.hint() != 4 {
		t.Fatal("what was passed over is forgotten")
	}
	for i := range int64(2) {
		v := undecided(20+i, int(i))
		v.Reason, v.Readmits = domain.ReasonUnknownPost, &i
		l.take(10+i, v)
	}
	if at, ok := l.rewindTo(); !ok || at.NextOffset != 4 {
		t.Fatal(at, ok)
	}
	l.proof = proof{end: 5, asked: time.Now()}
	l.rewound()
	if l.proven(time.Now()) || l.hint() != 2 {
		t.Fatal("proven by what was read before the return")
	}
}

// What keeps waiting does not keep others from being asked about.
func TestUnsettledGoesRound(t *testing.T) {
	l := newLedger(verdictsPart.At(0), 100)
	for i := range 5 {
		l.take(int64(i), undecided(int64(i), i))
	}
	seen := map[int64]int{}
	for range 5 {
		for _, p := range l.unsettled(2) {
			seen[p.offset]++
		}
	}
	for i := range int64(5) {
		if seen[i] != 2 {
			t.Fatal(seen)
		}
	}
}

func TestProofGrowsOld(t *testing.T) {
	l := newLedger(verdictsPart.At(0), 100)
	l.take(0, undecided(4, 1))
	now := time.Now()
	l.proof = proof{end: 6, asked: now}
	if l.proven(now) {
		t.Fatal("view 5 has no verdict yet")
	}
	l.take(1, undecided(5, 2))
	if !l.proven(now) || l.proven(now.Add(proofFor)) || !l.unproven(now.Add(proofFor)) {
		t.Fatal("a proof holds for a minute")
	}
}

// Our record gone from the log is appended again, but not for ever.
func TestAttemptsAreBounded(t *testing.T) {
	l := newLedger(verdictsPart.At(0), 100)
	l.take(0, undecided(0, 1))
	p := l.byOffset[0]
	p.settled = true
	for range attemptsMax {
		if len(l.ready(10)) != 1 {
			t.Fatal("not ready")
		}
		p.attempts++
	}
	if len(l.ready(10)) != 0 || l.lost != 1 || l.hint() != 0 {
		t.Fatal("appended for ever, or forgotten")
	}
}

func TestUnknownEventIsNotSkipped(t *testing.T) {
	l := newLedger(verdictsPart.At(0), 100)
	if err := l.fold(domain.Record{Offset: 0, Err: domain.ErrUnknownEvent}); !errors.Is(err, domain.ErrUnknownEvent) {
		t.Fatal(err)
	}
	if err := l.fold(domain.Record{Offset: 1, Err: errDead}); err != nil || l.next != 2 {
		t.Fatal(err)
	}
}

func TestTidyKeepsTheCursor(t *testing.T) {
	l := newLedger(verdictsPart.At(0), 1000)
	for i := range 200 {
		l.take(int64(i), undecided(int64(i), i))
	}
	l.cursor = 150
	for i := range int64(140) {
		l.resolve(l.byOffset[i])
	}
	l.tidy()
	if len(l.order) != 60 || l.order[l.cursor].offset != 150 {
		t.Fatal(len(l.order), l.cursor)
	}
}
