package eventlog

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
)

const (
	// transactionTimeout is after how long Kafka ends a transaction whose process died in the middle of it; until
	// then, or until the next taking over, readers of those partitions stand still.
	transactionTimeout = 5 * time.Second
	// fenceTimeout bounds the wait for the end of a predecessor's transaction.
	fenceTimeout = 20 * time.Second
	// commitTimeout is longer than the transaction's own time-out: after it the outcome is unknown.
	commitTimeout = 8 * time.Second
)

// takeOver makes a client that owns a transactional id: whoever held it is fenced, and what that left open is ended.
func (l *Log) takeOver(ctx context.Context, name string) (*kgo.Client, error) {
	client, err := kgo.NewClient(append(l.cfg.ClientOpts(),
		kgo.TransactionalID(l.cfg.TransactionalID(name)),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
	)...)
	if err != nil {
		return nil, domain.Errorf(domain.CodeMisconfigured, "kafka settings: %v", err)
	}
	fence, cancel := context.WithTimeout(ctx, fenceTimeout)
	defer cancel()
	if _, _, err := client.ProducerID(fence); err != nil {
		client.Close()
		return nil, unavailable("take over the transactional id "+l.cfg.TransactionalID(name), err)
	}
	return client, nil
}

// Writer writes to one partition in transactions, under a transactional id that names the partition: whoever opened one
// before can write no more. One goroutine at a time.
type Writer struct {
	log    *Log
	part   domain.Partition
	client *kgo.Client
}

// OpenWriter takes a partition over from whoever wrote to it under this name. What the predecessor had begun is ended
// when it returns, so the partition's end asked now is behind everything that it wrote.
func (l *Log) OpenWriter(ctx context.Context, name string, part domain.Partition) (*Writer, error) {
	client, err := l.takeOver(ctx, name+"-"+strconv.Itoa(int(part.Partition)))
	if err != nil {
		return nil, err
	}
	return &Writer{log: l, part: part, client: client}, nil
}

// Commit writes events, all of the writer's partition, in one transaction, and tells their offsets. CodeConflict: another
// writer has taken the partition over. After any error nobody knows what stands in the log, and the writer is good for
// nothing but Close.
func (w *Writer) Commit(ctx context.Context, events []domain.Event) (offsets []int64, err error) {
	records := make([]*kgo.Record, len(events))
	for i, e := range events {
		if records[i], err = w.log.cfg.NewRecord(e, w.part.Partition, time.Time{}); err != nil {
			return nil, err
		}
	}
	what := w.log.cfg.TopicName(w.part.Topic)
	switch err := transact(ctx, w.client, records, what); {
	case Fenced(err):
		return nil, domain.Errorf(domain.CodeConflict, "%s/%d was taken over by another process", what, w.part.Partition).Because(err)
	case err != nil:
		return nil, err
	}
	offsets = make([]int64, len(records))
	for i, r := range records {
		offsets[i] = r.Offset
	}
	return offsets, nil
}

// Close ends the writer.
func (w *Writer) Close() { w.client.Close() }

// Fenced tells whether Kafka says that the transactional id is somebody else's now.
func Fenced(err error) bool {
	return errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.ProducerFenced)
}

// transact writes records in one transaction of their own. It is not cut short by ctx: an unanswered commit would leave
// everybody in doubt.
func transact(ctx context.Context, client *kgo.Client, records []*kgo.Record, what string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	if err := client.BeginTransaction(); err != nil {
		return unavailable("begin a transaction on "+what, err)
	}
	if err := Produce(ctx, client, records); err != nil {
		if !Fenced(err) {
			abandon(ctx, client)
		}
		return unavailable("write to "+what, err)
	}
	if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return unavailable("commit to "+what, err)
	}
	return nil
}

// Produce writes records and waits until all of them are answered. The error is that of the first one which failed, or ctx's.
func Produce(ctx context.Context, client *kgo.Client, records []*kgo.Record) error {
	var mu sync.Mutex
	var failed error
	for _, r := range records {
		client.Produce(ctx, r, func(_ *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			if failed == nil {
				failed = err
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return failed
}

// abandon ends a transaction that has failed at once; else Kafka does so after its time-out.
func abandon(ctx context.Context, client *kgo.Client) {
	if err := client.AbortBufferedRecords(ctx); err == nil {
		_ = client.EndTransaction(ctx, kgo.TryAbort) // Kafka's time-out is the other way
	}
}
