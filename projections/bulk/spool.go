package bulk

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"

	"seenby/domain"
)

// spool is a file without a name that runs are appended to.
type spool struct {
	dir     string
	file    *os.File // nil: nothing was written
	written int64
	named   bool // the system does not let an open file lose its name
}

// extent is where a run stands in its spool.
type extent struct{ from, to int64 }

// A run is a sequence of records: a row, or a name and the first row of it. Names are at most nameBytesMax long.
const (
	recordRow  = 0
	recordName = 1 // then the length of the name in 2 bytes, that of its tenant in 1, the name
)

const recordHeadBytes = 4

// run appends rows as a run, by way of the buffer.
func (s *spool) run(buffer []byte, from rows) (extent, error) {
	run := extent{from: s.written}
	b := buffer[:0]
	var r row
	for {
		more, err := from.next(&r)
		if err != nil {
			return extent{}, err
		}
		if !more {
			break
		}
		if cap(b)-len(b) < recordHeadBytes+len(r.name)+len(r.bytes) {
			if err := s.append(b); err != nil {
				return extent{}, err
			}
			b = b[:0]
		}
		if r.fresh {
			b = append(b, recordName)
			b = binary.LittleEndian.AppendUint16(b, uint16(len(r.name))) //nolint:gosec // nameBytesMax
			b = append(b, byte(r.tenantBytes))
			b = append(b, r.name...)
		} else {
			b = append(b, recordRow)
		}
		b = append(b, r.bytes...)
	}
	if err := s.append(b); err != nil {
		return extent{}, err
	}
	run.to = s.written
	return run, nil
}

func (s *spool) append(b []byte) error {
	if s.file == nil {
		file, err := os.CreateTemp(s.dir, "seenby-bulk-")
		if err != nil {
			return domain.Errorf(domain.CodeUnavailable, "the rows do not fit into the memory of the load, and no temporary file can be made for them").Because(err)
		}
		s.file, s.named = file, os.Remove(file.Name()) != nil
	}
	n, err := s.file.Write(b)
	s.written += int64(n)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return domain.Errorf(domain.CodeUnavailable,
			"no space is left for temporary files beside %s, after %d bytes of this load: free some, name another directory, or give more memory", s.file.Name(), s.written).Because(err)
	case err != nil:
		return domain.Errorf(domain.CodeUnavailable, "write a temporary file, after %d bytes", s.written).Because(err)
	}
	return nil
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	if s.named {
		err = errors.Join(err, os.Remove(s.file.Name()))
	}
	s.file = nil
	return err
}

// runReader reads one run back.
type runReader struct {
	file     *os.File
	rowBytes int
	off, end int64  // of what is not in the buffer yet
	buf      []byte // what is read lies in [at, to)
	at, to   int
	row
}

// newRunReader cuts the room for the present name off the buffer.
func newRunReader(file *os.File, run extent, rowBytes int, buffer []byte) *runReader {
	r := &runReader{file: file, rowBytes: rowBytes, off: run.from, end: run.to, buf: buffer[nameBytesMax:]}
	r.name = buffer[:0:nameBytesMax]
	return r
}

// read goes to the next row; false: there are no more.
func (r *runReader) read() (bool, error) {
	if r.at == r.to && r.off == r.end {
		return false, nil
	}
	longest := recordHeadBytes + nameBytesMax + r.rowBytes
	if r.to-r.at < longest && r.off < r.end {
		r.to = copy(r.buf, r.buf[r.at:r.to])
		r.at = 0
		n := int(min(int64(len(r.buf)-r.to), r.end-r.off))
		if _, err := r.file.ReadAt(r.buf[r.to:r.to+n], r.off); err != nil {
			return false, domain.Errorf(domain.CodeUnavailable, "read a temporary file back").Because(err)
		}
		r.to += n
		r.off += int64(n)
	}
	b := r.buf[r.at:r.to]
	r.fresh = b[0] == recordName
	head := 1
	if r.fresh {
		n := int(binary.LittleEndian.Uint16(b[1:]))
		r.tenantBytes = int(b[3])
		head = recordHeadBytes + n
		r.name = append(r.name[:0], b[recordHeadBytes:head]...)
	}
	r.bytes = b[head : head+r.rowBytes]
	r.at += head + r.rowBytes
	return true, nil
}
