package keeper

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"seenby/domain"
	"seenby/projections/posts"
)

// Source assigns partitions of verdicts and reads them from where it is told. Only Run's goroutine calls it.
type Source interface {
	// Assignment is what this member has now, and a channel that is closed at the next change.
	Assignment() (parts []domain.Partition, changed <-chan struct{})
	// Seek starts or moves reading, Drop ends it. CodeDataLoss: the log does not hold the position.
	Seek(ctx context.Context, at []domain.Position) error
	Drop(parts []domain.Partition)
	// Poll waits a little, well under a second, and hands out committed records. An empty batch is no error.
	Poll(ctx context.Context, eventsMax int) (domain.Batch, error)
	// Commit and Committed keep the hints.
	Commit(ctx context.Context, at []domain.Position) error
	Committed(ctx context.Context) ([]domain.Position, error)
	// Ends are a topic's high watermarks, one per partition, in their order.
	Ends(ctx context.Context, topic domain.Topic) ([]domain.Position, error)
}

// Appender appends events. An error leaves open whether they stand in the log.
type Appender interface {
	Append(ctx context.Context, events ...domain.Event) ([]domain.Position, error)
}

// Readmodel is the live posts projection.
type Readmodel interface {
	// Settled tells, for each wait, whether it has passed its positions and its key has no dead letters.
	Settled(ctx context.Context, waits []posts.Wait) ([]bool, error)
	// Erasable gives tombstones of texts that must go and whose tombstone it has not read yet, at most limit.
	Erasable(ctx context.Context, limit int) ([]domain.PostBodyErased, error)
}

// Hooks are told what happens, for metrics. Any may be nil.
type Hooks struct {
	// Pending is how many views of all assigned partitions wait, after each look at them.
	Pending func(views int)
	// Readmitted views were appended.
	Readmitted func(views int)
	// Erased texts: their tombstones were appended.
	Erased func(texts int)
}

// Deps are the parts that a keeper is joined with.
type Deps struct {
	Source    Source
	Appender  Appender
	Readmodel Readmodel
	Logger    *slog.Logger
	Hooks     Hooks
}

// Keeper readmits undecided views of the partitions that its group assigns; that of partition 0 also erases texts.
type Keeper struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	ledgers map[domain.Partition]*ledger
	wrote   map[domain.Partition]int64
	erasing erasing

	refusing *refusing // nil: it is the keeper of undecided views

	mu  sync.Mutex
	err error // of the last step; nil where it worked
}

// New makes a keeper. It does not touch the network.
func New(cfg Config, deps Deps) (*Keeper, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	log := deps.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{
		cfg: cfg.withDefaults(), deps: deps, log: log, ledgers: map[domain.Partition]*ledger{},
		wrote: map[domain.Partition]int64{},
	}, nil
}

// Ready is nil where the last step worked and every undecided view has room.
func (k *Keeper) Ready() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// Run keeps until ctx ends and returns ctx's cause. Data loss, events of an unknown type and partition counts that
// disagree end it with an error; everything else is tried again.
func (k *Keeper) Run(ctx context.Context) error {
	var changed <-chan struct{}
	var looked, committed time.Time
	wait := retryFirst
	for {
		err := k.step(ctx, &changed, &looked)
		if err == nil {
			err = k.erase(ctx)
		}
		if err == nil && time.Since(committed) >= commitEvery {
			k.commit(ctx)
			committed = time.Now()
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if code := domain.CodeOf(err); code == domain.CodeDataLoss || code == domain.CodeMisconfigured {
			k.note(err)
			return err
		}
		k.note(err)
		if err == nil {
			wait = retryFirst
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMost)
	}
}

// step reads some verdicts, and appends what is due where the last look for that is long enough ago.
func (k *Keeper) step(ctx context.Context, changed *<-chan struct{}, looked *time.Time) error {
	if err := k.follow(ctx, changed); err != nil {
		return err
	}
	if err := k.poll(ctx); err != nil {
		return err
	}
	if time.Since(*looked) < k.cfg.Every {
		return nil
	}
	err := k.advance(ctx)
	*looked = time.Now()
	return err
}

// note keeps the state of the last step for Ready, and logs where it changes.
func (k *Keeper) note(err error) {
	for _, l := range k.ledgers {
		if err == nil && l.lost > 0 {
			err = domain.Errorf(domain.CodeInternal, "%d views of verdicts/%d were appended again %d times and got no verdict that names them", l.lost, l.part.Partition, attemptsMax)
		}
		if err == nil && l.passed >= 0 {
			err = domain.Errorf(domain.CodeTooLarge, "verdicts/%d has more than %d undecided views; those from offset %d on wait for room: redrive or discard dead letters, or look why the posts projection stands still", l.part.Partition, l.max, l.passed)
		}
	}
	k.mu.Lock()
	was := k.err
	k.err = err
	k.mu.Unlock()
	switch {
	case err != nil && was == nil:
		k.log.Warn("keeper: undecided views and texts to be erased wait", "err", err)
	case err == nil && was != nil:
		k.log.Info("keeper: goes on")
	}
}

// follow takes up and gives up partitions as the group says.
func (k *Keeper) follow(ctx context.Context, changed *<-chan struct{}) error {
	select {
	case <-*changed:
		*changed = nil
	default:
	}
	if *changed != nil {
		return nil
	}
	parts, next := k.deps.Source.Assignment()
	var lost []domain.Partition
	for p := range k.ledgers {
		if !slices.Contains(parts, p) {
			lost = append(lost, p)
			delete(k.ledgers, p)
			delete(k.wrote, p)
		}
	}
	if len(lost) > 0 {
		k.deps.Source.Drop(lost)
	}
	if err := k.take(ctx, parts); err != nil {
		return err // and follow comes here again
	}
	*changed = next
	return nil
}

func (k *Keeper) take(ctx context.Context, parts []domain.Partition) error {
	var gained []domain.Partition
	for _, p := range parts {
		if k.ledgers[p] == nil {
			gained = append(gained, p)
		}
	}
	if len(gained) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	hints, err := k.deps.Source.Committed(ctx)
	if err != nil {
		return err
	}
	at := make([]domain.Position, len(gained))
	for i, p := range gained {
		at[i] = p.At(0)
		for _, h := range hints {
			if h.In() == p {
				at[i] = h
			}
		}
	}
	if err := k.deps.Source.Seek(ctx, at); err != nil {
		return err
	}
	for _, a := range at {
		l := newLedger(a, k.cfg.PendingMax)
		if k.refusing != nil {
			k.refusing.follow(l)
		}
		k.ledgers[a.In()] = l
	}
	return nil
}

// poll folds what there is to read.
func (k *Keeper) poll(ctx context.Context) error {
	b, err := k.deps.Source.Poll(ctx, pollEventsMax)
	for _, r := range b.Records {
		l := k.ledgers[r.Partition]
		if l == nil || r.Offset < l.next {
			continue
		}
		if err := l.fold(r); err != nil {
			return err
		}
		if r.Err != nil {
			k.log.Warn("keeper: a verdict that cannot be decoded is passed over", "partition", r.Partition.Partition, "offset", r.Offset, "err", r.Err)
		}
	}
	for _, next := range b.Next {
		if l := k.ledgers[next.In()]; l != nil {
			l.next = max(l.next, next.NextOffset)
		}
	}
	return err
}

// commit writes the hints. A failure costs only reading again.
func (k *Keeper) commit(ctx context.Context) {
	var at []domain.Position
	for p, l := range k.ledgers {
		if hint := l.hint(); hint != k.wrote[p] {
			k.wrote[p] = hint
			at = append(at, p.At(hint))
		}
	}
	if len(at) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := k.deps.Source.Commit(ctx, at); err != nil && ctx.Err() == nil {
		k.log.Info("keeper: the hint where to start reading was not written", "err", err)
	}
}
