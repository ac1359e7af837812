package main

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"

	"seenby/internal/rebuild"
)

// rebuildPrinter shows the progress of a rebuild: a bar on a terminal, elsewhere a line at each change of what it does and
// every few seconds.
type rebuildPrinter struct {
	env  *environment
	bar  *progressBar
	last string    // phase and detail of the last line
	at   time.Time // when it was printed
}

const (
	barEvery  = 100 * time.Millisecond
	lineEvery = 5 * time.Second
	barWidth  = 24
)

func drawBar(percent float64) string {
	full := int(percent * barWidth / 100)
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", barWidth-full) + "]"
}

// digits of a detail change all the time, and are no reason for another line.
var digits = regexp.MustCompile(`[0-9]+`)

func newRebuildPrinter(env *environment) *rebuildPrinter {
	return &rebuildPrinter{env: env, bar: newProgressBar(env.stderr, env.now)}
}

// progress is called by one goroutine at a time.
func (p *rebuildPrinter) progress(g rebuild.Progress) {
	doing := fmt.Sprint(g.Phase, digits.ReplaceAllString(g.Detail, "N"), g.Paused, g.Waiting)
	since := p.env.now().Sub(p.at)
	if doing == p.last && (p.bar.w == nil && since < lineEvery || since < barEvery) {
		return
	}
	p.last, p.at = doing, p.env.now()
	if p.bar.w != nil {
		p.bar.print(rebuildLine(g, true))
	} else {
		fmt.Fprintln(p.env.stderr, rebuildLine(g, false))
	}
}

func (p *rebuildPrinter) end() { p.bar.clear() }

func rebuildLine(g rebuild.Progress, bar bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s v%d  %-8s", g.Projection, g.Version, g.Phase)
	if g.Total > 0 {
		if bar {
			b.WriteString(" " + drawBar(g.Percent()))
		}
		fmt.Fprintf(&b, " %5.1f %%  %s of %s events", g.Percent(), grouped(g.Done), grouped(g.Total))
		if g.PerSecond > 0 && g.Done < g.Total {
			fmt.Fprintf(&b, "  %s/s  %v left", grouped(int64(g.PerSecond)), g.Left.Round(time.Second))
		}
	}
	switch {
	case g.Paused:
		b.WriteString("  paused")
	case g.Waiting:
		b.WriteString("  waiting for the live read models")
	case g.Detail != "":
		b.WriteString("  " + g.Detail)
	}
	return b.String()
}

func (env *environment) printRebuilt(r *rebuild.Result) {
	proof := "both versions said the same"
	switch {
	case !r.Proven && r.AcceptedBy != "":
		proof = "the live version stood still, and that nothing was compared was accepted"
	case !r.Proven:
		proof = "the live version was never complete, so there was nothing to compare with"
	case r.Differences > 0:
		proof = fmt.Sprintf("%s rows differed, which was accepted", grouped(r.Differences))
	}
	env.printf("Version %d of %s is live: %s events; %s; the swap locked for %v.\n", r.Version, r.Projection, grouped(r.Events), proof, r.Locked.Round(time.Millisecond))
	took := make([]string, len(r.Took))
	for i, t := range r.Took {
		took[i] = fmt.Sprintf("%s %v", t.Phase, t.For.Round(10*time.Millisecond))
	}
	env.printf("Took: %s.\n", strings.Join(took, ", "))
	env.printf("Version %d is kept: `seenby rebuild --rollback %s` goes back to it, `seenby rebuild --drop-old %s` drops it.\n", r.Previous, r.Projection, r.Projection)
}

// rebuildState tells how a rebuild stands, and why.
func rebuildState(r rebuild.Row, now time.Time) (state, why string) {
	switch {
	case r.Outcome != "" && r.AcceptedBy != "" && !r.Proven:
		return r.Outcome, "nothing was compared, accepted by " + r.AcceptedBy
	case r.Outcome != "" && r.AcceptedBy != "":
		return r.Outcome, fmt.Sprintf("%s differing rows, accepted by %s", grouped(r.Differences), r.AcceptedBy)
	case r.Outcome != "":
		return r.Outcome, ""
	case r.Working(now):
		if r.Wanted == rebuild.WantedPause {
			return "paused: " + string(r.Phase), ""
		}
		return "running: " + string(r.Phase), ""
	}
	return "stopped: " + string(r.Phase), cmp.Or(r.Reason, "its process has ended; run the same command again, or give it up with --cancel")
}

// printHistory prints rebuilds, the latest first.
func (env *environment) printHistory(rows []rebuild.Row) {
	if len(rows) == 0 {
		env.printf("\nThere was no rebuild yet.\n")
		return
	}
	env.printf("\n")
	t := table{left: []bool{true, false, true, false, true, true}}
	t.add("PROJECTION", "VERSION", "STARTED", "EVENTS", "STATE", "")
	for _, r := range rows {
		state, why := rebuildState(r, env.now())
		t.add(r.Projection, grouped(int64(r.Version)), r.StartedAt.UTC().Format("2006-01-02 15:04:05Z"), grouped(r.EventsDone)+" of "+grouped(r.EventsTotal), state, why)
	}
	t.print(env.stdout)
}
