package relay

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"seenby/domain"
	"seenby/internal/webhook"
	"seenby/projections"
)

// Caller calls endpoints.
type Caller interface {
	Send(ctx context.Context, e webhook.Endpoint, id string, body []byte, now time.Time) webhook.Answer
}

const (
	// batchMax is how many posts one call tells at most: about 60 KB.
	batchMax = 500
	// milestonesMax is how many milestones are read in one go; each is a call.
	milestonesMax = 50
	// callEvery is how often an endpoint is called with counts at most, where they do not fill a call.
	callEvery = 200 * time.Millisecond
	// backoffFirst to backoffMost is how long an endpoint that fails is left alone, give or take half.
	backoffFirst = time.Second
	backoffMost  = time.Hour
	// giveUpAfter is how long an endpoint may fail without one call that works, in giveUpAttempts calls at least: the relay
	// itself may have been away for most of that time.
	giveUpAfter    = 24 * time.Hour
	giveUpAttempts = 10
	// suspectAttempts is how often a single post may be answered by 500 before it is the one to blame.
	suspectAttempts = 6
	// refusalsMax is how many posts in a row an endpoint may refuse before it is the endpoint that is to blame.
	refusalsMax = 20
	// lookEvery is how often an endpoint looks for what it was not told of, as after another process had its partitions.
	lookEvery = 30 * time.Second
	// lookUnwoken is the longest wait that is not cut short by what is new.
	lookUnwoken = lookEvery - time.Millisecond
	// reasonBytesMax bounds what is kept of an answer.
	reasonBytesMax = 255
)

// delivery sends what was told to the tenants' endpoints: one goroutine and at most one call at a time for each.
type delivery struct {
	deps Deps
	log  *slog.Logger

	mu      sync.Mutex
	parts   []int32 // of the posts that are sent from here
	senders map[endpointKey]*sender
}

type endpointKey struct {
	tenant   domain.TenantID
	endpoint string
}

func newDelivery(deps Deps, log *slog.Logger) *delivery {
	return &delivery{deps: deps, log: log, senders: map[endpointKey]*sender{}}
}

// run keeps a sender for each endpoint that is enabled, until ctx ends.
func (d *delivery) run(ctx context.Context) {
	var done sync.WaitGroup
	defer done.Wait()
	known := map[endpointKey]domain.EndpointSet{} // as of the last look
	for ctx.Err() == nil {
		changed := d.deps.Tenants.Changed()
		wanted, anew := map[endpointKey]domain.EndpointSet{}, map[endpointKey]bool{}
		for _, tenant := range d.deps.Tenants.Tenants() {
			if set, open := d.deps.Tenants.Relay(tenant); !open || !set.Enabled {
				continue
			}
			for _, e := range d.deps.Tenants.Endpoints(tenant) {
				key := endpointKey{tenant, e.EndpointID}
				if was, ok := known[key]; ok && was != e {
					anew[key] = true
				}
				if known[key] = e; e.Enabled() {
					wanted[key] = e
				}
			}
		}
		d.mu.Lock()
		for key, s := range d.senders {
			if e, ok := wanted[key]; !ok || e != s.endpoint {
				s.stop()
				delete(d.senders, key)
			}
		}
		for key, e := range wanted {
			if d.senders[key] == nil {
				sctx, stop := context.WithCancel(ctx)
				s := &sender{d: d, key: key, endpoint: e, anew: anew[key], size: batchMax, kicked: make(chan struct{}, 1), stop: stop}
				d.senders[key] = s
				done.Go(func() { s.run(sctx) })
			}
		}
		d.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// own says which partitions of impressions are this relay's.
func (d *delivery) own(parts []int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parts = parts
	for _, s := range d.senders {
		s.kick()
	}
}

func (d *delivery) owned() []int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.parts
}

// kick says that there is something new for these tenants.
func (d *delivery) kick(tenants map[domain.TenantID]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, s := range d.senders {
		if tenants[key.tenant] {
			s.kick()
		}
	}
}

// sender sends to one endpoint.
type sender struct {
	d        *delivery
	key      endpointKey
	endpoint domain.EndpointSet
	anew     bool // it was changed: how it did before says nothing any more
	kicked   chan struct{}
	stop     context.CancelFunc

	// first is the partition that the next call begins with: behind the one before, or where that failed, its own, so that
	// halving comes down to one post, whatever is told meanwhile.
	first    int32
	size     int // posts of the next call; halved when one fails, since a single post may be what fails it
	suspect  domain.PostID
	suspects int // calls in a row that failed with nothing in them but the suspect
	refusals int // posts in a row that were refused
}

func (s *sender) kick() {
	select {
	case s.kicked <- struct{}{}:
	default:
	}
}

func (s *sender) run(ctx context.Context) {
	for ctx.Err() == nil {
		wait, err := s.step(ctx)
		if err != nil && ctx.Err() == nil {
			s.d.log.Warn("relay: an endpoint waits", "tenant", s.key.tenant, "endpoint", s.key.endpoint, "err", err)
			wait = retryMost
		}
		if wait == 0 {
			continue
		}
		kicked := s.kicked
		if wait < lookEvery {
			kicked = nil
		}
		look := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-look.C:
		case <-kicked:
		}
		look.Stop()
	}
}

// step makes the next call, or none, and tells how long to wait before another; lookEvery or more: until there is something.
func (s *sender) step(ctx context.Context) (wait time.Duration, err error) {
	parts := s.d.owned()
	if len(parts) == 0 {
		return lookEvery, nil
	}
	turn, _ := slices.BinarySearch(parts, s.first)
	parts = slices.Concat(parts[turn:], parts[:turn])
	if s.anew {
		if err := s.forget(ctx); err != nil {
			return 0, err
		}
		s.anew = false
	}
	now := s.d.deps.Now()
	w := work{}
	if err := s.d.deps.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
		w, err = readWork(ctx, q, s.key, parts, s.size)
		return err
	}); err != nil {
		return 0, err
	}
	if until := w.health.nextAttempt.Sub(now); until > 0 {
		return min(until, lookUnwoken), nil // not to be woken by what is new
	}
	for _, m := range w.milestones {
		if ok, wait, err := s.call(ctx, w.health, []item{m}); !ok || err != nil {
			return wait, err
		}
	}
	if len(w.milestones) == milestonesMax {
		return 0, nil
	}
	if len(w.counts) == 0 {
		return lookEvery, nil
	}
	if ok, wait, err := s.call(ctx, w.health, w.counts); !ok || err != nil {
		return wait, err
	}
	more := len(w.counts) == s.size
	s.size = min(2*s.size, batchMax)
	if more {
		return 0, nil
	}
	return callEvery, nil
}

// call makes one call and writes down what came of it. ok: the endpoint has taken it.
func (s *sender) call(ctx context.Context, h health, items []item) (ok bool, wait time.Duration, err error) {
	now := s.d.deps.Now()
	target, err := s.target(now)
	if err != nil {
		return false, 0, err
	}
	id, body := s.message(items, now)
	answer := s.d.deps.Caller.Send(ctx, target, id, body, now)
	if ctx.Err() != nil {
		return false, 0, context.Cause(ctx)
	}
	if hook := s.d.deps.Hooks.Called; hook != nil {
		hook(string(answer.Outcome), answer.Took)
	}
	switch answer.Outcome {
	case webhook.Delivered:
		s.suspects, s.refusals = 0, 0
		return true, 0, s.acknowledge(ctx, items)
	case webhook.Gone:
		return false, lookUnwoken, s.giveUp(ctx, "it answered 410: it wants nothing any more")
	case webhook.Refused:
		if s.refusals >= refusalsMax {
			break // nothing is right to it: as if it were away
		}
		if len(items) > 1 {
			s.size = max(1, len(items)/2)
			return false, time.Millisecond, nil
		}
		s.refusals++
		return false, time.Millisecond, s.park(ctx, items[0], answer)
	case webhook.Failed:
		s.size = max(1, len(items)/2)
		if answer.Status == http.StatusInternalServerError {
			if len(items) > 1 {
				return false, backoffFirst, nil // one of them may be what it fails on
			}
			if s.suspect != items[0].post {
				s.suspect, s.suspects = items[0].post, 0
			}
			if s.suspects++; s.suspects >= suspectAttempts {
				s.suspects = 0
				return false, time.Millisecond, s.park(ctx, items[0], answer)
			}
		}
	case webhook.Limited:
	}
	return s.failed(ctx, h, answer)
}

// failed leaves the endpoint alone for a while, or for good.
func (s *sender) failed(ctx context.Context, h health, answer webhook.Answer) (bool, time.Duration, error) {
	now := s.d.deps.Now()
	said := describe(answer)
	if h.attempts >= giveUpAttempts && now.Sub(h.failingSince) >= giveUpAfter {
		return false, lookUnwoken, s.giveUp(ctx, fmt.Sprintf("no call has worked since %s; the last one: %s", h.failingSince.Format(time.RFC3339), said))
	}
	wait := max(backoff(h.attempts), answer.RetryAfter)
	if h.attempts == 0 {
		s.d.log.Warn("relay: an endpoint fails; its counts wait", "tenant", s.key.tenant, "endpoint", s.key.endpoint, "answer", said, "wait", wait)
	}
	return false, min(wait, lookUnwoken), s.d.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		return writeFailure(ctx, tx, s.key, h, now, now.Add(wait), said)
	})
}

// backoff doubles with each failure, and varies, so that endpoints of one receiver do not come all at once.
func backoff(failures int) time.Duration {
	wait := backoffMost
	if failures < 12 {
		wait = min(backoffFirst<<failures, backoffMost)
	}
	return wait/2 + rand.N(wait) //nolint:gosec // no secret
}

func describe(a webhook.Answer) string {
	if a.Status > 0 {
		return clip(fmt.Sprintf("%d: %s", a.Status, a.Detail))
	}
	return clip(a.Detail)
}

// clip bounds what is kept of an answer.
func clip(said string) string {
	if len(said) <= reasonBytesMax {
		return said
	}
	return strings.ToValidUTF8(said[:reasonBytesMax-3], "") + "..."
}

// giveUp disables the endpoint. Until the topic says so it is not called again.
func (s *sender) giveUp(ctx context.Context, reason string) error {
	reason = clip(reason)
	if err := s.d.deps.Disable(ctx, s.key.tenant, s.key.endpoint, reason); err != nil {
		return err
	}
	s.d.log.Error("relay: an endpoint is disabled", "tenant", s.key.tenant, "endpoint", s.key.endpoint, "reason", reason)
	if hook := s.d.deps.Hooks.Disabled; hook != nil {
		hook()
	}
	// Whoever enables it again begins with a clean record.
	return s.forget(ctx)
}

func (s *sender) forget(ctx context.Context) error {
	return s.d.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error { return forgetHealth(ctx, tx, s.key) })
}

// behind lets the next counts begin with the partition behind these.
func (s *sender) behind(items []item) {
	if last := items[len(items)-1]; last.milestone == 0 {
		s.first = last.partition + 1
	}
}

func (s *sender) acknowledge(ctx context.Context, items []item) error {
	s.behind(items)
	if items[0].milestone > 0 {
		if hook := s.d.deps.Hooks.Milestone; hook != nil {
			hook()
		}
	}
	return s.d.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		return writeSuccess(ctx, tx, s.key, items, s.d.deps.Now())
	})
}

func (s *sender) park(ctx context.Context, one item, answer webhook.Answer) error {
	s.behind([]item{one})
	said := describe(answer)
	s.d.log.Warn("relay: an endpoint refuses a post; it is parked", "tenant", s.key.tenant, "endpoint", s.key.endpoint, "post", one.post, "answer", said)
	if hook := s.d.deps.Hooks.Parked; hook != nil {
		hook()
	}
	return s.d.deps.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		return writeParked(ctx, tx, s.key, one, said, s.d.deps.Now())
	})
}

// target is the endpoint with the secrets of now.
func (s *sender) target(now time.Time) (webhook.Endpoint, error) {
	secrets, err := s.d.deps.Secrets(s.endpoint, now)
	return webhook.Endpoint{URL: s.endpoint.URL, Secrets: secrets, AllowPrivate: s.endpoint.AllowPrivate}, err
}

// message is what is sent: a milestone, or the counts of posts. Sent again, the same has the same id.
func (s *sender) message(items []item, now time.Time) (id string, body []byte) {
	first := items[0]
	if first.milestone > 0 {
		return webhook.MilestoneID(s.key.tenant, first.post, first.milestone), webhook.MilestoneBody(now, first.change(s.key.tenant), first.milestone)
	}
	changes := make([]domain.ImpressionsChanged, len(items))
	for i, one := range items {
		changes[i] = one.change(s.key.tenant)
	}
	return s.countsID(items), webhook.CountsBody(s.key.tenant, now, changes)
}

// countsID names counts by what they are: the posts' partitions and where they stand in them.
func (s *sender) countsID(items []item) string {
	sorted := slices.Clone(items)
	slices.SortFunc(sorted, compareItems)
	return hashID(s.key, sorted)
}
