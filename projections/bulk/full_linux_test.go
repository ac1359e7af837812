package bulk

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"seenby/domain"
)

func TestAFullDiskSaysWhatToDo(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := newTestSpans(t, MemoryBytesMin)
	s.spool.file = full
	for i := 0; err == nil && i < 1000; i++ {
		err = s.Add("demo", "post", member(i), 0)
	}
	if domain.CodeOf(err) != domain.CodeUnavailable || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "more memory") {
		t.Errorf("%v", err)
	}
}
