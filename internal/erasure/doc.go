// Package erasure knows who was erased, so that nobody names them again, and finishes what an erasure left undone.
//
// Marks is its main type: the Erased marks of the topic people, followed from the log and kept in memory, a few dozen
// bytes each. Each process that names people follows them.
//
// Guarantees. A mark and the person's name share a partition (package eventlog), so whoever reads it in order knows
// the mark before every name that came after it. Once a mark was read, ErasedAt says so for good, and the api appends
// no name. What can still go wrong leaves a mark or a name of an erased person with no tombstone behind it:
//
//   - an api that had not read the mark yet appends the name after the tombstone;
//   - the api that erases dies between mark and tombstone.
//
// Both are seen by every follower, at once or, since each reads the topic from its start, when the next one starts;
// and a follower appends the tombstone that is missing a moment later. A tombstone asks for nothing, so n followers
// append at most n for one such record and then rest. Compaction takes tombstones away some time after names: a
// mark without one is therefore taken as unfinished only for a week. If no follower runs for that long after an
// erasing api died, the name stays on the topic until the call is repeated, as its caller, who got no answer, was
// told to do; no read model shows it even then, since there the mark alone decides.
//
// It fails with CodeUnavailable while the topic was not read to the end asked at the start.
package erasure
