// Package keeper brings undecided views to their end (DESIGN §2.4), and refused ones that are to be judged again.
//
// The gate answers undecided where the read model says no but has not read all that was written before the
// view. The keeper follows the topic verdicts, and once the read model has passed what such a verdict waits
// for, it appends the view to the topic views again, with its original times. The gate judges it anew, and its
// negative is then the last word.
//
// # State
//
// Per partition, the ledger holds the undecided verdicts that nothing has resolved yet. A later verdict that
// readmits the same view offset resolves one, and so does a counted verdict of the same viewer and id. All of
// it is a fold of the log. The group's committed offset is that of the oldest unresolved undecided verdict: a
// hint where to start reading, never a proof. Where it is lost, reading starts at 0 and ends the same.
//
// # Before it appends
//
// Settled in the read model is not enough: another keeper, this one before a crash, or the app itself may
// have brought the view in again. So, per partition: ask the end of views, E; read verdicts until that of view
// E-1 is folded; what is unresolved then was in nobody's hands when E was asked; append that, within a minute
// of asking. A view that somebody else appends after E is a second record of one id, which the gate's memory
// refuses as a duplicate: it looks back over more than a day. Two keepers at once therefore cost records, not
// counts. An append whose answer is lost is proven anew, with an E asked after it.
//
// # Bounds
//
// A ledger holds at most PendingMax verdicts. At that limit further undecided verdicts are passed over, not
// remembered, while reading goes on: without reading nothing could be proven and the ledger would never empty.
// Once half of it is free, reading returns to the first one passed over. Views whose key has dead letters wait
// in the ledger until an operator redrives or discards those; PendingMax of them in one partition hold up the
// rest of that partition's undecided views, which Ready says.
//
// # Refused views
//
// Readmit does the same for views that were refused for good and that an operator has judged again: they wait for nothing,
// and what resolves them is the same. It works on all partitions, has no hint, and ends when all have their new verdict.
//
// # Erased texts
//
// A text stands on the compacted topic bodies until its tombstone. The posts projection marks those whose event is
// void or whose post is deleted, and forgets them when it reads the tombstone, so what is marked is all that there
// is to know: the keeper of partition 0 appends a tombstone for each, waits until the projection has passed them,
// and looks again.
//
// While the posts projection or PostgreSQL is away nothing is settled, and the keeper waits.
package keeper
