package bulk

import (
	"encoding/binary"
	"errors"
	"io"

	"seenby/domain"
	"seenby/projections"
)

var (
	errEnded  = errors.New("a bulk load was added to after it was copied")
	errClosed = errors.New("a bulk load is closed, or another of its tables is read")
	errUnread = errors.New("a bulk load's rows were not read to their end")
)

func errNoRoom(nameBytes int) error {
	return domain.Errorf(domain.CodeInternal, "a key with ids of %d bytes does not fit into the memory of a bulk load", nameBytes)
}

// PostgreSQL's binary COPY format: a signature, flags and the length of an extension; then the rows, each as its number
// of columns and for each of them its length and bytes; then -1 as the number of columns.
// https://www.postgresql.org/docs/current/sql-copy.html
const (
	copyHeader  = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	copyTrailer = "\xff\xff"
)

// rowBytesMax bounds a row as it is encoded: two ids of full length and some columns of fixed length.
const rowBytesMax = 1 << 10

// AppendColumns begins a row of so many columns; each column is appended after it.
func AppendColumns(b []byte, columns int16) []byte {
	return binary.BigEndian.AppendUint16(b, uint16(columns)) //nolint:gosec // not negative
}

// AppendBytes appends a column of the type text or bytea.
func AppendBytes(b, column []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(column))) //nolint:gosec // rowBytesMax
	return append(b, column...)
}

// AppendSmallint appends a column of the type smallint.
func AppendSmallint(b []byte, column int16) []byte {
	return append(b, 0, 0, 0, 2, byte(column>>8), byte(column))
}

// AppendBigint appends a column of the type bigint.
func AppendBigint(b []byte, column int64) []byte {
	b = append(b, 0, 0, 0, 8)
	return binary.BigEndian.AppendUint64(b, uint64(column)) //nolint:gosec // two's complement is the format
}

// AppendTimestamptz appends a column of the type timestamptz, given in microseconds since the epoch.
func AppendTimestamptz(b []byte, us int64) []byte {
	const postgresEpoch = 946_684_800_000_000 // 2000-01-01
	return AppendBigint(b, us-postgresEpoch)
}

// Reader gives rows as COPY takes them. The buffer for writing is free by then.
type Reader struct {
	of     *store
	from   rows
	encode func(b []byte, r *row) []byte
	at     int    // what was read of buf
	buf    []byte // encoded
	err    error  // after buf; io.EOF at the end
	row    row
}

// read makes a reader; stopReading was called.
func (s *store) read(from rows, encode func(b []byte, r *row) []byte) *Reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = &Reader{of: s, from: from, encode: encode, buf: append(s.write[:0], copyHeader...)}
	return s.reading
}

// stopReading ends the reader before, which may be reading in the background: what it reads from is used anew now.
func (s *store) stopReading() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = nil
	if s.region == nil {
		return errClosed
	}
	return nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	if r.of.reading != r {
		return 0, errClosed
	}
	n := 0
	for {
		m := copy(p[n:], r.buf[r.at:])
		n += m
		if r.at += m; r.at < len(r.buf) {
			return n, nil
		}
		if r.err != nil {
			if n > 0 {
				return n, nil
			}
			return 0, r.err
		}
		r.fill()
	}
}

func (r *Reader) fill() {
	b := r.buf[:0]
	for cap(b)-len(b) >= rowBytesMax {
		more, err := r.from.next(&r.row)
		if err != nil {
			r.err = err
			break
		}
		if !more {
			b, r.err = append(b, copyTrailer...), io.EOF
			break
		}
		b = r.encode(b, &r.row)
	}
	r.buf, r.at = b, 0
}

// Err tells why the rows cannot be read, or that they were not read to their end.
func (r *Reader) Err() error {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	switch {
	case r.of.reading != r:
		return errClosed
	case r.err != nil && !errors.Is(r.err, io.EOF):
		return r.err
	case r.err == nil || r.at < len(r.buf):
		return errUnread
	}
	return nil
}

// Table is a table of a load.
type Table struct {
	Name    string
	Columns []string
	Rows    func() (*Reader, error)
}

// Copy is what projections.BulkLoad's Copy is to do with these tables. Of f's error and that of a reader, which PostgreSQL's
// answer repeats as a text alone, it returns the reader's.
func Copy(f func(projections.BulkTable) error, tables ...Table) error {
	for _, t := range tables {
		rows, err := t.Rows()
		if err != nil {
			return err
		}
		err = f(projections.BulkTable{Name: t.Name, Columns: t.Columns, Rows: rows})
		if readErr := rows.Err(); readErr != nil && (err == nil || !errors.Is(readErr, errUnread)) {
			return readErr
		}
		if err != nil {
			return err
		}
	}
	return nil
}
