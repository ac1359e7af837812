package verify

import (
	"time"

	"seenby/domain"
)

// countedIDs remembers when ids were counted, for the longest duplicate window: in two halves, of which the older is
// dropped as a whole once it is out of every window. An id is kept as 128 bits of hash: two of n ids meet, and a
// difference is named that is none, with odds of n^2 / 2^129.
type countedIDs struct {
	hash     hasher
	window   time.Duration
	now, old map[digest]int64 // ms of partition time
	since    int64            // when now was begun
}

func newCountedIDs(h hasher, window time.Duration) *countedIDs {
	return &countedIDs{hash: h, window: window, now: map[digest]int64{}, old: map[digest]int64{}}
}

// begin forgets everything: ids are of one partition.
func (c *countedIDs) begin() {
	clear(c.now)
	clear(c.old)
	c.since = 0
}

func (c *countedIDs) key(viewer domain.PersonRef, id domain.ViewID) digest {
	buf := make([]byte, 0, domain.TenantBytesMax+len(viewer.Person)+len(id))
	buf = append(buf, viewer.Tenant...)
	buf = append(buf, viewer.Person[:]...) // both that follow have a fixed length
	buf = append(buf, id[:]...)
	return c.hash.bytes(buf)
}

// count remembers an id that was counted at a time, and tells when it was counted last, if that is remembered.
func (c *countedIDs) count(id digest, at time.Time) (before int64, counted bool) {
	ms := at.UnixMilli()
	if ms-c.since > c.window.Milliseconds() {
		c.old, c.now, c.since = c.now, c.old, ms
		clear(c.now)
	}
	if before, counted = c.now[id]; !counted {
		before, counted = c.old[id]
	}
	c.now[id] = ms
	return before, counted
}
