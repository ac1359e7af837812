package faulttest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/gate"
	"seenby/internal/keeper"
	"seenby/internal/projector"
	"seenby/projections"
	"seenby/projections/posts"
)

// life is one process from its start to its end.
type life struct {
	w      *world
	name   string
	data   *line // to Kafka, for all but the group
	group  *line // to Kafka, for the membership: without it the process is a zombie
	cancel context.CancelFunc

	gate      *gate.Gate
	projector *projector.Projector
	keeper    *keeper.Keeper
	log       *eventlog.Log // of an api
	member    membership

	mu      sync.Mutex
	dead    bool
	strikes map[string]*strike // by place in our own code; key is not used
}

// Places in our own code where a process can die. Those of Kafka's requests are strikes on its line.
const (
	placeLookup = "look-up"
	placeCommit = "PostgreSQL commit"
)

var errDead = domain.Errorf(domain.CodeUnavailable, "this process is dead")

func (w *world) newLife(name string, cancel context.CancelFunc) *life {
	l := &life{w: w, name: name, data: w.newLine(), group: w.newLine(), cancel: cancel, strikes: map[string]*strike{}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lives[l] = true
	return l
}

// kill is kill -9: first nothing that the process does has any effect; then its goroutines are told to end.
func (l *life) kill() {
	l.mu.Lock()
	l.dead = true
	l.mu.Unlock()
	l.data.sever()
	l.group.sever()
	l.cancel()
}

func (l *life) killed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

func (l *life) calm() {
	l.data.calm()
	l.group.calm()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strikes = map[string]*strike{}
}

// hits tells whether a strike is due at a place, and whether after its effect.
func (l *life) hits(place string) (hit, late bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.strikes[place]
	if s == nil {
		return false, false
	}
	if s.skip > 0 {
		s.skip--
		return false, false
	}
	delete(l.strikes, place)
	return true, s.late
}

// Lookup is the gate's way to the projection of posts.
func (l *life) Lookup(ctx context.Context, asked []posts.Asked) (posts.LookupResult, error) {
	hit, late := l.hits(placeLookup)
	if hit && !late {
		l.kill()
	}
	if l.killed() {
		return posts.LookupResult{}, errDead
	}
	res, err := l.w.model.Lookup(ctx, asked)
	if hit {
		l.kill()
		return posts.LookupResult{}, errDead
	}
	return res, err
}

// Settled is the keeper's way there.
func (l *life) Settled(ctx context.Context, waits []posts.Wait) ([]bool, error) {
	if l.killed() {
		return nil, errDead
	}
	return l.w.model.Settled(ctx, waits)
}

// Erasable has no part here.
func (l *life) Erasable(context.Context, int) ([]domain.PostBodyErased, error) { return nil, nil }

// InTx is the projector's way to PostgreSQL.
func (l *life) InTx(ctx context.Context, f func(ctx context.Context, tx projections.Tx) error) error {
	if l.killed() {
		return errDead
	}
	return l.w.store.inTx(ctx, l.commitFault, f)
}

// commitFault is asked when the COMMIT is on its way.
func (l *life) commitFault() (fault commitFault) {
	if hit, late := l.hits(placeCommit); hit {
		l.w.count(placeCommit)
		l.kill()
		if late {
			return commitUnanswered
		}
		return commitLost
	}
	if l.killed() {
		return commitLost
	}
	l.w.roll(func(rnd *rand.Rand) {
		switch {
		case !l.w.ending && rnd.IntN(40) == 0:
			fault = pick(rnd, commitLost, commitUnanswered, commitRefused, commitSlow)
		case l.w.ending && l.w.lostCommits > 0:
			l.w.lostCommits--
			fault = pick(rnd, commitLost, commitUnanswered, commitRefused)
		}
	})
	return fault
}

// live runs a process until it is killed or the world ends, and then another in its place.
func (w *world) live(name string, work func(ctx context.Context, l *life) error) {
	w.running.Go(func() {
		for w.ctx.Err() == nil {
			w.waitHeld(name)
			ctx, cancel := context.WithCancel(w.ctx)
			l := w.newLife(name, cancel)
			err := work(ctx, l)
			cancel()
			w.mu.Lock()
			delete(w.lives, l)
			w.mu.Unlock()
			if w.ctx.Err() == nil && !l.killed() && err != nil && domain.CodeOf(err) != domain.CodeUnavailable && !errors.Is(err, context.Canceled) {
				w.fail(domain.Errorf(domain.CodeInternal, "%s has stopped", name).Because(err))
				return
			}
			var pause time.Duration
			w.roll(func(rnd *rand.Rand) { pause = 50*time.Millisecond + between(rnd, 2*time.Second) })
			sleep(w.ctx, pause)
		}
	})
}

// end closes what a process had. A dead one's clients may try for minutes to take their leave of Kafka, and nobody
// waits for that.
func (l *life) end(leave func()) {
	if l.killed() {
		l.w.running.Go(leave)
		return
	}
	leave()
}

// session is after what time a dead member's partitions go to others.
func (w *world) session() (d time.Duration) {
	w.roll(func(rnd *rand.Rand) { d = between(rnd, 6*time.Second) })
	return d
}

func (w *world) liveGate(name string) {
	w.live(name, func(ctx context.Context, l *life) error {
		cfg := gate.Config{Kafka: w.kafka(l.data)}
		w.roll(func(rnd *rand.Rand) {
			cfg.BatchViewsMax = pick(rnd, 7, 40, 500)
			cfg.GatherFor = pick(rnd, time.Millisecond, 25*time.Millisecond)
			cfg.TransactionTimeout = pick(rnd, 2*time.Second, 6*time.Second)
		})
		log, err := eventlog.Open(cfg.Kafka)
		if err != nil {
			return err
		}
		defer log.Close()
		assigner, leave, err := w.join(ctx, l, groupGate, domain.TopicViews)
		if err != nil {
			return err
		}
		defer l.end(leave)
		g, err := gate.New(cfg, gate.Deps{Assigner: assigner, Ends: log, Posts: l, Tenants: tenants{w.limits}, Logger: w.log.With("process", name)})
		if err != nil {
			return err
		}
		w.mu.Lock()
		l.gate = g
		w.mu.Unlock()
		return g.Run(ctx)
	})
}

func (l *life) joined(m membership) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	l.member = m
}

// join makes a process a member of a group, by the roster or by Kafka's protocol.
func (w *world) join(ctx context.Context, l *life, name string, topic domain.Topic) (m membership, leave func(), err error) {
	r := w.rosters[name]
	if !w.groups {
		m := r.join()
		l.joined(m)
		return m, func() { r.leave(m, w.session()) }, nil
	}
	log, err := eventlog.Open(w.kafka(l.group))
	if err != nil {
		return nil, nil, err
	}
	w.mu.Lock()
	name = fmt.Sprint(name, w.epoch)
	w.mu.Unlock()
	group, err := log.JoinGroup(ctx, name, topic)
	if err != nil {
		log.Close()
		return nil, nil, err
	}
	l.joined(grouped{group, &member{roster: r}})
	return l.member, func() { group.Close(); log.Close() }, nil
}

func (w *world) source(ctx context.Context, l *life, group string) (s *source, log *eventlog.Log, leave func(), err error) {
	var most int32
	w.roll(func(rnd *rand.Rand) { most = pick[int32](rnd, 500, 5000, 1<<20) })
	// A fetch gives at least one batch, whatever its limit: a small one makes reading go step by step.
	log, err = eventlog.Open(w.kafka(l.data, kgo.FetchMaxPartitionBytes(most)))
	if err != nil {
		return nil, nil, nil, err
	}
	reader, err := log.NewReader()
	if err != nil {
		log.Close()
		return nil, nil, nil, err
	}
	m, out, err := w.join(ctx, l, group, domain.TopicVerdicts)
	if err != nil {
		reader.Close()
		log.Close()
		return nil, nil, nil, err
	}
	return &source{m, reader, log}, log, func() { out(); reader.Close(); log.Close() }, nil
}

func (w *world) liveProjector(name string, p projections.Projection) {
	w.live(name, func(ctx context.Context, l *life) error {
		src, _, leave, err := w.source(ctx, l, p.Name())
		if err != nil {
			return err
		}
		defer l.end(leave)
		cfg := projector.Config{RetryMin: 20 * time.Millisecond, RetryMax: time.Second}
		w.roll(func(rnd *rand.Rand) { cfg.BatchEventsMax = pick(rnd, 3, 50, 1000) })
		pr := projector.New(projections.ReadModel{Projection: p, Version: 1}, src, l, cfg, w.log.With("process", name), time.Now, projector.Hooks{})
		w.mu.Lock()
		l.projector = pr
		w.mu.Unlock()
		return pr.Run(ctx)
	})
}

func (w *world) liveKeeper(name string) {
	w.live(name, func(ctx context.Context, l *life) error {
		src, log, leave, err := w.source(ctx, l, groupKeeper)
		if err != nil {
			return err
		}
		defer l.end(leave)
		cfg := keeper.Config{}
		w.roll(func(rnd *rand.Rand) {
			cfg.AppendMax, cfg.PendingMax = pick(rnd, 1, 8, 1000), pick(rnd, 3, 1000)
		})
		k, err := keeper.New(cfg, keeper.Deps{Source: src, Appender: log, Readmodel: l, Logger: w.log.With("process", name)})
		if err != nil {
			return err
		}
		w.mu.Lock()
		l.keeper = k
		w.mu.Unlock()
		return k.Run(ctx)
	})
}
