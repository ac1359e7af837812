// Package verify recomputes the read models from the log and names what differs.
//
// Run is its main function. It takes one snapshot of the read models: the positions of their live versions, what is
// parked, and the rows. Then it reads the topics verdicts and views, partition by partition, exactly up to those
// positions, and folds them by itself: nothing of the projections is used but their Check, so that poison is left
// out as they left it out. At the end each post's counts and rows are compared.
//
// # What is compared
//
// A post's impressions, anonymous impressions and unique viewers are compared as sums, the rows that they are spread
// over and the viewer rows (first, last, times) by a digest: the sum of a 128-bit hash of each row. A sum does not
// depend on order, so the tables are read as they lie. Two sets of rows that differ have the same digest with odds of
// 2^-128 (the spread of counts: 2^-64), under seeds of the run's own: what one run missed, the next would find, and no
// app can aim at it.
//
// So are a post's imported counts: the read model of posts against the topic posts.
//
// On the way it holds the log to its promise: each record of views has one verdict, in order, in the partition of the
// same number, about the same viewer, id, post and times; an id counts once within the duplicate window of the limits
// that its verdict names; a view that is appended again names the undecided one that it repeats and keeps its times.
//
// # Memory
//
// One partition's pairs of post and viewer (50 to 90 bytes each) and its counted ids of two duplicate windows (20 to 40
// bytes) are held at a time, and the sums of all posts (about 200 bytes each).
//
// # How it fails
//
// A difference is no error: it stands in the Report. Errors are CodeDataLoss where the log does not hold what a
// position says, CodeMisconfigured for events of an unknown type, CodeUnavailable while Kafka or PostgreSQL is away.
package verify
