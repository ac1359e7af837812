package domain

import (
	"time"

	"github.com/cespare/xxhash/v2"
)

// Memory is what the gate remembers of one partition of views: the counted ids, the counted views per viewer
// and post, and the quotas. It is a fold of the counted verdicts of that partition, in order (Remember), so
// reading them again restores it exactly. Not safe for concurrent use.
//
// Ids and pairs are remembered as 64-bit hashes. Two different views of one partition share one with odds of
// n / 2^64 for n remembered views (10 million: 5 in 10^13 per view); see the decision record on the gate's
// memory. A remembered view takes at most 16 bytes over the default windows.
type Memory struct {
	ids    *windowSet
	pairs  *windowSet
	quotas map[uint64]int64 // per viewer: when the quota is whole again, µs
	swept  int              // len(quotas) after the last sweep
	now    time.Time
}

// NewMemory makes an empty memory that looks back as far as the limits say.
func NewMemory(limits Limits) *Memory {
	return &Memory{
		ids:    newWindowSet(limits.DuplicateWindow),
		pairs:  newWindowSet(limits.PostCap.Window),
		quotas: map[uint64]int64{},
	}
}

// RestoreMemory makes a memory for the verdicts that lead up to until, the partition time of the last one. What
// will be out of its window by then is not taken in, so restoring is faster than living through it; from the
// first overlay on there is no difference.
func RestoreMemory(limits Limits, until time.Time) *Memory {
	m := NewMemory(limits)
	for _, s := range []*windowSet{m.ids, m.pairs} {
		s.restoring, s.until = true, until.UnixMilli()
	}
	return m
}

// Now is the partition time: the highest record time seen so far.
func (m *Memory) Now() time.Time { return m.now }

// Len is how many counted ids are held, expired ones that have not been swept included.
func (m *Memory) Len() int { return m.ids.len() }

// Remember folds a committed verdict; at is its partition time. Refused views leave no trace but time.
func (m *Memory) Remember(v *Verdict, at time.Time) {
	if at.After(m.now) {
		m.now = at
	}
	if !v.Counted() {
		return
	}
	m.ids.add(idHash(v.Viewer, v.ViewID), m.now)
	// An imported view was seen at another time: it takes nothing of what its viewer may see today.
	if !v.Imported && m.pairs.keeps(m.now) { // most of a restore is older, and is spared the hash
		m.pairs.add(pairHash(v.Viewer, v.Post), m.now)
	}
	if !v.QuotaFullAt.IsZero() {
		m.setQuota(v.Viewer, v.QuotaFullAt.UnixMicro())
	}
}

// quotasSweptMin keeps small maps from being swept at every step.
const quotasSweptMin = 1024

// setQuota remembers when a viewer's quota is whole again. What is whole by the end of a restore is not taken in: a
// viewer's times only grow, so no earlier one is held either, but for limits that changed.
func (m *Memory) setQuota(viewer PersonRef, fullAt int64) {
	if m.ids.restoring && fullAt <= 1000*m.ids.until {
		if len(m.quotas) > 0 {
			delete(m.quotas, viewerHash(viewer))
		}
		return
	}
	m.quotas[viewerHash(viewer)] = fullAt
	if len(m.quotas) < 2*max(m.swept, quotasSweptMin) {
		return
	}
	for k, at := range m.quotas {
		if at <= m.now.UnixMicro() {
			delete(m.quotas, k)
		}
	}
	m.swept = len(m.quotas)
}

// Overlay judges a run of views on top of a memory without changing it. It is dropped, or committed once its
// verdicts stand in the log for certain. One overlay at a time per memory.
type Overlay struct {
	memory *Memory
	now    time.Time
	ids    map[uint64]int64   // ms of the latest count
	pairs  map[uint64][]int64 // ms
	quotas map[uint64]int64   // µs
	counts []remembered
}

type remembered struct {
	verdict *Verdict
	at      time.Time
}

// Begin starts an overlay.
func (m *Memory) Begin() *Overlay {
	m.ids.settle()
	m.pairs.settle()
	return &Overlay{memory: m, now: m.now, ids: map[uint64]int64{}, pairs: map[uint64][]int64{}, quotas: map[uint64]int64{}}
}

// Commit folds the overlay's verdicts into the memory.
func (o *Overlay) Commit() {
	for _, r := range o.counts {
		o.memory.Remember(r.verdict, r.at)
	}
	o.counts = nil
}

// Now is the partition time of the view judged last.
func (o *Overlay) Now() time.Time { return o.now }

func (o *Overlay) duplicate(id uint64, window time.Duration) bool {
	if at, ok := o.ids[id]; ok && o.now.UnixMilli()-at <= window.Milliseconds() {
		return true
	}
	return o.memory.ids.count(id, o.now, window, 1) > 0
}

func (o *Overlay) capped(pair uint64, limit PostCap) bool {
	n := int64(0)
	for _, at := range o.pairs[pair] {
		if o.now.UnixMilli()-at <= limit.Window.Milliseconds() {
			n++
		}
	}
	return n >= limit.Views || n+int64(o.memory.pairs.count(pair, o.now, limit.Window, int(limit.Views-n))) >= limit.Views
}

// take takes one view from the viewer's quota; ok is false where it is used up. This is the generic cell
// rate form of a token bucket: its whole state is the time at which the bucket is full again, which a
// verdict can carry.
func (o *Overlay) take(viewer uint64, q Quota) (fullAt time.Time, ok bool) {
	now := o.now.UnixMicro()
	full, seen := o.quotas[viewer]
	if !seen {
		full = o.memory.quotas[viewer]
	}
	refill := q.Refill().Microseconds()
	full = min(max(full, now), now+refill) + q.Interval().Microseconds()
	if full-now > refill {
		return time.Time{}, false
	}
	return time.UnixMicro(full).UTC(), true
}

func (o *Overlay) remember(v *Verdict) {
	o.counts = append(o.counts, remembered{v, o.now})
	if !v.Counted() {
		return
	}
	o.ids[idHash(v.Viewer, v.ViewID)] = o.now.UnixMilli()
	if v.Imported {
		return
	}
	pair := pairHash(v.Viewer, v.Post)
	o.pairs[pair] = append(o.pairs[pair], o.now.UnixMilli())
	if !v.QuotaFullAt.IsZero() {
		o.quotas[viewerHash(v.Viewer)] = v.QuotaFullAt.UnixMicro()
	}
}

// The hashes are part of what makes a replay decide alike: never change them without a new memory.

func viewerHash(viewer PersonRef) uint64 { return hash(viewer, 'v', nil) }

func idHash(viewer PersonRef, id ViewID) uint64 { return hash(viewer, 'i', id[:]) }

func pairHash(viewer PersonRef, post PostID) uint64 {
	var buf [IDBytesMax]byte
	return hash(viewer, 'p', append(buf[:0], post...))
}

func hash(viewer PersonRef, kind byte, rest []byte) uint64 {
	var buf [2 + TenantBytesMax + len(PersonKey{}) + IDBytesMax]byte
	key := append(buf[:0], kind, byte(len(viewer.Tenant)))
	key = append(key, viewer.Tenant...)
	key = append(key, viewer.Person[:]...)
	key = append(key, rest...)
	return xxhash.Sum64(key)
}
