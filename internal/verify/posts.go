package verify

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"

	"seenby/domain"
)

// postTable has the figures of every post: what the read models hold, and what the log says.
type postTable struct {
	index  map[domain.PostKey]uint32
	blocks [][]post // of blockPosts each, so that growing copies nothing
	hash   hasher
	// shard holds the counts that go into one row of each post: partitions of one shard are folded one after the
	// other, so that only one shard's are held.
	shard map[uint32]shardCounts
}

const blockPosts = 4096

// post is one post's figures. What the digests hold of the read models is added, what they hold of the log is taken
// away: they are zero where both hold the same rows.
type post struct {
	impressions, anonymous, importedViews Compared
	viewers, rows                         Compared

	importedImpressions, importedViewers, importedAsOf Compared // as_of in microseconds; 0: none

	rowsDigest   digest
	spreadDigest uint64
}

type shardCounts struct{ impressions, anonymous, imported, viewers int64 }

func newPostTable() *postTable {
	return &postTable{index: map[domain.PostKey]uint32{}, hash: newHasher(), shard: map[uint32]shardCounts{}}
}

func (t *postTable) of(key domain.PostKey) (uint32, *post) {
	i, ok := t.index[key]
	if !ok {
		i = uint32(len(t.index)) //nolint:gosec // posts of one installation, in memory
		t.index[key] = i
		if i%blockPosts == 0 {
			t.blocks = append(t.blocks, make([]post, blockPosts))
		}
	}
	return i, t.at(i)
}

func (t *postTable) at(i uint32) *post { return &t.blocks[i/blockPosts][i%blockPosts] }

// count adds a counted view of the log.
func (t *postTable) count(i uint32, anonymous, imported bool) {
	c := t.shard[i]
	c.impressions++
	if anonymous {
		c.anonymous++
	}
	if imported {
		c.imported++
	}
	t.shard[i] = c
}

// endShard folds the rows that the partitions of a shard make.
func (t *postTable) endShard(shard int16) {
	for i, c := range t.shard {
		p := t.at(i)
		p.impressions.Log += c.impressions
		p.anonymous.Log += c.anonymous
		p.importedViews.Log += c.imported
		p.viewers.Log += c.viewers
		if c.impressions > 0 {
			p.spreadDigest -= t.hash.impressions(shard, c.impressions, c.anonymous, c.imported)
		}
		if c.viewers > 0 {
			p.spreadDigest -= t.hash.viewerCount(shard, c.viewers)
		}
	}
	clear(t.shard)
}

// row adds a viewer row of the log.
func (t *postTable) row(i uint32, viewer domain.PersonKey, row ViewerRow, shard int16) {
	p := t.at(i)
	p.rows.Log++
	p.rowsDigest = p.rowsDigest.minus(t.hash.viewer(viewer, row, shard))
	c := t.shard[i]
	c.viewers++
	t.shard[i] = c
}

func (p *post) difference(key domain.PostKey) PostDifference {
	return PostDifference{
		Tenant: key.Tenant, Post: key.Post, Impressions: p.impressions, AnonymousImpressions: p.anonymous, ImportedViews: p.importedViews,
		UniqueViewers: p.viewers, ViewerRows: p.rows, ViewerRowsDiffer: p.rowsDigest != digest{}, SpreadDiffers: p.spreadDigest != 0,
		ImportedImpressions: p.importedImpressions, ImportedUniqueViewers: p.importedViewers, ImportedAsOfDiffers: p.importedAsOf.Differs(),
	}
}

// differing are the posts that differ, by tenant and id.
func (t *postTable) differing() []PostDifference {
	out := []PostDifference{}
	for key, i := range t.index {
		if d := t.at(i).difference(key); d.differs() {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b PostDifference) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Post, b.Post))
	})
	return out
}

// digest of a set of rows: the sum of their hashes, so that order does not matter.
type digest [2]uint64

func (d digest) plus(o digest) digest  { return digest{d[0] + o[0], d[1] + o[1]} }
func (d digest) minus(o digest) digest { return digest{d[0] - o[0], d[1] - o[1]} }

// hasher has two seeds of its own: no app can make ids or rows whose hashes meet.
type hasher struct{ a, b maphash.Seed }

func newHasher() hasher { return hasher{maphash.MakeSeed(), maphash.MakeSeed()} }

func (h hasher) bytes(b []byte) digest { return digest{maphash.Bytes(h.a, b), maphash.Bytes(h.b, b)} }

func (h hasher) viewer(viewer domain.PersonKey, row ViewerRow, shard int16) digest {
	var buf [len(viewer) + 4*8]byte
	copy(buf[:], viewer[:])
	for i, n := range [...]int64{row.First, row.Last, row.Views, int64(shard)} {
		binary.LittleEndian.PutUint64(buf[len(viewer)+8*i:], uint64(n)) //nolint:gosec // its bits
	}
	return h.bytes(buf[:])
}

func (h hasher) impressions(shard int16, all, anonymous, imported int64) uint64 {
	return h.numbers('i', int64(shard), all, anonymous, imported)
}

func (h hasher) viewerCount(shard int16, viewers int64) uint64 {
	return h.numbers('v', int64(shard), viewers)
}

func (h hasher) numbers(kind byte, ns ...int64) uint64 {
	buf := make([]byte, 1, 1+8*4)
	buf[0] = kind
	for _, n := range ns {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(n)) //nolint:gosec // its bits
	}
	return maphash.Bytes(h.a, buf)
}
