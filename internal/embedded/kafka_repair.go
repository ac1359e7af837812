package embedded

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// This file knows kfake's directory, as far as putting it right after a crash needs: it reads it before kfake does.
//
//	meta.json                       {"version": 1}
//	pids.log, groups.log            entries: length (4 bytes, little endian), CRC, body
//	partitions/<topic>-<n>/<b>.dat  Kafka record batches, b being the first offset
//	partitions/<topic>-<n>/<b>.idx  15 bytes for each of those batches, in their order; among them whether the
//	                                batch is in a transaction
//
// The version is checked, and the pinned kfake is tested against it.
const (
	kafkaDirVersion    = 1
	indexEntryBytes    = 15
	logEntryHeadBytes  = 8
	batchHeaderBytes   = 61 // of a record batch, up to its records
	attrTransactional  = 0x10
	attrControl        = 0x20
	batchBytesMax      = 1 << 30 // as kfake: a length beyond it is garbage
	segmentBufferBytes = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openTxn is a producer's transaction on a partition that nothing has ended.
type openTxn struct {
	topic         string
	partition     int32
	producerID    int64
	producerEpoch int16
}

// repairKafkaDir puts right what a crash can leave and kfake would carry on with, and returns the transactions
// that were open. Nothing that was acknowledged is touched.
//
//   - A torn entry at the end of pids.log or groups.log is cut off: kfake skips it, appends behind it, and then
//     reads none of what follows.
//   - A batch without its index entry, or the reverse, is cut off: kfake would take the batch for one outside a
//     transaction, and every later entry for the batch before its own. Kafka's acknowledgement comes after both.
func repairKafkaDir(ctx context.Context, dir string, log *slog.Logger) ([]openTxn, error) {
	var meta struct {
		Version int `json:"version"`
	}
	b, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return nil, fmt.Errorf("read meta.json: %w", err)
	}
	if meta.Version != kafkaDirVersion {
		return nil, fmt.Errorf("directory %s has format version %d, this program repairs version %d", dir, meta.Version, kafkaDirVersion)
	}
	for _, name := range []string{"pids.log", "groups.log"} {
		if err := repairLog(filepath.Join(dir, name), log); err != nil {
			return nil, fmt.Errorf("repair %s: %w", name, err)
		}
	}
	parts, err := os.ReadDir(filepath.Join(dir, "partitions"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var open []openTxn
	for _, p := range parts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		topic, partition, ok := partitionOfDir(p.Name())
		if !ok || !p.IsDir() {
			continue
		}
		txns, err := repairPartition(filepath.Join(dir, "partitions", p.Name()), log)
		if err != nil {
			return nil, fmt.Errorf("repair %s: %w", p.Name(), err)
		}
		for id, epoch := range txns {
			open = append(open, openTxn{topic, partition, id, epoch})
		}
	}
	return open, nil
}

func partitionOfDir(name string) (topic string, partition int32, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return "", 0, false
	}
	topic, err := url.PathUnescape(name[:i])
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseInt(name[i+1:], 10, 32)
	return topic, int32(n), err == nil
}

func repairLog(path string, log *slog.Logger) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	valid := 0
	for len(b)-valid >= logEntryHeadBytes {
		length := int(binary.LittleEndian.Uint32(b[valid:]))
		end := valid + logEntryHeadBytes + length
		if length < 2 || end > len(b) ||
			crc32.Checksum(b[valid+logEntryHeadBytes:end], castagnoli) != binary.LittleEndian.Uint32(b[valid+4:]) {
			break
		}
		valid = end
	}
	return truncate(path, int64(len(b)), int64(valid), log)
}

// repairPartition returns the open transactions by producer id, with their epochs.
func repairPartition(dir string, log *slog.Logger) (map[int64]int16, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var bases []int64
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".dat"); ok {
			if base, err := strconv.ParseInt(name, 10, 64); err == nil {
				bases = append(bases, base)
			}
		}
	}
	slices.SortFunc(bases, cmp.Compare)
	open := make(map[int64]int16)
	for i, base := range bases {
		stem := filepath.Join(dir, strconv.FormatInt(base, 10))
		if i == len(bases)-1 { // only the last one is written to
			if err := repairSegment(stem, log); err != nil {
				return nil, err
			}
		}
		if err := scanSegment(stem+".dat", func(b batch) { b.apply(open) }); err != nil {
			return nil, err
		}
	}
	return open, nil
}

func repairSegment(stem string, log *slog.Logger) error {
	var ends []int64 // of each whole batch
	if err := scanSegment(stem+".dat", func(b batch) { ends = append(ends, b.end) }); err != nil {
		return err
	}
	datBytes, err := fileBytes(stem + ".dat")
	if err != nil {
		return err
	}
	idxBytes, err := fileBytes(stem + ".idx")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	indexed := int(idxBytes / indexEntryBytes)
	switch missing := len(ends) - indexed; {
	case missing == 1:
		ends = ends[:indexed]
	case missing > 1:
		// No crash does this, so it is not ours to cut away what may have been acknowledged.
		log.Warn("kafka: index is behind its segment", "file", stem+".idx", "batches", len(ends), "indexed", indexed)
		return nil
	}
	var valid int64
	if len(ends) > 0 {
		valid = ends[len(ends)-1]
	}
	if err := truncate(stem+".dat", datBytes, valid, log); err != nil {
		return err
	}
	return truncate(stem+".idx", idxBytes, int64(len(ends))*indexEntryBytes, log)
}

func fileBytes(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func truncate(path string, from, to int64, log *slog.Logger) error {
	if from <= to {
		return nil
	}
	log.Info("kafka: cut off what a crash left unfinished", "file", path, "bytes", from-to)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(to), f.Sync(), f.Close())
}

// batch is what a record batch says of transactions.
type batch struct {
	end        int64 // in the file
	attributes int16
	producerID int64
	epoch      int16
}

// apply notes that the batch's transaction is open, or ended.
func (b batch) apply(open map[int64]int16) {
	switch {
	case b.attributes&attrControl != 0:
		delete(open, b.producerID)
	case b.attributes&attrTransactional != 0:
		open[b.producerID] = b.epoch
	}
}

// scanSegment calls fn for each whole batch of the file, up to the first that is not.
func scanSegment(path string, fn func(batch)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	var (
		r    = bufio.NewReaderSize(f, segmentBufferBytes)
		head = make([]byte, batchHeaderBytes)
		body []byte
		pos  int64
	)
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			return ignoreEOF(err)
		}
		length := int64(int32(binary.BigEndian.Uint32(head[8:])))
		if length < batchHeaderBytes-12 || length > batchBytesMax {
			return nil
		}
		body = slices.Grow(body[:0], int(length))[:length-(batchHeaderBytes-12)]
		if _, err := io.ReadFull(r, body); err != nil {
			return ignoreEOF(err)
		}
		// As kfake: the checksum covers what follows it.
		sum := crc32.Update(crc32.Checksum(head[21:], castagnoli), castagnoli, body)
		if sum != binary.BigEndian.Uint32(head[17:]) {
			return nil
		}
		pos += 12 + length
		fn(batch{
			end:        pos,
			attributes: int16(binary.BigEndian.Uint16(head[21:])),
			producerID: int64(binary.BigEndian.Uint64(head[43:])),
			epoch:      int16(binary.BigEndian.Uint16(head[51:])),
		})
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
