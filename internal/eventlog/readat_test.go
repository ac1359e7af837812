package eventlog_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"seenby/domain"
)

// TestReadAt: single records are read wherever they stand; what the log does not hold is missing, with the reason.
func TestReadAt(t *testing.T) {
	log, env := open(t)
	post := func(n int) domain.PostDeleted {
		return domain.PostDeleted{PostRef: domain.PostKey{Tenant: "demo", Post: "p"}, EventID: domain.EventID{1, byte(n), byte(n >> 8)}}
	}
	events := make([]domain.Event, 12_500) // more than are read over
	for i := range events {
		events[i] = post(i)
	}
	at, err := log.Append(t.Context(), events...)
	if err != nil {
		t.Fatal(err)
	}
	in, end := at[0].In(), at[0].NextOffset
	found, gone, err := log.ReadAt(t.Context(), in, []int64{12_400, 3, 7, 8, 3, end})
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, []int64{3, 7, 8, 12_400}) || !strings.Contains(gone, "the log ends at") {
		t.Errorf("found %v, gone %q", got, gone)
	}
	for offset, r := range found {
		if r.Event != post(int(offset)) || r.Offset != offset || r.Partition != in {
			t.Errorf("at %d: %+v", offset, r)
		}
	}
	var scanned []int64
	if err := log.Scan(t.Context(), in.At(12_495), end+5, func(r domain.Record) { scanned = append(scanned, r.Offset) }); err != nil || !slices.Equal(scanned, []int64{12_495, 12_496, 12_497, 12_498, 12_499}) {
		t.Errorf("scanned %v, %v", scanned, err)
	}

	cut := kadm.Offsets{}
	cut.AddOffset(env.Topic("posts"), in.Partition, 5, -1)
	if _, err := kadm.NewClient(env.Client(t)).DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	found, gone, err = log.ReadAt(t.Context(), in, []int64{3, 7})
	if err != nil || len(found) != 1 || found[7].Event != post(7) || gone != "the log starts at 5" {
		t.Errorf("after the log was cut off: %v, %q, %v", found, gone, err)
	}
	anew := in
	anew.TopicID = domain.TopicID{9}
	if found, gone, err := log.ReadAt(t.Context(), anew, []int64{7}); err != nil || len(found) != 0 || !strings.Contains(gone, "made anew") {
		t.Errorf("of another topic: %v, %q, %v", found, gone, err)
	}
	if err := log.Scan(t.Context(), anew.At(0), 3, func(domain.Record) {}); domain.CodeOf(err) != domain.CodeDataLoss {
		t.Errorf("a scan of another topic: %v", err)
	}
}
