package httpapi

import (
	"context"
	"sync"
	"time"

	"seenby/domain"
	"seenby/projections"
)

// waits lets any number of requests wait for projections at the cost of one poller: it asks for the positions
// while somebody waits, and not otherwise. It is safe for concurrent use.
type waits struct {
	models   ReadModels
	interval time.Duration
	stopping <-chan struct{}

	mu      sync.Mutex
	waiters int
	next    *look // what the waiters that are here now will see
}

// look is one answer of the read models; its fields are set before done is closed.
type look struct {
	done      chan struct{}
	positions map[string][]projections.PositionRow
	err       error
}

func newWaits(m ReadModels, interval time.Duration, stopping <-chan struct{}) *waits {
	return &waits{models: m, interval: interval, stopping: stopping}
}

// until waits until passed says yes to the positions. It ends with the error of ctx (CodeNotYetApplied), of the
// read models, or of passed, or with errStopping.
func (w *waits) until(ctx context.Context, passed func(map[string][]projections.PositionRow) (bool, error)) error {
	w.enter()
	defer w.leave()
	// The look under way may have been asked before this call. Positions only grow, so if it says yes, it is true.
	for {
		w.mu.Lock()
		l := w.next
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return domain.Errorf(domain.CodeNotYetApplied, "The read models have not passed the position in time. Ask again, or wait longer with Prefer: wait=N (at most 30).").Because(ctx.Err())
		case <-w.stopping:
			return errStopping
		case <-l.done:
		}
		if l.err != nil {
			return l.err
		}
		if ok, err := passed(l.positions); ok || err != nil {
			return err
		}
	}
}

var errStopping = domain.Errorf(domain.CodeUnavailable, "This process is stopping and waits no longer. Send the same request again.")

func (w *waits) enter() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiters++; w.waiters == 1 && w.next == nil {
		w.next = &look{done: make(chan struct{})}
		go w.poll()
	}
}

func (w *waits) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiters--
}

// lookTimeout bounds one look, so that a database that hangs does not hold those whose time is not up.
const lookTimeout = 2 * time.Second

// poll looks until nobody waits any more, at most once an interval however waiters come and go.
func (w *waits) poll() {
	ticker := time.NewTicker(w.interval)
	defer ticker.Stop()
	for {
		w.mu.Lock()
		l := w.next
		if w.waiters == 0 {
			w.next = nil
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
		l.positions, l.err = w.models.Positions(ctx)
		cancel()
		w.mu.Lock()
		w.next = &look{done: make(chan struct{})}
		w.mu.Unlock()
		close(l.done)
		<-ticker.C
	}
}
