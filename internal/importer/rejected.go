package importer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"seenby/domain"
)

// rejectedFile has the lines that are not imported, each behind a line that says why: "# line 12: post: is required". An
// import passes over such lines, so that the file is mended in an editor and imported again as it is.
type rejectedFile struct {
	path string
	f    *os.File // nil: nothing was rejected yet
}

// openRejected looks for a file from before: one of an earlier process of the same import is gone on with, without what that
// process wrote about lines behind done; any other is not overwritten.
func openRejected(path string, resumed bool, done int64) (*rejectedFile, error) {
	r := &rejectedFile{path: path}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, nil
	case err != nil:
		return nil, domain.Invalid("--rejected", "cannot be opened").Because(err)
	case !resumed:
		_ = f.Close() // nothing was written
		return nil, domain.Invalid("--rejected", "%s is there already, from another import: import it once it is mended, and move it away", path)
	}
	keep, err := keptOf(f, done)
	if err == nil {
		err = f.Truncate(keep)
	}
	if err == nil {
		_, err = f.Seek(keep, io.SeekStart)
	}
	if err != nil {
		_ = f.Close() // the other error says more
		return nil, domain.Invalid("--rejected", "cannot be gone on with").Because(err)
	}
	r.f = f
	return r, nil
}

// keptOf is the length of what a file says about lines up to done.
func keptOf(f io.Reader, done int64) (int64, error) {
	r, kept := bufio.NewReaderSize(f, 64<<10), int64(0)
	begins := true // of a line
	for {
		part, err := r.ReadSlice('\n')
		if begins && lineOf(part) > done {
			return kept, nil
		}
		kept += int64(len(part))
		begins = err == nil
		switch {
		case errors.Is(err, io.EOF):
			return kept, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return 0, err
		}
	}
}

const rejectedMark = "# line "

// lineOf is the line that a reason is about; 0 for any other line.
func lineOf(part []byte) int64 {
	rest, ok := bytes.CutPrefix(part, []byte(rejectedMark))
	number, _, ok2 := bytes.Cut(rest, []byte(":"))
	n, err := strconv.ParseInt(string(number), 10, 64)
	if !ok || !ok2 || err != nil {
		return 0
	}
	return n
}

func (r *rejectedFile) write(bad []Rejection) error {
	if len(bad) == 0 {
		return nil
	}
	if r.f == nil {
		f, err := os.OpenFile(r.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // lines may name people
		if err != nil {
			return domain.Invalid("--rejected", "cannot be made").Because(err)
		}
		r.f = f
	}
	var b bytes.Buffer
	for _, one := range bad {
		fmt.Fprintf(&b, "%s%d: %s\n", rejectedMark, one.Line, strings.ReplaceAll(one.Why, "\n", " "))
		if one.text != nil {
			b.Write(one.text)
			b.WriteByte('\n')
		}
	}
	if _, err := r.f.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write rejected lines: %w", err)
	}
	return nil
}

// sync makes what is written outlive the machine: a record is about to say that these lines are done with.
func (r *rejectedFile) sync() error {
	if r.f == nil {
		return nil
	}
	if err := r.f.Sync(); err != nil {
		return fmt.Errorf("write rejected lines: %w", err)
	}
	return nil
}

// close may be called again.
func (r *rejectedFile) close() error {
	if r.f == nil {
		return nil
	}
	err := r.f.Close()
	r.f = nil
	if err != nil {
		return fmt.Errorf("write rejected lines: %w", err)
	}
	return nil
}
