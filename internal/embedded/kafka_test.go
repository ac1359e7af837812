package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func startKafka(t *testing.T, dir string) *Kafka {
	t.Helper()
	k, err := StartKafka(t.Context(), KafkaOptions{DataDir: dir, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func client(t *testing.T, k *Kafka, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(k.Brokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(20*time.Millisecond), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// readCommitted returns the values of a partition that a read-committed reader gets up to its end, in order.
func readCommitted(t *testing.T, k *Kafka, topic string) []string {
	t.Helper()
	cl := client(t, k, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(0)}}))
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	highs, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, 0)
	if high, _ := highs.Lookup(topic, 0); high.Offset != end.Offset {
		t.Fatalf("last stable offset of %s is %d, high watermark %d: a transaction is open", topic, end.Offset, high.Offset)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var values []string
	for next := int64(0); next < end.Offset; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("read %s from %d to %d: %v", topic, next, end.Offset, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				values = append(values, string(r.Value))
			}
		})
	}
	return values
}

// helperKafka produces to "plain", and in transactions to "txn", for as long as it lives, and says what was
// acknowledged. Every third transaction it aborts.
func helperKafka() error {
	ctx := context.Background()
	k, err := StartKafka(ctx, KafkaOptions{DataDir: os.Getenv("DIR")})
	if err != nil {
		return err
	}
	run := os.Getenv("RUN")
	newClient := func(opts ...kgo.Opt) *kgo.Client {
		cl, cerr := kgo.NewClient(append(opts, kgo.SeedBrokers(k.Brokers()...), kgo.ProducerLinger(0),
			kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		err = errors.Join(err, cerr)
		return cl
	}
	plain, txn := newClient(), newClient(kgo.TransactionalID("gate-0"), kgo.TransactionTimeout(6*time.Second))
	if err != nil {
		return err
	}
	_, err = kadm.NewClient(plain).CreateTopics(ctx, 1, 1, nil, "plain", "txn")
	if err != nil {
		return err
	}
	if _, _, err := txn.ProducerID(ctx); err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() {
		for i := 0; ; i++ {
			v := fmt.Sprintf("%s-%d", run, i)
			if err := plain.ProduceSync(ctx, &kgo.Record{Topic: "plain", Value: []byte(v)}).FirstErr(); err != nil {
				failed <- err
				return
			}
			fmt.Println("plain", v)
		}
	}()
	go func() {
		for i := 0; ; i++ {
			commit := kgo.TransactionEndTry(i%3 != 2)
			err := txn.BeginTransaction()
			for j := range 3 {
				v := fmt.Sprintf("%s-%d.%d", run, i, j)
				if !commit {
					v = "aborted"
				}
				err = errors.Join(err, txn.ProduceSync(ctx, &kgo.Record{Topic: "txn", Value: []byte(v)}).FirstErr())
			}
			// Said before: the answer to a commit may be what the kill takes away.
			fmt.Println("try", fmt.Sprintf("%s-%d", run, i))
			if err = errors.Join(err, txn.EndTransaction(ctx, commit)); err != nil {
				failed <- err
				return
			}
			if commit {
				fmt.Println("txn", fmt.Sprintf("%s-%d", run, i))
			}
		}
	}()
	if until := os.Getenv("UNTIL"); until == "stdin" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return k.Close()
	}
	return <-failed
}

// Whatever was acknowledged is there after each of several kills, once and in order; whatever was not is there
// whole or not at all; and what was aborted, by the client or by the kill, stays so over later kills.
func TestKafkaSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	var plain, txns []string
	tried := make(map[string]bool)
	for run := range 4 {
		h := startHelper(t, "kafka", 0, "DIR="+dir, "RUN="+strconv.Itoa(run))
		note := func(line string) {
			kind, v, _ := strings.Cut(line, " ")
			switch kind {
			case "plain":
				plain = append(plain, v)
			case "txn":
				txns = append(txns, v)
			case "try":
				tried[v] = true
			default:
				t.Fatalf("helper: %s", line)
			}
		}
		for atLeast := len(txns) + 20; len(txns) < atLeast; {
			line, ok := <-h.lines
			if !ok {
				t.Fatal("helper ended by itself")
			}
			note(line)
		}
		h.kill()
		for line := range h.lines {
			note(line)
		}
	}
	k := startKafka(t, dir)

	got := readCommitted(t, k, "plain")
	i := 0
	for _, v := range got {
		if i < len(plain) && v == plain[i] {
			i++
		}
	}
	if i < len(plain) {
		t.Errorf("of %d acknowledged records %q is missing or out of order among %d", len(plain), plain[i], len(got))
	}
	if extra := len(got) - len(plain); extra > 4 { // one unanswered by each kill
		t.Errorf("%d records more than acknowledged", extra)
	}

	got = readCommitted(t, k, "txn")
	seen := make(map[string]bool)
	i = 0
	for len(got) > 0 {
		id, _, _ := strings.Cut(got[0], ".")
		if want := []string{id + ".0", id + ".1", id + ".2"}; len(got) < 3 || strings.Join(got[:3], " ") != strings.Join(want, " ") {
			t.Fatalf("transaction %s is not whole: %q", id, got[:min(len(got), 3)])
		}
		if seen[id] || !tried[id] {
			t.Errorf("transaction %s: seen before %v, tried %v", id, seen[id], tried[id])
		}
		seen[id] = true
		if i < len(txns) && id == txns[i] {
			i++
		}
		got = got[3:]
	}
	if i < len(txns) {
		t.Errorf("of %d committed transactions %q is missing or out of order", len(txns), txns[i])
	}
}

// The second crash is the one that kfake alone gets wrong: it has no marker for what the first one aborted.
func TestKafkaOpenTransactionStaysAborted(t *testing.T) {
	dir := t.TempDir()
	crash := func(t *testing.T, produce func(k *Kafka)) {
		t.Helper()
		k, err := StartKafka(t.Context(), KafkaOptions{DataDir: dir, Logger: testLogger(t)})
		if err != nil {
			t.Fatal(err)
		}
		produce(k)
		// As a kill leaves it: the files as they are now.
		next := t.TempDir()
		if err := os.CopyFS(next, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		_ = k.Close()
		dir = next
	}
	produce := func(k *Kafka, value string) *kgo.Client {
		cl := client(t, k, kgo.TransactionalID("gate-0"))
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		return cl
	}
	crash(t, func(k *Kafka) {
		if _, err := kadm.NewClient(client(t, k)).CreateTopics(t.Context(), 1, 1, nil, "t"); err != nil {
			t.Fatal(err)
		}
		produce(k, "open")
	})
	crash(t, func(k *Kafka) {
		if err := produce(k, "kept").EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		if got := readCommitted(t, k, "t"); len(got) != 1 || got[0] != "kept" {
			t.Errorf("after one crash: %q, want only what was committed", got)
		}
	})
	k := startKafka(t, dir)
	if got := readCommitted(t, k, "t"); len(got) != 1 || got[0] != "kept" {
		t.Errorf("after two crashes: %q, want only what was committed", got)
	}
}

func TestKafkaRepairsTails(t *testing.T) {
	dir := t.TempDir()
	k := startKafka(t, dir)
	cl := client(t, k, kgo.TransactionalID("gate-0"))
	if _, err := kadm.NewClient(cl).CreateTopics(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	commit := func(cl *kgo.Client, value string, end kgo.TransactionEndTry) {
		t.Helper()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	commit(cl, "kept", kgo.TryCommit)
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("lost")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	next := t.TempDir()
	if err := os.CopyFS(next, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	// A kill between the batch and its index entry, and one in the middle of a producer's entry.
	part := filepath.Join(next, "partitions", "t-0")
	idx := filepath.Join(part, "0.idx")
	if err := os.Truncate(idx, 2*indexEntryBytes+7); err != nil {
		t.Fatal(err)
	}
	appendFile(t, filepath.Join(part, "0.dat"), bytes.Repeat([]byte{1}, 100))
	appendFile(t, filepath.Join(next, "pids.log"), []byte{200, 0, 0, 0, 1, 2, 3, 4, 1, 0, '{'})

	k = startKafka(t, next)
	if got := readCommitted(t, k, "t"); len(got) != 1 || got[0] != "kept" {
		t.Errorf("after the crash: %q, want only what was committed", got)
	}
	cl = client(t, k, kgo.TransactionalID("gate-0"))
	commit(cl, "aborted", kgo.TryAbort)
	commit(cl, "later", kgo.TryCommit)
	_, epoch, err := cl.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	third := t.TempDir()
	if err := os.CopyFS(third, os.DirFS(next)); err != nil {
		t.Fatal(err)
	}
	k = startKafka(t, third)
	if got := readCommitted(t, k, "t"); strings.Join(got, " ") != "kept later" {
		t.Errorf("after the second crash: %q", got)
	}
	_, epochNow, err := client(t, k, kgo.TransactionalID("gate-0")).ProducerID(t.Context())
	if err != nil || epochNow <= epoch {
		t.Errorf("epoch after the second crash is %d (%v), was %d: predecessors are not fenced", epochNow, err, epoch)
	}
}

func appendFile(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestKafkaFencesAcrossRestart(t *testing.T) {
	dir := t.TempDir()
	k := startKafka(t, dir)
	admin := kadm.NewClient(client(t, k))
	if _, err := admin.CreateTopics(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	zombie := client(t, k, kgo.TransactionalID("gate-0"))
	if err := zombie.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := zombie.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("zombie")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k = startKafka(t, dir)
	if _, _, err := client(t, k, kgo.TransactionalID("gate-0")).ProducerID(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := zombie.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("zombie")}).FirstErr()
	if !errors.Is(err, kerr.InvalidProducerEpoch) && !errors.Is(err, kerr.ProducerFenced) {
		t.Errorf("produce of the fenced predecessor: %v", err)
	}
	if got := readCommitted(t, k, "t"); len(got) != 0 {
		t.Errorf("read %q of a transaction that was never committed", got)
	}
}

func TestKafkaAddress(t *testing.T) {
	dir := t.TempDir()
	k := startKafka(t, dir)
	addr := k.Brokers()[0]

	_, err := StartKafka(t.Context(), KafkaOptions{DataDir: dir})
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("second start: %v, want a LockedError", err)
	}

	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k = startKafka(t, dir)
	if got := k.Brokers()[0]; got != addr {
		t.Errorf("address after a restart is %s, was %s", got, addr)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}

	other, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	k = startKafka(t, dir)
	if got := k.Brokers()[0]; got == addr {
		t.Errorf("address is %s, which another process has", got)
	}
	if _, err := kadm.NewClient(client(t, k)).ListTopics(t.Context()); err != nil {
		t.Error(err)
	}

	for _, bad := range []string{"0.0.0.0:0", addr, "nonsense"} {
		if k, err := StartKafka(t.Context(), KafkaOptions{DataDir: t.TempDir(), Addr: bad}); err == nil {
			t.Errorf("address %q is accepted", bad)
			_ = k.Close()
		}
	}
}
