// Package domain is what Seenby knows without any machinery: the events, how a key is spelled, the fold of a
// post, and the gate's judgement of a view.
//
// Everything here is pure. There is no clock, no I/O, no randomness and no context; a time or an id that a
// function needs is an argument. Whatever is decided here is therefore decided the same way again when the
// log is replayed.
package domain

import (
	"bytes"
	"cmp"
)

// TenantID names a customer app: 1 to 63 of a-z, 0-9 and "-", starting and ending with a letter or digit.
// It is part of every record key, every row and every query.
type TenantID string

// PostID is the app's own id of a post: 1 to 255 bytes of printable UTF-8.
type PostID string

// PersonKey stands for a person in immutable topics: the first 16 bytes of an HMAC-SHA-256 over the app's id
// under the tenant's own key (see NewPersonKey). Without that key it cannot be traced to anyone.
type PersonKey [16]byte

// ViewID is the client's id of one view, a UUID; unique per tenant and person.
type ViewID [16]byte

// EventID names one event of a post, a UUID made by the api.
type EventID [16]byte

// TopicID is the id that Kafka gives a topic at its creation; a topic made anew has another.
type TopicID [16]byte

// Topic is the name of a topic without the installation's prefix.
type Topic string

// The topics. Their partitions and policies stand in package topics.
const (
	TopicPosts       Topic = "posts"
	TopicAudiences   Topic = "audiences"
	TopicViews       Topic = "views"
	TopicVerdicts    Topic = "verdicts"
	TopicPeople      Topic = "people"
	TopicBodies      Topic = "bodies"
	TopicTenants     Topic = "tenants"
	TopicImpressions Topic = "impressions"
)

// Position is a place in a topic's partition: everything below NextOffset.
type Position struct {
	Topic      Topic
	TopicID    TopicID
	Partition  int32
	NextOffset int64
	Epoch      LeaderEpoch // of the record before NextOffset, where the position was read from records
}

// LeaderEpoch says under which leader of its partition a record was written: Kafka's number plus one, so that zero is
// "not known". An offset alone cannot tell that the log was cut behind it and has grown past it since, as after an
// unclean election; with the epoch Kafka can (KIP-320).
type LeaderEpoch int32

// LeaderEpochOf is of Kafka's number, which is -1 where it is not known.
func LeaderEpochOf(kafka int32) LeaderEpoch { return LeaderEpoch(kafka + 1) }

// Kafka is Kafka's number.
func (e LeaderEpoch) Kafka() int32 { return int32(e) - 1 }

// Partition names one partition of a topic as it was created.
type Partition struct {
	Topic     Topic
	TopicID   TopicID
	Partition int32
}

// At is the position in p before which everything below nextOffset lies.
func (p Partition) At(nextOffset int64) Position {
	return Position{Topic: p.Topic, TopicID: p.TopicID, Partition: p.Partition, NextOffset: nextOffset}
}

// In is the partition that the position lies in.
func (p Position) In() Partition {
	return Partition{Topic: p.Topic, TopicID: p.TopicID, Partition: p.Partition}
}

// ComparePartitions orders partitions by topic, id and number: the order in which everybody locks them.
func ComparePartitions(a, b Partition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), bytes.Compare(a.TopicID[:], b.TopicID[:]), cmp.Compare(a.Partition, b.Partition))
}
