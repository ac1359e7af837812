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
	problems                          []string
	undecided, repeats, failedAnswers int
}

// table is Markdown.
func table(seed uint64, rows []row) string {
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
	most := r.goal
	if strings.Contains(r.why, "restore") {
		most += r.restore
	}
	text := fmt.Sprintf("%s = %s", r.why, seconds(most))
	if r.pause > most {
		text += ", **missed**"
	}
	return text
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
