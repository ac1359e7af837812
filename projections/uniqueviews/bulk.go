package uniqueviews

import (
	"fmt"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/bulk"
)

var _ projections.BulkLoader = Projection{}

// BulkLoad implements projections.BulkLoader.
func (Projection) BulkLoad(shard int16, room projections.BulkRoom) (projections.BulkLoad, error) {
	spans, err := bulk.NewSpans(room)
	if err != nil {
		return nil, fmt.Errorf("load unique views: %w", err)
	}
	return &load{spans, shard}, nil
}

type load struct {
	*bulk.Spans
	shard int16
}

// Add implements projections.BulkLoad.
func (l *load) Add(records []domain.Record) error {
	for i := range records {
		r := &records[i]
		if projections.Shard(r.Partition.Partition) != l.shard {
			return projections.OtherShard(r, l.shard)
		}
		post, viewer, at, counts := rule(r)
		if !counts {
			continue
		}
		if err := l.Spans.Add(post.Tenant, post.Post, viewer, at); err != nil {
			return fmt.Errorf("load unique views: %w", err)
		}
	}
	return nil
}

// Copy implements projections.BulkLoad.
func (l *load) Copy(f func(projections.BulkTable) error) error {
	return bulk.Copy(f,
		bulk.Table{
			Name:    "unique_views",
			Columns: []string{"tenant", "post", "viewer", "first_viewed_at", "last_viewed_at", "views", "shard"},
			Rows:    func() (*bulk.Reader, error) { return l.Rows(l.pair) },
		},
		bulk.Table{
			Name: "unique_view_counts", Columns: []string{"tenant", "post", "shard", "unique_viewers"},
			Rows: func() (*bulk.Reader, error) { return l.Sizes(l.count) },
		})
}

func (l *load) pair(b []byte, r *bulk.SpanRow) []byte {
	b = bulk.AppendColumns(b, 7)
	b = bulk.AppendBytes(b, r.Tenant)
	b = bulk.AppendBytes(b, r.Post)
	b = bulk.AppendBytes(b, r.Member)
	b = bulk.AppendTimestamptz(b, r.First)
	b = bulk.AppendTimestamptz(b, r.Last)
	b = bulk.AppendBigint(b, r.Times)
	return bulk.AppendSmallint(b, l.shard)
}

func (l *load) count(b []byte, r *bulk.SizeRow) []byte {
	b = bulk.AppendColumns(b, 4)
	b = bulk.AppendBytes(b, r.Tenant)
	b = bulk.AppendBytes(b, r.Post)
	b = bulk.AppendSmallint(b, l.shard)
	return bulk.AppendBigint(b, r.Members)
}
