package faulttest_test

import (
	"fmt"
	"strings"
	"time"
)

// row is what one kind of fault did.
type row struct {
	name                              string
	strikes                           int
	acked, counted, refused           int
	lost, doubled                     int
	pause                             time.Duration // the longest
	goal                              time.Duration
	restore                           time.Duration // the longest, part of the goal
	why                               string
	took                              time.Duration
	undecided, repeats, failedAnswers int
}

// rows are one for each kind, in the order of their first strikes.
type rows []row

// add merges what the same kind did at another time.
func (rs *rows) add(r row) {
	for i := range *rs {
		if o := &(*rs)[i]; o.name == r.name {
			o.strikes += r.strikes
			o.acked += r.acked
			o.counted += r.counted
			o.refused += r.refused
			// What a check finds is of all time, and a finding ends the run.
			o.lost, o.doubled = r.lost, r.doubled
			o.pause, o.restore = max(o.pause, r.pause), max(o.restore, r.restore)
			return
		}
	}
	*rs = append(*rs, r)
}

// table is Markdown.
func table(seed uint64, rows rows) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Seed %d.\n\n", seed)
	b.WriteString("| Fault | Struck | Acknowledged | Counted | Refused | Lost | Doubled | Longest pause | Goal |\n")
	b.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n")
	var sum row
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %s | %s |\n", r.name, r.strikes, r.acked, r.counted, r.refused, r.lost,
			r.doubled, seconds(r.pause), r.goalText())
		sum.strikes += r.strikes
		sum.acked += r.acked
		sum.counted += r.counted
		sum.refused += r.refused
		sum.lost += r.lost
		sum.doubled += r.doubled
	}
	fmt.Fprintf(&b, "| **all** | %d | %d | %d | %d | %d | %d | | |\n", sum.strikes, sum.acked, sum.counted, sum.refused, sum.lost, sum.doubled)
	return b.String()
}

// goalText is the goal in words, with what it comes to here.
func (r row) goalText() string {
	if r.goal == 0 {
		return r.why
	}
	most, text := r.goal, r.why
	if strings.Contains(r.why, "restore") {
		most += r.restore
		text += " = " + seconds(most)
	}
	if r.pause > most {
		text += ", **missed**"
	}
	return text
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
