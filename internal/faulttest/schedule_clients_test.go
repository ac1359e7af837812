package faulttest

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// reported is one view, as its app knows it. Fields but acked never change once it is sent.
type reported struct {
	view  domain.ViewReported
	stood bool // its post, and who may see it, was acknowledged before the view was sent for the first time
	acked bool // under ledger.mu
}

// post is one post, as the apps know it.
type post struct {
	key      domain.PostKey
	author   domain.PersonKey
	audience domain.Audience
	acked    bool // published
	deleting bool
	members  map[domain.PersonKey]bool // acknowledged
}

// apps are those who report. They send again what was not acknowledged, for as long as it takes.
type apps struct {
	w    *world
	open sync.WaitGroup

	mu    sync.Mutex
	posts []*post
}

func (w *world) clients() *apps { return w.apps }

func (a *apps) wait() { a.open.Wait() }

const (
	postsMost   = 16
	viewersMost = 30
	friends     = "friends"
)

func person(name string) (p domain.PersonKey) {
	copy(p[:], name)
	return p
}

func viewer(n int) domain.PersonRef {
	return domain.PersonRef{Tenant: tenant, Person: person(fmt.Sprint("viewer", n))}
}

// openPosts publishes the first posts, before anything else runs.
func (w *world) openPosts(rnd *rand.Rand) {
	w.apps = &apps{w: w}
	for range 5 {
		w.apps.publish(rnd, "")
	}
	w.apps.publish(rnd, parkedPost)
	w.apps.publish(rnd, edgePost)
	w.apps.wait()
}

// publish makes a post known, and then reports views of it at once.
func (a *apps) publish(rnd *rand.Rand, name domain.PostID) {
	a.mu.Lock()
	n := len(a.posts)
	p := &post{members: map[domain.PersonKey]bool{}, audience: domain.AudienceEveryone, author: viewer(rnd.IntN(viewersMost)).Person}
	if name == "" {
		name = domain.PostID(fmt.Sprint("p", n))
		p.audience = pick[domain.Audience](rnd, domain.AudienceEveryone, domain.AudienceEveryone, domain.AudienceAuthor, domain.AudiencePrefix+friends+domain.Audience(fmt.Sprint(n)))
	}
	p.key = domain.PostKey{Tenant: tenant, Post: name}
	a.posts = append(a.posts, p)
	a.mu.Unlock()
	event := domain.PostPublished{PostRef: p.key, EventID: eventID(rnd), Author: p.author, Audience: p.audience}
	var joins []domain.Event
	group, named := p.audience.Name()
	if named {
		for range 4 {
			joins = append(joins, domain.AudienceMemberAdded{Tenant: tenant, Audience: group, Person: viewer(rnd.IntN(viewersMost)).Person, EventID: eventID(rnd)})
		}
	}
	memberFirst, views, seed := rnd.IntN(2) == 0, 1+rnd.IntN(8), rnd.Uint64()
	a.open.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 5))
		if memberFirst {
			a.join(joins)
		}
		a.append(event)
		a.mu.Lock()
		p.acked = true
		a.mu.Unlock()
		if !memberFirst {
			a.join(joins)
		}
		if name == edgePost {
			return
		}
		out := make([]*reported, views)
		for i := range out {
			out[i] = a.view(rnd, p)
			if named && len(joins) > 0 && i%2 == 0 {
				out[i].view.Viewer.Person = joins[rnd.IntN(len(joins))].(domain.AudienceMemberAdded).Person
				out[i].view.Anonymous = false
			}
		}
		a.report(out)
	})
}

func (a *apps) join(joins []domain.Event) {
	if len(joins) == 0 {
		return
	}
	a.append(joins...)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range joins {
		added := j.(domain.AudienceMemberAdded)
		for _, p := range a.posts {
			if name, ok := p.audience.Name(); ok && name == added.Audience {
				p.members[added.Person] = true
			}
		}
	}
}

func eventID(rnd *rand.Rand) (id domain.EventID) {
	binary.LittleEndian.PutUint64(id[:], rnd.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rnd.Uint64()|1)
	return id
}

// step is what the apps do at once.
func (a *apps) step(rnd *rand.Rand) {
	a.mu.Lock()
	n := len(a.posts)
	a.mu.Unlock()
	if n < postsMost && rnd.IntN(3) == 0 {
		a.publish(rnd, "")
	}
	if rnd.IntN(12) == 0 {
		a.delete(rnd)
	}
	past := a.w.ledger.reports()
	out := make([]*reported, 4+rnd.IntN(24))
	for i := range out {
		if len(past) > 0 && rnd.IntN(6) == 0 {
			out[i] = past[rnd.IntN(len(past))] // an app that forgot that it had an answer
			continue
		}
		out[i] = a.view(rnd, nil)
	}
	a.open.Go(func() { a.report(out) })
}

// view makes up a view, of a post or of any.
func (a *apps) view(rnd *rand.Rand, of *post) *reported {
	a.mu.Lock()
	if of == nil && rnd.IntN(12) > 0 {
		// The newest are seen most.
		n := len(a.posts)
		of = a.posts[max(rnd.IntN(n), rnd.IntN(n))]
		if of.key.Post == edgePost {
			of = a.posts[0]
		}
	}
	a.mu.Unlock()
	v := domain.ViewReported{Viewer: viewer(rnd.IntN(viewersMost)), ViewID: domain.ViewID(eventID(rnd)), Post: "nowhere", Anonymous: rnd.IntN(10) == 0}
	if of != nil {
		v.Post = of.key.Post
	}
	now := time.Now()
	switch rnd.IntN(14) {
	case 0:
		v.ViewedAt = now.Add(-a.w.limits.Stale - between(rnd, time.Minute)) // stale
	case 1:
		v.ViewedAt = now.Add(a.w.limits.Future + 5*time.Second + between(rnd, time.Minute)) // future
	case 2:
	case 4:
		v.ViewedAt = now.Add(-a.w.limits.Stale + 200*time.Millisecond + between(rnd, 3*time.Second)) // stale if it were judged anew later
	case 3:
		v.ViewedAt, v.SentAt = now.Add(15*time.Second), now.Add(15*time.Second) // a clock that is ahead, corrected
	default:
		v.ViewedAt = now.Add(-between(rnd, 10*time.Second))
	}
	v.ViewedAt = v.ViewedAt.Truncate(time.Microsecond)
	return &reported{view: v}
}

// delete ends a post.
func (a *apps) delete(rnd *rand.Rand) {
	a.mu.Lock()
	p := a.posts[rnd.IntN(len(a.posts))]
	if !p.acked || p.deleting || p.key.Post == parkedPost || p.key.Post == edgePost {
		a.mu.Unlock()
		return
	}
	p.deleting = true
	a.mu.Unlock()
	event := domain.PostDeleted{PostRef: p.key, EventID: eventID(rnd)}
	a.open.Go(func() { a.append(event) })
}

// stands tells whether the view must find its post, as far as its app can know.
func (a *apps) stands(v *domain.ViewReported) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.posts {
		if p.key.Post != v.Post {
			continue
		}
		named := !v.Anonymous && p.members[v.Viewer.Person]
		own := !v.Anonymous && p.author == v.Viewer.Person
		return p.acked && !p.deleting && (p.audience == domain.AudienceEveryone || own || named)
	}
	return false
}

// report sends views until they are acknowledged.
func (a *apps) report(views []*reported) {
	events := make([]domain.Event, len(views))
	for i, r := range views {
		if a.w.ledger.add(r) {
			r.stood = a.stands(&r.view)
		}
		events[i] = r.view
	}
	a.append(events...)
	a.w.ledger.acknowledge(views)
}

// append appends until it is acknowledged: after an error the same again, since some of it may stand in the log.
func (a *apps) append(events ...domain.Event) {
	for a.w.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(a.w.ctx, 8*time.Second)
		log, err := a.w.anAPI()
		if err == nil {
			_, err = log.Append(ctx, events...)
		}
		cancel()
		if err == nil {
			return
		}
		var wait time.Duration
		a.w.roll(func(rnd *rand.Rand) { wait = between(rnd, 500*time.Millisecond) })
		sleep(a.w.ctx, wait)
	}
}

// anAPI is the process that accepts now; after a dead one comes another.
func (w *world) anAPI() (*eventlog.Log, error) {
	w.mu.Lock()
	api := w.api
	w.mu.Unlock()
	if api != nil && !api.killed() {
		return api.log, nil
	}
	next := &life{w: w, name: "api", data: w.newLine(), group: w.newLine(), cancel: func() {}}
	var err error
	if next.log, err = eventlog.Open(w.kafka(next.data)); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.api != api { // somebody was faster
		go next.log.Close()
		return w.api.log, nil
	}
	if api != nil {
		w.running.Go(api.log.Close)
	}
	w.api = next
	return next.log, nil
}

// endAPI ends the present api; another one lives as soon as somebody reports.
func (w *world) endAPI() {
	w.mu.Lock()
	api := w.api
	w.api = nil
	w.mu.Unlock()
	if api != nil {
		api.kill()
		api.log.Close()
	}
}

// edgePost is seen by edgeViews alone.
const edgePost = domain.PostID("edge")

// edgeViews are views without a time of their own, so that nothing but the window says whether they count again.
func (w *world) edgeViews(rnd *rand.Rand) []*reported {
	out := make([]*reported, 24)
	for i := range out {
		out[i] = &reported{view: domain.ViewReported{
			Viewer: domain.PersonRef{Tenant: tenant, Person: person(fmt.Sprint("edge", i))}, ViewID: domain.ViewID(eventID(rnd)), Post: edgePost,
		}}
	}
	return out
}

// ownReport sends views at this very instant, by a line that is never harmed.
func (w *world) ownReport(views []*reported) {
	events := make([]domain.Event, len(views))
	for i, r := range views {
		w.ledger.add(r)
		events[i] = r.view
	}
	if _, err := w.own.Append(w.ctx, events...); err != nil {
		w.fail(err)
	}
	w.ledger.acknowledge(views)
}
