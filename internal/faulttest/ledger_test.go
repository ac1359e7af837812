package faulttest_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"seenby/domain"
)

// What the load consists of. Everything about a view follows from its number and the seed, so that the ledger keeps a
// few bytes of it: ten million fit into a hundred megabytes.
const (
	basePosts  = 48   // published before the load begins
	viewers    = 4000 // of which the even ones are in the audience
	freshEvery = 4    // one batch of so many is of a post that is published right before it, and seen by no other: nothing makes up for it
	audience   = "friends"
)

// batchViews is how many views one request has: more at high rates, so that no more than batchesPerSecond are under way.
var batchViews = 32

const batchesPerSecond = 40

// view is one view as it is reported, and what must become of it.
type view struct {
	post      string
	viewer    string
	anonymous bool
	counts    bool // else it is refused as not_in_audience
}

func freshPost(batch int) string  { return "fresh-" + strconv.Itoa(batch) }
func basePost(i int) string       { return "post-" + strconv.Itoa(i) }
func viewerName(i int) string     { return "viewer-" + strconv.Itoa(i) }
func forFriends(post int) bool    { return post%4 == 0 }
func isFresh(batch int) bool      { return batch%freshEvery == 0 }
func isMember(viewer int) bool    { return viewer%2 == 0 }
func batchOf(n int) (batch int)   { return n / batchViews }
func mix(seed, n uint64) uint64   { return splitmix(splitmix(seed) ^ n) }
func below(h uint64, n int) int   { return int(h % uint64(n)) }
func bits(h uint64, i int) uint64 { return splitmix(h + uint64(i)) }

// splitmix is the finalizer of splitmix64.
func splitmix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// viewOf is the view with a number.
func viewOf(seed uint64, n int) view {
	h := mix(seed, uint64(n))
	viewer := below(bits(h, 1), viewers)
	v := view{viewer: viewerName(viewer), anonymous: below(bits(h, 2), 10) == 0, counts: true}
	if batch := batchOf(n); isFresh(batch) {
		v.post = freshPost(batch)
		return v
	}
	post := below(bits(h, 3), basePosts)
	v.post = basePost(post)
	if forFriends(post) {
		v.counts = isMember(viewer) && !v.anonymous
	}
	return v
}

// ledger is what the load knows was acknowledged, and what became of it. Safe for concurrent use.
type ledger struct {
	seed  uint64
	began time.Time

	mu      sync.Mutex
	acked   []uint32 // by number: when, in ms since began, plus 1; 0: not (yet)
	counted []uint8  // by number: counted verdicts
	refused []bool   // by number: refused as not_in_audience, for good
	sent    int      // numbers given out
	acks    int      // views acknowledged, each once
	repeats int      // and again, by the same id
	lastAck time.Time
}

func newLedger(seed uint64) *ledger { return &ledger{seed: seed, began: time.Now()} }

// id of a view: the seed, then the number.
func (l *ledger) id(n int) domain.ViewID {
	var id domain.ViewID
	binary.BigEndian.PutUint64(id[:8], splitmix(l.seed))
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func (l *ledger) idText(n int) string { return uuid.UUID(l.id(n)).String() }

// number is the inverse of id.
func (l *ledger) number(id domain.ViewID) (n int, ok bool) {
	if binary.BigEndian.Uint64(id[:8]) != splitmix(l.seed) {
		return 0, false
	}
	number := binary.BigEndian.Uint64(id[8:])
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(number), number < uint64(l.sent)
}

// next gives out the numbers of a batch that is to be reported: first to first+batchViews.
func (l *ledger) next() (first int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.sent
	l.sent += batchViews
	l.acked = append(l.acked, make([]uint32, batchViews)...)
	l.counted = append(l.counted, make([]uint8, batchViews)...)
	l.refused = append(l.refused, make([]bool, batchViews)...)
	return first
}

// acknowledge notes that a batch got its 202.
func (l *ledger) acknowledge(first int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastAck = time.Now()
	at := uint32(l.lastAck.Sub(l.began).Milliseconds()) + 1
	for n := first; n < first+batchViews; n++ {
		if l.acked[n] == 0 {
			l.acked[n] = at
			l.acks++
		} else {
			l.repeats++
		}
	}
}

// earlier is a batch that was acknowledged some time ago.
func (l *ledger) earlier(random *rand.Rand) (first int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sent == 0 {
		return 0, false
	}
	first = batchViews * random.IntN(l.sent/batchViews)
	return first, l.acked[first] > 0
}

// count notes a counted verdict and tells how many the view has now.
func (l *ledger) count(n int) uint8 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counted[n] < 255 {
		l.counted[n]++
	}
	return l.counted[n]
}

func (l *ledger) isCounted(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counted[n] > 0
}

// refuse notes that a view was refused for good.
func (l *ledger) refuse(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused[n] = true
}

// totals are what the table shows.
func (l *ledger) totals() (acked, repeats int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks, l.repeats
}

// lastAcknowledged is when a batch got its 202 last.
func (l *ledger) lastAcknowledged() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastAck
}

// compare holds every acknowledged view against what must have become of it.
func (l *ledger) compare() (counted, lost, doubled int, problems []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	complain := func(n int, what string) {
		if len(problems) < problemsMax {
			problems = append(problems, fmt.Sprintf("view %d (%s), acknowledged %d ms after the start: %s", n, l.idText(n), int(l.acked[n])-1, what))
		}
	}
	for n := range l.sent {
		v := viewOf(l.seed, n)
		if l.counted[n] > 0 {
			counted++
		}
		switch {
		case l.counted[n] > 1:
			doubled++
			complain(n, fmt.Sprintf("counted %d times", l.counted[n]))
		case l.counted[n] == 1 && !v.counts:
			doubled++
			complain(n, "counted, and its viewer may not see the post")
		case l.acked[n] > 0 && v.counts && l.counted[n] == 0:
			lost++
			complain(n, fmt.Sprintf("not counted (refused for good: %v)", l.refused[n]))
		case l.acked[n] > 0 && !v.counts && !l.refused[n]:
			lost++
			complain(n, "has no final verdict")
		}
	}
	return counted, lost, doubled, problems
}

// problemsMax bounds what is printed of one check.
const problemsMax = 20

// countedViews calls f for each view that was counted, as often as it was.
func (l *ledger) countedViews(f func(view)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, times := range l.counted {
		for range times {
			f(viewOf(l.seed, n))
		}
	}
}
