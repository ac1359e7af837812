package eventlog_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seenby/domain"
)

// A client that has passed records of an aborted transaction of one leader and none of its own holds the offset against
// the leader before that one, and takes it for data loss. It is none to who was handed the records that there are.
func TestALeaderThatComesAndGoesAroundAnAbortedTransactionLosesNothing(t *testing.T) {
	log, cluster := fake(t)
	cfg := log.Config()
	verdicts := cfg.TopicName(domain.TopicVerdicts)
	move := func() {
		t.Helper()
		leader := cluster.LeaderFor(verdicts, 0)
		if err := cluster.MoveTopicPartition(verdicts, 0, 1-leader); err != nil {
			t.Fatal(err)
		}
	}
	client, err := kgo.NewClient(append(cfg.ClientOpts(), kgo.TransactionalID(cfg.TransactionalID("t")))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	offset := int64(0)
	transact := func(end kgo.TransactionEndTry, records int) {
		t.Helper()
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for range records { // a batch each
			r, err := cfg.NewRecord(&domain.Verdict{Viewer: person, ViewOffset: offset, Reason: domain.ReasonStale}, 0, at)
			if err == nil {
				err = client.ProduceSync(t.Context(), r).FirstErr()
			}
			if err != nil {
				t.Fatal(err)
			}
			offset++
		}
		if err := client.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	transact(kgo.TryCommit, 1) // its record at 0, its marker at 1
	move()
	transact(kgo.TryAbort, 2) // 2 and 3, their marker at 4
	transact(kgo.TryCommit, 1)

	// The reader gets a batch at a time. When it has passed 2 and asks for 3, the leader changes.
	var gone sync.Once
	var changed atomic.Bool
	cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		for _, topic := range req.(*kmsg.FetchRequest).Topics {
			for i := range topic.Partitions {
				topic.Partitions[i].PartitionMaxBytes = 1
				if topic.Partitions[i].FetchOffset == 3 {
					gone.Do(func() {
						move()
						changed.Store(true)
					})
				}
			}
		}
		return nil, nil, false
	})
	reader := readVerdicts(t, log)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var read []int64
	for ctx.Err() == nil && len(read) < 2 {
		b, err := reader.Poll(ctx, 10)
		if err != nil {
			t.Fatalf("after %v: %v", read, err)
		}
		for _, r := range b.Records {
			read = append(read, r.Offset)
		}
	}
	if len(read) != 2 || read[0] != 0 || read[1] != 5 {
		t.Errorf("read the records at %v, want 0 and 5", read)
	}
	if !changed.Load() {
		t.Error("the leader did not change while the reader stood within the aborted transaction")
	}
}
