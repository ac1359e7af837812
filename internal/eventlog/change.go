package eventlog

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
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
	client, err := l.takeOver(ctx, string(domain.TopicTenants))
	if err != nil {
		return err
	}
	defer client.Close()
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
	err = transact(ctx, client, records, l.cfg.TopicName(domain.TopicTenants))
	if Fenced(err) {
		return domain.Errorf(domain.CodeConflict, "another command on tenants began while this one ran; look at what stands now, and run it again").Because(err)
	}
	return err
}
