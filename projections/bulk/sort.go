package bulk

import (
	"cmp"
	"slices"
)

// sort puts the items in the order of their names' keys and, within one, of their members, in place: first each to the
// part of its name (an American flag sort: the names know how many items they have), then each part by itself.
func (s *Spans) sort() {
	s.sorted = s.names.sorted()
	items := s.room[:s.items]
	from := uint32(0)
	for _, ref := range s.sorted {
		head := s.names.head(ref)
		head.cursor = from
		from += head.items
	}
	end := uint32(0)
	for _, ref := range s.sorted {
		head := s.names.head(ref)
		end += head.items
		for head.cursor < end {
			it := items[head.cursor]
			for it.name != ref {
				other := s.names.head(it.name)
				items[other.cursor], it = it, items[other.cursor]
				other.cursor++
			}
			items[head.cursor] = it
			head.cursor++
		}
		sortMembers(items[end-head.items : end])
	}
}

func sortMembers(items []item) {
	slices.SortFunc(items, func(a, b item) int { return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo)) })
}
