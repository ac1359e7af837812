package eventlog_test

import (
	"fmt"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// changes are n values of one post, whose partition is part's.
func changes(part domain.Partition, from, n int) (events []domain.Event) {
	for i := range n {
		for salt := 0; ; salt++ {
			post := domain.PostKey{Tenant: "demo", Post: domain.PostID(fmt.Sprintf("p%d-%d", i, salt))}
			if eventlog.PartitionOf(post.Key(), partitions) == part.Partition {
				events = append(events, domain.ImpressionsChanged{PostRef: post, Impressions: int64(from + i), Revision: int64(from + i + 1), AsOf: time.UnixMicro(7).UTC()})
				break
			}
		}
	}
	return events
}

// Offsets are those of the records; whoever takes a partition over fences the one before, sees all that it wrote, and
// nothing of what it writes later.
func TestWriter(t *testing.T) {
	log, _ := open(t)
	ctx := t.Context()
	parts, err := log.Partitions(ctx, domain.TopicImpressions)
	if err != nil {
		t.Fatal(err)
	}
	part := parts[1]
	written := map[int64]domain.Event{}
	commit := func(w *eventlog.Writer, events []domain.Event) {
		t.Helper()
		offsets, err := w.Commit(ctx, events)
		if err != nil || len(offsets) != len(events) {
			t.Fatalf("%d offsets of %d events: %v", len(offsets), len(events), err)
		}
		for i, offset := range offsets {
			written[offset] = events[i]
		}
	}
	openWriter := func() *eventlog.Writer {
		t.Helper()
		w, err := log.OpenWriter(ctx, "relay", part)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Close)
		return w
	}
	first := openWriter()
	commit(first, changes(part, 0, 1))
	commit(first, changes(part, 10, 5))
	other, err := log.OpenWriter(ctx, "relay", parts[2])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	commit(first, changes(part, 20, 3)) // the writer of another partition fences nobody

	second := openWriter()
	ends, err := log.Ends(ctx, domain.TopicImpressions)
	if err != nil {
		t.Fatal(err)
	}
	for offset := range written {
		if end := ends[1].NextOffset; offset >= end {
			t.Errorf("offset %d of the one before is not below %d", offset, end)
		}
	}
	if offsets, err := first.Commit(ctx, changes(part, 30, 2)); domain.CodeOf(err) != domain.CodeConflict {
		t.Errorf("the one that is fenced has written at %v: %v", offsets, err)
	}
	commit(second, changes(part, 40, 2))
	if _, err := first.Commit(ctx, changes(part, 50, 2)); err == nil {
		t.Error("the one that is fenced has written")
	}
	commit(second, changes(part, 60, 1))

	third := openWriter() // ends what the others may have left open
	defer third.Close()
	if ends, err = log.Ends(ctx, domain.TopicImpressions); err != nil {
		t.Fatal(err)
	}
	read := 0
	if err := log.ReadRange(ctx, part.At(0), ends[1].NextOffset, func(records []domain.Record) error {
		for _, r := range records {
			want, ok := written[r.Offset].(domain.ImpressionsChanged)
			got, is := r.Event.(domain.ImpressionsChanged)
			if !ok || !is || got.PostRef != want.PostRef || got.Impressions != want.Impressions || got.Revision != want.Revision {
				t.Errorf("at %d stands %+v, not %+v", r.Offset, r.Event, want)
			}
			read++
		}
		return nil
	}); err != nil || read != len(written) {
		t.Errorf("%d of %d can be read: %v", read, len(written), err)
	}
}
