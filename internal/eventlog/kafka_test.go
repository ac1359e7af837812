package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/testenv"
	"seenby/topics"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

const partitions = 3

var wanted = eventlog.TopicsWanted{Partitions: partitions, Replication: 1, MinInsyncReplicas: 1}

// open gives a log of the test's own whose topics are made.
func open(t *testing.T) (*eventlog.Log, *testenv.KafkaEnv) {
	t.Helper()
	env := testenv.Kafka(t)
	log, err := eventlog.Open(eventlog.Config{Brokers: env.Brokers, Prefix: env.Prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	if _, err := log.ApplyTopics(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	return log, env
}

func view(n int) domain.ViewReported {
	v := domain.ViewReported{Viewer: person, Post: "p"}
	v.Viewer.Person[0] = byte(n)
	v.ViewID = domain.ViewID{0: byte(n), 1: byte(n >> 8), 15: 1}
	return v
}

func appendViews(t *testing.T, log *eventlog.Log, n int) []domain.Position {
	t.Helper()
	events := make([]domain.Event, n)
	for i := range events {
		events[i] = view(i)
	}
	positions, err := log.Append(t.Context(), events...)
	if err != nil {
		t.Fatal(err)
	}
	return positions
}

// readVerdicts gives a reader that stands at the start of the first partition of verdicts.
func readVerdicts(t *testing.T, log *eventlog.Log) *eventlog.Reader {
	t.Helper()
	reader, err := log.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	if err := reader.Seek(t.Context(), []domain.Position{{Topic: domain.TopicVerdicts}}); err != nil {
		t.Fatal(err)
	}
	return reader
}

// readTo reads from the given positions until the reader has passed the others.
func readTo(t *testing.T, r *eventlog.Reader, to []domain.Position) (records []domain.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !r.Passed(to) {
		b, err := r.Poll(ctx, 10)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, b.Records...)
	}
	return records
}

func TestAppendAndRead(t *testing.T) {
	log, _ := open(t)
	positions := appendViews(t, log, 50)
	if len(positions) != partitions {
		t.Fatalf("50 views went to %v", positions)
	}
	ends, err := log.Ends(t.Context(), domain.TopicViews)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ends, positions); diff != "" {
		t.Errorf("the append's positions are not the ends: %s", diff)
	}
	reader, err := log.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	starts, err := log.Starts(t.Context(), domain.TopicViews)
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Seek(t.Context(), starts); err != nil {
		t.Fatal(err)
	}
	records := readTo(t, reader, positions)
	if len(records) != 50 {
		t.Errorf("%d records of 50", len(records))
	}
	next := map[int32]int64{}
	for _, r := range records {
		if r.Err != nil || r.Offset != next[r.Partition.Partition] || r.Time.IsZero() {
			t.Errorf("%d@%d at %v: %v", r.Partition.Partition, r.Offset, r.Time, r.Err)
		}
		next[r.Partition.Partition]++
		if p := eventlog.PartitionOf(r.Key, partitions); p != r.Partition.Partition {
			t.Errorf("key %q stands in partition %d, want %d", r.Key, r.Partition.Partition, p)
		}
	}

	// Seeking back reads exactly from there, and what was dropped stays away.
	one := positions[1].In().At(1)
	if err := reader.Seek(t.Context(), []domain.Position{one}); err != nil {
		t.Fatal(err)
	}
	reader.Drop([]domain.Partition{positions[0].In(), positions[2].In()})
	for i, r := range readTo(t, reader, positions[1:2]) {
		if r.Partition != one.In() || r.Offset != int64(i+1) {
			t.Fatalf("after seeking to %v: %v@%d", one, r.Partition, r.Offset)
		}
	}
}

// A log that does not hold a position is an error, never a jump.
func TestDataLossIsLoud(t *testing.T) {
	log, env := open(t)
	positions := appendViews(t, log, 50)
	admin := kadm.NewClient(env.Client(t))
	cut := kadm.Offsets{}
	cut.AddOffset(env.Topic("views"), 0, 5, -1)
	if _, err := admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	part := positions[0].In()
	reader, err := log.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	anew := part
	anew.TopicID[0]++
	for name, at := range map[string]domain.Position{
		"below the start":   part.At(4),
		"above the end":     part.At(positions[0].NextOffset + 1),
		"made anew":         anew.At(6),
		"no such partition": {Topic: domain.TopicViews, TopicID: part.TopicID, Partition: partitions},
	} {
		if err := reader.Seek(t.Context(), []domain.Position{at}); domain.CodeOf(err) != domain.CodeDataLoss {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := reader.Seek(t.Context(), []domain.Position{part.At(5)}); err != nil {
		t.Errorf("at the start: %v", err)
	}
}

// Where the log was cut and has grown past a position, the offset is there and holds another record: only the epoch
// tells. A new leader whose log the position has never seen looks just like that.
func TestALogThatWasCutAndHasGrownIsDataLoss(t *testing.T) {
	log, cluster := fake(t)
	publish := func(n int) (at domain.Position) {
		t.Helper()
		for range n {
			positions, err := log.Append(t.Context(), domain.PostDeleted{PostRef: domain.PostKey{Tenant: tenant, Post: "p"}, EventID: domain.EventID{1}})
			if err != nil {
				t.Fatal(err)
			}
			at = positions[0]
		}
		return at
	}
	first := publish(5)
	for node := range int32(2) { // one of them is another leader than before
		if err := cluster.MoveTopicPartition(log.Config().TopicName(first.Topic), first.Partition, node); err != nil {
			t.Fatal(err)
		}
	}
	last := publish(5)
	read := func(from domain.Position) ([]domain.Position, error) {
		t.Helper()
		reader, err := log.NewReader()
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		if err := reader.Seek(t.Context(), []domain.Position{from}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for ctx.Err() == nil {
			if b, err := reader.Poll(ctx, 100); err != nil || len(b.Next) > 0 && reader.Passed([]domain.Position{last}) {
				return b.Next, err
			}
		}
		return nil, ctx.Err()
	}
	first.Epoch = domain.LeaderEpochOf(0)
	at, err := read(first)
	if err != nil || at[0].Epoch != domain.LeaderEpochOf(2) {
		t.Fatalf("where the first leader ended: %+v, %v", at, err)
	}
	cut := first.In().At(first.NextOffset + 2)
	if _, err := read(cut); err != nil {
		t.Fatalf("without an epoch: %v", err)
	}
	cut.Epoch = domain.LeaderEpochOf(0)
	if _, err := read(cut); domain.CodeOf(err) != domain.CodeDataLoss {
		t.Fatalf("the first leader never wrote that far: %v", err)
	}
}

// A reader sees only what was committed, and gets past the marker of what was not.
func TestReadCommitted(t *testing.T) {
	log, env := open(t)
	cfg := log.Config()
	txn, err := kgo.NewClient(append(cfg.ClientOpts(), kgo.TransactionalID(env.Prefix+"txn"), kgo.RequiredAcks(kgo.AllISRAcks()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Close()
	for i, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit, kgo.TryAbort} {
		if err := txn.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		r, err := cfg.NewRecord(&domain.Verdict{Viewer: person, ViewOffset: int64(i), ViewedAt: at, Received: at}, 0, at)
		if err != nil {
			t.Fatal(err)
		}
		if err := txn.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := txn.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	reader := readVerdicts(t, log)
	ends := endsAt(t, log, domain.TopicVerdicts, 6) // three records and three markers
	records := readTo(t, reader, ends[:1])
	if len(records) != 1 || !isVerdictOf(records[0], 1) || !records[0].Time.Equal(at.Truncate(time.Millisecond)) {
		t.Errorf("read %+v, want the committed verdict alone, with the gate's time", records)
	}
}

// endsAt waits until partition 0 of a topic ends there: a transaction's end is answered before its marker is written.
func endsAt(t *testing.T, log *eventlog.Log, topic domain.Topic, want int64) []domain.Position {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		ends, err := log.Ends(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case ends[0].NextOffset == want:
			return ends
		case ends[0].NextOffset > want || time.Now().After(deadline):
			t.Fatalf("the partition ends at %v, not %d", ends[0], want)
		}
	}
}

func isVerdictOf(r domain.Record, viewOffset int64) bool {
	v, ok := r.Event.(*domain.Verdict)
	return ok && v.ViewOffset == viewOffset
}

func TestGroupAssigns(t *testing.T) {
	log, _ := open(t)
	positions := appendViews(t, log, 50)
	a, err := log.JoinSource(t.Context(), "readers", domain.TopicViews)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	assigned(t, a.Group, partitions)
	if err := a.Commit(t.Context(), []domain.Position{positions[0].In().At(7)}); err != nil {
		t.Fatal(err)
	}
	b, err := log.JoinSource(t.Context(), "readers", domain.TopicViews)
	if err != nil {
		t.Fatal(err)
	}
	assigned(t, b.Group, 1)
	assigned(t, a.Group, partitions-1)
	committed, err := b.Committed(t.Context())
	if err != nil || len(committed) != 1 || committed[0] != positions[0].In().At(7) {
		t.Errorf("committed: %v %v", committed, err)
	}
	b.Close()
	assigned(t, a.Group, partitions)
	if parts, _ := a.Assignment(); parts[0].TopicID != positions[0].TopicID {
		t.Error("an assignment names another topic id than an append")
	}
}

func assigned(t *testing.T, g *eventlog.Group, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		parts, changed := g.Assignment()
		if len(parts) == n {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("assigned %v, want %d", parts, n)
		}
	}
}

func TestTopics(t *testing.T) {
	env := testenv.Kafka(t)
	log, err := eventlog.Open(eventlog.Config{Brokers: env.Brokers, Prefix: env.Prefix})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.CheckTopics(t.Context(), true); domain.CodeOf(err) != domain.CodeMisconfigured {
		t.Errorf("without topics: %v", err)
	}
	actions := func(steps []eventlog.TopicStep, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		n := map[eventlog.TopicAction]int{}
		for _, s := range steps {
			n[s.Action]++
		}
		return fmt.Sprint(n)
	}
	all := len(topics.All)
	if got := actions(log.PlanTopics(t.Context(), wanted)); got != fmt.Sprintf("map[create:%d]", all) {
		t.Errorf("the first plan: %s", got)
	}
	for range 2 { // apply is repeatable
		if _, err := log.ApplyTopics(t.Context(), wanted); err != nil {
			t.Fatal(err)
		}
	}
	if got := actions(log.PlanTopics(t.Context(), wanted)); got != fmt.Sprintf("map[ok:%d]", all) {
		t.Errorf("the plan after apply: %s", got)
	}
	if err := log.CheckTopics(t.Context(), true); err != nil {
		t.Errorf("after apply: %v", err)
	}
	if err := log.CheckTopics(t.Context(), false); err == nil || !strings.Contains(err.Error(), "replication 1") {
		t.Errorf("undurable topics: %v", err)
	}
	in, err := log.Installation(t.Context())
	if err != nil || in.Partitions[domain.TopicVerdicts] != partitions {
		t.Errorf("recorded: %+v %v", in, err)
	}

	// Another policy is noticed, and mended by apply.
	admin := kadm.NewClient(env.Client(t))
	week := "604800000"
	if _, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &week}}, env.Topic("verdicts")); err != nil {
		t.Fatal(err)
	}
	if err := log.CheckTopics(t.Context(), true); err == nil || !strings.Contains(err.Error(), "verdicts needs retention.ms=-1") {
		t.Errorf("a verdicts topic that forgets: %v", err)
	}
	if _, err := log.ApplyTopics(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	if err := log.CheckTopics(t.Context(), true); err != nil {
		t.Errorf("mended: %v", err)
	}

	// Another number of partitions is a person's decision.
	more := wanted
	more.Partitions++
	if _, err := log.ApplyTopics(t.Context(), more); domain.CodeOf(err) != domain.CodeMisconfigured {
		t.Errorf("more partitions: %v", err)
	}
	if _, err := admin.CreatePartitions(t.Context(), 1, env.Topic("views")); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second) // brokers tell each other of new partitions a little later
	for err = nil; err == nil && time.Now().Before(deadline); {
		err = log.CheckTopics(t.Context(), true)
	}
	if err == nil || !strings.Contains(err.Error(), "4 partitions and 3 are recorded") {
		t.Errorf("a topic that somebody widened: %v", err)
	}
}

// Without a broker every call says so in time, and none hangs.
func TestKafkaAway(t *testing.T) {
	log, err := eventlog.Open(eventlog.Config{Brokers: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := log.Append(ctx, view(1)); domain.CodeOf(err) != domain.CodeUnavailable {
		t.Errorf("append: %v", err)
	}
	if err := log.Ping(ctx); domain.CodeOf(err) != domain.CodeUnavailable {
		t.Errorf("ping: %v", err)
	}
	gone := errors.New("the caller left")
	ctx2, cancel2 := context.WithCancelCause(t.Context())
	cancel2(gone)
	if err := log.Follow(ctx2, domain.TopicTenants, nil, nil); !errors.Is(err, gone) {
		t.Errorf("follow: %v", err)
	}
}

// fake is a log on a broker that can be told to refuse.
func fake(t *testing.T) (*eventlog.Log, *kfake.Cluster) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	log, err := eventlog.Open(eventlog.Config{Brokers: c.ListenAddrs(), Prefix: "t-"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	if _, err := log.ApplyTopics(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	return log, c
}

// Who may not join a group gets no partitions, which looks like having nothing to do.
func TestGroupThatCannotBeJoined(t *testing.T) {
	log, c := fake(t)
	refusal := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.GroupAuthorizationFailed, TopLevel: true, Count: -1})
	g, err := log.JoinGroup(t.Context(), "gate", domain.TopicViews)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	until(t, "the group says why", func() bool { return domain.CodeOf(g.Err()) == domain.CodeUnavailable && g.Err() != nil })
	if !errors.Is(g.Err(), kerr.GroupAuthorizationFailed) {
		t.Error(g.Err())
	}
	refusal.Remove()
	until(t, "the group assigns", func() bool { parts, _ := g.Assignment(); return len(parts) == partitions })
	if err := g.Err(); err != nil {
		t.Error(err)
	}
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// A follower that gets nothing but errors pauses between them, and says so in the end.
func TestFollowGivesUp(t *testing.T) {
	log, c := fake(t)
	caught, done := make(chan struct{}), make(chan error, 1)
	var batches atomic.Int64
	go func() {
		done <- log.Follow(t.Context(), domain.TopicTenants, func(domain.Batch) error { batches.Add(1); return nil }, func() { close(caught) })
	}()
	<-caught
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	before := batches.Load()
	select {
	case err := <-done:
		if domain.CodeOf(err) != domain.CodeUnavailable {
			t.Errorf("%v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it follows nothing and does not say so")
	}
	if n := batches.Load() - before; n > 100 {
		t.Errorf("%d batches without a record", n)
	}
}
