// Package embedded runs what `seenby dev` and the tests need where nothing is installed: a Kafka broker in this
// process (StartKafka: franz-go's kfake on disk) and a PostgreSQL server in a child process (StartPostgres).
//
// It owns their directories, each held by one process at a time (LockDir). Guarantees: an acknowledged record
// and a committed row survive kill -9 of this process and a restart; a transaction that was open then is
// aborted, for ever; ports, passwords and the major version of PostgreSQL stay the same over restarts; no
// PostgreSQL outlives this process by more than its shutdown.
//
// # The broker
//
// kfake keeps its log on disk, but three things it leaves to chance over a crash are put right on start
// (kafka_repair.go): a batch whose index entry was not written, log files with a torn tail, and transactions
// that were open. Left for dev to live with: a transaction over several partitions is not atomic over a crash
// (ours each have one), message.timestamp.type=LogAppendTime is accepted and not obeyed (the timestamp is the
// producer's), nothing is compacted or expired, and a start reads the whole log. It has no authentication and so
// listens on loopback only.
//
// # The supervisor
//
// PostgreSQL refuses to run as root, and must not be left behind by a process that is killed. So this binary
// starts itself again as a supervisor: whoever calls StartPostgres calls SupervisorMain first thing in main (or
// TestMain). The supervisor drops root, takes over from a predecessor that has not finished, runs initdb where
// there is no data yet, runs postgres, and stops it when its own standard input ends, which the kernel sees to
// however the parent dies. When the supervisor itself is killed, the kernel interrupts postgres (Linux).
//
// As root the server runs as the user who owns the data, at first uid 65534. Where that user cannot reach the
// directory by its path (below a private home, say), the supervisor hands it down as an open descriptor: the
// data stays where it was asked for, and no permission is widened.
//
// # Failure
//
// Starting fails with an error that names the directory, the process or the file in the way and what to do; one
// from PostgreSQL carries the end of its log. A server that ends later closes Postgres.Done.
package embedded
