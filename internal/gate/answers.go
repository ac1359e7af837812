package gate

import (
	"context"
	"slices"
	"sync"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/projections/posts"
)

// answers are what the look-ups of a batch gave.
type answers struct {
	posts   map[domain.PostKey]answer
	members map[posts.Member]membership
}

// answer is of a post.
type answer struct {
	post   domain.PostAnswer
	at     posts.Positions // of the statement that gave it; nil: from the cache
	end    domain.Position // of the post's partition, asked after the poll; only where a view waits for it
	parked bool
}

// membership is of a viewer in the named audience of a post.
type membership struct {
	is     bool
	at     posts.Positions // of the statement that gave it, which is one that gave the post, too; nil: from the cache
	end    domain.Position // of the member's partition, as above
	parked bool
}

func postKey(v *domain.ViewReported) domain.PostKey {
	return domain.PostKey{Tenant: v.Viewer.Tenant, Post: v.Post}
}

func own(view *domain.ViewReported, post domain.PostAnswer) bool {
	return !view.Anonymous && post.Known && post.Author == view.Viewer.Person
}

// inQuestion names the membership that decides about the view, if one does.
func inQuestion(view *domain.ViewReported, post domain.PostAnswer) (m posts.Member, ok bool) {
	name, named := post.Audience.Name()
	if !named || !post.Known || post.Deleted || view.Anonymous || own(view, post) {
		return m, false
	}
	return posts.Member{Tenant: view.Viewer.Tenant, Audience: name, Person: view.Viewer.Person}, true
}

// of is the answer for one view, with its finality.
func (as answers) of(view *domain.ViewReported) domain.PostAnswer {
	a := as.posts[postKey(view)]
	post, waits, passed := a.post, []domain.Position{a.end}, a.at.Passed
	post.DeadLetters = a.parked
	m, asks := inQuestion(view, post)
	if asks {
		ms := as.members[m]
		post.Member = ms.is
		post.DeadLetters = post.DeadLetters || ms.parked
		waits = append(waits, ms.end)
		// The post's answer may be of a later statement than the member's, never the other way round.
		passed = ms.at.Passed
	}
	if again := view.Readmitted; again != nil {
		// It has waited for these. What its post turned out to ask besides, it has not waited for yet.
		waits = again.WaitedFor
		if asks {
			end := as.members[m].end
			if !slices.ContainsFunc(waits, func(p domain.Position) bool { return p.In() == end.In() }) {
				waits = append(slices.Clip(waits), end)
			}
		}
	}
	if positive(view, post) {
		post.DeadLetters = false
		return post
	}
	// Parked events may hold what the view needs: they are redriven or discarded first.
	post.WaitsFor = waits
	post.Final = !post.DeadLetters && !slices.ContainsFunc(waits, func(p domain.Position) bool { return !passed(p) })
	return post
}

// positive tells whether the answer stands whatever the projection has not read yet. A deleted post is final.
func positive(view *domain.ViewReported, post domain.PostAnswer) bool {
	return post.Known && (post.Deleted || post.Audience == domain.AudienceEveryone || post.Member || own(view, post))
}

// answer looks up the posts of a batch, and who may see them. It comes back only with answers: a look-up that
// fails pauses the partition and is tried again.
func (s *session) answer(ctx context.Context, b *batch) (answers, error) {
	var out answers
	err := s.w.insist(ctx, "look up posts", func() (err error) {
		out, err = s.tryAnswer(ctx, b)
		return err
	})
	return out, err
}

func (s *session) tryAnswer(ctx context.Context, b *batch) (answers, error) {
	out := answers{posts: map[domain.PostKey]answer{}, members: map[posts.Member]membership{}}
	var open []*domain.ViewReported
	for i := range b.views {
		if v := &b.views[i]; v.Malformed == "" && !s.w.g.known(&v.View, out) {
			open = append(open, &v.View)
		}
	}
	if len(open) == 0 {
		return out, nil
	}
	if err := s.lookup(ctx, questions(open), out); err != nil {
		return out, err
	}
	open = slices.DeleteFunc(open, func(v *domain.ViewReported) bool { return positive(v, out.of(v)) })
	if len(open) == 0 {
		return out, nil
	}
	if err := s.ends(ctx, open, out); err != nil {
		return out, err
	}
	return out, s.await(ctx, open, out)
}

// known tells whether the view has a positive answer; what the caches hold is put in out.
func (g *Gate) known(v *domain.ViewReported, out answers) bool {
	key := postKey(v)
	a, ok := out.posts[key]
	if !ok {
		if a.post, ok = g.cache.GetIfPresent(key); !ok {
			return false
		}
		out.posts[key] = a
	}
	post := a.post
	if m, asks := inQuestion(v, post); asks {
		ms, ok := out.members[m]
		if !ok {
			if _, ms.is = g.members.GetIfPresent(m); ms.is {
				out.members[m] = ms
			}
		}
		post.Member = ms.is
	}
	return positive(v, post)
}

// questions are the posts of the views, each once, with their viewers.
func questions(views []*domain.ViewReported) []posts.Asked {
	at := map[domain.PostKey]int{}
	seen := map[domain.PostKey]map[domain.PersonKey]bool{}
	var ask []posts.Asked
	for _, v := range views {
		key := postKey(v)
		i, ok := at[key]
		if !ok {
			i = len(ask)
			at[key], seen[key] = i, map[domain.PersonKey]bool{}
			ask = append(ask, posts.Asked{Post: key})
		}
		if !v.Anonymous && !seen[key][v.Viewer.Person] {
			seen[key][v.Viewer.Person] = true
			ask[i].Viewers = append(ask[i].Viewers, v.Viewer.Person)
		}
	}
	return ask
}

// lookup asks the read model and fills out.
func (s *session) lookup(ctx context.Context, ask []posts.Asked, out answers) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	g := s.w.g
	res, err := g.deps.Posts.Lookup(ctx, ask)
	if err != nil {
		return err
	}
	for _, asked := range ask {
		post := res.Posts[asked.Post]
		out.posts[asked.Post] = answer{post: post, at: res.Positions, end: out.posts[asked.Post].end, parked: res.Parked[asked.Post]}
		if post.Known {
			g.cache.Set(asked.Post, post)
		}
		name, named := post.Audience.Name()
		if !named {
			continue
		}
		for _, viewer := range asked.Viewers {
			m := posts.Member{Tenant: asked.Post.Tenant, Audience: name, Person: viewer}
			out.members[m] = membership{is: res.Members[m], at: res.Positions, end: out.members[m].end, parked: res.ParkedMembers[m]}
			if res.Members[m] {
				g.members.Set(m, struct{}{})
			}
		}
	}
	return nil
}

// ends asks how far the log goes where views have no positive answer. It is asked after the poll, so that what was
// acknowledged before a view was reported lies below it.
func (s *session) ends(ctx context.Context, open []*domain.ViewReported, out answers) error {
	asked := map[domain.Topic][]domain.Position{}
	end := func(topic domain.Topic, key []byte) (domain.Position, error) {
		all, ok := asked[topic]
		if !ok {
			var err error
			if all, err = s.w.g.deps.Ends.Ends(ctx, topic); err != nil {
				return domain.Position{}, err
			}
			if len(all) == 0 {
				return domain.Position{}, domain.Errorf(domain.CodeUnavailable, "the topic %s has no partitions", topic)
			}
			asked[topic] = all
		}
		return all[eventlog.PartitionOf(key, int32(len(all)))], nil //nolint:gosec // a partition count
	}
	for _, v := range open {
		key := postKey(v)
		a := out.posts[key]
		var err error
		if a.end, err = end(domain.TopicPosts, key.Key()); err != nil {
			return err
		}
		out.posts[key] = a
		if m, asks := inQuestion(v, a.post); asks {
			ms := out.members[m]
			if ms.end, err = end(domain.TopicAudiences, m.Key()); err != nil {
				return err
			}
			out.members[m] = ms
		}
	}
	return nil
}

// await looks the negatives up again until all are final, or the batch has waited long enough.
func (s *session) await(ctx context.Context, open []*domain.ViewReported, out answers) error {
	g := s.w.g
	tick := time.NewTicker(negativeStep)
	defer tick.Stop()
	limit := time.NewTimer(g.cfg.NegativeWait)
	defer limit.Stop()
	for {
		open = slices.DeleteFunc(open, func(v *domain.ViewReported) bool { return !out.worthWaiting(v, &g.stalls) })
		if len(open) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			for _, v := range open {
				g.stalls.timedOut(out.pending(v))
			}
			return nil
		case <-tick.C:
		}
		if err := s.lookup(ctx, questions(open), out); err != nil {
			return err
		}
	}
}

// worthWaiting tells whether waiting a little may change the answer. A readmitted view has waited already, and
// parked events are not waited out.
func (as answers) worthWaiting(v *domain.ViewReported, st *stalls) bool {
	post := as.of(v)
	return !positive(v, post) && !post.Final && !post.DeadLetters && v.Readmitted == nil && st.worthWaiting(as.pending(v))
}

// pending is what the view waits for and the projection has not passed: where it stands, and where it must come.
func (as answers) pending(v *domain.ViewReported) []progress {
	a := as.posts[postKey(v)]
	var out []progress
	add := func(at posts.Positions, end domain.Position) {
		if !at.Passed(end) {
			out = append(out, progress{at[end.Topic][end.Partition], end})
		}
	}
	add(a.at, a.end)
	if m, asks := inQuestion(v, a.post); asks {
		add(as.members[m].at, as.members[m].end)
	}
	return out
}

// progress is where the projection stands in a partition, and where it must come.
type progress struct{ have, end domain.Position }

// stalls remembers, for all partitions of views together, where the posts projection stood when waiting for it
// was in vain. Without it a stopped projection would cost every batch its whole wait.
type stalls struct {
	mu sync.Mutex
	at map[stalled]domain.Position
}

type stalled struct {
	topic     domain.Topic
	partition int32
}

// worthWaiting tells whether the projection may arrive in time everywhere: it is near, and moved since a wait
// failed.
func (st *stalls) worthWaiting(waits []progress) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, w := range waits {
		if w.end.NextOffset-w.have.NextOffset > lagWorthWaiting {
			return false
		}
		if at, ok := st.at[stalled{w.end.Topic, w.end.Partition}]; ok && at == w.have {
			return false
		}
	}
	return true
}

func (st *stalls) timedOut(waits []progress) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.at == nil {
		st.at = map[stalled]domain.Position{}
	}
	for _, w := range waits {
		st.at[stalled{w.end.Topic, w.end.Partition}] = w.have
	}
}
