package faulttest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/topics"
)

const (
	tenant = domain.TenantID("demo")
	prefix = "f-"
)

// plan is what a seed decides at its start.
type plan struct {
	seed       uint64
	partitions int32
	groups     bool          // real consumer groups; else a roster deals partitions out
	delay      time.Duration // most that a request is under way
	jump       bool          // most stops, more than a duplicate window passes, all starts again
	long       bool          // the windows are those of a new tenant, as long as the gate's memory looks back at least
	limits     domain.Limits
	postsLate  time.Duration // most that the projection of posts stands still after a batch
	viewsMin   int
}

func newPlan(seed uint64) plan {
	rnd := rand.New(rand.NewPCG(seed, 1))
	p := plan{
		seed: seed, partitions: 2 + rnd.Int32N(3), groups: rnd.IntN(5) == 0, jump: rnd.IntN(2) == 0,
		delay: pick(rnd, 0, 0, 5*time.Millisecond, 30*time.Millisecond), postsLate: pick(rnd, 20*time.Millisecond, 300*time.Millisecond, 3*time.Second),
		viewsMin: 500, limits: domain.DefaultLimits(), long: rnd.IntN(2) == 0,
	}
	if !p.long {
		// Shorter than a tenant may set, so that it can pass while gates live, and still far longer than the keeper's proofs
		// stand, a minute.
		p.limits.DuplicateWindow, p.limits.Stale, p.limits.Future = 3*time.Minute, 160*time.Second, 10*time.Second
	}
	p.limits.PostCap = domain.PostCap{Views: 4, Window: 30 * time.Second}
	p.limits.Quota = domain.Quota{ViewsPerMinute: 60, BurstViews: 15}
	p.limits.RefuseOwnViews = rnd.IntN(2) == 0
	return p
}

func pick[T any](rnd *rand.Rand, of ...T) T { return of[rnd.IntN(len(of))] }

// world is one installation, and all that is known about it from outside.
type world struct {
	plan
	t       *testing.T
	ctx     context.Context //nolint:containedctx // of everything that a seed starts
	cluster *kfake.Cluster
	network *kfake.VirtualNetwork
	log     *slog.Logger
	quiet   *line // never harmed: the test's own
	own     *eventlog.Log
	store   *memStore
	model   *postsModel
	ledger  *ledger
	running sync.WaitGroup

	mu      sync.Mutex
	dice    *rand.Rand // of what goes on in many goroutines; taken under mu
	ending  bool       // no faults from now on
	lives   map[*life]bool
	rosters map[string]*roster
	api     *life
	apps    *apps
	crashes map[string]int // by place
	lines   uint64
	problem error

	lostCommits int // of those that come at the end: so many go wrong
	epoch       int // of the real groups' names

	held     []string      // kinds of processes that may not live now
	released chan struct{} // closed when that changes
}

// newWorld makes the cluster, the topics and the parts that never die.
func newWorld(t *testing.T, ctx context.Context, p plan) (*world, error) {
	w := &world{
		plan: p, t: t, ctx: ctx, network: &kfake.VirtualNetwork{}, log: slog.New(slog.DiscardHandler), store: newMemStore(),
		ledger: newLedger(p), dice: rand.New(rand.NewPCG(p.seed, 2)), lives: map[*life]bool{}, rosters: map[string]*roster{}, crashes: map[string]int{}, released: make(chan struct{}),
	}
	if *flagLog {
		w.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	var err error
	if w.cluster, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(w.network.Listen)); err != nil {
		return nil, err
	}
	w.quiet = newLine(w.network, 0, 0)
	if w.own, err = eventlog.Open(w.kafka(w.quiet)); err != nil {
		return nil, err
	}
	if err := w.createTopics(ctx); err != nil {
		return nil, err
	}
	for group, topic := range map[string]domain.Topic{
		groupGate: domain.TopicViews, groupKeeper: domain.TopicVerdicts, "impressions": domain.TopicVerdicts, "uniqueviews": domain.TopicVerdicts,
	} {
		parts, err := w.own.Partitions(ctx, topic)
		if err != nil {
			return nil, err
		}
		w.rosters[group] = newRoster(w, parts)
	}
	return w, w.startModel(ctx)
}

const (
	groupGate   = "gate"
	groupKeeper = "keeper"
)

// kafka is how a process on a line reaches the cluster.
func (w *world) kafka(l *line, opts ...kgo.Opt) eventlog.Config {
	return eventlog.Config{Brokers: w.cluster.ListenAddrs(), Prefix: prefix, Options: append([]kgo.Opt{kgo.Dialer(l.dial), kgo.DisableClientMetrics()}, opts...)}
}

func (w *world) createTopics(ctx context.Context) error {
	cfg := w.kafka(w.quiet)
	client, err := kgo.NewClient(cfg.ClientOpts()...)
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for _, spec := range topics.All {
		switch spec.Name {
		case domain.TopicViews, domain.TopicVerdicts, domain.TopicPosts, domain.TopicAudiences:
		default:
			continue // has no part in this
		}
		configs := map[string]*string{}
		for k, v := range spec.Configs {
			configs[k] = &v
		}
		r, err := admin.CreateTopic(ctx, w.partitions, 1, configs, cfg.TopicName(spec.Name))
		if err = errors.Join(err, r.Err); err != nil {
			return fmt.Errorf("create %s: %w", spec.Name, err)
		}
	}
	return nil
}

func (w *world) startModel(ctx context.Context) error {
	reader, err := w.own.NewReader()
	if err != nil {
		return err
	}
	var from []domain.Position
	for _, topic := range []domain.Topic{domain.TopicPosts, domain.TopicAudiences} {
		starts, err := w.own.Starts(ctx, topic)
		if err != nil {
			return err
		}
		from = append(from, starts...)
	}
	w.model = newPostsModel(reader)
	w.running.Go(func() {
		defer reader.Close()
		err := w.model.run(ctx, from, func() (d time.Duration) {
			w.roll(func(rnd *rand.Rand) {
				if !w.ending && rnd.IntN(2) == 0 {
					d = between(rnd, w.postsLate)
				}
			})
			return d
		})
		w.fail(err)
	})
	return nil
}

// roll does something with the dice.
func (w *world) roll(f func(rnd *rand.Rand)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w.dice)
}

// fail keeps the first thing that must not happen.
func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.problem == nil {
		w.problem = err
	}
}

func (w *world) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.problem
}

func (w *world) newLine() *line {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines++
	delay := w.delay
	if w.ending {
		delay = 0
	}
	return newLine(w.network, w.seed<<8+w.lines, delay)
}

// calm ends all faults: what is dead comes back, and nothing breaks any more.
func (w *world) calm() {
	w.mu.Lock()
	w.ending = true
	w.epoch++
	lives := make([]*life, 0, len(w.lives))
	for l := range w.lives {
		lives = append(lives, l)
	}
	w.mu.Unlock()
	for _, l := range lives {
		l.calm()
	}
	w.model.setAway(false)
	if w.groups {
		// kfake waits for ever for a member that died while it joined. Groups only assign, so others do as well.
		for _, l := range lives {
			l.kill()
		}
		return
	}
	for _, r := range w.rosters {
		r.settle()
	}
}

// describe says what stands where, for a failure.
func (w *world) describe() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out strings.Builder
	for l := range w.lives {
		if l.member != nil {
			parts, _ := l.member.Assignment()
			fmt.Fprintf(&out, "\n  %s has", l.name)
			for _, p := range parts {
				fmt.Fprintf(&out, " %d", p.Partition)
			}
			if g, ok := l.member.(grouped); ok {
				fmt.Fprintf(&out, ", %v", g.Err())
			}
		}
		if l.gate != nil {
			for _, s := range l.gate.Status() {
				fmt.Fprintf(&out, "\n  %s views/%d %s at %d: %v", l.name, s.Partition.Partition, s.State, s.NextOffset, s.Err)
			}
		}
		if l.projector != nil {
			s := l.projector.Status()
			fmt.Fprintf(&out, "\n  %s stopped=%v: %v", l.name, s.Stopped, s.Err)
			for _, p := range s.Partitions {
				fmt.Fprintf(&out, " %d@%d/%d", p.Partition, p.NextOffset, p.ViewNextOffset)
			}
		}
		if l.keeper != nil {
			fmt.Fprintf(&out, "\n  %s: %v", l.name, l.keeper.Ready())
		}
	}
	return out.String()
}

// tenants are the tenants, which never change here.
type tenants struct{ limits domain.Limits }

func (t tenants) Limits(id domain.TenantID) (domain.Limits, bool)  { return t.limits, id == tenant }
func (t tenants) Tenants() []domain.TenantID                       { return []domain.TenantID{tenant} }
func (t tenants) WaitFor(context.Context, []domain.Position) error { return nil }
