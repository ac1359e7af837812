package eventlog

import (
	"context"
	"fmt"
	"slices"

	"seenby/domain"
)

// readAtGap is how many records are read over rather than sought past: a seek asks the broker three times.
const readAtGap = 10_000

// ReadAt reads single records of a partition, read-committed, by their offsets. Those that the log does not hold are
// not in found, and gone says why; they are no error.
func (l *Log) ReadAt(ctx context.Context, in domain.Partition, offsets []int64) (found map[int64]domain.Record, gone string, err error) {
	found = map[int64]domain.Record{}
	start, end, gone, err := l.bounds(ctx, in)
	if err != nil || gone != "" {
		return found, gone, err
	}
	wanted := map[int64]bool{}
	var held []int64
	for _, offset := range offsets {
		if offset >= start && offset < end && !wanted[offset] {
			wanted[offset] = true
			held = append(held, offset)
		}
	}
	slices.Sort(held)
	reader, err := l.NewReader()
	if err != nil {
		return nil, "", err
	}
	defer reader.Close()
	for len(held) > 0 {
		n := 1
		for n < len(held) && held[n]-held[n-1] <= readAtGap {
			n++
		}
		if err := reader.ranges(ctx, []domain.Position{in.At(held[0])}, []domain.Position{in.At(held[n-1] + 1)}, func(records []domain.Record) error {
			for _, r := range records {
				if wanted[r.Offset] {
					found[r.Offset] = r
				}
			}
			return nil
		}); err != nil {
			return nil, "", err
		}
		held = held[n:]
	}
	for _, offset := range offsets {
		switch _, ok := found[offset]; {
		case ok:
		case offset < start:
			return found, fmt.Sprintf("the log starts at %d", start), nil
		case offset >= end:
			return found, fmt.Sprintf("the log ends at %d", end), nil
		default:
			gone = "compaction took it away"
		}
	}
	return found, gone, nil
}

// Scan is ReadRange to the log's end where that comes first, from its start where that comes last.
func (l *Log) Scan(ctx context.Context, from domain.Position, to int64, each func(domain.Record)) error {
	start, end, gone, err := l.bounds(ctx, from.In())
	if err != nil {
		return err
	}
	if gone != "" {
		return dataLoss(l.cfg.TopicName(from.Topic), from.Partition, "%s", gone)
	}
	return l.ReadRange(ctx, from.In().At(max(start, from.NextOffset)), min(end, to), func(records []domain.Record) error {
		for _, r := range records {
			each(r)
		}
		return nil
	})
}

// bounds are where the log of a partition starts and ends now; gone says that it is not the partition's log any more.
func (l *Log) bounds(ctx context.Context, in domain.Partition) (start, end int64, gone string, err error) {
	starts, err := l.Starts(ctx, in.Topic)
	if err != nil {
		return 0, 0, "", err
	}
	ends, err := l.Ends(ctx, in.Topic)
	if err != nil {
		return 0, 0, "", err
	}
	n := int(in.Partition)
	if n < 0 || n >= min(len(starts), len(ends)) || starts[n].TopicID != in.TopicID {
		return 0, 0, "the topic was deleted and made anew", nil
	}
	return starts[n].NextOffset, ends[n].NextOffset, "", nil
}
