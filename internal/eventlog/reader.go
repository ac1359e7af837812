package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"seenby/domain"
)

// Reader reads partitions from positions it is told, read-committed, with no consumer group behind it. One
// goroutine at a time.
type Reader struct {
	log    *Log
	client *kgo.Client
	admin  *kadm.Client                       // of client
	next   map[topicPartition]domain.Position // what is read next, per partition being read
	failed error                              // data loss met while there still were records to hand out
}

// pollWait bounds how long Poll waits for a first record, so that its caller can look at other things.
const pollWait = 250 * time.Millisecond

// NewReader makes a reader of nothing; Seek gives it partitions.
func (l *Log) NewReader() (*Reader, error) { return l.newReader() }

func (l *Log) newReader(opts ...kgo.Opt) (*Reader, error) {
	client, err := kgo.NewClient(append(append(l.cfg.ClientOpts(), opts...),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Control records move the position past the end of a transaction: without them "caught up" never comes.
		kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(pollWait),
	)...)
	if err != nil {
		return nil, domain.Errorf(domain.CodeMisconfigured, "kafka settings: %v", err)
	}
	return &Reader{log: l, client: client, admin: kadm.NewClient(client), next: map[topicPartition]domain.Position{}}, nil
}

// connect dials the brokers that lead the topics' partitions, for the reader and for the questions of Seek. What fails
// is dialed again when it is needed.
func (r *Reader) connect(ctx context.Context, topics []domain.Topic) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = r.log.cfg.TopicName(t)
	}
	var both errgroup.Group
	for _, of := range []*kadm.Client{r.log.admin, r.admin} {
		both.Go(func() error { _, err := of.ListStartOffsets(ctx, names...); return err })
	}
	if err := both.Wait(); err != nil && r.log.cfg.Logger != nil {
		r.log.cfg.Logger.DebugContext(ctx, "kafka: not connected to all leaders yet", "err", err)
	}
}

// Close ends the reader.
func (r *Reader) Close() { r.client.Close() }

// Seek reads the partitions from exactly these positions on. A position of a topic made anew, below the log's
// start or above its end is a CodeDataLoss error, and then nothing has changed. Where a position's epoch is known and
// the log was cut behind it, the next Poll is that error. A zero topic id is taken as "the present one".
func (r *Reader) Seek(ctx context.Context, at []domain.Position) error {
	if err := r.holds(ctx, at); err != nil {
		return err
	}
	r.start(at)
	return nil
}

// start reads from positions that the log holds.
func (r *Reader) start(at []domain.Position) {
	r.Drop(partitionsOf(at))
	offsets := map[string]map[int32]kgo.Offset{}
	for _, p := range at {
		name := r.log.cfg.TopicName(p.Topic)
		if offsets[name] == nil {
			offsets[name] = map[int32]kgo.Offset{}
		}
		// With the epoch, the client asks whether the log was cut behind the position and has grown past it since.
		offsets[name][p.Partition] = kgo.NewOffset().At(p.NextOffset).WithEpoch(p.Epoch.Kafka())
		r.next[topicPartition{name, p.Partition}] = p
	}
	r.client.AddConsumePartitions(offsets)
}

// Drop stops reading partitions; what was fetched of them is thrown away.
func (r *Reader) Drop(parts []domain.Partition) {
	drop := map[string][]int32{}
	for _, p := range parts {
		name := r.log.cfg.TopicName(p.Topic)
		tp := topicPartition{name, p.Partition}
		if _, ok := r.next[tp]; ok {
			drop[name] = append(drop[name], p.Partition)
			delete(r.next, tp)
		}
	}
	if len(drop) > 0 {
		r.client.RemoveConsumePartitions(drop)
	}
}

// Poll waits a little for records and hands out at most eventsMax. An empty batch is no error; ctx's cause is one, and
// comes with no records: whoever ended the wait may poll again, and misses nothing. CodeDataLoss means that a partition
// cannot be read on from where it stands; it is final.
func (r *Reader) Poll(ctx context.Context, eventsMax int) (domain.Batch, error) {
	if err := r.failed; err != nil {
		return domain.Batch{}, err
	}
	wait, cancel := context.WithTimeout(ctx, pollWait)
	defer cancel()
	fetches := r.client.PollRecords(wait, eventsMax)
	if ctx.Err() != nil && fetches.NumRecords() == 0 {
		return domain.Batch{}, context.Cause(ctx)
	}
	b := domain.Batch{Records: make([]domain.Record, 0, fetches.NumRecords())}
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		tp := topicPartition{f.Topic, f.Partition}
		next, reading := r.next[tp]
		if !reading {
			return // fetched before it was dropped
		}
		from := next.NextOffset
		if f.LogStartOffset > from && (len(f.Records) == 0 || f.Records[0].Offset > from) {
			// The log was cut off between our look at its start and the fetch; the client went on at the new start.
			r.failed = dataLoss(f.Topic, f.Partition, "our position is %d and the log starts at %d", from, f.LogStartOffset)
			return
		}
		for _, kr := range f.Records {
			if kr.Offset < next.NextOffset {
				continue // fetched before it was sought elsewhere
			}
			next.NextOffset, next.Epoch = kr.Offset+1, domain.LeaderEpochOf(kr.LeaderEpoch)
			if !kr.Attrs.IsControl() {
				b.Records = append(b.Records, decodeRecord(next.In(), kr))
			}
		}
		if next.NextOffset > from {
			r.next[tp] = next
			b.Next = append(b.Next, next)
		}
	})
	err := r.fetchError(fetches)
	if domain.CodeOf(err) == domain.CodeDataLoss {
		r.failed = err
	}
	if r.failed != nil && len(b.Next) == 0 {
		return b, r.failed
	}
	if len(b.Next) > 0 {
		return b, nil // what came before an error is sound, and the error comes again
	}
	return b, err
}

func (r *Reader) fetchError(fetches kgo.Fetches) (err error) {
	fetches.EachError(func(topic string, partition int32, e error) {
		switch {
		case errors.Is(e, context.DeadlineExceeded) || errors.Is(e, context.Canceled), NothingLost(e, r.next[topicPartition{topic, partition}].NextOffset):
		case errors.As(e, new(*kgo.ErrDataLoss)), errors.Is(e, kerr.OffsetOutOfRange), errors.Is(e, kerr.UnknownTopicID), errors.Is(e, kerr.InconsistentTopicID):
			err = dataLoss(topic, partition, "%v", e)
		case err == nil:
			err = unavailable(fmt.Sprintf("read %s/%d", topic, partition), e)
		}
	})
	return err
}

// NothingLost tells that err is a client's [kgo.ErrDataLoss] and none to who was handed every record below next, control
// records too, and no other. A client passes aborted records and hands none of them out; it asks the new leader of a
// partition where the epoch of the last record it handed out ended, and holds against that how far it has passed. A
// leader that comes and goes around an aborted transaction then looks like a log that was cut. The client reads on from
// where that epoch ended, so that nothing is missed.
func NothingLost(err error, next int64) bool {
	var loss *kgo.ErrDataLoss
	return errors.As(err, &loss) && next <= loss.ResetTo && loss.ResetTo < loss.ConsumedTo
}

func decodeRecord(in domain.Partition, kr *kgo.Record) domain.Record {
	rec := domain.Record{Partition: in, Offset: kr.Offset, Time: kr.Timestamp.UTC(), Key: kr.Key}
	rec.Event, rec.Err = Decode(in.Topic, kr.Key, kr.Value)
	if rec.Err != nil {
		rec.Value = kr.Value
	}
	return rec
}

// holds tells whether the log holds all positions. The client would silently move an offset outside the log
// to its nearest end, so it is asked before.
func (r *Reader) holds(ctx context.Context, at []domain.Position) error {
	all, err := r.boundsOf(ctx, at)
	if err != nil {
		return err
	}
	for i, p := range at {
		name, b := r.log.cfg.TopicName(p.Topic), all[p.Topic]
		if int(p.Partition) >= len(b.starts) {
			return dataLoss(name, p.Partition, "the topic has only %d partitions", len(b.starts))
		}
		start, end := b.starts[p.Partition], b.ends[p.Partition]
		switch {
		case p.TopicID == domain.TopicID{}:
			at[i].TopicID = start.TopicID
		case p.TopicID != start.TopicID:
			return dataLoss(name, p.Partition, "the topic was deleted and made anew: our position is of topic id %v, the log's is %v", p.TopicID, start.TopicID)
		}
		if p.NextOffset < start.NextOffset {
			return dataLoss(name, p.Partition, "our position is %d and the log starts at %d", p.NextOffset, start.NextOffset)
		}
		if p.NextOffset > end.NextOffset {
			return dataLoss(name, p.Partition, "our position is %d and the log ends at %d", p.NextOffset, end.NextOffset)
		}
	}
	return nil
}

// bounds are where the log of a topic starts and ends, by partition.
type bounds struct{ starts, ends []domain.Position }

// boundsOf asks for those of all topics at once: partitions stand still until the answers are there. By two clients, since
// one that asks twice at a time about a partition whose leader has changed learns of it for one of the questions alone.
func (r *Reader) boundsOf(ctx context.Context, at []domain.Position) (map[domain.Topic]*bounds, error) {
	all := map[domain.Topic]*bounds{}
	var questions errgroup.Group
	for _, p := range at {
		if all[p.Topic] != nil {
			continue
		}
		b := &bounds{}
		all[p.Topic] = b
		questions.Go(func() (err error) { b.starts, err = r.log.Starts(ctx, p.Topic); return err })
		questions.Go(func() (err error) { b.ends, err = r.log.ends(ctx, r.admin, p.Topic); return err })
	}
	return all, questions.Wait()
}

func dataLoss(topic string, partition int32, format string, args ...any) error {
	return domain.Errorf(domain.CodeDataLoss, "%s/%d: %s; nothing was skipped: restore the topic, or the database to a time that fits it",
		topic, partition, fmt.Sprintf(format, args...))
}

func partitionsOf(at []domain.Position) []domain.Partition {
	parts := make([]domain.Partition, len(at))
	for i, p := range at {
		parts[i] = p.In()
	}
	return parts
}

// Follow reads a topic from its start for as long as ctx lives, and calls caughtUp once, when it has passed
// the ends asked at the start. At the start it waits for Kafka as long as it takes; once it reads, it gives up with
// CodeUnavailable after ten seconds of errors. Else it returns ctx's cause, or the error of apply, or data loss.
func (l *Log) Follow(ctx context.Context, topic domain.Topic, apply func(domain.Batch) error, caughtUp func()) error {
	reader, err := l.NewReader()
	if err != nil {
		return err
	}
	defer reader.Close()
	var ends []domain.Position
	err = retry(ctx, func() error {
		starts, err := l.Starts(ctx, topic)
		if err != nil {
			return err
		}
		if ends, err = l.Ends(ctx, topic); err != nil {
			return err
		}
		return reader.Seek(ctx, starts)
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	caught := false
	for {
		if !caught && reader.Passed(ends) {
			caught = true
			caughtUp()
		}
		var b domain.Batch
		patience, cancel := context.WithTimeout(ctx, followPatience)
		err := retry(patience, func() (err error) {
			b, err = reader.Poll(ctx, followEventsMax)
			return err
		})
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
		if err := apply(b); err != nil {
			return err
		}
	}
}

const (
	followEventsMax = 10_000
	followPatience  = 10 * time.Second
)

// Passed tells whether the reader stands at or beyond all positions.
func (r *Reader) Passed(at []domain.Position) bool {
	for _, p := range at {
		if r.next[topicPartition{r.log.cfg.TopicName(p.Topic), p.Partition}].NextOffset < p.NextOffset {
			return false
		}
	}
	return true
}

const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
)

// retry calls f until it answers anything but CodeUnavailable, or ctx ends; then it returns f's last error.
func retry(ctx context.Context, f func() error) error {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := f()
		if domain.CodeOf(err) != domain.CodeUnavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}
