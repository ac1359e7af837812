// Package topics says which topics an installation has: their names, keys, partitions and policies, as data.
// The events they hold are in events.proto; the package eventspb is generated from it (make proto).
//
// Package eventlog compares these specs with a cluster and creates what is missing.
package topics

import (
	"math"
	"strconv"
	"time"

	"seenby/domain"
)

// Spec is what a topic must be.
type Spec struct {
	Name    domain.Topic
	Key     string // the parts of the record key, for people
	Holds   string // for people
	Configs map[string]string
}

// Partition counts. More partitions would move keys, so a count is chosen once, at creation.
const (
	PartitionsDev  = 12
	PartitionsProd = 48
	PartitionsMax  = 1024 // each costs the gate a client, and its memory
)

// Durability that services outside dev insist on, unless --allow-undurable.
const (
	ReplicationMin       = 3
	MinInsyncReplicasMin = 2
)

// Erasure on a compacted topic is complete once the segment of the old record was rolled and compacted: a day
// for each.
const compactedDaily = 24 * time.Hour

// appended: the broker gives a record its time, so no client's clock gets into the log.
func appended(configs map[string]string) map[string]string {
	configs["message.timestamp.type"] = "LogAppendTime"
	return configs
}

// timedByGate: a verdict's time is its partition time. Kafka would refuse one that is more than an hour ahead of
// the broker's clock, and one jump of that clock would stop the gate until it is past.
func timedByGate(configs map[string]string) map[string]string {
	configs["message.timestamp.type"] = "CreateTime"
	configs["message.timestamp.after.max.ms"] = strconv.FormatInt(math.MaxInt64, 10)
	return configs
}

// keptForEver: the log is the only truth, so no broker default may shorten it.
func keptForEver() map[string]string {
	return map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
}

func compacted() map[string]string {
	day := strconv.FormatInt(compactedDaily.Milliseconds(), 10)
	return map[string]string{"cleanup.policy": "compact", "segment.ms": day, "max.compaction.lag.ms": day, "retention.ms": "-1"}
}

// All lists every topic. A verdict stands in the partition of the same number as its view, so all topics of
// an installation have the same number of partitions.
var All = []Spec{
	{domain.TopicPosts, "tenant, post", "PostPublished, PostEdited, PostDeleted, CountsImported", appended(keptForEver())},
	{domain.TopicAudiences, "tenant, audience, person", "AudienceMemberAdded, AudienceMemberRemoved", appended(keptForEver())},
	{domain.TopicViews, "tenant, person", "ViewReported", appended(keptForEver())},
	{domain.TopicVerdicts, "tenant, person", "ViewCounted, ViewRefused", timedByGate(keptForEver())},
	{domain.TopicPeople, "tenant, person", "PersonNamed, PersonErased", appended(compacted())},
	{domain.TopicBodies, "tenant, post, event id", "PostBodyWritten", appended(compacted())},
	{domain.TopicTenants, "tenant, kind, id", "TenantCreated, LimitsSet, KeyIssued, PartitionsRecorded, ...", appended(compacted())},
	{domain.TopicImpressions, "tenant, post", "ImpressionsChanged", appended(compacted())},
}
