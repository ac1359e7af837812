package httpapi

import (
	"context"
	"time"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/people"
	"seenby/projections/posts"
	"seenby/projections/timeseries"
	"seenby/projections/uniqueviews"
)

// models reads the read models, one snapshot per answer. It stands between the handlers and the SQL so that
// handlers are tested without a database.
type models interface {
	read(ctx context.Context, answer func(ctx context.Context, r reader) error) error
}

// reader reads within one snapshot.
type reader interface {
	posts(ctx context.Context, keys []domain.PostKey) (map[domain.PostKey]posts.View, error)
	deleted(ctx context.Context, tenant domain.TenantID, of []domain.PostID) (map[domain.PostID]bool, error)
	history(ctx context.Context, key domain.PostKey, after int64, limit int) ([]posts.HistoryEvent, error)
	feed(ctx context.Context, filter posts.FeedFilter, after *posts.FeedCursor, limit int) ([]posts.FeedPost, error)
	outcome(ctx context.Context, key domain.PostKey, id domain.EventID) (domain.Outcome, bool, error)
	impressions(ctx context.Context, keys []domain.PostKey) (map[domain.PostKey]impressions.Count, error)
	baselines(ctx context.Context, keys []domain.PostKey) (map[domain.PostKey]domain.Baseline, error)
	uniqueViewers(ctx context.Context, keys []domain.PostKey) (map[domain.PostKey]int64, error)
	viewers(ctx context.Context, key domain.PostKey, after *uniqueviews.ViewersCursor, limit int) ([]uniqueviews.Viewer, error)
	postTimeSeries(ctx context.Context, key domain.PostKey, in timeseries.Range) ([]timeseries.Bucket, error)
	timeSeries(ctx context.Context, tenant domain.TenantID, in timeseries.Range) ([]timeseries.Bucket, error)
	members(ctx context.Context, tenant domain.TenantID, audience string, after *domain.PersonKey, limit int) ([]posts.AudienceMember, error)
	names(ctx context.Context, tenant domain.TenantID, people []domain.PersonKey) (map[domain.PersonKey]string, error)
	erased(ctx context.Context, person domain.PersonRef) (bool, error)
	asOf(ctx context.Context, projections ...string) (time.Time, error)
}

// stored is models over PostgreSQL.
type stored struct{ models ReadModels }

func (s stored) read(ctx context.Context, answer func(ctx context.Context, r reader) error) error {
	return s.models.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		return answer(ctx, storedReader{q})
	})
}

type storedReader struct{ q projections.Querier }

func (r storedReader) posts(ctx context.Context, keys []domain.PostKey) (map[domain.PostKey]posts.View, error) {
	return posts.Read(ctx, r.q, keys)
}

func (r storedReader) deleted(ctx context.Context, tenant domain.TenantID, of []domain.PostID) (map[domain.PostID]bool, error) {
	return posts.Deleted(ctx, r.q, tenant, of)
}

func (r storedReader) history(ctx context.Context, key domain.PostKey, after int64, limit int) ([]posts.HistoryEvent, error) {
	return posts.History(ctx, r.q, key, after, limit)
}

func (r storedReader) feed(ctx context.Context, filter posts.FeedFilter, after *posts.FeedCursor, limit int) ([]posts.FeedPost, error) {
	return posts.Feed(ctx, r.q, filter, after, limit)
}

func (r storedReader) outcome(ctx context.Context, key domain.PostKey, id domain.EventID) (domain.Outcome, bool, error) {
	return posts.OutcomeOf(ctx, r.q, key, id)
}

func (r storedReader) impressions(ctx context.Context, keys []domain.PostKey) (map[domain.PostKey]impressions.Count, error) {
	return impressions.Counts(ctx, r.q, keys)
}

func (r storedReader) baselines(ctx context.Context, keys []domain.PostKey) (map[domain.PostKey]domain.Baseline, error) {
	return posts.Baselines(ctx, r.q, keys)
}

func (r storedReader) uniqueViewers(ctx context.Context, keys []domain.PostKey) (map[domain.PostKey]int64, error) {
	return uniqueviews.Counts(ctx, r.q, keys)
}

func (r storedReader) viewers(ctx context.Context, key domain.PostKey, after *uniqueviews.ViewersCursor, limit int) ([]uniqueviews.Viewer, error) {
	return uniqueviews.Viewers(ctx, r.q, key, after, limit)
}

func (r storedReader) postTimeSeries(ctx context.Context, key domain.PostKey, in timeseries.Range) ([]timeseries.Bucket, error) {
	return timeseries.OfPost(ctx, r.q, key, in)
}

func (r storedReader) timeSeries(ctx context.Context, tenant domain.TenantID, in timeseries.Range) ([]timeseries.Bucket, error) {
	return timeseries.OfTenant(ctx, r.q, tenant, in)
}

func (r storedReader) members(ctx context.Context, tenant domain.TenantID, audience string, after *domain.PersonKey, limit int) ([]posts.AudienceMember, error) {
	return posts.Members(ctx, r.q, tenant, audience, after, limit)
}

func (r storedReader) names(ctx context.Context, tenant domain.TenantID, of []domain.PersonKey) (map[domain.PersonKey]string, error) {
	return people.Names(ctx, r.q, tenant, of)
}

func (r storedReader) erased(ctx context.Context, person domain.PersonRef) (bool, error) {
	return people.Erased(ctx, r.q, person)
}

func (r storedReader) asOf(ctx context.Context, names ...string) (time.Time, error) {
	return projections.AsOf(ctx, r.q, names...)
}
