package relay

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// Assigner is the relay's membership of a consumer group on the topic impressions. It assigns and does nothing else.
type Assigner interface {
	// Assignment is what this member has now, and a channel that is closed at the next change.
	Assignment() (parts []domain.Partition, changed <-chan struct{})
}

// Log is Kafka; its errors are classified.
type Log interface {
	// Ends are a topic's high watermarks, one per partition, in their order.
	Ends(ctx context.Context, topic domain.Topic) ([]domain.Position, error)
	// ReadRange hands out the committed records of a partition from a position up to an offset.
	ReadRange(ctx context.Context, from domain.Position, until int64, apply func([]domain.Record) error) error
}

// Writer writes to one partition in transactions that nobody else can write between.
type Writer interface {
	// Commit writes events in one transaction and tells their offsets. CodeConflict: another one has the partition.
	Commit(ctx context.Context, events []domain.Event) (offsets []int64, err error)
	Close()
}

// Store is PostgreSQL; its errors are classified.
type Store interface {
	Snapshot(ctx context.Context, f func(ctx context.Context, q projections.Querier) error) error
	InTx(ctx context.Context, f func(ctx context.Context, tx projections.Tx) error) error
}

// Tenants are the tenants' decisions, as far as the topic tenants has been read.
type Tenants interface {
	// Relay is what a tenant has decided; false for one that is unknown or closed.
	Relay(tenant domain.TenantID) (domain.RelaySet, bool)
	// Endpoints are a tenant's, enabled or not.
	Endpoints(tenant domain.TenantID) []domain.EndpointSet
	// Tenants are all open ones.
	Tenants() []domain.TenantID
	// Changed is closed at the next change of any of it.
	Changed() <-chan struct{}
}

// Hooks are told what happens, for metrics. Any may be nil; they are called from many goroutines.
type Hooks struct {
	// Told values stand on the topic impressions.
	Told func(posts int)
	// Waiting is how many posts are marked and not told yet, after each round.
	Waiting func(posts int)
	// Called is one call of an endpoint: its outcome, and the time to its answer.
	Called func(outcome string, took time.Duration)
	// Milestone calls were acknowledged.
	Milestone func()
	// Parked items were refused by an endpoint.
	Parked func()
	// Disabled is an endpoint that was given up.
	Disabled func()
}

// Deps are the parts that a relay is joined with.
type Deps struct {
	Assigner  Assigner
	Log       Log
	NewSource func() (Source, error)
	// OpenWriter takes a partition of impressions over from whoever wrote to it.
	OpenWriter func(ctx context.Context, part domain.Partition) (Writer, error)
	// PartitionOf is the partition of a post in topics that are keyed by post.
	PartitionOf func(post domain.PostKey) int32
	Store       Store
	Tenants     Tenants
	Caller      Caller
	// Secrets are what signs the calls of an endpoint at a time.
	Secrets func(e domain.EndpointSet, now time.Time) ([]string, error)
	// Disable gives an endpoint up, for a reason that operators read.
	Disable func(ctx context.Context, tenant domain.TenantID, endpoint, reason string) error
	Now     func() time.Time
	Logger  *slog.Logger
	Hooks   Hooks
}

const (
	// tick is how often marks are looked at: what a count waits for at least, beside the read models.
	tick = 100 * time.Millisecond
	// tellEvery is how often one post is told at most.
	tellEvery = time.Second
	// tellTogether is how often posts are told that were told before.
	tellTogether = 500 * time.Millisecond
	// markEvery is how often it is written what was told: after a crash, that much is looked at again.
	markEvery = time.Second
	// retryFirst to retryMost is how long the relay waits after an error.
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
	// retryFenced is longer: the partition most likely belongs to another relay, and the group will say so.
	retryFenced = 5 * time.Second
)

// Relay tells the posts of the partitions that its group assigns.
type Relay struct {
	deps     Deps
	log      *slog.Logger
	delivery *delivery

	mu  sync.Mutex
	err error // of the last round; nil where it worked
}

// New makes a relay. It does not touch the network.
func New(deps Deps) *Relay {
	log := deps.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Relay{deps: deps, log: log, delivery: newDelivery(deps, log)}
}

// Ready is nil where the last round worked. That endpoints fail is no fault of the relay's.
func (r *Relay) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// note keeps the state for Ready, and logs where it changes.
func (r *Relay) note(err error) {
	r.mu.Lock()
	was := r.err
	r.err = err
	r.mu.Unlock()
	switch {
	case err != nil && was == nil:
		r.log.Warn("relay: counts wait", "err", err)
	case err == nil && was != nil:
		r.log.Info("relay: goes on")
	}
}

// Run tells until ctx ends and returns ctx's cause. Data loss on the topic impressions stops the partition that has it;
// everything else is tried again.
func (r *Relay) Run(ctx context.Context) error {
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() { r.delivery.run(ctx) })
	lookAtAll := false
	for wait := retryFirst; ctx.Err() == nil; wait = min(2*wait, retryMost) {
		err := r.session(ctx, lookAtAll)
		if ctx.Err() != nil {
			break
		}
		// Where the log no longer holds what was to be looked at, the read models still have what came of it.
		lookAtAll = domain.CodeOf(err) == domain.CodeDataLoss
		r.note(err)
		pause(ctx, wait)
	}
	return context.Cause(ctx)
}

// session is one life of a source, and of the partitions that are open with it.
func (r *Relay) session(ctx context.Context, lookAtAll bool) error {
	source, err := r.deps.NewSource()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	t := newTeller(r, source, lookAtAll)
	var done sync.WaitGroup
	defer func() {
		cancel()
		done.Wait()
		source.Close()
		t.close()
	}()
	done.Go(func() { t.reading.run(ctx) })
	return t.run(ctx)
}
