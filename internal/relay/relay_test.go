package relay

import (
	"strings"
	"testing"
	"time"
)

// Ready tells for as long as something is away, and it is logged once.
func TestReady(t *testing.T) {
	w := newWorld(t)
	var log logged
	g := &group{}
	g.assign(0, 1)
	deps := w.deps(g)
	deps.Logger = log.logger()
	r := New(deps)
	wantStarted(t, r)
	w.view("p0", 1)
	eventually(t, "the first count", func() bool { w.pass(50 * time.Millisecond); return len(w.kafka.told("p0")) == 1 })
	attempts := 0
	w.store.set(func() {
		w.store.strike = func() (error, error) {
			if attempts++; attempts > 4 && r.Ready() == nil {
				t.Errorf("at the attempt %d it is ready", attempts)
			}
			return errAway, nil
		}
	})
	w.view("p0", 1)
	eventually(t, "some attempts", func() bool {
		w.pass(50 * time.Millisecond)
		enough := false
		w.store.set(func() { enough = attempts > 12 })
		return enough
	})
	w.store.set(func() { w.store.strike = nil })
	eventually(t, "the relay to be ready", func() bool { w.pass(50 * time.Millisecond); return r.Ready() == nil })
	if n := strings.Count(log.text(), "counts wait"); n != 1 {
		t.Errorf("it was logged %d times:\n%s", n, log.text())
	}
}
