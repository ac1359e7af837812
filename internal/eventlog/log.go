package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
)

// Log is one process's way to the topics: it appends and asks. Safe for concurrent use.
type Log struct {
	cfg      Config
	client   *kgo.Client
	admin    *kadm.Client
	topicsMu sync.RWMutex
	topics   map[domain.Topic]topicInfo

	changing sync.Mutex // held by ChangeTenants: those of one process wait for each other
}

type topicInfo struct {
	id         domain.TopicID
	partitions int32
}

const (
	// deliveryTimeout bounds an append: the api must have answered before its own deadline.
	deliveryTimeout = 5 * time.Second
	// bufferedRecordsMax bounds what waits for Kafka in memory; beyond it an append fails at once.
	bufferedRecordsMax = 100_000
	// askTimeout bounds a question about offsets or topics.
	askTimeout = 5 * time.Second
)

// Open makes a Log. It does not touch the network: Kafka may be away.
func Open(cfg Config) (*Log, error) {
	opts := append(cfg.ClientOpts(),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0), // an api's caller waits for this very record; batches form under load by themselves
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		// After the time-out the record may or may not stand in the log, and the caller is told so: a repeat is
		// absorbed by the view's id. Without this, a lost answer would hold the caller for as long as Kafka is away.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.MaxBufferedRecords(bufferedRecordsMax),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
	)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, domain.Errorf(domain.CodeMisconfigured, "kafka settings: %v", err)
	}
	return &Log{cfg: cfg, client: client, admin: kadm.NewClient(client), topics: map[domain.Topic]topicInfo{}}, nil
}

// Config is what the log was opened with.
func (l *Log) Config() Config { return l.cfg }

// Close ends the client; what is being appended fails.
func (l *Log) Close() { l.client.Close() }

// Ping asks whether any broker answers.
func (l *Log) Ping(ctx context.Context) error {
	if err := l.client.Ping(ctx); err != nil {
		return unavailable("ask a broker", err)
	}
	return nil
}

// Partitions are a topic's partitions as they were created. They are asked once: a topic made anew shows as
// an id that reads no longer find.
func (l *Log) Partitions(ctx context.Context, topic domain.Topic) ([]domain.Partition, error) {
	info, err := l.topic(ctx, topic)
	if err != nil {
		return nil, err
	}
	parts := make([]domain.Partition, info.partitions)
	for p := range parts {
		parts[p] = domain.Partition{Topic: topic, TopicID: info.id, Partition: int32(p)} //nolint:gosec // a partition count
	}
	return parts, nil
}

func (l *Log) topic(ctx context.Context, topic domain.Topic) (topicInfo, error) {
	l.topicsMu.RLock()
	info, ok := l.topics[topic]
	l.topicsMu.RUnlock()
	if ok {
		return info, nil
	}
	name := l.cfg.TopicName(topic)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	details, err := l.admin.ListTopics(ctx, name)
	if err != nil {
		return topicInfo{}, unavailable("look up topic "+name, err)
	}
	d := details[name]
	switch {
	case errors.Is(d.Err, kerr.UnknownTopicOrPartition) || !details.Has(name):
		return topicInfo{}, domain.Errorf(domain.CodeMisconfigured, "there is no topic %s: run `seenby topics apply`", name)
	case d.Err != nil:
		return topicInfo{}, unavailable("look up topic "+name, d.Err)
	}
	info = topicInfo{id: domain.TopicID(d.ID), partitions: int32(len(d.Partitions))} //nolint:gosec // a partition count
	l.topicsMu.Lock()
	l.topics[topic] = info
	l.topicsMu.Unlock()
	return info, nil
}

// Ends are the high watermarks of all partitions of a topic: everything acknowledged before the call lies
// below them.
func (l *Log) Ends(ctx context.Context, topic domain.Topic) ([]domain.Position, error) {
	return l.ends(ctx, l.admin, topic)
}

func (l *Log) ends(ctx context.Context, by *kadm.Client, topic domain.Topic) ([]domain.Position, error) {
	return l.offsets(ctx, topic, "ends", by.ListEndOffsets)
}

// Starts are the first offsets that the log still holds.
func (l *Log) Starts(ctx context.Context, topic domain.Topic) ([]domain.Position, error) {
	return l.offsets(ctx, topic, "starts", l.admin.ListStartOffsets)
}

// StableEnds are the last stable offsets: where an open transaction holds readers, they stay behind Ends.
func (l *Log) StableEnds(ctx context.Context, topic domain.Topic) ([]domain.Position, error) {
	return l.offsets(ctx, topic, "stable ends", l.admin.ListCommittedOffsets)
}

// After are the first offsets whose records are not older than at; where none is, the ends.
func (l *Log) After(ctx context.Context, topic domain.Topic, at time.Time) ([]domain.Position, error) {
	return l.offsets(ctx, topic, "offsets by time", func(ctx context.Context, names ...string) (kadm.ListedOffsets, error) {
		return l.admin.ListOffsetsAfterMilli(ctx, at.UnixMilli(), names...)
	})
}

func (l *Log) offsets(ctx context.Context, topic domain.Topic, what string, list func(context.Context, ...string) (kadm.ListedOffsets, error)) ([]domain.Position, error) {
	parts, err := l.Partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	name := l.cfg.TopicName(topic)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	listed, err := list(ctx, name)
	if err != nil {
		return nil, unavailable(fmt.Sprintf("ask the %s of %s", what, name), err)
	}
	out := make([]domain.Position, len(parts))
	for i, p := range parts {
		o, ok := listed.Lookup(name, p.Partition)
		if !ok {
			o.Err = kerr.UnknownTopicOrPartition
		}
		if o.Err != nil {
			return nil, unavailable(fmt.Sprintf("ask the %s of %s/%d", what, name, p.Partition), o.Err)
		}
		out[i] = p.At(o.Offset)
	}
	return out, nil
}

func unavailable(what string, err error) error {
	return domain.Errorf(domain.CodeUnavailable, "Kafka did not answer (%s)", what).Because(err)
}
