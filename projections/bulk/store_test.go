package bulk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"seenby/domain"
	"seenby/projections"
)

func member(n int) (m [memberBytes]byte) {
	binary.LittleEndian.PutUint64(m[:], uint64(n)*0x9e3779b97f4a7c15)
	return m
}

// addMany adds n times that are all of other members, on some posts.
func addMany(t testing.TB, s *Spans, n int) {
	t.Helper()
	for i := range n {
		if err := s.Add("demo", domain.PostID(fmt.Sprintf("post-%d", i*i%97)), member(i), int64(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// A memory that holds a few dozen items makes hundreds of runs, merged a few at a time, and not a byte of difference.
func TestManyRunsAreAsOne(t *testing.T) {
	const adds = 20_000
	tiny, ample := newTestSpans(t, MemoryBytesMin), newTestSpans(t, 16<<20)
	addMany(t, tiny, adds)
	addMany(t, ample, adds)
	got, err := tiny.Rows(spanRow)
	gotBytes := all(t, got, err, 3333)
	want, err := ample.Rows(spanRow)
	if string(gotBytes) != string(all(t, want, err, 1<<20)) {
		t.Error("rows differ")
	}
	if runs, spilled := tiny.Spilled(); runs < 100 || spilled < adds*spanRowBytes {
		t.Errorf("%d runs of %d bytes", runs, spilled)
	}
	if runs, spilled := ample.Spilled(); runs != 0 || spilled != 0 {
		t.Errorf("%d runs of %d bytes in a memory that holds all", runs, spilled)
	}
	if n := len(decoded(t, gotBytes)); n != adds {
		t.Errorf("%d rows", n)
	}
}

// Names of which each item has a new one, of full length, are within the bound too: runs are shorter, that is all.
func TestNamesThatFillTheMemory(t *testing.T) {
	const adds = 3000
	s := newTestSpans(t, MemoryBytesMin)
	for i := range adds {
		post := fmt.Sprintf("%0*d", domain.IDBytesMax, i)
		if err := s.Add(domain.TenantID(strings.Repeat("t", domain.TenantBytesMax)), domain.PostID(post), member(i), 0); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := s.Rows(spanRow)
	if n := len(decoded(t, all(t, rows, err, 1000))); n != adds {
		t.Errorf("%d rows of %d", n, adds)
	}
}

// Beside its region a load holds next to nothing, whatever it folds.
func TestTheBoundHolds(t *testing.T) {
	const adds, heapBytesMax = 300_000, 256 << 10
	s := newTestSpans(t, 1<<20)
	post := domain.PostID("post")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range adds {
		if err := s.Add("demo", post, member(i), int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := s.Rows(spanRow)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{rows}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if runs, _ := s.Spilled(); runs < 5 {
		t.Errorf("%d runs are too few to say anything", runs)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > heapBytesMax {
		t.Errorf("%d bytes of Go's heap were used", n)
	}
	if len(s.region) != 1<<20 {
		t.Errorf("the region has %d bytes", len(s.region))
	}
}

func TestTemporaryFilesHaveNoName(t *testing.T) {
	s := newTestSpans(t, MemoryBytesMin)
	addMany(t, s, 1000)
	if runs, _ := s.Spilled(); runs == 0 {
		t.Fatal("nothing was spilled")
	}
	if left, err := os.ReadDir(s.spool.dir); err != nil || len(left) > 0 {
		t.Errorf("%v (%v)", left, err)
	}
}

func TestADirectoryThatIsNotThere(t *testing.T) {
	s := newTestSpans(t, MemoryBytesMin)
	s.spool.dir += "/none"
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = s.Add("demo", "post", member(i), 0)
	}
	if domain.CodeOf(err) != domain.CodeUnavailable || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestTooLittleMemory(t *testing.T) {
	_, err := NewSpans(projections.BulkRoom{MemoryBytes: MemoryBytesMin - 1})
	if domain.CodeOf(err) != domain.CodeMisconfigured {
		t.Errorf("%v", err)
	}
}

// PostgreSQL's answer to a COPY whose rows cannot be read has the reason as a text: Copy gives the reason itself.
func TestCopyGivesTheReadersError(t *testing.T) {
	s := newTestSpans(t, MemoryBytesMin)
	addMany(t, s, 1000)
	table := Table{Name: "t", Rows: func() (*Reader, error) { return s.Rows(spanRow) }}
	err := Copy(func(t projections.BulkTable) error {
		s.spool.file.Close()
		if _, err := io.Copy(io.Discard, t.Rows); err == nil {
			return nil
		}
		return errors.New("ERROR: COPY from stdin failed")
	}, table)
	if domain.CodeOf(err) != domain.CodeUnavailable || !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestCopyNoticesWhatWasNotRead(t *testing.T) {
	s := newTestSpans(t, 1<<20)
	addMany(t, s, 10)
	table := Table{Name: "t", Rows: func() (*Reader, error) { return s.Rows(spanRow) }}
	err := Copy(func(t projections.BulkTable) error {
		_, err := t.Rows.Read(make([]byte, 100))
		return err
	}, table)
	if !errors.Is(err, errUnread) {
		t.Errorf("%v", err)
	}
	lost := errors.New("the connection is lost")
	if err := Copy(func(projections.BulkTable) error { return lost }, table); !errors.Is(err, lost) {
		t.Errorf("%v", err)
	}
}

// pgconn may read on after CopyFrom gave an error; the memory is gone then.
func TestReadingAfterClose(t *testing.T) {
	s := newTestSpans(t, 1<<20)
	addMany(t, s, 10)
	rows, err := s.Rows(spanRow)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := rows.Read(make([]byte, 100)); !errors.Is(err, errClosed) {
		t.Errorf("read: %v", err)
	}
	if err := s.Add("demo", "post", member(1), 0); !errors.Is(err, errEnded) {
		t.Errorf("add: %v", err)
	}
	if _, err := s.Rows(spanRow); !errors.Is(err, errClosed) {
		t.Errorf("rows: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

func TestNothingIsAddedAfterTheEnd(t *testing.T) {
	sums, err := NewSums(projections.BulkRoom{MemoryBytes: 1 << 20}, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sums.Close()
	rows, err := sums.Rows(sumRow)
	if n := len(decoded(t, all(t, rows, err, 10))); n != 0 {
		t.Errorf("%d rows of nothing", n)
	}
	if _, err := sums.Of("demo", "post", nil); !errors.Is(err, errEnded) {
		t.Errorf("%v", err)
	}
}

// A COPY that failed may still be read in the background when it is tried again: it is let finish what it is about.
func TestReadingInTheBackground(t *testing.T) {
	s := newTestSpans(t, MemoryBytesMin)
	addMany(t, s, 5000)
	rows, err := s.Rows(spanRow)
	want := all(t, rows, err, 1<<20)
	inside, n := make(chan struct{}), 0
	failed, err := s.Rows(func(b []byte, r *SpanRow) []byte {
		if n++; n == 1000 {
			close(inside)
		}
		runtime.Gosched() // to the one that tries again
		return spanRow(b, r)
	})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan []byte)
	go func() {
		p := make([]byte, len(want))
		n, _ := failed.Read(p)
		read <- p[:n]
	}()
	<-inside
	again, err := s.Rows(spanRow)
	if string(all(t, again, err, 1000)) != string(want) {
		t.Error("the second reader gives other rows")
	}
	if string(<-read) != string(want) {
		t.Error("the first reader gives other rows")
	}
}

// Small memories are enough for the longest key with the most numbers, however they are cut into buffers.
func TestTheLongestKeyInTheLeastMemory(t *testing.T) {
	for _, memory := range []int64{MemoryBytesMin, MemoryBytesMin + 2<<10, 3 * MemoryBytesMin} {
		sums, err := NewSums(projections.BulkRoom{MemoryBytes: memory, Dir: t.TempDir()}, sumsMax, restBytesMax)
		if err != nil {
			t.Fatal(err)
		}
		defer sums.Close()
		const keys, times = 200, 3
		for i := range keys * times {
			tenant, post := strings.Repeat("t", domain.TenantBytesMax), fmt.Sprintf("%0*d", domain.IDBytesMax, i%keys)
			numbers, err := sums.Of(domain.TenantID(tenant), domain.PostID(post), make([]byte, restBytesMax))
			if err != nil {
				t.Fatal(err)
			}
			for n := range numbers {
				numbers[n] += int64(n)
			}
		}
		rows, err := sums.Rows(sumRow)
		got := decoded(t, all(t, rows, err, 1000))
		if len(got) != keys {
			t.Errorf("%d bytes of memory: %d rows of %d", memory, len(got), keys)
		}
		for _, row := range got {
			if n := number(row[len(row)-1]); n != times*(sumsMax-1) {
				t.Errorf("%d bytes of memory: a sum of %d", memory, n)
			}
		}
		if runs, _ := sums.Spilled(); runs < 20 {
			t.Errorf("%d bytes of memory: %d runs", memory, runs)
		}
	}
}
