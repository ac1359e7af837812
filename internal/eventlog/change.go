package eventlog

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
)

const (
	// changeTransactionTimeout is after how long Kafka ends a change whose process died in the middle of it; until
	// then, or until the next change, readers of those partitions of tenants stand still.
	changeTransactionTimeout = 5 * time.Second
	// changeFenceTimeout bounds the wait for the end of a predecessor's transaction.
	changeFenceTimeout = 20 * time.Second
	// changeCommitTimeout is longer than the transaction's own time-out: after it the outcome is unknown.
	changeCommitTimeout = 8 * time.Second
)

// ChangeTenants carries out one command on the topic tenants, whole or not at all. All commands of an
// installation share one transactional id: taking it over fences whoever held it, then the topic is folded to its
// end, decide says what to append (nothing is fine), and that is committed in one transaction. So what decide saw
// still stands when its events are appended, with no lock that could be left behind.
//
// CodeConflict: another process began a command meanwhile. CodeUnavailable: Kafka is away, or did not answer to
// the commit. After either, the change stands whole or not at all; the same command can be given again.
func (l *Log) ChangeTenants(ctx context.Context, decide func(*domain.Installation) ([]domain.Event, error)) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	// Asked with the deadline that it has: a client that takes an id over waits for Kafka for as long as it takes.
	info, err := l.topic(ctx, domain.TopicTenants)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(l.cfg.ClientOpts(),
		kgo.TransactionalID(l.cfg.TransactionalID(string(domain.TopicTenants))),
		kgo.TransactionTimeout(changeTransactionTimeout),
		kgo.RequiredAcks(kgo.AllISRAcks()),
	)...)
	if err != nil {
		return domain.Errorf(domain.CodeMisconfigured, "kafka settings: %v", err)
	}
	defer client.Close()
	fence, cancel := context.WithTimeout(ctx, changeFenceTimeout)
	defer cancel()
	if _, _, err := client.ProducerID(fence); err != nil {
		return unavailable("take over the transactional id of tenants", err)
	}
	in, err := l.Installation(ctx)
	if err != nil {
		return err
	}
	events, err := decide(in)
	if err != nil || len(events) == 0 {
		return err
	}
	records := make([]*kgo.Record, len(events))
	for i, e := range events {
		if topic := TopicOf(e); topic != domain.TopicTenants {
			return domain.Errorf(domain.CodeInternal, "a change of tenants holds a %s, which belongs on %s", e.EventType(), topic)
		}
		if records[i], err = l.cfg.NewRecord(e, 0, time.Time{}); err != nil {
			return err
		}
		records[i].Partition = PartitionOf(records[i].Key, info.partitions)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return commitChange(ctx, client, records)
}

// commitChange is not cut short by ctx: an unanswered commit would leave everybody in doubt.
func commitChange(ctx context.Context, client *kgo.Client, records []*kgo.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeCommitTimeout)
	defer cancel()
	if err := client.BeginTransaction(); err != nil {
		return changeError("begin a transaction", err)
	}
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
		return changeError("write to tenants", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		abandon(ctx, client)
		return changeError("write to tenants", failed)
	}
	if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return changeError("commit to tenants", err)
	}
	return nil
}

// abandon ends a transaction that has failed at once; else Kafka does so after its time-out.
func abandon(ctx context.Context, client *kgo.Client) {
	if err := client.AbortBufferedRecords(ctx); err == nil {
		_ = client.EndTransaction(ctx, kgo.TryAbort) // Kafka's time-out is the other way
	}
}

func changeError(what string, err error) error {
	if errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.ProducerFenced) {
		return domain.Errorf(domain.CodeConflict, "another command on tenants began while this one ran; look at what stands now, and run it again").Because(err)
	}
	return unavailable(what, err)
}
