package bulk

import (
	"encoding/binary"
	"fmt"

	"seenby/domain"
	"seenby/projections"
)

// Sums adds numbers up under keys.
type Sums struct {
	*store
	names  names
	rest   int
	sorted []uint32
}

// sumsFront is where names must end: none may stand at 0.
const sumsFront = 8

// NewSums makes a fold of so many numbers a key, whose keys have, after tenant and post, exactly rest bytes.
func NewSums(room projections.BulkRoom, numbers, rest int) (*Sums, error) {
	if numbers > sumsMax || rest > restBytesMax {
		return nil, fmt.Errorf("%d numbers for keys with %d bytes beside tenant and post: at most %d and %d may be", numbers, rest, sumsMax, restBytesMax)
	}
	st, err := newStore(room, shape{rowBytes: 8 * numbers, combine: func(into, from []byte) {
		for i := 0; i < len(into); i += 8 {
			sum := binary.LittleEndian.Uint64(into[i:]) + binary.LittleEndian.Uint64(from[i:])
			binary.LittleEndian.PutUint64(into[i:], sum)
		}
	}})
	if err != nil {
		return nil, err
	}
	return &Sums{store: st, names: newNames(st.slab, numbers), rest: rest}, nil
}

// Of gives the numbers of a key, to be added to before the next call. They are at 0 where the key is new, or where its
// sums are in a run by now.
func (s *Sums) Of(tenant domain.TenantID, post domain.PostID, rest []byte) ([]int64, error) {
	if s.ended {
		return nil, errEnded
	}
	ref, ok := s.names.intern(tenant, post, rest, sumsFront)
	if !ok {
		if err := s.spillNames(); err != nil {
			return nil, err
		}
		if ref, ok = s.names.intern(tenant, post, rest, sumsFront); !ok {
			return nil, errNoRoom(len(tenant) + len(post))
		}
	}
	return s.names.sumsOf(ref), nil
}

func (s *Sums) spillNames() error {
	if err := s.spill(&summed{of: s, list: s.names.sorted()}); err != nil {
		return err
	}
	s.names.reset()
	return nil
}

// SumRow is a key and its sums. All is the fold's own until the next row.
type SumRow struct {
	Tenant, Post, Rest []byte
	Sums               []int64
}

// Rows ends the fold and gives its rows, each as encode appends it. It may be called again: only the reader that was given
// last is read.
func (s *Sums) Rows(encode func(b []byte, r *SumRow) []byte) (*Reader, error) {
	from, err := s.end()
	if err != nil {
		return nil, err
	}
	out := SumRow{Sums: make([]int64, s.rowBytes/8)}
	return s.read(from, func(b []byte, r *row) []byte {
		if r.fresh {
			out.Tenant, out.Post, out.Rest = splitName(r.name, r.tenantBytes, s.rest)
		}
		for i := range out.Sums {
			out.Sums[i] = int64(binary.LittleEndian.Uint64(r.bytes[8*i:])) //nolint:gosec // as it was written
		}
		return encode(b, &out)
	}), nil
}

func (s *Sums) end() (rows, error) {
	if err := s.stopReading(); err != nil {
		return nil, err
	}
	if len(s.runs) == 0 {
		if !s.ended {
			s.ended, s.sorted = true, s.names.sorted()
		}
		return &summed{of: s, list: s.sorted}, nil
	}
	if !s.ended && s.names.count > 0 {
		if err := s.spillNames(); err != nil {
			return nil, err
		}
	}
	s.ended = true
	return s.merged()
}

// summed are the rows that the memory holds.
type summed struct {
	of    *Sums
	list  []uint32
	bytes [8 * sumsMax]byte
}

// sumsMax bounds the numbers of a key.
const sumsMax = 16

func (m *summed) next(r *row) (bool, error) {
	if len(m.list) == 0 {
		return false, nil
	}
	ref := m.list[0]
	m.list = m.list[1:]
	b := m.bytes[:0]
	for _, n := range m.of.names.sumsOf(ref) {
		b = binary.LittleEndian.AppendUint64(b, uint64(n)) //nolint:gosec // read the same way
	}
	*r = row{name: m.of.names.keyOf(ref), tenantBytes: int(m.of.names.head(ref).tenantBytes), fresh: true, bytes: b}
	return true, nil
}
