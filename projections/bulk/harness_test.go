package bulk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"seenby/projections"
)

// failer is a test of either kind.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// decoded is what PostgreSQL makes of a COPY: rows of columns.
func decoded(t failer, data []byte) [][][]byte {
	t.Helper()
	rest, ok := bytes.CutPrefix(data, []byte(copyHeader))
	if !ok {
		t.Fatalf("no header: %q", data[:min(len(data), 30)])
	}
	take := func(n int) []byte {
		if len(rest) < n {
			t.Fatalf("the rows end %d bytes too early", n-len(rest))
		}
		b := rest[:n]
		rest = rest[n:]
		return b
	}
	var rows [][][]byte
	for {
		columns := int16(binary.BigEndian.Uint16(take(2)))
		if columns == -1 {
			break
		}
		row := make([][]byte, columns)
		for i := range row {
			row[i] = take(int(binary.BigEndian.Uint32(take(4))))
		}
		rows = append(rows, row)
	}
	if len(rest) > 0 {
		t.Fatalf("%d bytes follow the end", len(rest))
	}
	return rows
}

func number(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

// all is what a reader gives, read in pieces of any size.
func all(t failer, r *Reader, err error, piece int) []byte {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
	var out []byte
	for p := make([]byte, piece); ; {
		n, err := r.Read(p)
		out = append(out, p[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(out), err)
		}
	}
	if err := r.Err(); err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

func spanRow(b []byte, r *SpanRow) []byte {
	b = AppendColumns(b, 6)
	for _, column := range [][]byte{r.Tenant, r.Post, r.Member} {
		b = AppendBytes(b, column)
	}
	for _, n := range []int64{r.First, r.Last, r.Times} {
		b = AppendBigint(b, n)
	}
	return b
}

func sizeRow(b []byte, r *SizeRow) []byte {
	return AppendBigint(AppendBytes(AppendBytes(AppendColumns(b, 3), r.Tenant), r.Post), r.Members)
}

func sumRow(b []byte, r *SumRow) []byte {
	b = AppendColumns(b, int16(3+len(r.Sums)))
	for _, column := range [][]byte{r.Tenant, r.Post, r.Rest} {
		b = AppendBytes(b, column)
	}
	for _, n := range r.Sums {
		b = AppendBigint(b, n)
	}
	return b
}

func spanLine(row [][]byte) string {
	return fmt.Sprintf("%s %q %x %d..%d %d", row[0], row[1], row[2], number(row[3]), number(row[4]), number(row[5]))
}

func newTestSpans(t testing.TB, bytes int64) *Spans {
	t.Helper()
	s, err := NewSpans(projections.BulkRoom{MemoryBytes: bytes, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
