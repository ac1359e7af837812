package importer

import (
	"cmp"
	"context"
	"slices"
	"time"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/posts"
)

const (
	// passTimeout is how long the read model of posts may take until it holds the counts that were appended last.
	passTimeout = time.Minute
	passEvery   = 50 * time.Millisecond
)

// check parts the items by what the read models know. It speaks for what they hold; what the log holds beyond that is the
// log's to decide.
func (r *run) check(ctx context.Context, items []item) (good []item, bad []Rejection, err error) {
	if len(items) == 0 {
		return items, nil, nil
	}
	switch items[0].event.(type) {
	case domain.PostPublished:
		return r.checkPosts(ctx, items)
	case domain.CountsImported:
		return r.checkCounts(ctx, items)
	}
	return items, nil, nil
}

// checkPosts rejects posts that were deleted, which is for good.
func (r *run) checkPosts(ctx context.Context, items []item) (good []item, bad []Rejection, err error) {
	ids := make([]domain.PostID, len(items))
	for i, it := range items {
		ids[i] = postOf(it).Post
	}
	deleted, err := r.deps.models.deleted(ctx, r.opts.Tenant.ID, ids)
	if err != nil {
		return nil, nil, err
	}
	for _, it := range items {
		if deleted[postOf(it).Post] {
			bad = append(bad, it.reject(domain.Invalid("id", "is of a post that was deleted; it is never used again")))
			continue
		}
		good = append(good, it)
	}
	return good, bad, nil
}

// checkCounts rejects counts that are older than those that stand. So that one import is held against itself too, it waits
// for what it appended before.
func (r *run) checkCounts(ctx context.Context, items []item) (good []item, bad []Rejection, err error) {
	keys := make([]domain.PostKey, len(items))
	for i, it := range items {
		keys[i] = postOf(it)
	}
	stands, err := r.baselines(ctx, keys)
	if err != nil {
		return nil, nil, err
	}
	for _, it := range items {
		e := it.event.(domain.CountsImported) //nolint:forcetypeassert // parsed as one
		if b := stands[e.PostRef]; e.AsOf.Before(b.AsOf) {
			bad = append(bad, it.reject(domain.Invalid("as_of", "is older than that of the counts that stand, %s", b.AsOf.UTC().Format(time.RFC3339Nano))))
			continue
		}
		stands[e.PostRef] = domain.Baseline{AsOf: e.AsOf}
		good = append(good, it)
	}
	return good, bad, nil
}

func (r *run) baselines(ctx context.Context, keys []domain.PostKey) (map[domain.PostKey]domain.Baseline, error) {
	began := r.deps.Now()
	for {
		found, passed, err := r.deps.models.baselines(ctx, keys, r.passing)
		if err != nil {
			return nil, err
		}
		if passed {
			return found, nil
		}
		if r.deps.Now().Sub(began) > passTimeout {
			return nil, domain.Errorf(domain.CodeUnavailable, "the read model of posts did not take in the counts that were imported so far within %v; see that its projectors run, and run the import again", passTimeout)
		}
		timer := time.NewTimer(passEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// models are what an import asks the read models. It stands between the checks and the SQL, so that they are tested without
// a database.
type models interface {
	deleted(ctx context.Context, tenant domain.TenantID, of []domain.PostID) (map[domain.PostID]bool, error)
	// baselines are of one snapshot, which has passed the positions; else there are none.
	baselines(ctx context.Context, keys []domain.PostKey, passing []domain.Position) (found map[domain.PostKey]domain.Baseline, passed bool, err error)
}

// stored is models over PostgreSQL.
type stored struct{ models ReadModels }

func (s stored) deleted(ctx context.Context, tenant domain.TenantID, of []domain.PostID) (found map[domain.PostID]bool, err error) {
	err = s.models.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
		found, err = posts.Deleted(ctx, q, tenant, of)
		return err
	})
	return found, err
}

func (s stored) baselines(ctx context.Context, keys []domain.PostKey, passing []domain.Position) (found map[domain.PostKey]domain.Baseline, passed bool, err error) {
	err = s.models.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		rows, err := projections.Positions(ctx, q)
		if err != nil {
			return err
		}
		if passed = passedBy(rows[posts.Name], passing); passed {
			found, err = posts.Baselines(ctx, q, keys)
		}
		return err
	})
	return found, passed, err
}

func passedBy(rows []projections.PositionRow, positions []domain.Position) bool {
	for _, p := range positions {
		if !slices.ContainsFunc(rows, func(row projections.PositionRow) bool {
			return row.In() == p.In() && row.NextOffset >= p.NextOffset
		}) {
			return false
		}
	}
	return true
}

func postOf(it item) domain.PostKey {
	e, ok := it.event.(domain.PostEvent)
	if !ok {
		return domain.PostKey{}
	}
	return e.PostKey()
}

// inOrder merges rejections by line.
func inOrder(a, b []Rejection) []Rejection {
	if len(a) == 0 {
		return b
	}
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y Rejection) int { return cmp.Compare(x.Line, y.Line) })
	return all
}
