package main

import (
	"encoding/json"
	"fmt"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/deadletter"
	"seenby/internal/eventlog"
	"seenby/projections"
)

type deadlettersCommand struct {
	List    deadlettersListCommand    `cmd:"" help:"List the events that projections could not apply, and those that wait behind them."`
	Show    deadlettersShowCommand    `cmd:"" help:"Show one of them, with its event and what waits behind it."`
	Redrive deadlettersRedriveCommand `cmd:"" help:"Try them again, in order; what can be applied is, exactly once."`
	Discard deadlettersDiscardCommand `cmd:"" help:"Give them up for good; the decision is recorded."`
}

// desk opens what the commands on dead letters need. Close it.
func (env *environment) desk(dataDir string) (*deadletter.Desk, func(), error) {
	s, log, err := env.connect(dataDir, config.NeedDatabase)
	if err != nil {
		return nil, nil, err
	}
	store, err := openStore(env.ctx, s)
	if err != nil {
		log.Close()
		return nil, nil, err
	}
	return deadletter.New(deadletter.Deps{
		Store: store, Log: log, Decode: eventlog.Decode, Projections: allProjections, Now: env.now,
	}), func() { store.Close(); log.Close() }, nil
}

// letterSelection chooses letters by what they have in common.
type letterSelection struct {
	Projection string `help:"Only of this projection." placeholder:"NAME"`
	Tenant     string `help:"Only of this tenant." placeholder:"ID"`
	Key        string `help:"Only those with this key, as 'list' prints it, such as shop/4711." placeholder:"KEY"`
}

func (s letterSelection) selection() deadletter.Selection {
	return deadletter.Selection{Projection: s.Projection, Tenant: domain.TenantID(s.Tenant), Key: s.Key}
}

// letterJSON is a letter as it is printed in JSON.
type letterJSON struct {
	Letter     string    `json:"letter"`
	Key        string    `json:"key"`
	EventType  string    `json:"event_type,omitempty"`
	Reason     string    `json:"reason"`
	Follows    bool      `json:"follows"`
	Discarding bool      `json:"discarding"`
	RecordedAt time.Time `json:"recorded_at"`
	ParkedAt   time.Time `json:"parked_at"`
	AgeSeconds int64     `json:"age_seconds"`
}

func (env *environment) letterJSON(l deadletter.Chosen) letterJSON {
	return letterJSON{
		Letter: l.Name.String(), Key: l.KeyText(), EventType: l.EventType, Reason: l.Reason, Follows: l.Follows, Discarding: l.Discarding,
		RecordedAt: l.RecordedAt, ParkedAt: l.ParkedAt, AgeSeconds: int64(env.age(l.ParkedAt).Seconds()),
	}
}

func (env *environment) age(since time.Time) time.Duration {
	return max(0, env.now().Sub(since)).Truncate(time.Second)
}

type deadlettersListCommand struct {
	operational
	letterSelection
	Limit int  `help:"Letters listed; the counts are of all." default:"100"`
	JSON  bool `help:"Print JSON." name:"json"`
}

// listMax bounds what is held in memory.
const listMax = 10_000

// Run lists the letters.
func (c deadlettersListCommand) Run(env *environment) error {
	if c.Limit < 1 || c.Limit > listMax {
		return domain.Invalid("--limit", "must be 1 to %d", listMax)
	}
	desk, done, err := env.desk(c.DataDir)
	if err != nil {
		return err
	}
	defer done()
	listing, err := desk.List(env.ctx, c.selection(), c.Limit)
	if err != nil {
		return err
	}
	if c.JSON {
		type count struct {
			Projection string `json:"projection"`
			Letters    int64  `json:"letters"`
			Follow     int64  `json:"follow"`
		}
		out := struct {
			Counts  []count      `json:"counts"`
			Letters []letterJSON `json:"letters"`
			More    bool         `json:"more"`
		}{Letters: []letterJSON{}, More: listing.More}
		for _, p := range allProjections {
			if n, ok := listing.Counts[p.Name()]; ok {
				out.Counts = append(out.Counts, count{p.Name(), n.Letters, n.Follow})
			}
		}
		for _, l := range listing.Letters {
			out.Letters = append(out.Letters, env.letterJSON(l))
		}
		return env.printJSON(out)
	}
	for _, p := range allProjections {
		n, ok := listing.Counts[p.Name()]
		switch {
		case ok && n.Letters+n.Follow > 0:
			env.printf("%s: %d dead letters, %d that follow others; the oldest is parked for %v\n", p.Name(), n.Letters, n.Follow, env.age(n.Oldest))
		case ok:
			env.printf("%s: none\n", p.Name())
		}
	}
	if len(listing.Letters) == 0 {
		return nil
	}
	env.printf("\n")
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LETTER\tPARKED FOR\tSTATE\tKEY\tEVENT\tREASON")
	for _, l := range listing.Letters {
		fmt.Fprintf(w, "%s\t%v\t%s\t%s\t%s\t%s\n", l.Name, env.age(l.ParkedAt), letterState(l.Letter), l.KeyText(), orDash(l.EventType), l.Reason)
	}
	if listing.More {
		fmt.Fprintf(w, "... more: --limit\n")
	}
	return w.Flush()
}

func letterState(l projections.Letter) string {
	switch {
	case l.Discarding:
		return "discard begun"
	case l.Follows:
		return "follows"
	}
	return "parked"
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

type deadlettersShowCommand struct {
	operational
	Letter string `arg:"" help:"Such as posts:posts/3@1234: the projection, and where the record stands."`
	JSON   bool   `help:"Print JSON." name:"json"`
}

// Run shows the letter.
func (c deadlettersShowCommand) Run(env *environment) error {
	name, err := deadletter.ParseName(c.Letter)
	if err != nil {
		return err
	}
	desk, done, err := env.desk(c.DataDir)
	if err != nil {
		return err
	}
	defer done()
	l, err := desk.Show(env.ctx, name)
	if err != nil {
		return err
	}
	now, event := "it can be applied: redrive it", map[string]any(nil)
	switch {
	case l.Record == nil:
		now = "its record is gone: " + l.Gone
	case l.Now != nil:
		now = "it still cannot be applied: " + l.Now.Error()
	case l.Follows:
		now = "it could be applied, but waits for an earlier one of its key"
	}
	if l.Record != nil && l.Record.Event != nil {
		event = fields(l.Record.Event) // as `tail` prints them
	}
	if c.JSON {
		out := struct {
			letterJSON
			Now    string         `json:"now"`
			Event  map[string]any `json:"event,omitempty"`
			Behind []letterJSON   `json:"behind"`
			More   bool           `json:"more_behind"`
		}{env.letterJSON(l.Chosen), now, event, []letterJSON{}, l.BehindMore}
		for _, b := range l.Behind {
			out.Behind = append(out.Behind, env.letterJSON(b))
		}
		return env.printJSON(out)
	}
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	line := func(what, text string) { fmt.Fprintf(w, "%s\t%s\n", what, text) }
	line("letter", l.Name.String())
	line("state", letterState(l.Letter))
	line("key", l.KeyText())
	line("written", l.RecordedAt.Format(time.RFC3339))
	line("parked", fmt.Sprintf("%s, %v ago", l.ParkedAt.Format(time.RFC3339), env.age(l.ParkedAt)))
	line("reason", l.Reason)
	line("now", now)
	if l.Discard != nil {
		line("decided", fmt.Sprintf("discard by %s at %s: %s", l.Discard.By, l.Discard.At.UTC().Format(time.RFC3339), l.Discard.Reason))
	}
	line("event", orDash(l.EventType))
	if event != nil {
		text, err := json.Marshal(event)
		if err != nil {
			return err
		}
		line("", string(text))
	}
	for i, b := range l.Behind {
		what := ""
		if i == 0 {
			what = "behind it"
		}
		line(what, fmt.Sprintf("%s %s", b.Name, orDash(b.EventType)))
	}
	if l.BehindMore {
		line("", "... more")
	}
	return w.Flush()
}

type deadlettersRedriveCommand struct {
	operational
	letterSelection
	Letters []string `arg:"" optional:"" help:"Letters to try, such as posts:posts/3@1234; none: those that the flags choose." placeholder:"LETTER"`
	All     bool     `help:"Try all dead letters."`
}

// Run redrives. Every letter that stays for a reason of its own is printed with it.
func (c deadlettersRedriveCommand) Run(env *environment) error {
	sel := c.selection()
	var err error
	if sel.Names, err = parseLetters(c.Letters); err != nil {
		return err
	}
	chosen := len(sel.Names) > 0 || sel.Projection != "" || sel.Tenant != "" || sel.Key != ""
	if chosen == c.All {
		return domain.Invalid("LETTER", "name letters, or choose them by --projection, --tenant or --key, or give --all; not both")
	}
	desk, done, err := env.desk(c.DataDir)
	if err != nil {
		return err
	}
	defer done()
	fates := map[projections.Fate]int{}
	seen := map[deadletter.Name]bool{}
	err = desk.Redrive(env.ctx, sel, func(t deadletter.Tried) {
		fates[t.Fate]++
		seen[t.Name] = true
		switch t.Fate { //nolint:exhaustive // the others need no line
		case projections.FatePoison:
			env.printf("%s (%s) stays: %s\n", t.Name, t.Key, t.Reason)
		case projections.FateOvertaken:
			env.printf("%s (%s) is taken away unapplied: its text was erased since\n", t.Name, t.Key)
		case projections.FateDiscarded:
			env.printf("%s (%s) is taken away unapplied: it was discarded\n", t.Name, t.Key)
		}
	})
	stay := fates[projections.FatePoison] + fates[projections.FateWaits]
	env.printf("applied %d, taken away unapplied %d, gone meanwhile %d, staying %d\n",
		fates[projections.FateApplied], fates[projections.FateOvertaken]+fates[projections.FateDiscarded], fates[projections.FateAbsent], stay)
	if err != nil {
		return fmt.Errorf("redrive; run it again for the rest: %w", err)
	}
	for _, n := range sel.Names {
		if !seen[n] {
			return domain.Errorf(domain.CodeNotFound, "there is no dead letter %s; it may have been redriven or discarded", n)
		}
	}
	if stay > 0 {
		return domain.Errorf(domain.CodeConflict, "%d of the letters stay, with what follows them: mend what they name and redrive again, or discard them (`seenby deadletters discard`)", stay)
	}
	return nil
}

func parseLetters(texts []string) ([]deadletter.Name, error) {
	var names []deadletter.Name
	for _, text := range texts {
		name, err := deadletter.ParseName(text)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

type deadlettersDiscardCommand struct {
	operational
	Letters []string `arg:"" help:"Letters to give up, such as posts:posts/3@1234." placeholder:"LETTER"`
	Reason  string   `help:"Why; it is recorded for ever." required:""`
	By      string   `help:"Who decides. Default: your user name on this machine." placeholder:"NAME"`
}

// Run discards.
func (c deadlettersDiscardCommand) Run(env *environment) error {
	names, err := parseLetters(c.Letters)
	if err != nil {
		return err
	}
	if c.By == "" {
		who, err := user.Current()
		if err != nil {
			return domain.Invalid("--by", "is required: this machine does not know your name")
		}
		c.By = who.Username
	}
	desk, done, err := env.desk(c.DataDir)
	if err != nil {
		return err
	}
	defer done()
	discarded, err := desk.Discard(env.ctx, names, c.By, c.Reason)
	if err != nil {
		return err
	}
	var redrive []string
	for _, d := range discarded {
		if d.Before {
			env.printf("%s was discarded before\n", d.Name)
			continue
		}
		env.printf("%s (%s) is discarded\n", d.Name, d.Key)
		if again := fmt.Sprintf("seenby deadletters redrive --projection %s --key %s", d.Name.Projection, shellQuote(d.Key)); d.Behind && !slices.Contains(redrive, again) {
			redrive = append(redrive, again)
		}
	}
	if len(redrive) > 0 {
		env.printf("Others wait behind them. Redrive these now:\n")
		for _, command := range redrive {
			env.printf("  %s\n", command)
		}
	}
	return nil
}

// shellQuote makes a text one argument of a shell.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
