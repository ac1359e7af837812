package importer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"seenby/domain"
)

const (
	// lineBytesMax is room for the longest text with every byte of it escaped.
	lineBytesMax = 1 << 20
	// A batch is one append: few enough to be acknowledged in time, and enough that waiting for that costs little.
	batchLinesMax = 4000
	batchBytesMax = 1 << 20
	batchesAhead  = 2
)

// item is a line that is good as far as the line alone tells.
type item struct {
	line   int64
	text   []byte
	before []domain.Event // what must stand in the log first: names and texts
	event  domain.Event
}

// batch is a run of lines.
type batch struct {
	items    []item
	rejected []Rejection
	lines    int64    // of the content, up to the end of the batch
	sum      [32]byte // of those
	err      error    // why nothing comes after this one; io.EOF: the content ends
}

// lineReader counts and digests what it reads.
type lineReader struct {
	r   *bufio.Reader
	sum hash.Hash
	n   int64
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
}

// next is the next line without its end; its size may be more than what is kept of one that is too long. It is valid until
// the next call.
func (l *lineReader) next(into []byte) (line []byte, size int, err error) {
	line = into[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.sum.Write(part)
		size += len(part)
		if len(line)+len(part) <= lineBytesMax {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && size > 0:
			err = nil // the last line has no end
		}
		if err != nil {
			return nil, 0, err
		}
		l.n++
		return line, size, nil
	}
}

func (l *lineReader) digest() (sum [32]byte) {
	l.sum.Sum(sum[:0])
	return sum
}

// errOtherContent: the lines that are done with are not those of this content.
var errOtherContent = domain.Errorf(domain.CodeConflict, "this content does not begin with the lines that were imported under this name already; give it another --name")

// read passes over the lines that are done with and hands the others out in batches, until ctx ends; the last has an err.
func (r *run) read(ctx context.Context, done int64, sum [32]byte) (<-chan batch, error) {
	source, closeSource, err := r.opts.Source.open()
	if err != nil {
		return nil, err
	}
	lines := newLineReader(source)
	var buf []byte
	for lines.n < done {
		line, _, err := lines.next(buf)
		if err != nil {
			closeSource()
			if errors.Is(err, io.EOF) {
				return nil, errOtherContent
			}
			return nil, unreadable(lines.n, err)
		}
		buf = line
	}
	if done > 0 && lines.digest() != sum {
		closeSource()
		return nil, errOtherContent
	}
	batches := make(chan batch, batchesAhead)
	go func() {
		defer close(batches)
		defer closeSource()
		for {
			b := r.nextBatch(lines)
			select {
			case batches <- b:
			case <-ctx.Done():
				return
			}
			if b.err != nil {
				return
			}
		}
	}()
	return batches, nil
}

// nextBatch reads and parses.
func (r *run) nextBatch(lines *lineReader) (b batch) {
	taken := 0
	var buf []byte
	for from := lines.n; lines.n-from < r.opts.batchLines && taken < batchBytesMax; {
		line, size, err := lines.next(buf)
		if err != nil {
			b.err = err
			if !errors.Is(err, io.EOF) {
				b.err = unreadable(lines.n, err)
			}
			break
		}
		buf = line
		taken += size
		if size > lineBytesMax {
			b.rejected = append(b.rejected, Rejection{Line: lines.n, Why: "is longer than a line can be, 1 MiB, and is not copied here"})
			continue
		}
		text := bytes.TrimSpace(line)
		if lines.n == 1 {
			text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		}
		if len(text) == 0 || text[0] == '#' {
			continue // a file of rejected lines has its reasons so
		}
		text = bytes.Clone(text)
		it := item{line: lines.n, text: text}
		if err := r.kind.parse(r.parser, &it); err != nil {
			b.rejected = append(b.rejected, it.reject(err))
			continue
		}
		b.items = append(b.items, it)
	}
	b.lines, b.sum = lines.n, lines.digest()
	return b
}

func (it item) reject(err error) Rejection {
	return Rejection{Line: it.line, Why: err.Error(), text: it.text}
}
