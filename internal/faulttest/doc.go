// Package faulttest breaks a whole installation and checks that nothing is lost and nothing counted twice. It holds
// tests alone.
//
// # In fake time
//
// TestSchedules runs seeded schedules: the real gates, projectors and keepers over a Kafka in memory (kfake), in the
// fake time of testing/synctest, where a session time-out of ten seconds costs nothing. A seed decides what an
// installation looks like, who reports what, and who dies where. The parts that would need a socket or a disk are
// replaced:
//
//   - connections are pipes (schedule_net_test.go), which can be slow, lose answers, and be cut at the moment before or
//     after any request: so a process dies between two steps of its work, as Kafka sees it;
//   - PostgreSQL is memStore (memstore_test.go), which understands the registered statements of the projections under
//     test and no other; TestMemStoreIsPostgres holds it to the real one;
//   - the projection of posts is postsModel (schedule_posts_test.go), which folds the log late, as it pleases.
//
// At the end everything is left alone until nothing moves, and the checker (schedule_check_test.go) compares what the
// apps know to be acknowledged, the log, and the rows. It judges with windows of its own, which share no code with
// the gate's memory.
//
// A seed decides all that the test decides, but not how goroutines take turns, so a failing seed is replayed a few
// times:
//
//	go test ./internal/faulttest -run TestSchedules -schedules.seed=N
//
// # Mutants
//
// mutant_test.go lists bugs that somebody could make. Each is applied to a copy of the source (go build -overlay),
// and TestMutants, under -mutants, runs the schedules against it until one fails. A mutant that survives means
// that the schedules prove nothing about it (docs/adr/0009).
package faulttest
