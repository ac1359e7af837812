package projections

import (
	"context"
	"fmt"

	"seenby/domain"
)

// A discard is recorded on the topic tenants before the letter goes. In between, a redrive could apply what the
// decision gives up, and no transaction spans the two. So the letter is marked first: whoever finds the mark leaves
// the letter to the discard, which can be run again until it is through.

var markLettersSQL = SQL("dead_letters.mark", `
UPDATE dead_letters d
SET discarding = true
WHERE d.projection = @projection AND d.version = @version AND d.topic_id = @topic_id AND d.partition = @partition
  AND d.record_offset = ANY(@offsets::bigint[])`)

// MarkDiscarding marks letters of a partition as being given up: from then on no redrive applies them, so that the
// decision can be recorded without a race. It tells whether all of them are there; if not, the caller rolls back.
func MarkDiscarding(ctx context.Context, tx Tx, m ReadModel, in domain.Partition, offsets []int64) (all bool, err error) {
	if _, err := lockPosition(ctx, tx, m, in); err != nil {
		return false, err
	}
	tag, err := tx.Exec(ctx, markLettersSQL, letterArgs(m, in, offsets))
	if err != nil {
		return false, fmt.Errorf("mark dead letters: %w", err)
	}
	return tag.RowsAffected() == int64(len(offsets)), nil
}

var deleteDiscardedSQL = SQL("dead_letters.delete_discarded", `
DELETE FROM dead_letters d
WHERE d.projection = @projection AND d.version = @version AND d.topic_id = @topic_id AND d.partition = @partition
  AND d.record_offset = ANY(@offsets::bigint[]) AND d.discarding`)

// DeleteDiscarded deletes letters whose discard is decided, and tells how many. Those that are not there were
// deleted by the same discard, run twice: nothing else takes a marked letter away.
func DeleteDiscarded(ctx context.Context, tx Tx, m ReadModel, in domain.Partition, offsets []int64) (int64, error) {
	if _, err := lockPosition(ctx, tx, m, in); err != nil {
		return 0, err
	}
	tag, err := tx.Exec(ctx, deleteDiscardedSQL, letterArgs(m, in, offsets))
	if err != nil {
		return 0, fmt.Errorf("delete discarded dead letters: %w", err)
	}
	return tag.RowsAffected(), nil
}
