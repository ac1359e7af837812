package impressions

import (
	"fmt"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/bulk"
)

var _ projections.BulkLoader = Projection{}

// BulkLoad implements projections.BulkLoader.
func (Projection) BulkLoad(shard int16, room projections.BulkRoom) (projections.BulkLoad, error) {
	sums, err := bulk.NewSums(room, 3, 0)
	if err != nil {
		return nil, fmt.Errorf("load impressions: %w", err)
	}
	return &load{sums, shard}, nil
}

type load struct {
	*bulk.Sums // of each post: all, anonymous, imported
	shard      int16
}

// Add implements projections.BulkLoad.
func (l *load) Add(records []domain.Record) error {
	for i := range records {
		r := &records[i]
		if projections.Shard(r.Partition.Partition) != l.shard {
			return projections.OtherShard(r, l.shard)
		}
		post, adds, counts := rule(r)
		if !counts {
			continue
		}
		sums, err := l.Of(post.Tenant, post.Post, nil)
		if err != nil {
			return fmt.Errorf("load impressions: %w", err)
		}
		sums[0] += adds.Impressions
		sums[1] += adds.AnonymousImpressions
		sums[2] += adds.ImportedImpressions
	}
	return nil
}

// Copy implements projections.BulkLoad.
func (l *load) Copy(f func(projections.BulkTable) error) error {
	return bulk.Copy(f, bulk.Table{
		Name:    "impressions",
		Columns: []string{"tenant", "post", "shard", "impressions", "anonymous_impressions", "imported_impressions"},
		Rows:    func() (*bulk.Reader, error) { return l.Rows(l.row) },
	})
}

func (l *load) row(b []byte, r *bulk.SumRow) []byte {
	b = bulk.AppendColumns(b, 6)
	b = bulk.AppendBytes(b, r.Tenant)
	b = bulk.AppendBytes(b, r.Post)
	b = bulk.AppendSmallint(b, l.shard)
	b = bulk.AppendBigint(b, r.Sums[0])
	b = bulk.AppendBigint(b, r.Sums[1])
	return bulk.AppendBigint(b, r.Sums[2])
}
