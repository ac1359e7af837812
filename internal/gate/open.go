package gate

import (
	"context"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seenby/domain"
)

// session is a partition that is open: nobody else can commit verdicts to it without fencing us.
type session struct {
	w       *worker
	client  *kgo.Client // produces verdicts in transactions, consumes views
	memory  *domain.Memory
	windows windows
	next    int64              // of views: the first that has no committed verdict
	epoch   domain.LeaderEpoch // of the view before next, as its verdict says; only while the partition is opened
	worked  int64              // once next has reached it, the session has shown that it works
}

// windows are how far back a memory looks.
type windows struct{ duplicates, postCap time.Duration }

// windows are the longest of all tenants, and at least those that a new tenant will have.
func (g *Gate) windows(ctx context.Context) (windows, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := g.deps.Tenants.WaitFor(ctx, nil); err != nil {
		return windows{}, err
	}
	longest := windowsOf(domain.DefaultLimits())
	for _, tenant := range g.deps.Tenants.Tenants() {
		if limits, ok := g.deps.Tenants.Limits(tenant); ok {
			w := windowsOf(limits)
			longest = windows{max(longest.duplicates, w.duplicates), max(longest.postCap, w.postCap)}
		}
	}
	return longest, nil
}

// windowsOf are those of one tenant. A quota refills within its duplicate window.
func windowsOf(l domain.Limits) windows { return windows{l.Window(), l.PostCap.Window} }

func (a windows) covers(b windows) bool {
	return a.duplicates >= b.duplicates && a.postCap >= b.postCap
}

// open takes the partition over. The order of its steps is what makes the gate exact: see the package's doc.
func (w *worker) open(ctx context.Context) (*session, error) {
	begun := time.Now()
	cfg := w.g.cfg
	client, err := kgo.NewClient(append(cfg.Kafka.ClientOpts(),
		kgo.TransactionalID(cfg.Kafka.TransactionalID("gate-"+strconv.Itoa(int(w.part.Partition)))),
		kgo.TransactionTimeout(cfg.TransactionTimeout),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		kgo.ManualFlushing(), // a transaction's records go out in as few requests as they fit into
		kgo.MaxBufferedRecords(cfg.BatchViewsMax),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(fetchWait),
		kgo.DisableFetchSessions(), // of one partition; to end one would hold back whoever takes the partition over
	)...)
	if err != nil {
		return nil, domain.Errorf(domain.CodeMisconfigured, "kafka settings: %v", err)
	}
	s := &session{w: w, client: client}
	verdicts, err := s.prepare(ctx)
	if err != nil {
		client.Close()
		return nil, err
	}
	took := time.Since(begun)
	w.log.Info("gate: partition opened", "next_offset", s.next, "verdicts_read", verdicts, "remembered", s.memory.Len(), "took", took)
	if restored := w.g.deps.Hooks.Restored; restored != nil {
		restored(w.part.Partition, verdicts, took)
	}
	return s, nil
}

// prepare fences, restores and finds where to start. It returns how many verdicts were read.
func (s *session) prepare(ctx context.Context) (verdicts int64, err error) {
	if s.windows, err = s.w.g.windows(ctx); err != nil {
		return 0, err
	}
	// The client would do this at its first transaction; it must be done before the log is asked anything.
	// It waits for the completion of a transaction that the predecessor left in the middle of its commit.
	fence, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if _, _, err := s.client.ProducerID(fence); err != nil {
		return 0, unavailable("take over the transactional id", err)
	}
	if verdicts, err = s.restore(ctx); err != nil {
		return verdicts, err
	}
	return verdicts, s.startAt(ctx)
}

// startAt begins to consume views at s.next. The client would move an offset outside the log to its nearest
// end without a word, so the log is asked before. Whether it was cut and has grown past s.next again, the client asks
// by the epoch.
func (s *session) startAt(ctx context.Context) error {
	views, p := s.topic(domain.TopicViews), s.w.part.Partition
	if err := s.sameTopic(ctx, views); err != nil {
		return err
	}
	start, err := s.offset(ctx, views, offsetStart)
	if err != nil {
		return err
	}
	end, err := s.offset(ctx, views, offsetEnd)
	if err != nil {
		return err
	}
	switch {
	case start > s.next:
		return domain.Errorf(domain.CodeDataLoss, "%s/%d starts at %d, and the views from %d on have no verdict yet: they are lost", views, p, start, s.next)
	case end < s.next:
		return domain.Errorf(domain.CodeDataLoss, "%s/%d ends at %d, and views up to %d have verdicts: it was truncated or made anew", views, p, end, s.next)
	}
	s.worked = min(s.next+1, end)
	s.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{views: {p: kgo.NewOffset().At(s.next).WithEpoch(s.epoch.Kafka())}})
	return nil
}

// sameTopic tells whether the topic is still the one that was assigned.
func (s *session) sameTopic(ctx context.Context, topic string) error {
	if s.w.part.TopicID == (domain.TopicID{}) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, s.client)
	if err == nil && len(resp.Topics) == 1 {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		return unavailable("ask for the id of topic "+topic, err)
	}
	if id := domain.TopicID(resp.Topics[0].TopicID); id != s.w.part.TopicID {
		return domain.Errorf(domain.CodeDataLoss, "topic %s was deleted and made anew: its id is %v and was %v", topic, id, s.w.part.TopicID)
	}
	return nil
}

func (s *session) topic(t domain.Topic) string { return s.w.g.cfg.Kafka.TopicName(t) }

// Special timestamps of ListOffsets.
const (
	offsetEnd   = -1 // the high watermark
	offsetStart = -2
)

// offset asks ListOffsets, read uncommitted, of our partition of a topic: its start, its end, or the first
// offset at or after a time in ms (-1: there is none).
func (s *session) offset(ctx context.Context, topic string, timestamp int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := kmsg.NewPtrListOffsetsRequest()
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp = s.w.part.Partition, timestamp
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, s.client)
	if err == nil && (len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1) {
		err = kerr.UnknownTopicOrPartition
	}
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		return 0, unavailable("ask for an offset of "+topic, err)
	}
	return resp.Topics[0].Partitions[0].Offset, nil
}
