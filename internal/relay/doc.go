// Package relay tells the core system, which owns the posts, what Seenby counts: by values on the topic impressions, and by
// calls of the tenants' endpoints.
//
// Relay is its main type. What it tells of a post is absolute and carries a revision that only rises, so whoever keeps the
// highest revision is right, however often and in whichever order values come.
//
// # Who tells a post
//
// A consumer group assigns the partitions of impressions, and a post's partition has one owner (owning.go). It opens the
// partition as a gate does: a transactional id fences the predecessor, what stands in the partition is folded into
// relay_counts (state.go), and only then is anything written. The topic is the truth: a lost database gets revisions and milestones back from it.
//
// # What is told, and when
//
// Verdicts and imported counts only mark posts (marks.go): every relay reads all verdicts, since a post's views lie in all
// partitions, and keeps the marks of its own posts. Each round (teller.go) takes one snapshot. It names the positions of the
// live read models; marks that they have passed make their posts due; the counts of what is due are read from the same
// snapshot, compared with what was told (domain.Tell), and what differs is written: first to the topic, one transaction per
// partition, then to the tables. The tables' own write is compared and set on the partition's offset; where it fails, the
// partition is opened anew and folds its own records from the topic. A post is told at most once a second.
//
// Below which offsets every mark was told is written down each second. Where it is not known, at the first start, and after a
// swap of read models, every post is looked at instead (sweep.go), which is silent where nothing changed. While a read
// model is filled again, it is behind what was told, and its posts wait.
//
// # Calls
//
// Each enabled endpoint of a tenant whose relay is enabled has one sender in each relay, for the posts of its partitions, and
// one call of it under way at most (delivery.go). What it is sent next is read from relay_counts: the posts whose last record
// lies behind the endpoint's cursor. So a receiver that was away for a day gets each post once, as it stands then. An
// endpoint that fails is left alone, longer each time, and disabled after a day without one call that worked; a post that it
// refuses is parked, and the others go on. One endpoint never waits for another.
//
// # How it fails
//
// While Kafka or PostgreSQL is away counts wait, and Ready says so. Data loss on the topic impressions stops that partition
// alone. An endpoint's failure is no fault of the relay's: it shows in relay_endpoints and in the metrics.
package relay
