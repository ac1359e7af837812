package projector

import (
	"testing"
	"time"
)

func TestSamples(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	var s samples
	s.add(sample{at(1), 10})
	s.add(sample{at(2), 20})
	s.add(sample{at(3), 20}) // a silent log: the newer time stands for both
	s.add(sample{at(4), 30})
	s.add(sample{at(4), 99}) // no later: not taken
	for next, want := range map[int64]time.Time{9: {}, 10: at(1), 19: at(1), 20: at(3), 29: at(3), 30: at(4), 99: at(4)} {
		if got := s.reached(next); !got.Equal(want) {
			t.Errorf("read up to %d: complete to %v, not %v", next, got, want)
		}
	}
	s.forget(20)
	if got := s.reached(29); !got.IsZero() || len(s.list) != 1 {
		t.Errorf("after forgetting: %v, %d left", got, len(s.list))
	}
	for i := range 10_000 {
		s.add(sample{at(5 + i), int64(40 + i)})
	}
	if len(s.list) > samplesMax || s.list[0].end != 30 {
		t.Errorf("%d samples are kept, the oldest for %d", len(s.list), s.list[0].end)
	}
	if got := s.reached(40 + 9_999); !got.Equal(at(5 + 9_999)) {
		t.Errorf("all is read, and complete only to %v", got)
	}
}
