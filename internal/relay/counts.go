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
func passed(ctx context.Context, q projections.Querier) (map[domain.Partition]int64, error) {
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

// readCounts reads the counts of posts from the live read models, as the api answers them, and what of them was imported as
// counts; every key has counts.
func readCounts(ctx context.Context, q projections.Querier, keys []domain.PostKey) (counts map[domain.PostKey]domain.PostCounts, baselines map[domain.PostKey]domain.Baseline, err error) {
	counted, err := impressions.Counts(ctx, q, keys)
	if err != nil {
		return nil, nil, err
	}
	unique, err := uniqueviews.Counts(ctx, q, keys)
	if err != nil {
		return nil, nil, err
	}
	if baselines, err = posts.Baselines(ctx, q, keys); err != nil {
		return nil, nil, err
	}
	asOf, err := projections.AsOf(ctx, q, impressions.Name, uniqueviews.Name)
	if err != nil {
		return nil, nil, err
	}
	counts = make(map[domain.PostKey]domain.PostCounts, len(keys))
	for _, key := range keys {
		c, base := counted[key], baselines[key]
		counts[key] = domain.PostCounts{
			Impressions: c.Impressions + base.Impressions, UniqueViewers: unique[key] + base.UniqueViewers,
			Imported: c.ImportedImpressions + base.Impressions, AsOf: asOf,
		}
	}
	return counts, baselines, nil
}
