package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// Source is the log as a projector needs it: a consumer group that only assigns, and a reader that starts where
// it is told. Poll, Seek and Drop are called by one goroutine; the others may be called by another meanwhile.
type Source interface {
	// Assignment is what the group gives this process now; changed is closed at the next change.
	Assignment() (parts []domain.Partition, changed <-chan struct{})
	// Seek reads on from exactly there. CodeDataLoss: the log does not hold it.
	Seek(ctx context.Context, at []domain.Position) error
	// Drop stops reading partitions.
	Drop(parts []domain.Partition)
	// Poll gives at most eventsMax records; after a short wait of its own it gives none. Where ctx ends first, its error
	// comes with no records, and they come next time.
	Poll(ctx context.Context, eventsMax int) (domain.Batch, error)
	// Commit writes the group's offsets, which only lag tools read.
	Commit(ctx context.Context, at []domain.Position) error
	// Ends are the log's ends of all partitions of a topic.
	Ends(ctx context.Context, topic domain.Topic) ([]domain.Position, error)
}

// Store runs a transaction; its errors are classified (domain.CodeUnavailable: worth a retry).
type Store interface {
	InTx(ctx context.Context, f func(ctx context.Context, tx projections.Tx) error) error
}

// Config bounds a projector.
type Config struct {
	// BatchEventsMax is how many events one transaction folds. Default 5,000: larger batches fold more views of a
	// post into one row, but from here on little is gained, and a rollback repeats more.
	BatchEventsMax int
	// LettersMax is how many dead letters of the projection may be parked. Default 1,000: more is no stray event
	// but a wrong program, and parking the log is not progress. The projector then stands still, and goes on by itself
	// once an operator has redriven or discarded some.
	LettersMax int64
	// RetryMin and RetryMax bound the pause after an error that may pass. Defaults 100 ms and 2 s:
	// counts stand still for as long after PostgreSQL is back.
	RetryMin, RetryMax time.Duration
}

func (c Config) withDefaults() Config {
	if c.BatchEventsMax == 0 {
		c.BatchEventsMax = 5000
	}
	if c.LettersMax == 0 {
		c.LettersMax = 1000
	}
	if c.RetryMin == 0 {
		c.RetryMin = 100 * time.Millisecond
	}
	if c.RetryMax == 0 {
		c.RetryMax = 2 * time.Second
	}
	return c
}

// Hooks are called by the loop, for metrics; each may be nil and must be quick.
type Hooks struct {
	Committed func(BatchStats)
	Retrying  func(err error)
}

// BatchStats tells what one transaction did.
type BatchStats struct {
	Read, Applied, Parked int // events; Read also counts repeats
	Took                  time.Duration
}

// Projector runs one version of a projection in one process.
type Projector struct {
	model  projections.ReadModel
	source Source
	store  Store
	cfg    Config
	log    *slog.Logger
	now    func() time.Time
	hooks  Hooks

	// Of the loop alone.
	owned   map[domain.Partition]*partition
	unsure  bool // positions may not be what owned says: read them again
	stands  bool // for want of room for dead letters
	backoff time.Duration

	mu    sync.Mutex // guards what the loop, the watch and Status share
	board board
}

// partition is what the loop knows of a partition that it owns.
type partition struct {
	row     projections.PositionRow
	samples samples
}

// New makes a projector; now is the clock.
func New(m projections.ReadModel, source Source, store Store, cfg Config, log *slog.Logger, now func() time.Time, hooks Hooks) *Projector {
	return &Projector{
		model: m, source: source, store: store, cfg: cfg.withDefaults(), now: now, hooks: hooks,
		log:   log.With("projection", m.Name(), "version", m.Version),
		owned: map[domain.Partition]*partition{},
		board: newBoard(now()),
	}
}

// Run follows the log until ctx ends (and then returns nil) or until something is wrong that waiting does not
// cure. It may be called again after it returned.
func (p *Projector) Run(ctx context.Context) (stopped error) {
	p.unsure, p.stands, p.backoff = false, false, 0
	ctx, cancel := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		p.watch(ctx)
	}()
	defer func() {
		cancel()
		<-watching
		p.source.Drop(p.parts())
		p.owned = map[domain.Partition]*partition{}
		p.publish(stopped)
		p.stopped(stopped != nil)
	}()
	p.stopped(false)
	for {
		err := p.step(ctx)
		switch code := domain.CodeOf(err); {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			p.backoff = 0
			p.goOn(ctx)
		case code == domain.CodeTooLarge:
			p.unsure = true
			p.stand(ctx, err)
		case code == domain.CodeUnavailable, code == domain.CodePositionBehind:
			p.unsure = true
			p.retry(ctx, err)
		default:
			return fmt.Errorf("projector %s stops: %w", p.model, err)
		}
	}
}

// retry pauses after an error that may pass. The pause is jittered, so that two projectors that met in a
// deadlock do not meet again.
func (p *Projector) retry(ctx context.Context, err error) {
	p.backoff = min(max(2*p.backoff, p.cfg.RetryMin), p.cfg.RetryMax)
	pause := p.backoff/2 + rand.N(p.backoff/2+1) //nolint:gosec // no secret
	p.log.WarnContext(ctx, "retrying", "error", err, "pause", pause)
	p.publish(err)
	if p.hooks.Retrying != nil {
		p.hooks.Retrying(err)
	}
	wait(ctx, pause)
}

// stand waits for an operator, who takes dead letters away: nobody tells the projector, so it tries now and then. What
// it cannot do it says once.
func (p *Projector) stand(ctx context.Context, err error) {
	if !p.stands {
		p.log.ErrorContext(ctx, "standing still until an operator acts", "error", err)
	}
	p.stands = true
	p.publish(err)
	p.stopped(true)
	wait(ctx, p.cfg.RetryMax)
}

func (p *Projector) goOn(ctx context.Context) {
	if p.stands {
		p.stands = false
		p.stopped(false)
		p.log.InfoContext(ctx, "going on")
	}
}

func wait(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// assignmentWait is how long a projector without partitions waits before it looks again by itself.
const assignmentWait = time.Second

func (p *Projector) step(ctx context.Context) error {
	changed, err := p.sync(ctx)
	if err != nil {
		return err
	}
	if len(p.owned) == 0 {
		p.publish(nil)
		timer := time.NewTimer(assignmentWait)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		return nil
	}
	batch, err := p.poll(ctx, changed)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	p.takeSamples()
	if err := p.write(ctx, batch); err != nil {
		return err
	}
	if err := p.complete(ctx); err != nil {
		return err
	}
	p.publish(nil)
	return nil
}

// poll waits for records no longer than the assignment stands: a partition that has just come would wait as well.
func (p *Projector) poll(ctx context.Context, changed <-chan struct{}) (domain.Batch, error) {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-waiting.Done():
		}
	}()
	batch, err := p.source.Poll(waiting, p.cfg.BatchEventsMax)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return domain.Batch{}, nil
	}
	return batch, err
}

// write folds a batch. Where that would park more dead letters than allowed, it folds what comes before the one too
// many: so as many as allowed are parked, for an operator to act on, and the error names the next.
func (p *Projector) write(ctx context.Context, batch domain.Batch) error {
	err := p.fold(ctx, batch)
	var full *projections.Full
	if !errors.As(err, &full) {
		return err
	}
	if before := p.fold(ctx, projections.Until(batch, full.Record)); before != nil {
		return before
	}
	return err
}

// fold folds a batch in one transaction.
func (p *Projector) fold(ctx context.Context, batch domain.Batch) error {
	rows := make(map[domain.Partition]projections.PositionRow, len(p.owned))
	for part, o := range p.owned {
		rows[part] = o.row
	}
	work := projections.Cut(rows, batch)
	if len(work.Moves) == 0 {
		return nil
	}
	work.ParkedAt, work.LettersMax = p.now(), p.cfg.LettersMax
	for i := range work.Moves {
		m := &work.Moves[i]
		m.CompleteTo = p.owned[m.From.In()].samples.reached(p.progress(m.NextOffset, m.ViewNextOffset))
	}
	started := p.now()
	var done projections.Done
	err := p.store.InTx(ctx, func(ctx context.Context, tx projections.Tx) (err error) {
		done, err = projections.Write(ctx, tx, p.model, work)
		return err
	})
	if err != nil {
		if domain.CodeOf(err) == domain.CodeInternal {
			return domain.Errorf(domain.CodeInternal, "%s could not be folded", spans(work)).Because(err)
		}
		return fmt.Errorf("fold %s: %w", spans(work), err)
	}
	for _, m := range work.Moves {
		o := p.owned[m.From.In()]
		o.row.NextOffset, o.row.Epoch, o.row.ViewNextOffset = m.NextOffset, m.Epoch, m.ViewNextOffset
		if m.CompleteTo.After(o.row.CompleteTo) {
			o.row.CompleteTo = m.CompleteTo
		}
		o.samples.forget(p.progress(m.NextOffset, m.ViewNextOffset))
	}
	for _, l := range done.Parked {
		p.log.WarnContext(ctx, "dead letter", "position", projections.At(l.Record), "reason", l.Reason)
	}
	if p.hooks.Committed != nil {
		p.hooks.Committed(BatchStats{Read: len(batch.Records), Applied: done.Applied, Parked: len(done.Parked), Took: p.now().Sub(started)})
	}
	return nil
}

// complete raises complete_to of partitions that no batch raised.
func (p *Projector) complete(ctx context.Context) error {
	var rows []projections.PositionRow
	for _, o := range p.owned {
		to := o.samples.reached(p.progress(o.row.NextOffset, o.row.ViewNextOffset))
		if to.After(o.row.CompleteTo) {
			row := o.row
			row.CompleteTo = to
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	err := p.store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
		return projections.CompleteTo(ctx, tx, p.model, rows)
	})
	if err != nil {
		return fmt.Errorf("write how far the read model is complete: %w", err)
	}
	for _, row := range rows {
		o := p.owned[row.In()]
		o.row.CompleteTo = row.CompleteTo
		o.samples.forget(p.progress(row.NextOffset, row.ViewNextOffset))
	}
	return nil
}

// progress is what is compared with the sampled ends: of the views, where verdicts are followed.
func (p *Projector) progress(next, viewNext int64) int64 {
	if p.followsVerdicts() {
		return viewNext
	}
	return next
}

func (p *Projector) followsVerdicts() bool {
	return slices.Contains(p.model.Topics(), domain.TopicVerdicts)
}

func (p *Projector) parts() []domain.Partition {
	parts := make([]domain.Partition, 0, len(p.owned))
	for part := range p.owned {
		parts = append(parts, part)
	}
	return parts
}

// spans names the offsets that a work covers.
func spans(w projections.Work) string {
	texts := make([]string, len(w.Moves))
	for i, m := range w.Moves {
		texts[i] = fmt.Sprintf("%s partition %d offsets %d to %d", m.From.Topic, m.From.Partition, m.From.NextOffset, m.NextOffset-1)
	}
	return strings.Join(texts, ", ")
}
