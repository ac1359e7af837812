// Package projector runs a projection: it follows the log and writes the read model, exactly once in effect.
//
// Projector is its main type; Run is its loop. A consumer group only assigns partitions; where to read is in
// PostgreSQL. One transaction holds the moved positions (compared and set first, so that a projector that
// lost a partition writes nothing), the rows, and the dead letters (see projections.Write). After any error
// nothing is assumed: the positions are read again and reading starts there, so that a lost answer to COMMIT
// repeats nothing.
//
// How it fails: what may pass (CodeUnavailable, CodePositionBehind) is tried again with a bounded back-off, for
// ever, since nothing is lost by waiting. More dead letters than allowed (CodeTooLarge) let it stand still until an
// operator has redriven or discarded some; then it goes on by itself. Everything else ends Run with an error that
// names what to look at: a position that the log no longer holds (CodeDataLoss), an event of an unknown type
// (CodeMisconfigured), or data that only PostgreSQL refused (CodeInternal).
//
// Beside the loop, each second, it asks the log's ends. What they were at a known time tells, once they are
// reached, to which time the read model is complete; that advances on a silent log too.
package projector
