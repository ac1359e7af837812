package bulk

import "bytes"

// merge hands out the rows of several runs as one. Readers wait in a heap by their names; those of the least name are in a
// second one, by their keys below it, so that names are compared once each and not with every row.
type merge struct {
	shape
	waiting []*runReader
	present []*runReader
	name    []byte
	tenant  int
	value   []byte
}

func lessName(a, b *runReader) bool { return bytes.Compare(a.name, b.name) < 0 }

func (s *shape) lessKey(a, b *runReader) bool {
	return bytes.Compare(a.bytes[:s.keyBytes], b.bytes[:s.keyBytes]) < 0
}

// add takes a reader at its start.
func (m *merge) add(r *runReader) error {
	more, err := r.read()
	if more {
		m.waiting = push(m.waiting, r, lessName)
	}
	return err
}

func (m *merge) next(r *row) (bool, error) {
	fresh := len(m.present) == 0
	if fresh {
		if len(m.waiting) == 0 {
			return false, nil
		}
		m.name = append(m.name[:0], m.waiting[0].name...)
		m.tenant = m.waiting[0].tenantBytes
		for len(m.waiting) > 0 && bytes.Equal(m.waiting[0].name, m.name) {
			var first *runReader
			first, m.waiting = pop(m.waiting, lessName)
			m.present = push(m.present, first, m.lessKey)
		}
	}
	copy(m.value, m.present[0].bytes)
	if err := m.advance(); err != nil {
		return false, err
	}
	for len(m.present) > 0 && bytes.Equal(m.present[0].bytes[:m.keyBytes], m.value[:m.keyBytes]) {
		m.combine(m.value, m.present[0].bytes)
		if err := m.advance(); err != nil {
			return false, err
		}
	}
	*r = row{name: m.name, tenantBytes: m.tenant, fresh: fresh, bytes: m.value}
	return true, nil
}

// advance takes the first row of the present name away.
func (m *merge) advance() error {
	first := m.present[0]
	more, err := first.read()
	switch {
	case err != nil:
		return err
	case more && !first.fresh:
		down(m.present, m.lessKey)
		return nil
	}
	_, m.present = pop(m.present, m.lessKey)
	if more {
		m.waiting = push(m.waiting, first, lessName)
	}
	return nil
}

// A heap of readers: container/heap would call through an interface for each comparison.

func push(h []*runReader, r *runReader, less func(a, b *runReader) bool) []*runReader {
	h = append(h, r)
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !less(h[i], h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
	return h
}

func pop(h []*runReader, less func(a, b *runReader) bool) (*runReader, []*runReader) {
	first := h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], nil
	h = h[:last]
	down(h, less)
	return first, h
}

// down lets the first sink to its place.
func down(h []*runReader, less func(a, b *runReader) bool) {
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if less(h[child], h[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
