// Package eventlog keeps Seenby's events in Kafka: it maps domain events to their wire form (wire.go), appends
// them (append.go), reads them from explicit positions (reader.go), lets consumer groups assign partitions
// (group.go) and compares the topics with their specs (admin.go).
//
// Guarantees: Append answers only after acks=all. A reader is read-committed, starts exactly where it is told
// and never jumps: a position below the log's start, a log that ends before it, or a topic made anew is a
// CodeDataLoss error. Consumer groups only assign; their committed offsets are written for lag tools, and only
// the keeper reads its own, as a hint.
package eventlog
