package domain

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWindowSet holds the set to a list that is searched from end to end.
func TestWindowSet(t *testing.T) {
	epoch := time.UnixMilli(1_795_000_000_000)
	rapid.Check(t, func(t *rapid.T) {
		window := time.Duration(rapid.SampledFrom([]int64{1, 100, 60_000, WindowMax.Milliseconds()}).Draw(t, "window")) * time.Millisecond
		type entry struct {
			hash uint64
			at   time.Time
		}
		var model []entry
		set, now := newWindowSet(window), epoch
		// Few hashes, so that they meet; some share a shard, some a slot.
		hashes := []uint64{0, 1, 2, 3, 1 << 58, 1<<58 + 1, 63 << 58, ^uint64(0), 12345678901234567}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				h := rapid.SampledFrom(hashes).Draw(t, "hash")
				set.add(h, now)
				model = append(model, entry{nonZero(h), now})
			},
			"add many": func(t *rapid.T) {
				for range rapid.IntRange(1, 300).Draw(t, "n") {
					h := rapid.Uint64().Draw(t, "hash")
					set.add(h, now)
					model = append(model, entry{nonZero(h), now})
				}
			},
			"wait": func(t *rapid.T) {
				part := rapid.SampledFrom([]int64{1, 10, 100, 1000, 1001, 3000}).Draw(t, "thousandths of the window")
				now = now.Add(window*time.Duration(part)/1000 + time.Duration(rapid.IntRange(0, 1).Draw(t, "ms"))*time.Millisecond).Truncate(time.Millisecond)
			},
			"": func(t *rapid.T) {
				shorter := window / time.Duration(rapid.IntRange(1, 3).Draw(t, "part"))
				for _, h := range hashes {
					want := 0
					for _, e := range model {
						if e.hash == nonZero(h) && now.Sub(e.at).Milliseconds() <= shorter.Milliseconds() {
							want++
						}
					}
					if got := set.count(h, now, shorter, len(model)+1); got != want {
						t.Fatalf("%d entries of %x within %v, want %d", got, h, shorter, want)
					}
				}
			},
		})
	})
}

func TestWindowSetShrinks(t *testing.T) {
	set, at := newWindowSet(time.Hour), time.UnixMilli(1_795_000_000_000)
	for i := range uint64(100_000) {
		set.add(i*0x9e3779b97f4a7c15, at)
	}
	for i := range 100 {
		at = at.Add(time.Minute)
		set.add(uint64(i+1)*0x9e3779b97f4a7c15, at)
	}
	slots := 0
	for _, sh := range set.shards {
		slots += len(sh.hashes)
	}
	if slots > 1000 {
		t.Errorf("%d slots for a hundred entries: the sweep does not give memory back", slots)
	}
}

// An entry may stay for a quarter of the window longer than it counts, and be asked about a window after that: with
// the longest window that is more than 2^32 ms.
func TestAgesDoNotWrap(t *testing.T) {
	start := time.UnixMilli(1_795_000_000_000)
	at := func(days float64) time.Time { return start.Add(time.Duration(days * 24 * float64(time.Hour))) }
	s := newWindowSet(WindowMax)
	spread := func(n int) uint64 { return uint64(n+1) * 0x9E3779B97F4A7C15 } // over all shards
	for n := range 100 {
		s.add(spread(n), at(0.96))
	}
	for day := 1; day <= 28; day++ {
		s.add(spread(1000+day), at(float64(day)))
	}
	for n := range 100 {
		if s.count(spread(n), at(51.96), WindowMax, 1) != 0 {
			t.Fatalf("entry %d of 51 days ago still counts", n)
		}
	}
}

// A set that is swept and then hears nothing for a whole window holds entries older than two of them.
func TestAgesDoNotWrapInALongSilence(t *testing.T) {
	start := time.UnixMilli(1_795_000_000_000)
	last := ^uint64(0) // in the shard that is swept last
	s := newWindowSet(WindowMax)
	s.add(last, start)
	for _, at := range []time.Duration{WindowMax, WindowMax * 11 / 10, WindowMax * 21 / 10} {
		s.add(1, start.Add(at))
	}
	if n := s.count(last, start.Add(WindowMax*21/10), WindowMax, 1); n != 0 {
		t.Errorf("an entry of %v ago counts within %v", WindowMax*21/10, WindowMax)
	}
}
