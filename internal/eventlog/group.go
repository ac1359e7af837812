package eventlog

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seenby/domain"
)

// Group is a membership of a consumer group that does nothing but assign partitions: it fetches no records,
// and where reading starts is somebody else's knowledge. Safe for concurrent use.
type Group struct {
	log     *Log
	name    string
	topics  []domain.Topic
	client  *kgo.Client
	mu      sync.Mutex
	parts   map[topicPartition]domain.Partition
	changed chan struct{}
	err     error // what ended the last session of the group, until another one assigns
}

// groupErrors keeps what nobody polls for: a group that cannot be joined looks like one without partitions.
type groupErrors struct{ g *Group }

// OnGroupManageError implements kgo.HookGroupManageError.
func (h groupErrors) OnGroupManageError(err error) {
	h.g.mu.Lock()
	first := h.g.err == nil
	h.g.err = unavailable("be a member of group "+h.g.name, err)
	h.g.mu.Unlock()
	if first && h.g.log.cfg.Logger != nil {
		h.g.log.cfg.Logger.Warn("kafka: the group cannot be joined; nothing is assigned meanwhile", "group", h.g.name, "err", err)
	}
}

// Err says why the group assigns nothing, where it cannot be joined.
func (g *Group) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

const (
	// A member that is silent for this long is taken for dead and its partitions go to others.
	sessionTimeout = 10 * time.Second
	// By its next heartbeat a member learns that another has left: until then that one's partitions stand still.
	heartbeatInterval = 200 * time.Millisecond
)

// JoinGroup joins a group that shares out the partitions of topics.
func (l *Log) JoinGroup(ctx context.Context, name string, topics ...domain.Topic) (*Group, error) {
	g := &Group{log: l, name: l.cfg.GroupName(name), topics: topics, parts: map[topicPartition]domain.Partition{}, changed: make(chan struct{})}
	ids := map[string]topicInfo{}
	byName := map[string]domain.Topic{}
	names := make([]string, len(topics))
	for i, t := range topics {
		info, err := l.topic(ctx, t)
		if err != nil {
			return nil, err
		}
		names[i] = l.cfg.TopicName(t)
		ids[names[i]], byName[names[i]] = info, t
	}
	lose := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		g.change(func() {
			for name, ps := range lost {
				for _, p := range ps {
					delete(g.parts, topicPartition{name, p})
				}
			}
		})
	}
	client, err := kgo.NewClient(append(l.cfg.ClientOpts(),
		kgo.ConsumerGroup(g.name),
		kgo.ConsumeTopics(names...),
		kgo.DisableAutoCommit(),
		kgo.Balancers(newDirectBalancer()),
		kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(heartbeatInterval),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, gained map[string][]int32) {
			g.change(func() {
				g.err = nil
				for name, ps := range gained {
					for _, p := range ps {
						g.parts[topicPartition{name, p}] = domain.Partition{Topic: byName[name], TopicID: ids[name].id, Partition: p}
					}
				}
			})
		}),
		kgo.WithHooks(groupErrors{g}),
		kgo.OnPartitionsRevoked(lose),
		kgo.OnPartitionsLost(lose),
	)...)
	if err != nil {
		return nil, domain.Errorf(domain.CodeMisconfigured, "kafka settings: %v", err)
	}
	client.PauseFetchTopics(names...)
	g.client = client
	return g, nil
}

func (g *Group) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.changed)
	g.changed = make(chan struct{})
}

// Assignment is what the group gives this member now, sorted, and a channel that is closed at the next change.
func (g *Group) Assignment() ([]domain.Partition, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	parts := make([]domain.Partition, 0, len(g.parts))
	for _, p := range g.parts {
		parts = append(parts, p)
	}
	slices.SortFunc(parts, domain.ComparePartitions)
	return parts, g.changed
}

// Commit writes positions as the group's offsets, for lag tools. A position of a partition that has just gone to
// another member may be written too, which does no harm: nobody starts from these offsets.
func (g *Group) Commit(ctx context.Context, at []domain.Position) error {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, p := range at {
		name := g.log.cfg.TopicName(p.Topic)
		if offsets[name] == nil {
			offsets[name] = map[int32]kgo.EpochOffset{}
		}
		offsets[name][p.Partition] = kgo.EpochOffset{Epoch: -1, Offset: p.NextOffset}
	}
	var failed error
	g.client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
		failed = err
	})
	if failed != nil {
		return unavailable("commit offsets of group "+g.name, failed)
	}
	return nil
}

// Committed are the group's committed offsets, of partitions that have one.
func (g *Group) Committed(ctx context.Context) ([]domain.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	responses, err := kadm.NewClient(g.client).FetchOffsets(ctx, g.name)
	if err != nil {
		return nil, unavailable("ask the offsets of group "+g.name, err)
	}
	var out []domain.Position
	for _, topic := range g.topics {
		info, err := g.log.topic(ctx, topic)
		if err != nil {
			return nil, err
		}
		for p, o := range responses[g.log.cfg.TopicName(topic)] {
			if o.Err == nil && o.At >= 0 {
				out = append(out, domain.Position{Topic: topic, TopicID: info.id, Partition: p, NextOffset: o.At})
			}
		}
	}
	return out, nil
}

// Close leaves the group: its partitions go to others at once.
func (g *Group) Close() { g.client.Close() }

// Source is a group that assigns and a reader that starts where it is told.
type Source struct {
	*Group
	*Reader
	log *Log
}

// connectTimeout bounds how long a process that starts waits for connections that it may also make later.
const connectTimeout = time.Second

// JoinSource makes a reader and joins a group that assigns what it reads.
func (l *Log) JoinSource(ctx context.Context, group string, topics ...domain.Topic) (*Source, error) {
	r, err := l.NewReader()
	if err != nil {
		return nil, err
	}
	// Until the group gives partitions to us, others read them: what takes time comes before.
	r.connect(ctx, topics)
	g, err := l.JoinGroup(ctx, group, topics...)
	if err != nil {
		r.Close()
		return nil, err
	}
	return &Source{Group: g, Reader: r, log: l}, nil
}

// Ends are the high watermarks of a topic's partitions.
func (s *Source) Ends(ctx context.Context, topic domain.Topic) ([]domain.Position, error) {
	return s.log.Ends(ctx, topic)
}

// Close leaves the group, then ends the reader.
func (s *Source) Close() {
	s.Group.Close()
	s.Reader.Close()
}
