package bulk

import (
	"sync"
	"syscall"

	"seenby/domain"
	"seenby/projections"
)

const (
	// MemoryBytesMin is the least that a fold can work in. It is slow there: of use in tests.
	MemoryBytesMin = 4 << 10
	// memoryBytesMax is what 32-bit references of names reach (names are 8-byte aligned).
	memoryBytesMax = 32 << 30

	// A row must fit into the buffer for writing, and a run's name and row into one for reading.
	writeBytesMin, writeBytesMax = 2 << 10, 256 << 10
	readBytesMin, readBytesMax   = 1 << 10, 1 << 20
	// readBytesGood is what makes a read from a disk worth its while: the memory is cut into no more buffers than that.
	readBytesGood = 64 << 10
)

// shape is what the rows of a fold look like in a run: the first keyBytes of them are their key below the name. Rows of
// equal name and key are combined.
type shape struct {
	rowBytes, keyBytes int
	combine            func(into, from []byte)
}

// row is one row of a fold, while it is handed on. Its bytes are the giver's, until the next one.
type row struct {
	name        []byte // tenant, NUL, post, and what follows
	tenantBytes int
	fresh       bool // the first row of its name
	bytes       []byte
}

// rows hands out sorted rows.
type rows interface {
	// next fills r; false: there are no more.
	next(r *row) (bool, error)
}

// store is what all folds have in common: the region, the runs, and the way from rows to a reader.
type store struct {
	shape
	region []byte // nil: closed
	write  []byte // a part of region, for writing runs and rows
	slab   []byte // the rest
	spool  spool
	runs   []extent
	stats  struct {
		runs  int
		bytes int64
	}
	ended bool

	mu      sync.Mutex // of Read and Close: pgconn may read on in the background after it gave an error
	reading *Reader
}

func newStore(room projections.BulkRoom, s shape) (*store, error) {
	if room.MemoryBytes < MemoryBytesMin {
		return nil, domain.Errorf(domain.CodeMisconfigured, "a bulk load needs at least %d bytes of memory, and is given %d", MemoryBytesMin, room.MemoryBytes)
	}
	size := int(min(room.MemoryBytes, memoryBytesMax)) &^ 7
	region, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, domain.Errorf(domain.CodeUnavailable, "no %d bytes of memory for a bulk load: give it less", size).Because(err)
	}
	n := min(max(size/8, writeBytesMin), writeBytesMax) &^ 7
	return &store{shape: s, region: region, write: region[:n:n], slab: region[n:], spool: spool{dir: room.Dir}}, nil
}

// Spilled implements projections.BulkLoad.
func (s *store) Spilled() (runs int, bytes int64) { return s.stats.runs, s.stats.bytes }

// Close implements projections.BulkLoad.
func (s *store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.region == nil {
		return nil
	}
	err := syscall.Munmap(s.region)
	s.region, s.write, s.slab, s.reading, s.ended = nil, nil, nil, nil, true
	if closeErr := s.spool.close(); err == nil {
		err = closeErr
	}
	return err
}

// spill writes rows as a run.
func (s *store) spill(from rows) error {
	run, err := s.spool.run(s.write, from)
	if err != nil {
		return err
	}
	s.runs = append(s.runs, run)
	s.stats.runs++
	s.stats.bytes += run.to - run.from
	return nil
}

// merged are the rows of all runs. The slab must hold nothing any more.
func (s *store) merged() (rows, error) {
	fanIn := max(2, len(s.slab)/min(max(len(s.slab)/8, readBytesMin), readBytesGood))
	for len(s.runs) > fanIn {
		next := spool{dir: s.spool.dir}
		var longer []extent
		for i := 0; i < len(s.runs); i += fanIn {
			from, err := s.open(s.runs[i:min(i+fanIn, len(s.runs))])
			if err != nil {
				next.close() //nolint:errcheck // the other error is the cause
				return nil, err
			}
			run, err := next.run(s.write, from)
			if err != nil {
				next.close() //nolint:errcheck // the other error is the cause
				return nil, err
			}
			longer = append(longer, run)
		}
		if err := s.spool.close(); err != nil {
			next.close() //nolint:errcheck // the other error is the cause
			return nil, err
		}
		s.spool, s.runs = next, longer
	}
	return s.open(s.runs)
}

// open merges runs, whose buffers share the slab.
func (s *store) open(runs []extent) (rows, error) {
	each := min(len(s.slab)/len(runs), readBytesMax) &^ 7
	m := &merge{shape: s.shape, value: make([]byte, s.rowBytes)}
	for i, run := range runs {
		r := newRunReader(s.spool.file, run, s.rowBytes, s.slab[i*each:(i+1)*each])
		if err := m.add(r); err != nil {
			return nil, err
		}
	}
	return m, nil
}
