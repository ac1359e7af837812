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

// question is a view that has no answer yet.
type question struct {
	view   *domain.ViewReported
	answer *domain.PostAnswer // where it goes
}

// answers are what was found for a batch: in the caches, or by the look-ups.
type answers struct {
	posts   map[domain.PostKey]answer
	members map[posts.Member]membership
}

func newAnswers() answers {
	return answers{posts: map[domain.PostKey]answer{}, members: map[posts.Member]membership{}}
}

// answer is of a post. The caches give the post alone.
type answer struct {
	post   domain.PostAnswer
	at     posts.Positions // of the statement that gave it
	end    domain.Position // of the post's partition, asked after the poll; only where a view waits for it
	parked bool
}

// membership is of a viewer in the named audience of a post, and of the statement that gave the post.
type membership struct {
	is     bool
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

// of is the answer for one view, with its finality: what the last look-up gave, which must have asked about the view.
func (as answers) of(view *domain.ViewReported) domain.PostAnswer {
	a := as.posts[postKey(view)]
	post, waits := a.post, []domain.Position{a.end}
	post.DeadLetters = a.parked
	m, asks := inQuestion(view, post)
	if asks {
		ms := as.members[m]
		post.Member = ms.is
		post.DeadLetters = post.DeadLetters || ms.parked
		waits = append(waits, ms.end)
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
	post.Final = !post.DeadLetters && !slices.ContainsFunc(waits, func(p domain.Position) bool { return !a.at.Passed(p) })
	return post
}

// positive tells whether the answer stands whatever the projection has not read yet. A deleted post is final.
func positive(view *domain.ViewReported, post domain.PostAnswer) bool {
	return post.Known && (post.Deleted || post.Audience == domain.AudienceEveryone || post.Member || own(view, post))
}

// answer looks up the posts of a batch, and who may see them: one answer per view. It comes back only with answers: a
// look-up that fails pauses the partition and is tried again.
func (s *session) answer(ctx context.Context, b *batch) (said []domain.PostAnswer, err error) {
	err = s.w.insist(ctx, "look up posts", func() (err error) {
		said, err = s.tryAnswer(ctx, b)
		return err
	})
	return said, err
}

// tryAnswer gives each view the answer of the look-up that was the last to ask about it. A later one, for other viewers
// of its post, may find the post with another audience, and has not asked whether this viewer is in that.
func (s *session) tryAnswer(ctx context.Context, b *batch) ([]domain.PostAnswer, error) {
	said, cached := make([]domain.PostAnswer, len(b.views)), newAnswers()
	var open []question
	for i := range b.views {
		v := &b.views[i]
		if v.Malformed != "" {
			continue
		}
		var ok bool
		if said[i], ok = s.w.g.known(&v.View, cached); !ok {
			open = append(open, question{&v.View, &said[i]})
		}
	}
	if len(open) == 0 {
		return said, nil
	}
	out := newAnswers()
	if err := s.lookup(ctx, asking(open), out); err != nil {
		return nil, err
	}
	open = out.settle(open, positive)
	return said, s.await(ctx, open, out)
}

// settle answers the questions for which done is true, and gives the others.
func (as answers) settle(open []question, done func(*domain.ViewReported, domain.PostAnswer) bool) []question {
	return slices.DeleteFunc(open, func(q question) bool {
		*q.answer = as.of(q.view)
		return done(q.view, *q.answer)
	})
}

// known gives the view's answer where it is positive; what the caches hold is put in cached.
func (g *Gate) known(v *domain.ViewReported, cached answers) (post domain.PostAnswer, ok bool) {
	key := postKey(v)
	a, ok := cached.posts[key]
	if !ok {
		if a.post, ok = g.cache.GetIfPresent(key); !ok {
			return domain.PostAnswer{}, false
		}
		cached.posts[key] = a
	}
	post = a.post
	if m, asks := inQuestion(v, post); asks {
		ms, ok := cached.members[m]
		if !ok {
			if _, ms.is = g.members.GetIfPresent(m); ms.is {
				cached.members[m] = ms
			}
		}
		post.Member = ms.is
	}
	return post, positive(v, post)
}

// asking are the posts of the questions, each once, with their viewers.
func asking(open []question) []posts.Asked {
	at := map[domain.PostKey]int{}
	seen := map[domain.PostKey]map[domain.PersonKey]bool{}
	var ask []posts.Asked
	for _, q := range open {
		v := q.view
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
			out.members[m] = membership{is: res.Members[m], end: out.members[m].end, parked: res.ParkedMembers[m]}
			if res.Members[m] {
				g.members.Set(m, struct{}{})
			}
		}
	}
	return nil
}

// ends asks how far the log goes where views have no positive answer, if it was not asked yet. It is asked after the
// poll, so that what was acknowledged before a view was reported lies below it.
func (s *session) ends(ctx context.Context, open []question, out answers) error {
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
	for _, q := range open {
		key := postKey(q.view)
		a := out.posts[key]
		if a.end == (domain.Position{}) {
			var err error
			if a.end, err = end(domain.TopicPosts, key.Key()); err != nil {
				return err
			}
			out.posts[key] = a
		}
		if m, asks := inQuestion(q.view, a.post); asks {
			ms := out.members[m]
			if ms.end == (domain.Position{}) {
				var err error
				if ms.end, err = end(domain.TopicAudiences, m.Key()); err != nil {
					return err
				}
				out.members[m] = ms
			}
		}
	}
	return nil
}

// await looks the negatives up again until all are final, or the batch has waited long enough. Each look-up may find
// the post, and with it a membership that nobody has asked about, so the ends are asked after each.
func (s *session) await(ctx context.Context, open []question, out answers) error {
	g := s.w.g
	tick := time.NewTicker(negativeStep)
	defer tick.Stop()
	limit := time.NewTimer(g.cfg.NegativeWait)
	defer limit.Stop()
	for len(open) > 0 {
		if err := s.ends(ctx, open, out); err != nil {
			return err
		}
		open = out.settle(open, func(v *domain.ViewReported, post domain.PostAnswer) bool {
			return !out.worthWaiting(v, post, &g.stalls)
		})
		if len(open) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			for _, q := range open {
				g.stalls.timedOut(out.pending(q.view))
			}
			return nil
		case <-tick.C:
		}
		if err := s.lookup(ctx, asking(open), out); err != nil {
			return err
		}
	}
	return nil
}

// worthWaiting tells whether waiting a little may change the answer. A readmitted view has waited already, and
// parked events are not waited out.
func (as answers) worthWaiting(v *domain.ViewReported, post domain.PostAnswer, st *stalls) bool {
	return !positive(v, post) && !post.Final && !post.DeadLetters && v.Readmitted == nil && st.worthWaiting(as.pending(v))
}

// pending is what the view waits for and the projection has not passed: where it stands, and where it must come.
func (as answers) pending(v *domain.ViewReported) []progress {
	a := as.posts[postKey(v)]
	var out []progress
	add := func(end domain.Position) {
		if !a.at.Passed(end) {
			out = append(out, progress{a.at[end.Topic][end.Partition], end})
		}
	}
	add(a.end)
	if m, asks := inQuestion(v, a.post); asks {
		add(as.members[m].end)
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
