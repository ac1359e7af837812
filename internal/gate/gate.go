package gate

import (
	"context"
	"errors"
	"log/slog"
	"sort"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"seenby/domain"
	"seenby/projections/posts"
)

// Assigner is the gate's membership of a consumer group on the topic views. It assigns; offsets committed to
// it are never read.
type Assigner interface {
	// Assignment is what this member has now, and a channel that is closed at the next change.
	Assignment() (parts []domain.Partition, changed <-chan struct{})
	Commit(ctx context.Context, at []domain.Position) error
}

// Ends asks a topic's high watermarks: one position per partition, in their order.
type Ends interface {
	Ends(ctx context.Context, topic domain.Topic) ([]domain.Position, error)
}

// Posts looks up posts and memberships in the read model. Rows and positions come from one statement.
type Posts interface {
	Lookup(ctx context.Context, asked []posts.Asked) (posts.LookupResult, error)
}

// Tenants are the tenants' limits, as far as the topic tenants has been read.
type Tenants interface {
	// Limits are a tenant's; ok is false where there is no such tenant, or it is closed.
	Limits(tenant domain.TenantID) (limits domain.Limits, ok bool)
	// Tenants are all that have limits.
	Tenants() []domain.TenantID
	// WaitFor returns once the positions, of the topic tenants, have been read; without any, once what stood on
	// it at the start has.
	WaitFor(ctx context.Context, positions []domain.Position) error
}

// Hooks are told what happens, for metrics. Any may be nil; they are called from many goroutines.
type Hooks struct {
	// Verdicts of one committed batch, by reason (ReasonNone: counted).
	Verdicts func(reason domain.Reason, n int)
	// Committed is one transaction: its views and the time from its begin to the answer of its commit.
	Committed func(views int, took time.Duration)
	// Restored is one opening of a partition: the verdicts read and the time it took in all.
	Restored func(partition int32, verdicts int64, took time.Duration)
	// Failed is one session of a partition that ended in an error, by its code.
	Failed func(partition int32, code domain.Code)
}

// Deps are the parts that a gate is joined with.
type Deps struct {
	Assigner Assigner
	Ends     Ends
	Posts    Posts
	Tenants  Tenants
	Logger   *slog.Logger
	Hooks    Hooks
}

// Gate judges the views of the partitions that its group assigns.
type Gate struct {
	cfg   Config
	deps  Deps
	log   *slog.Logger
	cache *otter.Cache[domain.PostKey, domain.PostAnswer] // posts that are there
	// members that are in their audience; that somebody is not has to be asked each time
	members *otter.Cache[posts.Member, struct{}]
	stalls  stalls

	mu      sync.Mutex
	workers map[domain.Partition]*worker
}

// New makes a gate. It does not touch the network.
func New(cfg Config, deps Deps) (*Gate, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	cache, err := otter.New(&otter.Options[domain.PostKey, domain.PostAnswer]{
		MaximumSize:      cfg.AnswersMax,
		ExpiryCalculator: otter.ExpiryWriting[domain.PostKey, domain.PostAnswer](answersKept),
	})
	if err != nil {
		return nil, domain.Errorf(domain.CodeMisconfigured, "the gate's cache: %v", err)
	}
	members, err := otter.New(&otter.Options[posts.Member, struct{}]{
		MaximumSize:      cfg.AnswersMax,
		ExpiryCalculator: otter.ExpiryWriting[posts.Member, struct{}](answersKept),
	})
	if err != nil {
		return nil, domain.Errorf(domain.CodeMisconfigured, "the gate's cache: %v", err)
	}
	log := deps.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Gate{cfg: cfg, deps: deps, log: log, cache: cache, members: members, workers: map[domain.Partition]*worker{}}, nil
}

// Run judges until ctx ends, then finishes the transactions that are open and returns ctx's cause.
func (g *Gate) Run(ctx context.Context) error {
	defer g.cache.StopAllGoroutines()
	defer g.members.StopAllGoroutines()
	var done sync.WaitGroup
	defer done.Wait()
	stopping := map[domain.Partition]<-chan struct{}{}
	cancels := map[domain.Partition]context.CancelFunc{}
	defer func() {
		for _, cancel := range cancels {
			cancel()
		}
	}()
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for {
		parts, changed := g.deps.Assigner.Assignment()
		assigned := map[domain.Partition]bool{}
		for _, p := range parts {
			assigned[p] = true
		}
		for p, cancel := range cancels {
			if !assigned[p] {
				cancel()
				delete(cancels, p)
				stopping[p] = g.remove(p).done
			}
		}
		for _, p := range parts {
			if cancels[p] != nil {
				continue
			}
			wctx, cancel := context.WithCancel(ctx)
			cancels[p] = cancel
			w, before := g.add(p), stopping[p]
			delete(stopping, p)
			done.Go(func() {
				defer close(w.done)
				if before != nil {
					<-before // our own predecessor finishes its batch; to be fenced by us would only cost that
				}
				w.run(wctx)
			})
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-changed:
				waiting = false
			case <-tick.C:
				g.commitOffsets(ctx)
			}
		}
	}
}

func (g *Gate) add(p domain.Partition) *worker {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := newWorker(g, p)
	g.workers[p] = w
	return w
}

func (g *Gate) remove(p domain.Partition) *worker {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.workers[p]
	delete(g.workers, p)
	return w
}

func (g *Gate) all() []*worker {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*worker, 0, len(g.workers))
	for _, w := range g.workers {
		all = append(all, w)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].part.Partition < all[j].part.Partition })
	return all
}

// commitOffsets writes how far each partition is, for lag tools only: a failure is worth a line in the log.
func (g *Gate) commitOffsets(ctx context.Context) {
	var at []domain.Position
	for _, w := range g.all() {
		if next := w.next.Load(); next >= 0 && next != w.offsetWritten {
			w.offsetWritten = next
			at = append(at, w.part.At(next))
		}
	}
	if len(at) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, commitEvery) // Run has assignments to follow
	defer cancel()
	if err := g.deps.Assigner.Commit(ctx, at); err != nil && ctx.Err() == nil {
		g.log.Info("gate: offsets for lag tools were not written", "err", err)
	}
}

// State says what a partition's worker is doing.
type State string

// States are all of them.
var States = []State{StateOpening, StateRunning, StatePaused, StateRetrying, StateStopped}

// The states of a worker.
const (
	StateOpening  State = "opening"  // fencing the predecessor, restoring the memory
	StateRunning  State = "running"  // judging
	StatePaused   State = "paused"   // waiting for a look-up that fails
	StateRetrying State = "retrying" // waiting before it opens anew
	StateStopped  State = "stopped"  // for good: a person must act
)

// PartitionStatus is one assigned partition.
type PartitionStatus struct {
	Partition  domain.Partition
	State      State
	NextOffset int64 // of views, committed; -1: not known yet
	Err        error // of paused, retrying and stopped; and of what failed before, until a batch is committed again
}

// Status is the state of every assigned partition, in their order.
func (g *Gate) Status() []PartitionStatus {
	all := g.all()
	out := make([]PartitionStatus, len(all))
	for i, w := range all {
		out[i] = w.status()
	}
	return out
}

// Ready is nil where every assigned partition gets on, else it says which does not and why.
func (g *Gate) Ready() error {
	var problems []error
	for _, s := range g.Status() {
		if s.Err != nil {
			problems = append(problems, domain.Errorf(domain.CodeOf(s.Err), "views/%d is %s", s.Partition.Partition, s.State).Because(s.Err))
		}
	}
	return errors.Join(problems...)
}
