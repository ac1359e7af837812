package importer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"seenby/domain"
)

// Source is where the lines come from.
type Source struct {
	Path  string    // of a file; "-": Stdin
	Stdin io.Reader // read once
}

const (
	sourceBuffer = 1 << 20
	// windowMax is what decompressing may hold: more than zstd takes for its highest level without --long.
	windowMax = 128 << 20
)

// open gives the content, decompressed where it begins as gzip or zstd does, whatever the name is.
func (s Source) open() (io.Reader, func(), error) {
	raw, done := s.Stdin, func() {}
	if s.Path != "-" {
		f, err := os.Open(s.Path)
		if err != nil {
			return nil, nil, domain.Invalid("file", "cannot be opened").Because(err)
		}
		raw, done = f, func() { _ = f.Close() } // it was only read
	}
	buffered := bufio.NewReaderSize(raw, sourceBuffer)
	head, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		done()
		return nil, nil, domain.Invalid("file", "cannot be read").Because(err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			done()
			return nil, nil, domain.Invalid("file", "begins like gzip, and is none").Because(err)
		}
		return z, done, nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(windowMax))
		if err != nil {
			done()
			return nil, nil, domain.Invalid("file", "begins like zstd, and is none").Because(err)
		}
		return z, func() { z.Close(); done() }, nil
	}
	return buffered, done, nil
}

// content is what a file holds, decompressed.
type content struct {
	sha256 [32]byte
	lines  int64
}

// digest reads a file once, to know it and how much there is to do. known is false for what can be read but once.
func (s Source) digest() (c content, known bool, err error) {
	if s.Path == "-" {
		return c, false, nil
	}
	info, err := os.Stat(s.Path)
	if err != nil {
		return c, false, domain.Invalid("file", "cannot be opened").Because(err)
	}
	if !info.Mode().IsRegular() {
		return c, false, nil
	}
	r, done, err := s.open()
	if err != nil {
		return c, false, err
	}
	defer done()
	sum := sha256.New()
	buf := make([]byte, sourceBuffer)
	last := byte('\n')
	for {
		n, err := r.Read(buf)
		sum.Write(buf[:n])
		c.lines += int64(bytes.Count(buf[:n], []byte{'\n'}))
		if n > 0 {
			last = buf[n-1]
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return c, false, unreadable(c.lines, err)
		}
	}
	if last != '\n' {
		c.lines++
	}
	sum.Sum(c.sha256[:0])
	return c, true, nil
}

func unreadable(lines int64, err error) error {
	return domain.Invalid("file", "cannot be read behind line %d: it is damaged or cut", lines).Because(fmt.Errorf("read lines: %w", err))
}
