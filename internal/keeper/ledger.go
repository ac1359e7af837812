package keeper

import (
	"errors"
	"time"

	"seenby/domain"
)

// ledger is the fold of one partition of verdicts: which views are undecided and unresolved. It is pure but
// for the proof's clock, and not safe for concurrent use.
type ledger struct {
	part   domain.Partition
	max    int
	next   int64 // of verdicts: read up to here
	judged int64 // the highest view offset whose verdict was folded since reading last began here; -1: none

	byOffset map[int64]*pending // by the offset of the undecided view
	byID     map[viewRef][]*pending
	order    []*pending // as in the log; resolved ones are dropped now and then
	cursor   int        // where in order the last look for settled ones ended
	passed   int64      // offset of the first undecided verdict that found no room; -1: none

	// wants tells whose views are to be appended again. Where they are not nil, met is told where each such verdict stands, and
	// ended which verdict brought one to its end.
	wants func(*domain.Verdict) bool
	met   func(offset int64)
	ended func(*pending, *domain.Verdict)

	lost  int // views appended attemptsMax times and not resolved yet, as ready last met them
	proof proof
}

type viewRef struct {
	viewer domain.PersonRef
	id     domain.ViewID
}

// pending is one undecided view.
type pending struct {
	verdict  *domain.Verdict
	offset   int64 // of the verdict
	settled  bool
	attempts int // appends of ours
	resolved bool
}

// proof is a question for the end of views: once that view's verdict is folded, what is unresolved may be
// appended.
type proof struct {
	end   int64 // 0: not asked
	asked time.Time
}

func newLedger(at domain.Position, most int) *ledger {
	return &ledger{
		part: at.In(), max: most, next: at.NextOffset, judged: -1, passed: -1, wants: isUndecided,
		byOffset: map[int64]*pending{}, byID: map[viewRef][]*pending{},
	}
}

func isUndecided(v *domain.Verdict) bool { return v.Reason == domain.ReasonUndecided }

// fold takes the next record. An event of an unknown type is an error; a record that cannot be decoded is
// not an undecided verdict of any gate.
func (l *ledger) fold(r domain.Record) error {
	l.next = r.Offset + 1
	if isUnknown(r.Err) {
		return r.Err
	}
	v, ok := r.Event.(*domain.Verdict)
	if !ok {
		return nil // what cannot be read is the projectors' to park
	}
	l.judged = max(l.judged, v.ViewOffset)
	if v.Readmits != nil {
		p := l.byOffset[*v.Readmits]
		if p != nil && l.ended != nil {
			l.ended(p, v)
		}
		l.resolve(p)
	}
	ref := viewRef{v.Viewer, v.ViewID}
	if v.Counted() {
		for _, p := range l.byID[ref] {
			l.resolve(p)
		}
		return nil
	}
	if !l.wants(v) {
		return nil
	}
	if l.met != nil {
		l.met(r.Offset)
	}
	if l.byOffset[v.ViewOffset] != nil {
		return nil
	}
	if l.passed >= 0 || len(l.byOffset) >= l.max {
		if l.passed < 0 {
			l.passed = r.Offset
		}
		return nil
	}
	p := &pending{verdict: v, offset: r.Offset, settled: !isUndecided(v)} // what is refused waits for nothing
	l.byOffset[v.ViewOffset] = p
	l.byID[ref] = append(l.byID[ref], p)
	l.order = append(l.order, p)
	return nil
}

func isUnknown(err error) bool { return errors.Is(err, domain.ErrUnknownEvent) }

func (l *ledger) resolve(p *pending) {
	if p == nil || p.resolved {
		return
	}
	p.resolved = true
	delete(l.byOffset, p.verdict.ViewOffset)
	ref := viewRef{p.verdict.Viewer, p.verdict.ViewID}
	left := make([]*pending, 0, len(l.byID[ref]))
	for _, q := range l.byID[ref] {
		if q != p {
			left = append(left, q)
		}
	}
	if l.byID[ref] = left; len(left) == 0 {
		delete(l.byID, ref)
	}
}

// compactMin keeps short orders from being copied at every step.
const compactMin = 64

// tidy drops resolved entries once they are most of the order, so that each is copied a bounded number of
// times.
func (l *ledger) tidy() {
	if len(l.order) < compactMin || len(l.order) < 2*len(l.byOffset) {
		return
	}
	kept, cursor := make([]*pending, 0, len(l.byOffset)), 0
	for i, p := range l.order {
		if i == l.cursor {
			cursor = len(kept)
		}
		if !p.resolved {
			kept = append(kept, p)
		}
	}
	l.order, l.cursor = kept, cursor
}

// hint is where reading must start so that no unresolved view is missed.
func (l *ledger) hint() int64 {
	for _, p := range l.order {
		if !p.resolved {
			return p.offset
		}
	}
	if l.passed >= 0 {
		return l.passed
	}
	return l.next
}

// rewindTo tells where to read again, once there is room for what was passed over.
func (l *ledger) rewindTo() (at domain.Position, ok bool) {
	if l.passed < 0 || len(l.byOffset) > l.max/2 {
		return domain.Position{}, false
	}
	return l.part.At(l.passed), true
}

// rewound follows the reader there. Everything is proven anew: what resolves those views may stand where we
// have been already.
func (l *ledger) rewound() {
	l.next, l.passed, l.judged, l.proof = l.passed, -1, -1, proof{}
}

// unsettled gives up to most views to ask about, going round so that none is starved by others that wait long.
func (l *ledger) unsettled(most int) []*pending {
	var ask []*pending
	for range len(l.order) {
		if len(ask) >= most {
			break
		}
		if l.cursor >= len(l.order) {
			l.cursor = 0
		}
		p := l.order[l.cursor]
		l.cursor++
		if !p.resolved && !p.settled {
			ask = append(ask, p)
		}
	}
	return ask
}

// ready gives up to most views that are settled and unresolved, in log order. One that we have appended is
// among them until its verdict resolves it, but the next proof comes after that verdict: if it is unresolved
// even then, our record is gone from the log. After attemptsMax of that something else is wrong, and appending
// for ever would only fill the log.
func (l *ledger) ready(most int) []*pending {
	var out []*pending
	l.lost = 0
	for _, p := range l.order {
		if len(out) >= most {
			break
		}
		switch {
		case p.resolved || !p.settled:
		case p.attempts >= attemptsMax:
			l.lost++
		default:
			out = append(out, p)
		}
	}
	return out
}

// proven tells whether what is unresolved now may be appended.
func (l *ledger) proven(now time.Time) bool {
	return l.proof.end > 0 && l.judged >= l.proof.end-1 && now.Sub(l.proof.asked) < proofFor
}

// unproven tells whether the end of views must be asked (again).
func (l *ledger) unproven(now time.Time) bool {
	return l.proof.end == 0 || now.Sub(l.proof.asked) >= proofFor
}

// readmission is the view of an undecided verdict as it is appended again.
func readmission(v *domain.Verdict) domain.ViewReported {
	return domain.ViewReported{
		Viewer: v.Viewer, ViewID: v.ViewID, Post: v.Post, ViewedAt: v.ClaimedAt,
		Anonymous: v.Anonymous, Imported: v.Imported, Context: v.Context,
		Readmitted: &domain.Readmission{Offset: v.ViewOffset, Received: v.Received, ViewedAt: v.ViewedAt, WaitedFor: v.WaitsFor},
	}
}
