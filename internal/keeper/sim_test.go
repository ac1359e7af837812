package keeper

import (
	"context"
	"errors"
	"testing"
	"time"

	"seenby/domain"
	"seenby/projections/posts"
)

// sim is a log of one partition, a gate and a posts projection, all in memory and moved by the test.
type sim struct {
	views    []domain.ViewReported
	appended []time.Time // by view
	verdicts []*domain.Verdict
	memory   *domain.Memory
	limits   domain.Limits
	now      time.Time

	published map[domain.PostID]int64 // offset on posts
	posts     int64                   // end of posts
	passed    int64                   // of posts, by the projection
	hint      *int64

	marked []domain.PostBodyErased // texts to be erased
	erased []domain.PostBodyErased // tombstones on bodies
}

const tenant = domain.TenantID("acme")

var (
	verdictsPart = domain.Partition{Topic: domain.TopicVerdicts, TopicID: domain.TopicID{2}}
	start        = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

func newSim() *sim {
	limits := domain.DefaultLimits()
	return &sim{memory: domain.NewMemory(limits), limits: limits, now: start, published: map[domain.PostID]int64{}}
}

func newView(viewer, id int, post string) domain.ViewReported {
	return domain.ViewReported{
		Viewer: domain.PersonRef{Tenant: tenant, Person: domain.PersonKey{byte(viewer), 1}},
		ViewID: domain.ViewID{byte(id), byte(id >> 8), 1}, Post: domain.PostID(post),
	}
}

func (s *sim) publish(post string) {
	if _, ok := s.published[domain.PostID(post)]; !ok {
		s.published[domain.PostID(post)] = s.posts
	}
	s.posts++
}

func (s *sim) report(v domain.ViewReported) {
	s.views, s.appended = append(s.views, v), append(s.appended, s.now)
}

func (s *sim) at(next int64) domain.Position {
	return domain.Position{Topic: domain.TopicPosts, TopicID: domain.TopicID{1}, NextOffset: next}
}

// judge is the gate: it judges up to n views.
func (s *sim) judge(n int) {
	for ; n > 0 && len(s.verdicts) < len(s.views); n-- {
		v := s.views[len(s.verdicts)]
		at, ok := s.published[v.Post]
		a := domain.PostAnswer{Known: ok && at < s.passed, Audience: domain.AudienceEveryone}
		if a.Final, a.WaitsFor = s.passed >= s.posts, []domain.Position{s.at(s.posts)}; v.Readmitted != nil {
			a.Final, a.WaitsFor = true, v.Readmitted.WaitedFor
			for _, w := range a.WaitsFor {
				a.Final = a.Final && w.NextOffset <= s.passed
			}
		}
		o := s.memory.Begin()
		s.verdicts = append(s.verdicts, o.Judge(domain.ViewRecord{View: v, Offset: int64(len(s.verdicts)), Appended: s.appended[len(s.verdicts)]}, a, s.limits))
		o.Commit()
	}
}

// check says that no id counted twice, and whose undecided view nobody brought to an end.
func (s *sim) check(t testing.TB) (open []*domain.Verdict) {
	t.Helper()
	counted := map[viewRef]int{}
	ended := map[int64]bool{}
	for _, v := range s.verdicts {
		if v.Counted() {
			counted[viewRef{v.Viewer, v.ViewID}]++
		}
		if v.Readmits != nil {
			ended[*v.Readmits] = true
		}
	}
	for ref, n := range counted {
		if n > 1 {
			t.Fatalf("%v counts %d times", ref, n)
		}
	}
	for _, v := range s.verdicts {
		if v.Reason == domain.ReasonUndecided && !ended[v.ViewOffset] && counted[viewRef{v.Viewer, v.ViewID}] == 0 {
			open = append(open, v)
		}
	}
	return open
}

// port is one keeper's way to the sim. It dies at the call that the test names, before or after its effect.
type port struct {
	*sim
	next    int64
	reading bool
	calls   int
	dieAt   int // 0: never
	late    bool
	batch   int           // verdicts per poll
	judges  int           // views that the gate judges before each poll
	waits   time.Duration // what a poll takes
}

var errDead = errors.New("killed")

// call runs one effect, or dies.
func (p *port) call(effect func() error) error {
	p.calls++
	switch {
	case p.dieAt == 0 || p.calls < p.dieAt:
		return effect()
	case p.calls == p.dieAt && p.late:
		_ = effect()
	}
	return errDead
}

func (p *port) Assignment() ([]domain.Partition, <-chan struct{}) {
	return []domain.Partition{verdictsPart}, make(chan struct{})
}

func (p *port) Seek(_ context.Context, at []domain.Position) error {
	return p.call(func() error { p.next, p.reading = at[0].NextOffset, true; return nil })
}

func (p *port) Drop([]domain.Partition) { p.reading = false }

func (p *port) Poll(context.Context, int) (b domain.Batch, err error) {
	err = p.call(func() error {
		time.Sleep(p.waits)
		p.judge(p.judges)
		to := min(p.next+int64(p.batch), int64(len(p.verdicts)))
		for ; p.next < to; p.next++ {
			b.Records = append(b.Records, domain.Record{Partition: verdictsPart, Offset: p.next, Event: p.verdicts[p.next]})
		}
		b.Next = []domain.Position{verdictsPart.At(p.next)}
		return nil
	})
	return b, err
}

func (p *port) Commit(_ context.Context, at []domain.Position) error {
	return p.call(func() error { p.hint = &at[0].NextOffset; return nil })
}

func (p *port) Committed(context.Context) (at []domain.Position, err error) {
	err = p.call(func() error {
		if p.hint != nil {
			at = []domain.Position{verdictsPart.At(*p.hint)}
		}
		return nil
	})
	return at, err
}

func (p *port) Ends(context.Context, domain.Topic) (at []domain.Position, err error) {
	err = p.call(func() error {
		at = []domain.Position{{Topic: domain.TopicViews, NextOffset: int64(len(p.views))}}
		return nil
	})
	return at, err
}

func (p *port) Append(_ context.Context, events ...domain.Event) (at []domain.Position, err error) {
	err = p.call(func() error {
		for _, e := range events {
			switch e := e.(type) {
			case domain.ViewReported:
				p.report(e)
			case domain.PostBodyErased:
				p.erased = append(p.erased, e)
			}
		}
		if len(p.erased) > 0 {
			at = []domain.Position{{Topic: domain.TopicBodies, NextOffset: int64(len(p.erased))}}
			return nil
		}
		at = []domain.Position{{Topic: domain.TopicViews, NextOffset: int64(len(p.views))}}
		return nil
	})
	return at, err
}

func (p *port) Settled(_ context.Context, waits []posts.Wait) (out []bool, err error) {
	err = p.call(func() error {
		for _, w := range waits {
			out = append(out, w.WaitsFor[0].NextOffset <= p.passed)
		}
		return nil
	})
	return out, err
}

func (p *port) Erasable(_ context.Context, limit int) (out []domain.PostBodyErased, err error) {
	err = p.call(func() error {
		out = append(out, p.marked[:min(limit, len(p.marked))]...)
		return nil
	})
	return out, err
}

func (s *sim) keeper(t testing.TB, cfg Config, batch int) (*Keeper, *port) {
	t.Helper()
	p := &port{sim: s, batch: batch}
	k, err := New(cfg, Deps{Source: p, Appender: p, Readmodel: p})
	if err != nil {
		t.Fatal(err)
	}
	return k, p
}
