// Package gate decides about every view: it reads the topic views, and for each record writes one verdict to
// the partition of the same number of the topic verdicts, exactly once (DESIGN §2.2 to 2.4).
//
// # Ownership
//
// A consumer group assigns partitions and does nothing else. Each assigned partition has one worker
// (worker.go) with a Kafka client of its own, whose transactional id names the partition. Taking the
// partition over is InitProducerID under that id: it fences the predecessor and completes what that had left
// open. Only then is the log asked what stands in it (open.go), so nothing can be added behind our back:
//
//  1. the verdicts' high watermark, W; below it every transaction is complete;
//  2. the last committed verdict below W, found by stepping back from the end;
//  3. the offset of the verdicts' partition for that verdict's time less the longest window;
//  4. all verdicts from there to W, read committed, with control records kept: the record before W is a
//     transaction's marker, and no reader that hides markers could tell that it has passed W;
//  5. reading of views starts after the last verdict's view, else at 0.
//
// No group offset is ever read; what is committed each second is for lag tools. A log that does not hold the
// offset to start at is data loss: that partition stops for good and says so (Status), the others go on.
//
// # A batch
//
// Poll; decode; look up limits and posts; judge; and only then begin a transaction, produce the verdicts and
// commit (batch.go, transaction.go). Waiting for a look-up so never pins the last stable offset. The judgement is made in
// an overlay on the partition's memory. It is folded into the memory only after a commit that was answered
// without error. After anything else the client is thrown away and the partition opened anew: what the log
// holds then is the truth, whichever way the commit went. An error is never answered by an abort: an aborting
// client may ask for a new epoch, and a fenced one must not.
//
// # Look-ups
//
// One statement asks for the posts of a batch and for the viewers in their audiences. A positive answer of the
// read model stands and is cached for a second. A negative one is final only where the posts projection, in the
// same statement, had passed the end of the post's partition asked after the poll and, where a membership
// decides, of the member's partition, too (answers.go). The batch waits a little for that; then the view is
// undecided, and the keeper appends it again later. It comes back final, but for one case: a view whose post was
// unknown has not waited for a membership that the post then asks for, and is undecided once more. A look-up that
// fails pauses the partition until it works; it never decides.
//
// # What stops a partition, and what does not
//
// A record that cannot be decoded, or whose view fails its check, or whose tenant does not exist, gets the
// verdict malformed. An event of an unknown type stops the partition: a newer process wrote it. So does data
// loss. Everything else (Kafka away, fenced, a slow disk) is tried again with bounded backoff for as long as
// the group assigns the partition.
package gate
