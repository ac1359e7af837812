package projectiontest

import (
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// Partitions is how many each topic of a test's log has: several per shard, so that projectors meet on a row.
const Partitions = 3 * projections.Shards

// Start is the time of the first record.
var Start = time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC)

// Log is a log that a test makes up. Offsets have gaps, as control records and compaction leave them.
type Log struct {
	Rand    *rand.Rand
	Records map[domain.Partition][]domain.Record
	next    map[domain.Partition]int64
	views   map[int32]int64
	clock   time.Time
}

// NewLog makes an empty log.
func NewLog(r *rand.Rand) *Log {
	return &Log{r, map[domain.Partition][]domain.Record{}, map[domain.Partition]int64{}, map[int32]int64{}, Start}
}

// TopicID is the id that every topic of that name has in tests.
func TopicID(topic domain.Topic) (id domain.TopicID) {
	copy(id[:], topic)
	return id
}

// PartitionOf is where a key's records stand.
func PartitionOf(topic domain.Topic, key []byte) domain.Partition {
	h := fnv.New32a()
	h.Write(key)
	return domain.Partition{Topic: topic, TopicID: TopicID(topic), Partition: int32(h.Sum32() % Partitions)} //nolint:gosec // small
}

// Append puts an event at the end of its key's partition, some microseconds after the record before.
func (l *Log) Append(topic domain.Topic, key []byte, e domain.Event) {
	l.append(domain.Record{Partition: PartitionOf(topic, key), Key: key, Event: e})
}

// AppendPoison puts a record there that cannot be read.
func (l *Log) AppendPoison(topic domain.Topic, key []byte, reason error) {
	l.append(domain.Record{Partition: PartitionOf(topic, key), Key: key, Value: []byte{0xff}, Err: reason})
}

func (l *Log) append(r domain.Record) {
	l.clock = l.clock.Add(time.Duration(l.Rand.IntN(5_000_000_000)))
	at := l.next[r.Partition]
	if l.Rand.IntN(8) == 0 {
		at += 1 + l.Rand.Int64N(3)
	}
	r.Offset, r.Time = at, l.clock.Truncate(time.Millisecond)
	l.next[r.Partition] = at + 1
	l.Records[r.Partition] = append(l.Records[r.Partition], r)
}

// AppendVerdict puts a verdict after the viewer's others, with the next view offset of the partition.
func (l *Log) AppendVerdict(v domain.Verdict) {
	key := v.Viewer.Key()
	part := PartitionOf(domain.TopicVerdicts, key)
	v.ViewOffset = l.views[part.Partition]
	l.views[part.Partition] = v.ViewOffset + 1
	l.append(domain.Record{Partition: part, Key: key, Event: &v})
	if l.Rand.IntN(20) == 0 { // a repeat of the verdict, which must count once
		again := v
		l.append(domain.Record{Partition: part, Key: key, Event: &again})
	}
}

// Parts are the log's partitions, in order.
func (l *Log) Parts() []domain.Partition {
	return slices.SortedFunc(maps.Keys(l.Records), domain.ComparePartitions)
}

// Compact is the log after compaction of its compacted topics: of each key only the last record is left.
func (l *Log) Compact() *Log {
	c := &Log{l.Rand, map[domain.Partition][]domain.Record{}, l.next, l.views, l.clock}
	for part, records := range l.Records {
		if part.Topic != domain.TopicBodies && part.Topic != domain.TopicPeople {
			c.Records[part] = records
			continue
		}
		last := map[string]int64{}
		for _, r := range records {
			last[string(r.Key)] = r.Offset
		}
		c.Records[part] = slices.DeleteFunc(slices.Clone(records), func(r domain.Record) bool { return last[string(r.Key)] != r.Offset })
	}
	return c
}

// Batches cuts the log, read from these positions on, into batches: the partitions interleave as r says, each
// in its order, and a batch holds up to size records of one or several partitions.
func (l *Log) Batches(r *rand.Rand, parts []domain.Partition, size func() int) []domain.Batch {
	rest := map[domain.Partition][]domain.Record{}
	var live []domain.Partition
	for _, part := range parts {
		if len(l.Records[part]) > 0 {
			rest[part] = l.Records[part]
			live = append(live, part)
		}
	}
	var all []domain.Batch
	var b domain.Batch
	next := map[domain.Partition]int64{}
	cut := func() {
		for _, part := range slices.SortedFunc(maps.Keys(next), domain.ComparePartitions) {
			b.Next = append(b.Next, part.At(next[part]))
		}
		all, b, next = append(all, b), domain.Batch{}, map[domain.Partition]int64{}
	}
	for left := size(); len(live) > 0; {
		i := r.IntN(len(live))
		part := live[i]
		n := min(1+r.IntN(4), len(rest[part]), left)
		b.Records = append(b.Records, rest[part][:n]...)
		next[part] = rest[part][n-1].Offset + 1
		if rest[part] = rest[part][n:]; len(rest[part]) == 0 {
			next[part] = l.next[part] // past what compaction or the end of a transaction left
			live = slices.Delete(live, i, i+1)
		}
		if left -= n; left == 0 {
			cut()
			left = size()
		}
	}
	if len(next) > 0 {
		cut()
	}
	return all
}
