package erasure

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"seenby/domain"
)

// Follower reads a topic from the log's start for ever: apply gets every batch in order, caughtUp is called once,
// when the ends asked at the start are passed, both by one goroutine. It ends with ctx, with apply's error, or
// with its own.
type Follower interface {
	Follow(ctx context.Context, topic domain.Topic, apply func(domain.Batch) error, caughtUp func()) error
}

// Appender appends events and answers once all of them are acknowledged.
type Appender interface {
	Append(ctx context.Context, events ...domain.Event) ([]domain.Position, error)
}

// Marks are the Erased marks of the topic people. All methods are safe for concurrent use.
type Marks struct {
	follower Follower
	appender Appender
	now      func() time.Time
	log      *slog.Logger

	mu       sync.RWMutex
	ready    bool // the end asked at the start was passed, once
	caughtUp bool // and in this Run
	// Person keys are kept by tenant, and times as microseconds: there may be millions, and they stay for ever.
	at map[domain.TenantID]map[domain.PersonKey]int64
	// open are the erased people whose last record on the topic, as far as it was read, is no tombstone, with the
	// number of that reading: a tombstone that was appended closes what it was appended for, and nothing later.
	open  map[domain.PersonRef]uint64
	reads uint64
}

// NewMarks makes marks that know nothing until Run has read the log.
func NewMarks(follower Follower, appender Appender, now func() time.Time, log *slog.Logger) *Marks {
	return &Marks{
		follower: follower, appender: appender, now: now, log: log,
		at: map[domain.TenantID]map[domain.PersonKey]int64{}, open: map[domain.PersonRef]uint64{},
	}
}

const (
	// A mark that is older has lost its tombstone to compaction.
	unfinishedFor = 7 * 24 * time.Hour
	// finishEvery is how often the missing tombstones are appended; each waits that long at least, since the one of
	// the erasing call usually is one fetch behind its mark.
	finishEvery = time.Second
	finishMax   = 1000 // tombstones of one append
)

// Run follows the topic and finishes erasures until ctx or the following ends, and gives the error of the latter.
// What is known stays known; run it again.
func (m *Marks) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var finishing sync.WaitGroup
	defer finishing.Wait()
	defer cancel()
	m.mu.Lock()
	m.caughtUp, m.open = false, map[domain.PersonRef]uint64{} // all is read again, also names from before their mark
	m.mu.Unlock()
	finishing.Go(func() { m.finish(ctx) })
	return m.follower.Follow(ctx, domain.TopicPeople, func(b domain.Batch) error {
		m.apply(b)
		return nil
	}, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.ready, m.caughtUp = true, true
	})
}

// apply goes by keys alone, so that no record, whatever it holds, stops the following or hides a mark.
func (m *Marks) apply(b domain.Batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range b.Records {
		ref, mark, ok := domain.ParsePersonKey(r.Key)
		if !ok {
			continue // nobody's: it names nobody
		}
		switch e := r.Event.(type) {
		case domain.PersonForgotten:
			delete(m.open, ref)
			continue
		case domain.PersonErased:
			m.mark(ref, e.ErasedAt)
		default:
			if mark {
				m.mark(ref, r.Time)
			}
		}
		_, erased := m.at[ref.Tenant][ref.Person]
		if erased && (!mark || m.now().Sub(r.Time) < unfinishedFor) {
			m.reads++
			m.open[ref] = m.reads
		}
	}
}

// mark keeps the first date of a person: of two erasures at once both have one.
func (m *Marks) mark(ref domain.PersonRef, at time.Time) {
	of := m.at[ref.Tenant]
	if of == nil {
		of = map[domain.PersonKey]int64{}
		m.at[ref.Tenant] = of
	}
	if was, known := of[ref.Person]; !known || at.UnixMicro() < was {
		of[ref.Person] = at.UnixMicro()
	}
}

// Note takes over a mark that this process has had acknowledged, so that it counts here before it is read back.
func (m *Marks) Note(e domain.PersonErased) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mark(e.Ref, e.ErasedAt)
}

// ErasedAt tells since when a person is erased; false where no mark of the person was read.
func (m *Marks) ErasedAt(ref domain.PersonRef) (at time.Time, erased bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	us, erased := m.at[ref.Tenant][ref.Person]
	if !erased {
		return time.Time{}, false
	}
	return time.UnixMicro(us).UTC(), true
}

var errNotRead = domain.Errorf(domain.CodeUnavailable, "The erasures are not read from Kafka yet. Try again.")

// Check tells whether the topic was read to the end asked at the start, once. Until then nobody may be named.
func (m *Marks) Check(context.Context) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.ready {
		return errNotRead
	}
	return nil
}

// finish appends the tombstones that are missing.
func (m *Marks) finish(ctx context.Context) {
	ticker := time.NewTicker(finishEvery)
	defer ticker.Stop()
	var before map[domain.PersonRef]uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		due, now := m.due(before)
		before = now
		if len(due) == 0 {
			continue
		}
		if _, err := m.appender.Append(ctx, due...); err != nil {
			if ctx.Err() == nil {
				m.log.Warn("tombstones of erased people could not be appended; trying again", "events", len(due), "err", err)
			}
			continue // they stay open
		}
		m.close(due, before)
		m.log.Info("appended tombstones for erased people whose name had none", "events", len(due))
	}
}

// due gives the tombstones of those who are open and were so at the look before, and who is open now.
func (m *Marks) due(before map[domain.PersonRef]uint64) (due []domain.Event, now map[domain.PersonRef]uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.caughtUp || len(m.open) == 0 {
		return nil, nil // until then, the tombstones may stand further on
	}
	for ref, read := range m.open {
		if before[ref] == read && len(due) < finishMax {
			due = append(due, domain.PersonForgotten{Ref: ref})
		}
	}
	return due, maps.Clone(m.open)
}

// close closes whom these tombstones were appended for, unless the name was read again meanwhile: it may stand
// behind the tombstone.
func (m *Marks) close(due []domain.Event, as map[domain.PersonRef]uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range due {
		ref := e.(domain.PersonForgotten).Ref //nolint:forcetypeassert // made by due
		if m.open[ref] == as[ref] {
			delete(m.open, ref)
		}
	}
}
