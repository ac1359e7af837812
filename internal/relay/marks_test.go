package relay

import (
	"maps"
	"testing"

	"pgregory.net/rapid"

	"seenby/domain"
)

// Whatever is read, moved back, handed out or dropped, in any order: a mark at or behind what taken says is handed out once
// the read models have passed it, and none below is missing.
func TestMarksLoseNothing(t *testing.T) {
	parts := []domain.Partition{part(domain.TopicVerdicts, 0), part(domain.TopicVerdicts, 1), part(domain.TopicPosts, 0)}
	rapid.Check(t, func(t *rapid.T) {
		m := newMarks()
		log := map[domain.Partition][]string{} // the post that each record marks; "": none
		at := map[domain.Partition]int64{}     // where the reader stands
		owed := map[domain.Partition]map[int64]bool{}
		passed := map[domain.Partition]int64{}
		size := 0
		one := rapid.SampledFrom(parts)
		take := func(t *rapid.T) {
			got := map[string]bool{}
			m.take(passed, func(post domain.PostKey) { got[string(post.Post)] = true })
			for p, offsets := range owed {
				whole := true // everything that was read is passed
				for offset := range offsets {
					whole = whole && offset < passed[p]
				}
				for offset := range offsets {
					post := log[p][offset]
					if whole && !got[post] {
						t.Fatalf("%v@%d: %s was not handed out", p, offset, post)
					}
					if got[post] && offset < passed[p] {
						delete(offsets, offset)
					}
				}
			}
			for p, to := range m.taken() {
				for offset := range owed[p] {
					if offset < to {
						t.Fatalf("%v@%d is said to be handed out below %d", p, offset, to)
					}
				}
				if to > at[p] {
					t.Fatalf("%v is said to be handed out below %d and read to %d", p, to, at[p])
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"seek": func(t *rapid.T) {
				p := one.Draw(t, "partition")
				to := int64(0)
				if read, ok := m.reached()[p]; ok {
					to = rapid.Int64Range(0, read).Draw(t, "to")
				}
				m.seek([]domain.Position{p.At(to)})
				at[p] = to
				if owed[p] == nil {
					owed[p] = map[int64]bool{}
				}
			},
			"read": func(t *rapid.T) {
				p := one.Draw(t, "partition")
				if _, ok := at[p]; !ok {
					return
				}
				to := at[p] + rapid.Int64Range(1, 4).Draw(t, "records")
				for int64(len(log[p])) < to {
					log[p] = append(log[p], rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(t, "post"))
				}
				h := &heap{from: -1, posts: map[domain.PostKey]struct{}{}}
				for offset := at[p]; offset < to; offset++ {
					if post := log[p][offset]; post != "" {
						if h.from < 0 {
							h.from = offset
						}
						h.posts[key(post)], h.to = struct{}{}, offset+1
						owed[p][offset] = true
					}
				}
				marked := map[domain.Partition]*heap{}
				if h.from >= 0 {
					marked[p] = h
				}
				m.add([]domain.Position{p.At(to)}, marked)
				at[p] = to
			},
			"pass": func(t *rapid.T) {
				p := one.Draw(t, "partition")
				passed[p] += rapid.Int64Range(0, 6).Draw(t, "records")
			},
			"take": take,
			"drop": func(t *rapid.T) {
				p := one.Draw(t, "partition")
				m.drop(func(of domain.Partition) bool { return of == p })
				delete(at, p)
				delete(owed, p)
			},
			"": func(t *rapid.T) {
				if !maps.Equal(m.reached(), at) {
					t.Fatalf("read to %v, not %v", m.reached(), at)
				}
				size = 0
				for _, heaps := range m.heaps {
					if len(heaps) > heapsMax {
						t.Fatalf("%d heaps", len(heaps))
					}
					for _, h := range heaps {
						size += len(h.posts)
					}
				}
				if size != m.size || m.empty() != (len(m.heaps) == 0) {
					t.Fatalf("size is %d, not %d", m.size, size)
				}
			},
		})
		for p := range at {
			passed[p] = int64(len(log[p]))
		}
		take(t)
		if left := m.size; left > 0 || !m.empty() {
			t.Fatalf("%d marks are left", left)
		}
	})
}

// Where a read model stands still, the number of heaps does not grow, and nothing is lost in the last one.
func TestMarksJoin(t *testing.T) {
	m := newMarks()
	p := part(domain.TopicVerdicts, 0)
	m.seek([]domain.Position{p.At(0)})
	add := func(offset int64) {
		post := key(string(rune('a' + offset%7)))
		m.add([]domain.Position{p.At(offset + 1)}, map[domain.Partition]*heap{p: {from: offset, to: offset + 1, posts: map[domain.PostKey]struct{}{post: {}}}})
	}
	for offset := range int64(3 * heapsMax) {
		add(offset)
	}
	if n := len(m.heaps[p]); n != heapsMax || m.size != heapsMax-1+7 {
		t.Errorf("%d heaps with %d posts", n, m.size)
	}
	n := 0
	m.take(map[domain.Partition]int64{p: 3*heapsMax - 1}, func(domain.PostKey) { n++ })
	if to := m.taken()[p]; n != heapsMax-1 || to != heapsMax-1 {
		t.Errorf("%d are handed out, and all below %d", n, to)
	}
	m.take(map[domain.Partition]int64{p: 3 * heapsMax}, func(domain.PostKey) { n++ })
	if to := m.taken()[p]; n != heapsMax+6 || to != 3*heapsMax || m.size != 0 {
		t.Errorf("%d are handed out, and all below %d; %d are left", n, to, m.size)
	}
	// What comes of a partition that is no longer read is nobody's.
	m.drop(func(domain.Partition) bool { return true })
	add(0)
	if !m.empty() || len(m.taken()) > 0 {
		t.Error("it marks")
	}
}
