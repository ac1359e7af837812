package verify

import (
	"time"

	"seenby/domain"
)

// countedIDs remembers when ids were counted, for the longest duplicate window: in two halves, of which the older is
// dropped as a whole once it is out of every window. An id is kept as 96 bits of hash, so that it takes 16 bytes with its
// time: two of n ids meet, and a difference is named that is none, with odds of n^2 / 2^97 (10 million: 6 in 10^16).
type countedIDs struct {
	hash     hasher
	window   time.Duration
	now, old map[idHash]uint32 // the low 32 bits of ms of partition time; windows are shorter than 2^32 ms
	since    int64             // when now was begun
}

type idHash [3]uint32

func newCountedIDs(h hasher, window time.Duration) *countedIDs {
	return &countedIDs{hash: h, window: window, now: map[idHash]uint32{}, old: map[idHash]uint32{}}
}

// begin forgets everything: ids are of one partition.
func (c *countedIDs) begin() {
	clear(c.now)
	clear(c.old)
	c.since = 0
}

func (c *countedIDs) key(viewer domain.PersonRef, id domain.ViewID) idHash {
	buf := make([]byte, 0, domain.TenantBytesMax+len(viewer.Person)+len(id))
	buf = append(buf, viewer.Tenant...)
	buf = append(buf, viewer.Person[:]...) // both that follow have a fixed length
	buf = append(buf, id[:]...)
	h := c.hash.bytes(buf)
	return idHash{uint32(h[0]), uint32(h[0] >> 32), uint32(h[1])} //nolint:gosec // 96 of its bits
}

// count remembers an id that was counted at a time, and tells how long ago it was counted last, if that is remembered.
func (c *countedIDs) count(id idHash, at time.Time) (ago time.Duration, counted bool) {
	ms := at.UnixMilli()
	if ms-c.since > c.window.Milliseconds() {
		c.old, c.now, c.since = c.now, c.old, ms
		clear(c.now)
	}
	before, counted := c.now[id]
	if !counted {
		before, counted = c.old[id]
	}
	low := uint32(ms) //nolint:gosec // its low bits
	c.now[id] = low
	return time.Duration(low-before) * time.Millisecond, counted
}
