package eventlog

import (
	"encoding/hex"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
)

// Every record carries the CloudEvents attributes as headers (the Kafka binding's binary form), so that other
// tools can route without decoding. Reading needs none of them: the value says what it is.
const (
	ceSpecVersion = "1.0"
	ceTypePrefix  = "seenby."
	ceTypeSuffix  = ".v1"
	ceSource      = "/seenby/"
)

// NewRecord makes the record of an event for a partition. at becomes the record's timestamp and ce_time; zero
// leaves both to Kafka. The caller's client must use the manual partitioner (Config.ClientOpts).
func (c Config) NewRecord(e domain.Event, partition int32, at time.Time) (*kgo.Record, error) {
	key, value, err := Encode(e)
	if err != nil {
		return nil, err
	}
	r := &kgo.Record{Topic: c.TopicName(TopicOf(e)), Partition: partition, Key: key, Value: value, Timestamp: at}
	if value == nil {
		return r, nil // a tombstone: there is no event to describe
	}
	tenant, _, _ := domain.SplitTenant(key)
	r.Headers = make([]kgo.RecordHeader, 0, 5)
	r.Headers = append(r.Headers,
		kgo.RecordHeader{Key: "ce_specversion", Value: []byte(ceSpecVersion)},
		kgo.RecordHeader{Key: "ce_id", Value: []byte(ceID(e, key, partition))},
		kgo.RecordHeader{Key: "ce_type", Value: []byte(ceTypePrefix + e.EventType() + ceTypeSuffix)},
		kgo.RecordHeader{Key: "ce_source", Value: []byte(ceSource + string(tenant))},
	)
	if !at.IsZero() {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "ce_time", Value: at.UTC().AppendFormat(nil, time.RFC3339Nano)})
	}
	return r, nil
}

// ceID names the event within its source. A verdict is named by the place of its view; what stands once per
// key is named by its key.
func ceID(e domain.Event, key []byte, partition int32) string {
	switch e := e.(type) {
	case domain.PostEvent:
		return uuid.UUID(e.ID()).String()
	case domain.PostBodyWritten:
		return uuid.UUID(e.EventID).String()
	case domain.AudienceMemberAdded:
		return uuid.UUID(e.EventID).String()
	case domain.AudienceMemberRemoved:
		return uuid.UUID(e.EventID).String()
	case domain.ViewReported:
		return uuid.UUID(e.ViewID).String()
	case *domain.Verdict:
		return strconv.Itoa(int(partition)) + "-" + strconv.FormatInt(e.ViewOffset, 10)
	}
	return hex.EncodeToString(key)
}

// PartitionOf is the partition of a key: murmur2 as Kafka's own producers hash, over the partition count that
// was recorded when the topics were made.
func PartitionOf(key []byte, partitions int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % partitions //nolint:gosec // masked to 31 bits
}

// placedBy is what decides a record's partition: its key. An Erased mark goes by the key of the person's name, whose
// partition it shares, so that whoever reads that in order knows the mark before any name that comes after it.
func placedBy(e domain.Event, key []byte) []byte {
	if erased, ok := e.(domain.PersonErased); ok {
		return erased.Ref.Key()
	}
	return key
}

// murmur2 is Kafka's variant (seed 0x9747b28c, little-endian words).
func murmur2(b []byte) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
		r           = 24
	)
	h := seed ^ uint32(len(b)) //nolint:gosec // keys are short
	for len(b) >= 4 {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		b = b[4:]
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
