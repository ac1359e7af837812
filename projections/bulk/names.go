package bulk

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"slices"
	"unsafe"

	"seenby/domain"
)

// restBytesMax bounds what may follow tenant and post in a key.
const restBytesMax = 16

// nameBytesMax bounds a key: tenant, NUL, post and, where there is a rest, NUL and that. A multiple of 8.
const nameBytesMax = (domain.TenantBytesMax + 1 + domain.IDBytesMax + 1 + restBytesMax + 7) &^ 7

// names are the keys of a fold, each once. They lie in the slab from its end downwards, with their hash table; a bigger
// table leaves the smaller one's place unused, which is less than its own. Above the items' end there is always room for the
// list of names that sorting needs.
type names struct {
	slab  []byte
	sums  int // numbers per name
	seed  maphash.Seed
	back  int // what is below is not ours
	table []slot
	count int
	last  uint32
}

// slot is one of the hash table: ref is where the name stands, in 8 bytes, and 0 where there is none.
type slot struct{ hash, ref uint32 }

// nameHead is followed by the sums, then by the key.
type nameHead struct {
	before      uint32 // the name that was interned before this one; 0: none
	items       uint32
	cursor      uint32 // while items are sorted
	keyBytes    uint16
	tenantBytes uint16
}

const (
	nameHeadBytes = int(unsafe.Sizeof(nameHead{}))
	slotBytes     = int(unsafe.Sizeof(slot{}))
	refBytes      = 4
	slotsMin      = 16
)

func newNames(slab []byte, sums int) names {
	n := names{slab: slab, sums: sums, seed: maphash.MakeSeed()}
	n.reset()
	return n
}

// reset forgets all names.
func (n *names) reset() {
	n.back, n.count, n.last = len(n.slab)&^7, 0, 0
	n.newTable(slotsMin)
}

func (n *names) newTable(slots int) {
	n.back -= slots * slotBytes
	n.table = unsafe.Slice((*slot)(unsafe.Pointer(&n.slab[n.back])), slots)
	clear(n.table)
}

// free tells whether there is room for the given number of bytes above the front, which is the end of the items.
func (n *names) free(front, size, names int) bool {
	return n.back-size-refBytes*(n.count+names) >= front
}

func (n *names) head(ref uint32) *nameHead {
	return (*nameHead)(unsafe.Pointer(&n.slab[int(ref)*8]))
}

func (n *names) sumsOf(ref uint32) []int64 {
	if n.sums == 0 {
		return nil
	}
	return unsafe.Slice((*int64)(unsafe.Pointer(&n.slab[int(ref)*8+nameHeadBytes])), n.sums)
}

func (n *names) keyOf(ref uint32) []byte {
	at := int(ref)*8 + nameHeadBytes + 8*n.sums
	return n.slab[at : at+int(n.head(ref).keyBytes)]
}

// intern gives the name of a key; false: there is no room for it above front.
func (n *names) intern(tenant domain.TenantID, post domain.PostID, rest []byte, front int) (ref uint32, ok bool) {
	h := n.hash(tenant, post, rest)
	i := n.slotOf(h)
	for mask := len(n.table) - 1; n.table[i].ref != 0; i = (i + 1) & mask {
		if s := n.table[i]; s.hash == h && n.is(s.ref, tenant, post, rest) {
			return s.ref, true
		}
	}
	keyBytes := len(tenant) + 1 + len(post) + tailBytes(len(rest))
	size := nameHeadBytes + 8*n.sums + (keyBytes+7)&^7
	if 2*(n.count+1) > len(n.table) {
		if !n.free(front, size+2*len(n.table)*slotBytes, 1) {
			return 0, false
		}
		n.grow()
		i = n.emptySlot(h)
	} else if !n.free(front, size, 1) {
		return 0, false
	}
	n.back -= size
	ref = uint32(n.back / 8)                                                                              //nolint:gosec // memoryBytesMax
	*n.head(ref) = nameHead{before: n.last, keyBytes: uint16(keyBytes), tenantBytes: uint16(len(tenant))} //nolint:gosec // nameBytesMax
	clear(n.sumsOf(ref))
	key := n.keyOf(ref)
	copy(key, tenant)
	key[len(tenant)] = 0
	copy(key[len(tenant)+1:], post)
	if len(rest) > 0 {
		key[keyBytes-len(rest)-1] = 0
		copy(key[keyBytes-len(rest):], rest)
	}
	n.table[i] = slot{h, ref}
	n.last = ref
	n.count++
	return ref, true
}

func (n *names) is(ref uint32, tenant domain.TenantID, post domain.PostID, rest []byte) bool {
	key := n.keyOf(ref)
	t, p := len(tenant), len(tenant)+1+len(post)
	return len(key) == p+tailBytes(len(rest)) && int(n.head(ref).tenantBytes) == t && string(key[:t]) == string(tenant) &&
		string(key[t+1:p]) == string(post) && bytes.HasSuffix(key, rest)
}

// hash tells the same text as tenant and as post apart.
func (n *names) hash(tenant domain.TenantID, post domain.PostID, rest []byte) uint32 {
	h := bits.RotateLeft64(maphash.String(n.seed, string(tenant)), 1) ^ maphash.String(n.seed, string(post))
	if len(rest) > 0 {
		h ^= bits.RotateLeft64(maphash.Bytes(n.seed, rest), 2)
	}
	return uint32(h ^ h>>32) //nolint:gosec // of its halves
}

func (n *names) slotOf(hash uint32) int { return int(hash) & (len(n.table) - 1) }

func (n *names) emptySlot(hash uint32) int {
	i := n.slotOf(hash)
	for mask := len(n.table) - 1; n.table[i].ref != 0; {
		i = (i + 1) & mask
	}
	return i
}

// grow doubles the table.
func (n *names) grow() {
	old := n.table
	n.newTable(2 * len(old))
	for _, s := range old {
		if s.ref != 0 {
			n.table[n.emptySlot(s.hash)] = s
		}
	}
}

// sorted lists the names by their keys, in the place that was kept free for that.
func (n *names) sorted() []uint32 {
	if n.count == 0 {
		return nil
	}
	at := n.back - refBytes*n.count
	list := unsafe.Slice((*uint32)(unsafe.Pointer(&n.slab[at])), n.count)
	for i, ref := 0, n.last; ref != 0; i, ref = i+1, n.head(ref).before {
		list[i] = ref
	}
	slices.SortFunc(list, func(a, b uint32) int { return bytes.Compare(n.keyOf(a), n.keyOf(b)) })
	return list
}

// tailBytes is what a rest takes in a key: NUL comes before it, so that keys sort as their three columns do.
func tailBytes(rest int) int {
	if rest == 0 {
		return 0
	}
	return 1 + rest
}

// splitName cuts a key whose rest is so long.
func splitName(name []byte, tenantBytes, rest int) (tenant, post, tail []byte) {
	return name[:tenantBytes], name[tenantBytes+1 : len(name)-tailBytes(rest)], name[len(name)-rest:]
}
