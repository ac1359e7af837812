package relay

import (
	"context"
	"slices"

	"seenby/domain"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/posts"
)

// sweepMax is how many posts one page of a sweep has.
const sweepMax = 2000

// sweep looks at every post: at the first start, after a swap of read models, and where the log no longer holds what marks
// posts. What the last look found is what was told, so all but the posts that differ end there.
type sweep struct {
	of    map[int32]bool // partitions
	live  string         // versions of the read models that it looks at
	stage int            // index of sweepStages
	after domain.PostKey // the last post of the page before
}

// sweepStages are all places where posts with counts are found, page by page.
var sweepStages = []func(ctx context.Context, q projections.Querier, after domain.PostKey, limit int) ([]domain.PostKey, error){
	impressions.Posts, posts.BaselinePosts, toldPosts,
}

var toldPostsSQL = projections.SQL("relay.told_posts", `
SELECT c.tenant, c.post
FROM relay_counts c
WHERE (c.tenant, c.post) > (@tenant, @post)
ORDER BY c.tenant, c.post
LIMIT @limit`)

// toldPosts gives a page of the posts of which something was told; see projections.PostPage.
func toldPosts(ctx context.Context, q projections.Querier, after domain.PostKey, limit int) ([]domain.PostKey, error) {
	return projections.PostPage(ctx, q, toldPostsSQL, after, limit)
}

// lookAtEveryPost makes a page of posts due, where that is to be done, and once enough of the last ones are told.
func (t *teller) lookAtEveryPost(ctx context.Context, q projections.Querier, live string, passed map[domain.Partition]int64) error {
	if t.sweep == nil {
		t.sweep = t.newSweep(live, passed)
	}
	s := t.sweep
	if s == nil || len(t.due) >= tellMax {
		return nil
	}
	if s.live != live { // swapped meanwhile
		t.sweep = nil
		return nil
	}
	page, err := sweepStages[s.stage](ctx, q, s.after, sweepMax)
	if err != nil {
		return err
	}
	for _, post := range page {
		if s.of[t.r.deps.PartitionOf(post)] {
			t.lookAt(post)
		}
	}
	if len(page) == sweepMax {
		s.after = page[len(page)-1]
		return nil
	}
	s.stage, s.after = s.stage+1, domain.PostKey{}
	if s.stage < len(sweepStages) {
		return nil
	}
	for _, o := range t.owned {
		if s.of[o.part.Partition] {
			o.sweeping, o.markless, o.live, o.unwritten = false, false, s.live, true
		}
	}
	t.sweep = nil
	t.safe = nil // it does not wait for what was found here
	return nil
}

// newSweep begins one where a partition needs it and the read models are as far as when that was found.
func (t *teller) newSweep(live string, passed map[domain.Partition]int64) *sweep {
	s := &sweep{of: map[int32]bool{}, live: live}
	for _, o := range t.owned {
		if !o.sweeping && o.live != live {
			o.sweeping, o.after = true, nil
		}
		if o.sweeping && !slices.ContainsFunc(o.after, func(p domain.Position) bool { return passed[p.In()] < p.NextOffset }) {
			s.of[o.part.Partition] = true
		}
	}
	if len(s.of) == 0 {
		return nil
	}
	return s
}
