package eventlog_test

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
)

// A range ends exactly where it is told to, before what comes behind it and behind an aborted transaction; what the log
// does not hold is data loss.
func TestReadRanges(t *testing.T) {
	log, env := open(t)
	ctx := t.Context()
	appendViews(t, log, 90)
	ends, err := log.Ends(ctx, domain.TopicViews)
	if err != nil {
		t.Fatal(err)
	}
	from, to, want := make([]domain.Position, partitions), make([]domain.Position, partitions), 0
	for i, end := range ends {
		from[i], to[i] = end.In().At(2), end.In().At(end.NextOffset-3)
		want += int(end.NextOffset) - 5
	}
	from[1] = to[1] // nothing to read
	want -= int(to[1].NextOffset) - 2
	next := map[int32]int64{0: 2, 2: 2}
	if err := log.ReadRanges(ctx, from, to, func(records []domain.Record) error {
		for _, r := range records {
			p := r.Partition.Partition
			if r.Offset != next[p] || r.Offset >= to[p].NextOffset {
				t.Errorf("%d@%d, want %d", p, r.Offset, next[p])
			}
			next[p]++
			want--
		}
		return nil
	}); err != nil || want != 0 {
		t.Errorf("%d records are missing: %v", want, err)
	}
	enough := errors.New("enough")
	if err := log.ReadRange(ctx, from[0], to[0].NextOffset, func([]domain.Record) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("apply's error: %v", err)
	}
	none := func(records []domain.Record) error { t.Errorf("gave %v", records); return nil }
	if err := log.ReadRange(ctx, from[0], ends[0].NextOffset+1, none); domain.CodeOf(err) != domain.CodeDataLoss {
		t.Errorf("beyond the end: %v", err)
	}

	client := env.Client(t, append(log.Config().ClientOpts(), kgo.TransactionalID(log.Config().TransactionalID("t")))...)
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		r, err := log.Config().NewRecord(&domain.Verdict{Viewer: person, ViewOffset: int64(i), Reason: domain.ReasonStale}, 0, time.Now())
		if err == nil {
			err = client.ProduceSync(ctx, r).FirstErr()
		}
		if err == nil {
			err = client.EndTransaction(ctx, end)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ends = endsAt(t, log, domain.TopicVerdicts, 4) // two records and two markers
	read := 0
	if err := log.ReadRange(ctx, ends[0].In().At(0), ends[0].NextOffset, func(records []domain.Record) error {
		read += len(records)
		return nil
	}); err != nil || read != 1 {
		t.Errorf("%d verdicts up to %d: %v", read, ends[0].NextOffset, err)
	}
}
