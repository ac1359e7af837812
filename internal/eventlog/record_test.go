package eventlog_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/topics/eventspb"
)

func unmarshal(t *testing.T, e domain.Event) *eventspb.Event {
	t.Helper()
	_, value, err := eventlog.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	var m eventspb.Event
	if err := proto.Unmarshal(value, &m); err != nil {
		t.Fatal(err)
	}
	return &m
}

// The hashes are the test vectors of Kafka's own client: a key may never move.
func TestPartitionOf(t *testing.T) {
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		for _, n := range []int32{1, 12, 48} {
			if got, want := eventlog.PartitionOf([]byte(key), n), (hash&0x7fffffff)%n; got != want {
				t.Errorf("%q of %d: %d, want %d", key, n, got, want)
			}
		}
	}
	// And keys of ours, over both partition counts.
	for _, c := range []struct {
		key        []byte
		of12, of48 int32
	}{
		{post.Key(), 4, 28},
		{person.Key(), 5, 5},
	} {
		if of12, of48 := eventlog.PartitionOf(c.key, 12), eventlog.PartitionOf(c.key, 48); of12 != c.of12 || of48 != c.of48 {
			t.Errorf("%q: %d of 12 and %d of 48, want %d and %d", c.key, of12, of48, c.of12, c.of48)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	key, value, err := eventlog.Encode(examples["PostPublished.v1"])
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		topic      domain.Topic
		key, value []byte
		want       string
	}{
		"garbage":                {domain.TopicPosts, key, []byte("not an event"), "no event"},
		"a key without a tenant": {domain.TopicPosts, []byte("demo"), value, "key"},
		"another topic":          {domain.TopicViews, key, value, "belongs on topic posts"},
		"a stray tombstone":      {domain.TopicPosts, key, nil, "tombstone"},
		"a short event id":       {domain.TopicPosts, key, shorten(t, value), "id"},
	} {
		_, err := eventlog.Decode(c.topic, c.key, c.value)
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, domain.ErrUnknownEvent) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}

func shorten(t *testing.T, value []byte) []byte {
	t.Helper()
	var m eventspb.Event
	if err := proto.Unmarshal(value, &m); err != nil {
		t.Fatal(err)
	}
	m.GetPostPublished().EventId = []byte{1, 2, 3}
	out, err := proto.Marshal(&m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// An older process must stop at what a newer one wrote, not take it for poison.
func TestDecodeUnknown(t *testing.T) {
	newer := []byte{0xaa, 0x1f, 0x01, 0x00} // field 501, a message
	if _, err := eventlog.Decode(domain.TopicViews, person.Key(), newer); !errors.Is(err, domain.ErrUnknownEvent) {
		t.Errorf("an unknown kind: %v", err)
	}
	m := unmarshal(t, examples["ViewRefused.v1"])
	m.GetViewRefused().Reason = 99
	value, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := eventlog.Decode(domain.TopicVerdicts, person.Key(), value); !errors.Is(err, domain.ErrUnknownEvent) {
		t.Errorf("an unknown reason: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range examples {
		key, value, err := eventlog.Encode(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(eventlog.TopicOf(e)), key, value)
	}
	f.Fuzz(func(t *testing.T, topic string, key, value []byte) {
		e, err := eventlog.Decode(domain.Topic(topic), key, value)
		if err != nil {
			return
		}
		// What decodes must encode again, and to the same event.
		key2, value2, err := eventlog.Encode(e)
		if err != nil {
			t.Fatalf("%#v: %v", e, err)
		}
		if _, err := eventlog.Decode(domain.Topic(topic), key2, value2); err != nil {
			t.Fatalf("%#v was encoded to what does not decode: %v", e, err)
		}
	})
}

func TestRecordHeaders(t *testing.T) {
	cfg := eventlog.Config{Prefix: "eu."}
	r, err := cfg.NewRecord(examples["ViewReported.v1"], 3, at)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"ce_specversion": "1.0", "ce_id": "aa010203-0405-4607-8809-0a0b0c0d0e0f", "ce_type": "seenby.ViewReported.v1",
		"ce_source": "/seenby/demo", "ce_time": at.Format(time.RFC3339Nano),
	}
	for _, h := range r.Headers {
		if want[h.Key] != string(h.Value) {
			t.Errorf("%s: %q, want %q", h.Key, h.Value, want[h.Key])
		}
		delete(want, h.Key)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	if r.Topic != "eu.views" || r.Partition != 3 || !r.Timestamp.Equal(at) {
		t.Errorf("topic %s, partition %d, time %v", r.Topic, r.Partition, r.Timestamp)
	}
}
