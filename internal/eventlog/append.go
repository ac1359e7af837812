package eventlog

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
)

// Append appends events and answers once all of them are acknowledged by all in-sync replicas, with the
// positions that cover them, one per partition. On an error some may stand in the log: CodeUnavailable means
// that trying again is safe for events with an id. Records of one call to one partition keep their order.
func (l *Log) Append(ctx context.Context, events ...domain.Event) ([]domain.Position, error) {
	if len(events) == 0 {
		return nil, nil
	}
	records := make([]*kgo.Record, len(events))
	infos := map[domain.Topic]topicInfo{}
	for i, e := range events {
		topic := TopicOf(e)
		info, ok := infos[topic]
		if !ok {
			var err error
			if info, err = l.topic(ctx, topic); err != nil {
				return nil, err
			}
			infos[topic] = info
		}
		r, err := l.cfg.NewRecord(e, 0, time.Time{})
		if err != nil {
			return nil, err
		}
		r.Partition = PartitionOf(placedBy(e, r.Key), info.partitions)
		records[i] = r
	}
	a := appending{left: len(records), done: make(chan struct{}), next: make(map[topicPartition]int64, 2*len(infos))}
	for _, r := range records {
		// TryProduce rather than Produce: a full buffer means that Kafka does not keep up, and the caller's retry
		// is better than an answer after its deadline.
		l.client.TryProduce(ctx, r, a.acknowledge)
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		// The client may still be waiting for an answer to these records; the caller is not.
		return nil, unavailable("append", context.Cause(ctx))
	}
	if a.err != nil {
		return nil, unavailable("append", a.err)
	}
	positions := make([]domain.Position, 0, len(a.next))
	for topic, info := range infos {
		name := l.cfg.TopicName(topic)
		for tp, next := range a.next {
			if tp.topic == name {
				positions = append(positions, domain.Position{Topic: topic, TopicID: info.id, Partition: tp.partition, NextOffset: next})
			}
		}
	}
	slices.SortFunc(positions, func(x, y domain.Position) int { return domain.ComparePartitions(x.In(), y.In()) })
	return positions, nil
}

type topicPartition struct {
	topic     string
	partition int32
}

// appending gathers the acknowledgements of one Append.
type appending struct {
	mu   sync.Mutex
	left int
	err  error
	next map[topicPartition]int64
	done chan struct{}
}

func (a *appending) acknowledge(r *kgo.Record, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && a.err == nil {
		a.err = err
	}
	if tp := (topicPartition{r.Topic, r.Partition}); err == nil && r.Offset+1 > a.next[tp] {
		a.next[tp] = r.Offset + 1
	}
	if a.left--; a.left == 0 {
		close(a.done)
	}
}
