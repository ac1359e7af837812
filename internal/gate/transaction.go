package gate

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// judged is a verdict on its way to the log.
type judged struct {
	verdict *domain.Verdict
	at      time.Time // partition time, which becomes the record's
	key     []byte    // of the view's record: the verdict stands under the same, even where it says nothing
}

// commitPatience is what a commit takes beyond the transaction's own time-out before its outcome counts as
// unknown: a controller or leader election may lie in between.
const commitPatience = 4 * time.Second

// commit writes the verdicts in one transaction. Without an error they stand in the log for certain; with one
// nobody knows, and the client is good for nothing but Close. The end of ctx does not interrupt it: an
// unanswered commit would cost the successor a wait.
func (s *session) commit(ctx context.Context, verdicts []judged) error {
	ctx, cancel := detached(ctx, s.w.g.cfg.TransactionTimeout+commitPatience)
	defer cancel()
	begun := time.Now()
	kafka := s.w.g.cfg.Kafka
	records := make([]*kgo.Record, len(verdicts))
	reasons := map[domain.Reason]int{}
	for i, v := range verdicts {
		r, err := kafka.NewRecord(v.verdict, s.w.part.Partition, v.at)
		if err != nil {
			// A defect, not bad input: everything in a verdict was checked. Stop rather than try for ever.
			return domain.Errorf(domain.CodeMisconfigured, "the verdict of view %d cannot be encoded", v.verdict.ViewOffset).Because(err)
		}
		r.Key = v.key
		records[i] = r
		reasons[v.verdict.Reason]++
	}
	if err := s.client.BeginTransaction(); err != nil {
		return unavailable("begin a transaction", err)
	}
	if err := eventlog.Produce(ctx, s.client, records); err != nil {
		// Ending this transaction could look like success: with nothing written there is nothing to end.
		return unavailable("write verdicts", err)
	}
	if err := s.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return unavailable("commit verdicts", err)
	}
	hooks := s.w.g.deps.Hooks
	if hooks.Committed != nil {
		hooks.Committed(len(verdicts), time.Since(begun))
	}
	if hooks.Verdicts != nil {
		for reason, n := range reasons {
			hooks.Verdicts(reason, n)
		}
	}
	return nil
}
