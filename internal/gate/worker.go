package gate

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// worker owns one partition for as long as the group assigns it: it opens it, judges, and opens it anew after
// every error that may pass.
type worker struct {
	g    *Gate
	part domain.Partition // of views
	log  *slog.Logger
	done chan struct{}

	next          atomic.Int64 // of views: everything below has a committed verdict; -1: not opened yet
	offsetWritten int64        // next as last written for lag tools; Run's goroutine only
	ahead         bool         // checkClock has warned; run's goroutine only

	mu     sync.Mutex
	state  State
	err    error // of the state
	failed error // what ended the last session, until another one has got somewhere
}

func newWorker(g *Gate, part domain.Partition) *worker {
	w := &worker{g: g, part: part, log: g.log.With("partition", part.Partition), done: make(chan struct{}), state: StateOpening, offsetWritten: -1}
	w.next.Store(-1)
	return w
}

func (w *worker) set(state State, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state, w.err = state, err
}

func (w *worker) status() PartitionStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return PartitionStatus{Partition: w.part, State: w.state, NextOffset: w.next.Load(), Err: cmp.Or(w.err, w.failed)}
}

// checkClock says, when it begins and when it is over, that views carry a time that is ahead of this machine's.
// Nothing is decided by our clock; but the highest time is the partition's for good, and if it is wrong, views of
// the right time are stale to it until the clocks have come up.
func (w *worker) checkClock(appended time.Time) {
	ahead := time.Until(appended) > clockAheadMax
	if ahead != w.ahead {
		w.ahead = ahead
		if ahead {
			w.log.Error("gate: Kafka's clock is ahead of this machine's: one of them is wrong; see docs/operations.md, Clocks", "record_time", appended)
		} else {
			w.log.Info("gate: Kafka's clock and this machine's agree again")
		}
	}
}

func (w *worker) setFailed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = err
}

// errWindow ends a session whose memory is too short for the limits of now.
var errWindow = errors.New("a tenant's window was raised: the partition is opened anew with a longer memory")

func (w *worker) run(ctx context.Context) {
	wait := retryFirst
	for ctx.Err() == nil {
		w.set(StateOpening, nil)
		judged, err := w.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if judged {
			wait = retryFirst
		}
		code := domain.CodeOf(err)
		if failed := w.g.deps.Hooks.Failed; failed != nil && !errors.Is(err, errWindow) {
			failed(w.part.Partition, code)
		}
		switch {
		case errors.Is(err, errWindow):
			w.log.Info("gate: opening anew", "reason", err.Error())
			continue
		case code == domain.CodeDataLoss, code == domain.CodeMisconfigured:
			// Trying again cannot help and would hide it. The other partitions go on.
			w.set(StateStopped, err)
			w.log.Error("gate: partition stopped; its views wait until the cause is removed and the gate restarted", "err", err)
			<-ctx.Done()
			return
		case fenced(err):
			wait = retryFenced
			w.log.Info("gate: fenced: another gate has taken the partition over, or the transaction timed out", "err", err)
		default:
			w.log.Warn("gate: partition is opened anew", "err", err, "wait", wait)
		}
		w.setFailed(err)
		w.set(StateRetrying, err)
		sleep(ctx, wait)
		wait = min(2*wait, retryMost)
	}
}

// session is one life of a partition's client. judged tells whether it got somewhere: a batch was committed, or
// there was nothing to judge. To be open is not enough, for a partition whose verdicts cannot be written opens
// well each time.
func (w *worker) session(ctx context.Context) (judged bool, err error) {
	s, err := w.open(ctx)
	if err != nil {
		return false, err
	}
	defer s.client.Close()
	w.next.Store(s.next)
	w.set(StateRunning, nil)
	for {
		if !judged && s.next >= s.worked {
			judged = true
			w.setFailed(nil)
		}
		if err := s.step(ctx); err != nil {
			return judged, err
		}
		w.next.Store(s.next)
	}
}

// fenced is eventlog.Fenced.
func fenced(err error) bool { return eventlog.Fenced(err) }

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func unavailable(what string, err error) error {
	return domain.Errorf(domain.CodeUnavailable, "Kafka: %s", what).Because(err)
}

// insist calls f until it works or ctx ends. The partition is paused meanwhile, and the log says so once.
func (w *worker) insist(ctx context.Context, what string, f func() error) error {
	for wait := pauseFirst; ; wait = min(2*wait, pauseMost) {
		err := f()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			if wait > pauseFirst {
				w.log.Info("gate: partition goes on", "after", what)
				w.set(StateRunning, nil)
			}
			return nil
		}
		if wait == pauseFirst {
			w.log.Warn("gate: partition is paused; nothing is decided without an answer", "to", what, "err", err)
		}
		w.set(StatePaused, err)
		sleep(ctx, wait)
	}
}
