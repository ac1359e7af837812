package timeseries

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/bulk"
)

var _ projections.BulkLoader = Projection{}

// restBytes is what a row's key has beside tenant and post: the unit's place among units, the bucket's start in hours since
// 1970, the reason's place among reasons. Units and reasons sort by name, and so rows sort as the tables' keys do.
const restBytes = 1 + 4 + 1

// reasons are all that a verdict can have, those that no gate gives yet included.
var reasons = slices.Sorted(slices.Values(append([]domain.Reason{domain.ReasonNone, domain.ReasonBot, domain.ReasonTooShort}, domain.Reasons...)))

// places are those of reasons.
var places = maps.Collect(func(yield func(domain.Reason, byte) bool) {
	for i, r := range reasons {
		if !yield(r, byte(i)) { //nolint:gosec // few
			return
		}
	}
})

// BulkLoad implements projections.BulkLoader. The rows of both tables are one fold, a tenant's under no post: so they share
// the memory as the log needs it. It is gone through once for each table.
func (Projection) BulkLoad(shard int16, room projections.BulkRoom) (projections.BulkLoad, error) {
	sums, err := bulk.NewSums(room, 1, restBytes)
	if err != nil {
		return nil, fmt.Errorf("load views by time: %w", err)
	}
	return &load{sums, shard}, nil
}

type load struct {
	*bulk.Sums
	shard int16
}

// Add implements projections.BulkLoad.
func (l *load) Add(records []domain.Record) error {
	var rest [restBytes]byte
	for i := range records {
		r := &records[i]
		if projections.Shard(r.Partition.Partition) != l.shard {
			return projections.OtherShard(r, l.shard)
		}
		rows, n := rowsOf(r)
		for _, k := range rows[:n] {
			place, known := places[k.reason]
			if !known {
				return domain.Errorf(domain.CodeInternal, "%s was refused for a reason that time series do not know: %q", projections.At(*r), k.reason)
			}
			rest[0] = byte(slices.Index(units, k.unit))                                         //nolint:gosec // two
			binary.BigEndian.PutUint32(rest[1:], uint32(k.bucket/int64(time.Hour/time.Second))) //nolint:gosec // Check: until the year 3000
			rest[restBytes-1] = place
			sums, err := l.Of(k.post.Tenant, k.post.Post, rest[:])
			if err != nil {
				return fmt.Errorf("load views by time: %w", err)
			}
			sums[0]++
		}
	}
	return nil
}

// Copy implements projections.BulkLoad.
func (l *load) Copy(f func(projections.BulkTable) error) error {
	return bulk.Copy(f, bulk.Table{
		Name: "timeseries_posts", Columns: []string{"tenant", "post", "unit", "bucket", "reason", "shard", "views"},
		Rows: func() (*bulk.Reader, error) { return l.Rows(l.postRow) },
	}, bulk.Table{
		Name: "timeseries_tenants", Columns: []string{"tenant", "unit", "bucket", "reason", "shard", "views"},
		Rows: func() (*bulk.Reader, error) { return l.Rows(l.tenantRow) },
	})
}

func (l *load) postRow(b []byte, r *bulk.SumRow) []byte {
	if len(r.Post) == 0 {
		return b // one of the other table
	}
	b = bulk.AppendColumns(b, 7)
	b = bulk.AppendBytes(b, r.Tenant)
	return l.append(bulk.AppendBytes(b, r.Post), r)
}

func (l *load) tenantRow(b []byte, r *bulk.SumRow) []byte {
	if len(r.Post) > 0 {
		return b
	}
	return l.append(bulk.AppendBytes(bulk.AppendColumns(b, 6), r.Tenant), r)
}

// append appends the columns that both tables end with.
func (l *load) append(b []byte, r *bulk.SumRow) []byte {
	b = bulk.AppendBytes(b, []byte(units[r.Rest[0]]))
	b = bulk.AppendTimestamptz(b, int64(binary.BigEndian.Uint32(r.Rest[1:]))*time.Hour.Microseconds())
	b = bulk.AppendBytes(b, []byte(reasons[r.Rest[restBytes-1]]))
	b = bulk.AppendSmallint(b, l.shard)
	return bulk.AppendBigint(b, r.Sums[0])
}
