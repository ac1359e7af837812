package bulk

import (
	"encoding/binary"
	"unsafe"

	"seenby/domain"
	"seenby/projections"
)

// Span is when something was first and last, in microseconds since the epoch, and how many times.
type Span struct{ First, Last, Times int64 }

// SpanAt is of once.
func SpanAt(at int64) Span { return Span{at, at, 1} }

// And is of both. It does not depend on their order.
func (s Span) And(o Span) Span {
	return Span{min(s.First, o.First), max(s.Last, o.Last), s.Times + o.Times}
}

// Spans keeps a Span for each member of each post.
type Spans struct {
	*store
	names  names
	room   []item // the slab as items; names are at its end
	items  int
	sorted []uint32
}

// item is one time of a member, as it was added: half a cache line.
type item struct {
	hi, lo uint64 // the member's bytes, big endian
	at     int64
	name   uint32
	_      uint32
}

const itemBytes = int(unsafe.Sizeof(item{}))

const (
	memberBytes  = 16
	spanRowBytes = memberBytes + 3*8
)

// NewSpans makes a fold.
func NewSpans(room projections.BulkRoom) (*Spans, error) {
	st, err := newStore(room, shape{rowBytes: spanRowBytes, keyBytes: memberBytes, combine: func(into, from []byte) {
		putSpan(into[memberBytes:], spanOf(into[memberBytes:]).And(spanOf(from[memberBytes:])))
	}})
	if err != nil {
		return nil, err
	}
	return &Spans{
		store: st, names: newNames(st.slab, 0),
		room: unsafe.Slice((*item)(unsafe.Pointer(&st.slab[0])), len(st.slab)/itemBytes),
	}, nil
}

func putSpan(b []byte, s Span) {
	binary.LittleEndian.PutUint64(b, uint64(s.First))      //nolint:gosec // read the same way
	binary.LittleEndian.PutUint64(b[8:], uint64(s.Last))   //nolint:gosec // read the same way
	binary.LittleEndian.PutUint64(b[16:], uint64(s.Times)) //nolint:gosec // read the same way
}

func spanOf(b []byte) Span {
	n := func(i int) int64 { return int64(binary.LittleEndian.Uint64(b[i:])) } //nolint:gosec // as it was written
	return Span{n(0), n(8), n(16)}
}

// Add notes that a member of a post was there at a time.
func (s *Spans) Add(tenant domain.TenantID, post domain.PostID, member [memberBytes]byte, at int64) error {
	if s.ended {
		return errEnded
	}
	front := (s.items + 1) * itemBytes
	ref, ok := s.names.intern(tenant, post, nil, front)
	if !ok || !s.names.free(front, 0, 0) {
		if err := s.spillItems(); err != nil {
			return err
		}
		if ref, ok = s.names.intern(tenant, post, nil, itemBytes); !ok {
			return errNoRoom(len(tenant) + len(post))
		}
	}
	s.room[s.items] = item{hi: binary.BigEndian.Uint64(member[:8]), lo: binary.BigEndian.Uint64(member[8:]), at: at, name: ref}
	s.items++
	s.names.head(ref).items++
	return nil
}

func (s *Spans) spillItems() error {
	s.sort()
	if err := s.spill(&spanned{of: s, list: s.sorted}); err != nil {
		return err
	}
	s.items, s.sorted = 0, nil
	s.names.reset()
	return nil
}

// SpanRow is a member and its span. All is the fold's own until the next row.
type SpanRow struct {
	Tenant, Post []byte
	Member       []byte
	Span
}

// Rows ends the fold and gives its rows, each as encode appends it. It may be called again: only the reader that was given
// last is read.
func (s *Spans) Rows(encode func(b []byte, r *SpanRow) []byte) (*Reader, error) {
	from, err := s.end()
	if err != nil {
		return nil, err
	}
	var out SpanRow
	return s.read(from, func(b []byte, r *row) []byte {
		if r.fresh {
			out.Tenant, out.Post, _ = splitName(r.name, r.tenantBytes, 0)
		}
		out.Member, out.Span = r.bytes[:memberBytes], spanOf(r.bytes[memberBytes:])
		return encode(b, &out)
	}), nil
}

// SizeRow is how many members a post has. All is the fold's own until the next row.
type SizeRow struct {
	Tenant, Post []byte
	Members      int64
}

// Sizes is Rows of the posts, each with the number of its rows.
func (s *Spans) Sizes(encode func(b []byte, r *SizeRow) []byte) (*Reader, error) {
	from, err := s.end()
	if err != nil {
		return nil, err
	}
	var out SizeRow
	return s.read(&sizes{of: from}, func(b []byte, r *row) []byte {
		out.Tenant, out.Post, _ = splitName(r.name, r.tenantBytes, 0)
		out.Members = int64(binary.LittleEndian.Uint64(r.bytes)) //nolint:gosec // as it was written
		return encode(b, &out)
	}), nil
}

func (s *Spans) end() (rows, error) {
	if err := s.stopReading(); err != nil {
		return nil, err
	}
	if len(s.runs) == 0 {
		if !s.ended {
			s.sort()
			s.ended = true
		}
		return &spanned{of: s, list: s.sorted}, nil
	}
	if !s.ended && s.items > 0 {
		if err := s.spillItems(); err != nil {
			return nil, err
		}
	}
	s.ended = true
	return s.merged()
}

// spanned are the rows that the memory holds, sorted.
type spanned struct {
	of    *Spans
	list  []uint32 // names to come
	name  uint32
	left  []item // of the present name
	from  int    // where items to come begin
	bytes [spanRowBytes]byte
}

func (m *spanned) next(r *row) (bool, error) {
	fresh := len(m.left) == 0
	if fresh {
		if len(m.list) == 0 {
			return false, nil
		}
		m.name, m.list = m.list[0], m.list[1:]
		to := m.from + int(m.of.names.head(m.name).items)
		m.left, m.from = m.of.room[m.from:to], to
		r.name, r.tenantBytes = m.of.names.keyOf(m.name), int(m.of.names.head(m.name).tenantBytes)
	}
	first := &m.left[0]
	span := SpanAt(first.at)
	n := 1
	for ; n < len(m.left) && m.left[n].hi == first.hi && m.left[n].lo == first.lo; n++ {
		span = span.And(SpanAt(m.left[n].at))
	}
	m.left = m.left[n:]
	binary.BigEndian.PutUint64(m.bytes[:], first.hi)
	binary.BigEndian.PutUint64(m.bytes[8:], first.lo)
	putSpan(m.bytes[memberBytes:], span)
	r.fresh, r.bytes = fresh, m.bytes[:]
	return true, nil
}

// sizes counts the rows of each name.
type sizes struct {
	of         rows
	ahead      row
	begun, has bool
	name       []byte
	bytes      [8]byte
}

func (m *sizes) next(r *row) (bool, error) {
	var err error
	if !m.begun {
		m.begun = true
		if m.has, err = m.of.next(&m.ahead); err != nil {
			return false, err
		}
	}
	if !m.has {
		return false, nil
	}
	m.name = append(m.name[:0], m.ahead.name...)
	*r = row{name: m.name, tenantBytes: m.ahead.tenantBytes, fresh: true, bytes: m.bytes[:]}
	for n := uint64(1); ; n++ {
		if m.has, err = m.of.next(&m.ahead); err != nil {
			return false, err
		}
		if !m.has || m.ahead.fresh {
			binary.LittleEndian.PutUint64(m.bytes[:], n)
			return true, nil
		}
	}
}
