package relay

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"seenby/domain"
)

// Source reads partitions from where it is told; one goroutine at a time.
type Source interface {
	// Seek starts or moves reading, Drop ends it. CodeDataLoss: the log does not hold the position.
	Seek(ctx context.Context, at []domain.Position) error
	Drop(parts []domain.Partition)
	// Poll waits a little, well under a second, and hands out committed records. An empty batch is no error.
	Poll(ctx context.Context, eventsMax int) (domain.Batch, error)
	Close()
}

const (
	// pollEventsMax is how many verdicts are looked at in one go.
	pollEventsMax = 5000
	// marksMax bounds the marked posts in memory, about 200 bytes each; reading waits beyond it.
	marksMax = 500_000
	// heapsMax bounds the heaps of one partition: where its read model stands still, later marks join the last one.
	heapsMax = 64
)

// heap holds the posts that a stretch of one partition marked.
type heap struct {
	from, to int64 // the marking records lie in here
	posts    map[domain.PostKey]struct{}
}

// marks are the posts whose counts may have changed, by the partition of the record that says so. The reader adds them; the
// teller takes a heap once the read models have passed it.
type marks struct {
	mu    sync.Mutex
	read  map[domain.Partition]int64 // up to where each partition was read
	heaps map[domain.Partition][]heap
	size  int
}

func newMarks() *marks {
	return &marks{read: map[domain.Partition]int64{}, heaps: map[domain.Partition][]heap{}}
}

// add takes over what a batch marked, and how far it goes.
func (m *marks) add(next []domain.Position, marked map[domain.Partition]*heap) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for part, h := range marked {
		if _, reading := m.read[part]; !reading {
			continue
		}
		heaps := m.heaps[part]
		if n := len(heaps); n >= heapsMax {
			last := &heaps[n-1]
			m.size -= len(last.posts)
			for post := range h.posts {
				last.posts[post] = struct{}{}
			}
			m.size += len(last.posts)
			last.from, last.to = min(last.from, h.from), max(last.to, h.to)
			continue
		}
		m.heaps[part] = append(heaps, *h)
		m.size += len(h.posts)
	}
	for _, n := range next {
		if _, reading := m.read[n.In()]; reading {
			m.read[n.In()] = n.NextOffset
		}
	}
}

// take hands out the posts of all heaps that lie below the positions.
func (m *marks) take(passed map[domain.Partition]int64, each func(domain.PostKey)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for part, heaps := range m.heaps {
		n := 0
		for n < len(heaps) && heaps[n].to <= passed[part] {
			for post := range heaps[n].posts {
				each(post)
			}
			m.size -= len(heaps[n].posts)
			n++
		}
		if n == len(heaps) {
			delete(m.heaps, part)
		} else {
			m.heaps[part] = heaps[n:]
		}
	}
}

// taken tells, per partition, below which offset every mark was handed out.
func (m *marks) taken() map[domain.Partition]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	to := make(map[domain.Partition]int64, len(m.read))
	for part, read := range m.read {
		to[part] = read
	}
	for part, heaps := range m.heaps {
		for _, h := range heaps {
			to[part] = min(to[part], h.from)
		}
	}
	return to
}

// reached tells up to where each partition was read.
func (m *marks) reached() map[domain.Partition]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.read)
}

// seek says that a partition is read from an offset on, maybe once more.
func (m *marks) seek(at []domain.Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range at {
		m.read[p.In()] = p.NextOffset
	}
}

// drop forgets partitions that are no longer read, and names them.
func (m *marks) drop(gone func(domain.Partition) bool) (dropped []domain.Partition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.read {
		if !gone(p) {
			continue
		}
		dropped = append(dropped, p)
		delete(m.read, p)
		for _, h := range m.heaps[p] {
			m.size -= len(h.posts)
		}
		delete(m.heaps, p)
	}
	return dropped
}

func (m *marks) full() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.size >= marksMax
}

func (m *marks) empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.heaps) == 0
}

// markedBy is the post whose counts a record may have changed.
func markedBy(e domain.Event) (domain.PostKey, bool) {
	switch e := e.(type) {
	case *domain.Verdict:
		return domain.PostKey{Tenant: e.Viewer.Tenant, Post: e.Post}, e.Counted()
	case domain.CountsImported:
		return e.PostRef, true
	}
	return domain.PostKey{}, false
}

// reading follows verdicts and posts, and marks. The teller tells it where.
type reading struct {
	source Source
	marks  *marks
	mine   func(domain.PostKey) bool

	mu      sync.Mutex
	wanted  []domain.Position  // to be read from here on
	dropped []domain.Partition // to be read no more; before what is wanted
	failed  error              // what it met; the teller begins anew
}

// want moves reading to the positions, at the next poll.
func (r *reading) want(at []domain.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = append(r.wanted, at...)
	r.marks.seek(at)
}

// drop ends reading the partitions, at the next poll.
func (r *reading) drop(gone func(domain.Partition) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = slices.DeleteFunc(r.wanted, func(p domain.Position) bool { return gone(p.In()) })
	r.dropped = append(r.dropped, r.marks.drop(gone)...)
}

func (r *reading) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.failed
	r.failed = nil
	return err
}

// run reads until ctx ends.
func (r *reading) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.step(ctx); err != nil && ctx.Err() == nil {
			r.mu.Lock()
			r.failed = err
			r.mu.Unlock()
			pause(ctx, retryFirst)
		}
	}
}

func (r *reading) step(ctx context.Context) error {
	if r.marks.full() {
		pause(ctx, tick)
		return nil
	}
	r.mu.Lock()
	wanted, dropped := r.wanted, r.dropped
	r.wanted, r.dropped = nil, nil // what comes while the source seeks is for the next step
	r.mu.Unlock()
	r.source.Drop(dropped)
	if len(wanted) > 0 {
		if err := r.source.Seek(ctx, wanted); err != nil {
			r.putBack(wanted)
			return err
		}
	}
	b, err := r.source.Poll(ctx, pollEventsMax)
	marked := map[domain.Partition]*heap{}
	for i := range b.Records {
		rec := &b.Records[i]
		post, ok := markedBy(rec.Event)
		if !ok || !r.mine(post) {
			continue
		}
		h := marked[rec.Partition]
		if h == nil {
			h = &heap{from: rec.Offset, posts: map[domain.PostKey]struct{}{}}
			marked[rec.Partition] = h
		}
		h.posts[post] = struct{}{}
		h.to = rec.Offset + 1
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	again := map[domain.Partition]bool{} // what was read of them just now comes once more
	for _, w := range r.wanted {
		again[w.In()] = true
	}
	r.marks.add(slices.DeleteFunc(b.Next, func(n domain.Position) bool { return again[n.In()] }), marked)
	return err
}

// putBack wants what could not be sought once more, but for what was dropped meanwhile.
func (r *reading) putBack(wanted []domain.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted = slices.DeleteFunc(wanted, func(p domain.Position) bool { return slices.Contains(r.dropped, p.In()) })
	r.wanted = append(wanted, r.wanted...)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
