package eventlog

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
)

const (
	// rangeEventsMax is how many records of ranges are decoded in one go.
	rangeEventsMax = 2000
	// rangeStall is how long reading may stand still: longer than any transaction of ours may stay open.
	rangeStall = 30 * time.Second
	// rangeBytesMax is what is fetched of a partition at a time: records take twenty times the room once they are
	// unpacked, with all their headers, and two fetches of each of two readers are in memory.
	rangeBytesMax = 128 << 10
	// longRangeBytesMax is enough that a broker on the same machine is asked before its last answer is used up.
	longRangeBytesMax = 1 << 20
)

// ReadRange is ReadRanges of one partition, up to the offset until.
func (l *Log) ReadRange(ctx context.Context, from domain.Position, until int64, apply func([]domain.Record) error) error {
	to := from.In().At(until)
	return l.ReadRanges(ctx, []domain.Position{from}, []domain.Position{to}, apply)
}

// ReadRanges hands out the committed records of partitions between two positions of each, in order per partition, and
// returns when it has passed them all. The records are apply's own. Besides apply's error: CodeDataLoss where the log
// does not hold both positions, CodeUnavailable after half a minute without a record.
func (l *Log) ReadRanges(ctx context.Context, from, to []domain.Position, apply func([]domain.Record) error) error {
	return l.readRanges(ctx, rangeBytesMax, from, to, apply)
}

// ReadLongRanges is ReadRanges for who has memory: it fetches more at a time.
func (l *Log) ReadLongRanges(ctx context.Context, from, to []domain.Position, apply func([]domain.Record) error) error {
	return l.readRanges(ctx, longRangeBytesMax, from, to, apply)
}

func (l *Log) readRanges(ctx context.Context, bytesMax int32, from, to []domain.Position, apply func([]domain.Record) error) error {
	reader, err := l.newReader(kgo.FetchMaxPartitionBytes(bytesMax))
	if err != nil {
		return err
	}
	defer reader.Close()
	return reader.ranges(ctx, from, to, apply)
}

// ranges is ReadRanges of a reader that reads nothing else. It may be called again.
func (r *Reader) ranges(ctx context.Context, from, to []domain.Position, apply func([]domain.Record) error) error {
	until := map[domain.Partition]int64{}
	var start, end []domain.Position
	for i := range from {
		if from[i].NextOffset < to[i].NextOffset {
			start, end = append(start, from[i]), append(end, to[i])
			until[to[i].In()] = to[i].NextOffset
		}
	}
	if len(start) == 0 {
		return nil
	}
	if err := patiently(ctx, func() error { return r.holds(ctx, append(end, start...)) }); err != nil {
		return err
	}
	r.start(start)
	defer r.Drop(partitionsOf(start))
	for moved := time.Now(); !r.Passed(end); {
		var b domain.Batch
		if err := patiently(ctx, func() (err error) {
			b, err = r.Poll(ctx, rangeEventsMax)
			return err
		}); err != nil {
			return err
		}
		if len(b.Next) > 0 {
			moved = time.Now()
		} else if time.Since(moved) > rangeStall {
			return domain.Errorf(domain.CodeUnavailable, "%s could not be read further for %v: is a transaction open on it?", r.log.cfg.TopicName(start[0].Topic), rangeStall)
		}
		within := b.Records[:0]
		for _, record := range b.Records {
			if record.Offset < until[record.Partition] {
				within = append(within, record)
			}
		}
		if len(within) == 0 {
			continue
		}
		if err := apply(within); err != nil {
			return err
		}
		moved = time.Now() // apply may take as long as it likes
	}
	return nil
}

// patiently tries for as long as a reader does.
func patiently(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, followPatience)
	defer cancel()
	return retry(ctx, f)
}
