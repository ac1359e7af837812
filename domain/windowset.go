package domain

import (
	"math"
	"math/bits"
	"time"
)

// windowSet remembers 64-bit hashes with the time each was added, for a sliding window. A hash may stand in
// it more than once, with different times.
//
// An entry takes 12 bytes in open addressing that is kept between 80 and 85 % full, so about 15 bytes: a Go
// map would take three times that. Times are kept as the low 32 bits of a millisecond; entries are dropped
// long before those wrap (WindowMax). It is split into shards so that growing one never copies the whole.
type windowSet struct {
	shards [windowShards]windowShard
	window int64 // ms; the longest that an entry is asked for
	now    int64 // ms; the latest time seen
	swept  int64 // ms; when the sweep last moved on
	next   int   // the shard to sweep next

	// While a set is restored, entries that will be out of the window at its end are left out, and shards grow
	// by doubling: many additions follow each other and nothing is asked. settle ends that.
	restoring bool
	until     int64 // ms
}

const (
	windowShards   = 64
	windowSlotsMin = 8
	windowFullPct  = 85 // a fuller shard is rebuilt ...
	windowGrownPct = 80 // ... to this
	windowRoomyPct = 40 // ... or, while it is restored, to this
	// A sweep passes every shard once in this part of the window, so that memory falls when traffic does.
	sweepsPerWindow = 4
)

type windowShard struct {
	hashes []uint64 // 0: empty
	times  []uint32
	used   int // slots that are not empty, expired ones included
}

func newWindowSet(window time.Duration) *windowSet {
	return &windowSet{window: window.Milliseconds(), now: math.MinInt64}
}

func home(hash uint64, slots int) int {
	// The high 6 bits have picked the shard; shifting them out leaves 58 random ones for the slot.
	hi, _ := bits.Mul64(hash<<6, uint64(slots)) //nolint:gosec // slots is positive
	return int(hi)                              //nolint:gosec // less than slots
}

func (s *windowSet) shard(hash uint64) *windowShard { return &s.shards[hash>>58] }

// age is how old an entry is at now, the time of the last add, in ms. Entries are never older than 2^32 ms then:
// advance sees to that.
func age(now int64, at uint32) int64 { return int64(uint32(now) - at) } //nolint:gosec // modular on purpose

func nonZero(hash uint64) uint64 {
	if hash == 0 {
		return 1
	}
	return hash
}

// count is how many entries of hash are at most window old at now, up to most.
func (s *windowSet) count(hash uint64, now time.Time, window time.Duration, most int) int {
	hash = nonZero(hash)
	sh := s.shard(hash)
	if len(sh.hashes) == 0 {
		return 0
	}
	nowMS, windowMS, n := now.UnixMilli(), window.Milliseconds(), 0
	if nowMS-s.now > windowMS {
		return 0 // everything in the set is older; and 32-bit ages may have wrapped
	}
	for i := home(hash, len(sh.hashes)); sh.hashes[i] != 0; i++ {
		if sh.hashes[i] == hash && age(s.now, sh.times[i])+nowMS-s.now <= windowMS {
			if n++; n >= most {
				return n
			}
		}
		if i+1 == len(sh.hashes) {
			i = -1
		}
	}
	return n
}

// keeps tells whether an addition at that time would be remembered.
func (s *windowSet) keeps(at time.Time) bool {
	return !s.restoring || s.until-at.UnixMilli() <= s.window
}

// add remembers hash at time at, which must not be before the times added earlier.
func (s *windowSet) add(hash uint64, at time.Time) {
	if !s.keeps(at) {
		return
	}
	atMS := at.UnixMilli()
	s.advance(atMS)
	hash = nonZero(hash)
	sh := s.shard(hash)
	if (sh.used+1)*100 > len(sh.hashes)*windowFullPct {
		sh.rebuild(s.now, s.window, s.grownPct())
	}
	i := home(hash, len(sh.hashes))
	for ; sh.hashes[i] != 0; i++ {
		if age(s.now, sh.times[i]) > s.window {
			sh.used-- // an expired slot is taken over
			break
		}
		if i+1 == len(sh.hashes) {
			i = -1
		}
	}
	sh.hashes[i], sh.times[i] = hash, uint32(atMS) //nolint:gosec // modular on purpose
	sh.used++
}

// advance moves the time on and sweeps as many shards as are due.
func (s *windowSet) advance(now int64) {
	if s.now == math.MinInt64 {
		s.now, s.swept = now, now
	}
	if now <= s.now {
		return
	}
	if now-s.now > s.window {
		// Nothing is younger than the window any more, and the ages might wrap.
		s.shards = [windowShards]windowShard{}
		s.now, s.swept = now, now
		return
	}
	// In halves of the window: an entry whose sweep is due may be 5/4 of the window old, and a whole window more would
	// wrap its age.
	for half := s.window / 2; half > 0 && now-s.now > half; {
		s.sweep(s.now + half)
	}
	s.sweep(now)
}

func (s *windowSet) sweep(now int64) {
	s.now = now
	step := max(s.window/(sweepsPerWindow*windowShards), 1)
	for ; now-s.swept >= step; s.swept += step {
		s.shards[s.next].rebuild(now, s.window, s.grownPct())
		s.next = (s.next + 1) % windowShards
	}
}

func (s *windowSet) grownPct() int {
	if s.restoring {
		return windowRoomyPct
	}
	return windowGrownPct
}

// settle ends a restore: from now on the set is kept as small as it can be.
func (s *windowSet) settle() {
	if !s.restoring {
		return
	}
	s.restoring = false
	for i := range s.shards {
		if s.shards[i].used > 0 {
			s.shards[i].rebuild(s.now, s.window, windowGrownPct)
		}
	}
}

// rebuild drops what is expired, and makes room so that grownPct of it are taken.
func (sh *windowShard) rebuild(now, window int64, grownPct int) {
	live := 0
	for i, h := range sh.hashes {
		if h != 0 && age(now, sh.times[i]) <= window {
			live++
		}
	}
	slots := max((live+1)*100/grownPct+1, windowSlotsMin)
	next := windowShard{hashes: make([]uint64, slots), times: make([]uint32, slots), used: 0}
	for i, h := range sh.hashes {
		if h == 0 || age(now, sh.times[i]) > window {
			continue
		}
		j := home(h, slots)
		for next.hashes[j] != 0 {
			if j++; j == slots {
				j = 0
			}
		}
		next.hashes[j], next.times[j] = h, sh.times[i]
		next.used++
	}
	*sh = next
}

func (s *windowSet) len() int {
	n := 0
	for i := range s.shards {
		n += s.shards[i].used
	}
	return n
}
