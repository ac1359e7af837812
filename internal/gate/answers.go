package gate

import (
	"context"
	"sync"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// answers are what the look-ups of a batch gave.
type answers map[domain.PostKey]answer

type answer struct {
	post   domain.PostAnswer
	at     map[int32]domain.Position // positions of the statement that gave it; nil: from the cache
	end    domain.Position           // of the post's partition, asked after the poll; only where post is negative
	parked bool
}

func postKey(v *domain.ViewReported) domain.PostKey {
	return domain.PostKey{Tenant: v.Viewer.Tenant, Post: v.Post}
}

// positive tells whether the answer stands whatever the projection has not read yet. A deleted post is final.
func positive(a domain.PostAnswer) bool {
	return a.Known && (a.Deleted || a.Audience == domain.AudienceEveryone)
}

// of is the answer for one view, with its finality.
func (as answers) of(view *domain.ViewReported) domain.PostAnswer {
	a, ok := as[postKey(view)]
	post := a.post
	if !ok || positive(post) {
		return post
	}
	// Parked events may hold what the view needs: they are redriven or discarded first.
	post.DeadLetters = a.parked
	if again := view.Readmitted; again != nil {
		post.WaitsFor = again.WaitedFor
		post.Final = !a.parked && a.passedAll(again.WaitedFor)
		return post
	}
	post.WaitsFor = []domain.Position{a.end}
	post.Final = !a.parked && passed(a.at, a.end)
	return post
}

func (a answer) passedAll(waits []domain.Position) bool {
	for _, w := range waits {
		if w.Topic != domain.TopicPosts || !passed(a.at, w) {
			return false
		}
	}
	return true
}

// passed tells whether positions have reached one. A partition that was never read stands at 0, and a position
// of a topic that was made anew says nothing about another.
func passed(at map[int32]domain.Position, p domain.Position) bool {
	have, ok := at[p.Partition]
	if !ok {
		return p.NextOffset == 0
	}
	return have.TopicID == p.TopicID && have.NextOffset >= p.NextOffset
}

// answer looks up the posts of a batch. It comes back only with answers: a look-up that fails pauses the
// partition and is tried again.
func (s *session) answer(ctx context.Context, b *batch) (answers, error) {
	var out answers
	err := s.w.insist(ctx, "look up posts", func() (err error) {
		out, err = s.tryAnswer(ctx, b)
		return err
	})
	return out, err
}

func (s *session) tryAnswer(ctx context.Context, b *batch) (answers, error) {
	g := s.w.g
	out := answers{}
	first := map[domain.PostKey]bool{} // posts of views that were not readmitted
	var ask []domain.PostKey
	for i := range b.views {
		v := &b.views[i]
		if v.Malformed != "" {
			continue
		}
		key := postKey(&v.View)
		if v.View.Readmitted == nil {
			first[key] = true
		}
		if _, ok := out[key]; ok {
			continue
		}
		cached, ok := g.cache.GetIfPresent(key)
		out[key] = answer{post: cached}
		if !ok {
			ask = append(ask, key)
		}
	}
	negative, err := s.lookup(ctx, ask, out)
	if err != nil || len(negative) == 0 {
		return out, err
	}
	// Asked after the poll, so that what was acknowledged before the view lies below it.
	ends, err := g.deps.Ends.Ends(ctx, domain.TopicPosts)
	if err != nil {
		return nil, err
	}
	if len(ends) == 0 {
		return nil, domain.Errorf(domain.CodeUnavailable, "the topic posts has no partitions")
	}
	for _, key := range negative {
		a := out[key]
		a.end = ends[eventlog.PartitionOf(key.Key(), int32(len(ends)))] //nolint:gosec // a partition count
		out[key] = a
	}
	return out, s.await(ctx, negative, first, out)
}

// await looks the negatives up again until all are final, or the batch has waited long enough.
func (s *session) await(ctx context.Context, negative []domain.PostKey, first map[domain.PostKey]bool, out answers) error {
	g := s.w.g
	tick := time.NewTicker(negativeStep)
	defer tick.Stop()
	limit := time.NewTimer(g.cfg.NegativeWait)
	defer limit.Stop()
	for {
		waiting := negative[:0]
		for _, key := range negative {
			// A readmitted view has waited already, and parked events are not waited out.
			if a := out[key]; first[key] && !a.parked && !passed(a.at, a.end) && g.stalls.worthWaiting(a) {
				waiting = append(waiting, key)
			}
		}
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			for _, key := range waiting {
				g.stalls.timedOut(out[key])
			}
			return nil
		case <-tick.C:
		}
		var err error
		if negative, err = s.lookup(ctx, waiting, out); err != nil {
			return err
		}
	}
}

// lookup asks the read model and fills out. It returns the keys that have no positive answer.
func (s *session) lookup(ctx context.Context, keys []domain.PostKey, out answers) (negative []domain.PostKey, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	res, err := s.w.g.deps.Posts.Lookup(ctx, keys)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		a := out[key]
		a.post, a.at, a.parked = res.Posts[key], res.Positions, res.Parked[key]
		out[key] = a
		if positive(a.post) {
			s.w.g.cache.Set(key, a.post)
		} else {
			negative = append(negative, key)
		}
	}
	return negative, nil
}

// stalls remembers, for all partitions of views together, where the posts projection stood when waiting for it
// was in vain. Without it a stopped projection would cost every batch its whole wait.
type stalls struct {
	mu sync.Mutex
	at map[int32]domain.Position
}

// worthWaiting tells whether the projection may arrive in time: it is near, and moved since a wait failed.
func (st *stalls) worthWaiting(a answer) bool {
	have := a.at[a.end.Partition]
	if a.end.NextOffset-have.NextOffset > lagWorthWaiting {
		return false
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	stalled, ok := st.at[a.end.Partition]
	return !ok || stalled != have
}

func (st *stalls) timedOut(a answer) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.at == nil {
		st.at = map[int32]domain.Position{}
	}
	st.at[a.end.Partition] = a.at[a.end.Partition]
}
