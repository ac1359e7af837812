package verify

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"maps"
	"slices"
	"time"

	"seenby/domain"
)

// undecided follows the undecided views of one partition to their end.
type undecided struct {
	kept    map[int64]uint64 // by the offset of each view that may be appended again: a hash of what a record that repeats it keeps
	waiting map[int64]waiting
	byID    map[idHash][]int64 // offsets of waiting views
}

type waiting struct {
	id       idHash
	post     domain.PostKey
	viewer   domain.PersonKey
	waitsFor []domain.Position
	parked   bool
}

func newUndecided() *undecided {
	return &undecided{kept: map[int64]uint64{}, waiting: map[int64]waiting{}, byID: map[idHash][]int64{}}
}

// verdict takes the next verdict; id is its view's.
func (u *undecided) verdict(v *domain.Verdict, id idHash, seed maphash.Seed, to *Undecided) {
	u.resolve(v, to)
	if v.Counted() {
		for _, offset := range slices.Clone(u.byID[id]) {
			u.end(offset)
			to.Counted++
		}
		return
	}
	if v.Reason == domain.ReasonViewerQuota { // an operator may have it judged again
		u.kept[v.ViewOffset] = keptByVerdict(v, seed)
	}
	if v.Reason != domain.ReasonUndecided {
		return
	}
	to.Verdicts++
	u.kept[v.ViewOffset] = keptByVerdict(v, seed)
	u.waiting[v.ViewOffset] = waiting{
		id: id, post: domain.PostKey{Tenant: v.Viewer.Tenant, Post: v.Post}, viewer: v.Viewer.Person,
		waitsFor: v.WaitsFor, parked: v.DeadLetters,
	}
	u.byID[id] = append(u.byID[id], v.ViewOffset)
}

// resolve ends the wait of the view that a verdict's record repeats.
func (u *undecided) resolve(v *domain.Verdict, to *Undecided) {
	if v.Readmits == nil {
		return
	}
	if _, waits := u.waiting[*v.Readmits]; !waits {
		return
	}
	u.end(*v.Readmits)
	switch {
	case v.Counted():
		to.Counted++
	case v.Reason == domain.ReasonUndecided:
		to.Again++
	default:
		to.Refused++
	}
}

func (u *undecided) end(offset int64) {
	w := u.waiting[offset]
	delete(u.waiting, offset)
	left := slices.DeleteFunc(u.byID[w.id], func(o int64) bool { return o == offset })
	if u.byID[w.id] = left; len(left) == 0 {
		delete(u.byID, w.id)
	}
}

// repeats tells what is wrong with a record that says it repeats an undecided one; empty: nothing.
func (u *undecided) repeats(offset int64, view *domain.ViewReported, seed maphash.Seed) string {
	hash, known := u.kept[view.Readmitted.Offset]
	switch {
	case !known || view.Readmitted.Offset >= offset:
		return "repeats view %d, which no verdict before it left to be judged again"
	case hash != keptByRecord(view, seed):
		return "repeats view %d, but not with its viewer, id, post, times and what it waited for"
	}
	return ""
}

// keptByVerdict and keptByRecord hash what a record that is appended again keeps of the one that it repeats.
func keptByVerdict(v *domain.Verdict, seed maphash.Seed) uint64 {
	return kept(seed, v.Viewer, v.ViewID, v.Post, v.Anonymous, v.Imported, v.WaitsFor, v.ClaimedAt, v.Received, v.ViewedAt)
}

func keptByRecord(v *domain.ViewReported, seed maphash.Seed) uint64 {
	again := v.Readmitted
	return kept(seed, v.Viewer, v.ViewID, v.Post, v.Anonymous, v.Imported, again.WaitedFor, v.ViewedAt, again.Received, again.ViewedAt)
}

func kept(seed maphash.Seed, viewer domain.PersonRef, id domain.ViewID, post domain.PostID, anonymous, imported bool, waits []domain.Position, times ...time.Time) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	h.Write(viewer.Key())
	h.Write(id[:])
	flags := byte(0)
	if anonymous {
		flags |= 1
	}
	if imported {
		flags |= 2
	}
	h.WriteByte(flags)
	number := func(n int64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(n)) //nolint:gosec // its bits
		h.Write(b[:])
	}
	for _, t := range times {
		number(t.UnixMicro())
	}
	for _, w := range waits {
		h.Write(w.TopicID[:])
		number(int64(w.Partition))
		number(w.NextOffset)
		h.WriteString(string(w.Topic))
	}
	h.WriteByte(0)
	h.WriteString(string(post))
	return h.Sum64()
}

// left reports what still waits.
func (u *undecided) left(partition int32, state *State, to *Undecided) {
	to.Waiting += int64(len(u.waiting))
	parked := newParkedKeys(state.ParkedKeys)
	for _, offset := range slices.Sorted(maps.Keys(u.waiting)) {
		w := u.waiting[offset]
		keys := parked.of(w.post, w.viewer)
		for _, k := range keys {
			if !slices.Contains(to.ParkedKeys, k) && len(to.ParkedKeys) < parkedKeysMax {
				to.ParkedKeys = append(to.ParkedKeys, k)
			}
		}
		if len(to.First) >= waitingMax {
			if len(parked.posts)+len(parked.members) == 0 {
				break
			}
			continue
		}
		shown := Waiting{
			Tenant: w.post.Tenant, Post: w.post.Post, Viewer: w.viewer, Partition: partition, ViewOffset: offset,
			WaitsFor: []WaitsFor{}, Parked: w.parked || len(keys) > 0,
		}
		for _, p := range w.waitsFor {
			shown.WaitsFor = append(shown.WaitsFor, WaitsFor{p.Topic, p.Partition, p.NextOffset, state.stands(p)})
		}
		to.First = append(to.First, shown)
	}
}

// parkedKeysMax bounds the keys that are named: an operator looks at one after the other.
const parkedKeysMax = 100

// stands is where the projection of posts is in the partition of a position.
func (s *State) stands(at domain.Position) int64 {
	for _, row := range s.Positions[projectionPosts] {
		if row.In() == at.In() {
			return row.NextOffset
		}
	}
	return 0
}

// parkedKeys are the order keys that have dead letters in the projection of posts: of posts and of memberships.
type parkedKeys struct {
	posts   map[domain.PostKey]bool
	members map[domain.PersonRef][]string // audiences
}

func newParkedKeys(keys [][]byte) parkedKeys {
	p := parkedKeys{map[domain.PostKey]bool{}, map[domain.PersonRef][]string{}}
	for _, k := range keys {
		if tenant, audience, person, ok := domain.ParseMemberKey(k); ok {
			ref := domain.PersonRef{Tenant: tenant, Person: person}
			p.members[ref] = append(p.members[ref], audience)
		} else if post, ok := domain.ParsePostKey(bytes.Clone(k)); ok {
			p.posts[post] = true
		}
	}
	return p
}

// of names the parked keys that a view depends on. Which audience is meant stands in the post; all are named.
func (p parkedKeys) of(post domain.PostKey, viewer domain.PersonKey) (names []string) {
	if p.posts[post] {
		names = append(names, "post "+string(post.Post)+" of tenant "+string(post.Tenant))
	}
	for _, audience := range p.members[domain.PersonRef{Tenant: post.Tenant, Person: viewer}] {
		names = append(names, "membership of "+viewer.String()+" in audience "+audience+" of tenant "+string(post.Tenant))
	}
	return names
}
