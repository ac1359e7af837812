// Package rebuild makes a new version of a projection's read model from the log, beside the live one, proves that it says
// the same, and swaps it in.
//
// Run does it, in phases: load (read everything and fill tables without indexes), keys (build them), catch up (by the
// code of the ordinary projector), prove (both versions at one vector of positions, compared by checksums), swap. Each
// phase can be run again: all state is in PostgreSQL, in the tables rebuilds and read_model_versions and in the positions of
// the new version, so a process that dies leaves a rebuild that the next one goes on with. One process at a time works
// on a projection; a second one is refused, and one that was taken for dead writes nothing more.
//
// Until the swap nothing that readers see changes. It fails with CodeConflict where a person must decide (somebody else
// works on it, the versions differ, an event is poison that the live version holds), with CodeDataLoss where the log no
// longer starts where the projection needs it, and with CodeUnavailable where Kafka or PostgreSQL is away: then the
// same command goes on later.
package rebuild
