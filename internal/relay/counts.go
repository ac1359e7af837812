package relay

import (
	"context"
	"fmt"
	"strings"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/posts"
	"seenby/projections/uniqueviews"
)

// passed tells, per partition, up to where all read models that are told from have folded it.
func (t *teller) passed(ctx context.Context, q projections.Querier) (map[domain.Partition]int64, error) {
	all, err := projections.Positions(ctx, q)
	if err != nil {
		return nil, err
	}
	to := map[domain.Partition]int64{}
	for _, row := range all[impressions.Name] {
		to[row.In()] = row.NextOffset
	}
	unique := map[domain.Partition]int64{}
	for _, row := range all[uniqueviews.Name] {
		unique[row.In()] = row.NextOffset
	}
	for part := range to {
		to[part] = min(to[part], unique[part])
	}
	for _, row := range all[posts.Name] {
		if row.Topic == domain.TopicPosts {
			to[row.In()] = row.NextOffset
		}
	}
	return to, nil
}

// liveVersions names the versions of the read models that counts come from.
func liveVersions(ctx context.Context, q projections.Querier) (string, error) {
	versions, err := projections.Versions(ctx, q)
	if err != nil {
		return "", err
	}
	var names []string
	for _, v := range versions {
		if v.Live && (v.Projection == impressions.Name || v.Projection == uniqueviews.Name || v.Projection == posts.Name) {
			names = append(names, fmt.Sprintf("%s_v%d", v.Projection, v.Version))
		}
	}
	return strings.Join(names, " "), nil
}

// ReadCounts reads the counts of posts from the live read models, as the api answers them; every key has some.
func ReadCounts(ctx context.Context, q projections.Querier, keys []domain.PostKey) (map[domain.PostKey]domain.PostCounts, error) {
	counted, err := impressions.Counts(ctx, q, keys)
	if err != nil {
		return nil, err
	}
	unique, err := uniqueviews.Counts(ctx, q, keys)
	if err != nil {
		return nil, err
	}
	elsewhere, err := posts.Baselines(ctx, q, keys)
	if err != nil {
		return nil, err
	}
	asOf, err := projections.AsOf(ctx, q, impressions.Name, uniqueviews.Name)
	if err != nil {
		return nil, err
	}
	counts := make(map[domain.PostKey]domain.PostCounts, len(keys))
	for _, key := range keys {
		c, base := counted[key], elsewhere[key]
		counts[key] = domain.PostCounts{
			Impressions: c.Impressions + base.Impressions, UniqueViewers: unique[key] + base.UniqueViewers,
			Imported: c.ImportedImpressions + base.Impressions, AsOf: asOf,
		}
	}
	return counts, nil
}
