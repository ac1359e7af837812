package projector

import "time"

// sample says where the log ended at a time: whoever has read up to end has read all that stood there at that
// time. The time is taken before the end is asked.
type sample struct {
	at  time.Time
	end int64
}

// samplesMax bounds what is kept while a projector lags. Beyond it every other sample is forgotten, which only
// makes complete_to advance in longer steps.
const samplesMax = 64

// samples are the ends of one partition that are not reached yet, oldest first.
type samples struct{ list []sample }

func (s *samples) add(n sample) {
	if last := len(s.list) - 1; last >= 0 {
		switch {
		case !n.at.After(s.list[last].at):
			return
		case n.end <= s.list[last].end:
			s.list[last].at = n.at // a silent log: the same end says more at a later time
			return
		}
	}
	if len(s.list) == samplesMax {
		kept := s.list[:0]
		for i, old := range s.list {
			if i%2 == 0 {
				kept = append(kept, old)
			}
		}
		s.list = kept
	}
	s.list = append(s.list, n)
}

// reached gives the newest time whose end is within what is read up to next; zero: none. It forgets nothing,
// since next may be the end of a transaction that is not committed yet.
func (s *samples) reached(next int64) (at time.Time) {
	for _, x := range s.list {
		if x.end > next {
			break
		}
		at = x.at
	}
	return at
}

// forget drops what is reached for good.
func (s *samples) forget(next int64) {
	i := 0
	for i < len(s.list) && s.list[i].end <= next {
		i++
	}
	s.list = s.list[:copy(s.list, s.list[i:])]
}
