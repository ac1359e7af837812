package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"seenby/domain"
	"seenby/internal/verify"
)

// What is printed for people; --json has all.
const (
	shownPostsMax    = 200
	shownFindingsMax = 50
)

// printVerification prints a report as a person reads it: the figures, what waits, then what is wrong, last.
func (env *environment) printVerification(r *verify.Report) {
	env.printTenants(r)
	env.printUndecided(&r.Undecided)
	for _, note := range r.Notes {
		env.printf("Note: %s.\n", note)
	}
	if d := r.Post; d != nil {
		env.printPost(r, d)
	}
	if len(r.Differing) > 0 && r.Post == nil {
		env.printf("\nPosts that differ, the read model against the log:\n")
		for _, d := range r.Differing[:min(len(r.Differing), shownPostsMax)] {
			env.printf("  %s %s\n", d.Tenant, d.Post)
			env.printDifference(&d)
		}
		if more := len(r.Differing) - shownPostsMax; more > 0 {
			env.printf("  and %s more; --json names all\n", grouped(int64(more)))
		}
	}
	if r.FindingsInAll > 0 {
		env.printf("\nWrong in the log, or between it and the positions:\n")
		for _, f := range r.Findings[:min(len(r.Findings), shownFindingsMax)] {
			about := ""
			if f.Tenant != "" {
				about = " (" + strings.TrimSpace(string(f.Tenant)+" "+string(f.Post)) + ")"
			}
			env.printf("  %s %s%s\n", f.At(), f.What, about)
		}
		if more := r.FindingsInAll - shownFindingsMax; more > 0 {
			env.printf("  and %s more\n", grouped(more))
		}
	}
	var all verify.Counts
	for _, t := range r.Tenants {
		all.Reported += t.InAll.Reported
		all.Impressions += t.InAll.Impressions
		all.UniquePairs += t.InAll.UniquePairs
	}
	verdict := "DIFFERENT"
	if r.Clean {
		verdict = "Clean"
	}
	env.printf("\n%s. Posts compared: %s. By the log: views %s, impressions %s, unique pairs %s.\n",
		verdict, grouped(r.Posts), grouped(all.Reported), grouped(all.Impressions), grouped(all.UniquePairs))
}

// printTenants prints the figures by tenant and partition.
func (env *environment) printTenants(r *verify.Report) {
	t := table{left: []bool{true, true, false, false, false, false, false, true}}
	t.add("TENANT", "PARTITION", "REPORTED", "COUNTED", "REFUSED", "IMPRESSIONS", "UNIQUE PAIRS", "REFUSED FOR")
	row := func(tenant, partition string, c *verify.Counts) {
		reasons := slices.SortedFunc(maps.Keys(c.Reasons), func(a, b domain.Reason) int {
			return cmp.Or(cmp.Compare(c.Reasons[b], c.Reasons[a]), cmp.Compare(a, b))
		})
		for i, reason := range reasons {
			reasons[i] = reason + " " + domain.Reason(grouped(c.Reasons[reason]))
		}
		t.add(tenant, partition, grouped(c.Reported), grouped(c.Counted), grouped(c.Refused), grouped(c.Impressions), grouped(c.UniquePairs), join(reasons))
	}
	for _, tenant := range r.Tenants {
		name := cmp.Or(string(tenant.Tenant), "(none)")
		for _, p := range tenant.Partitions {
			row(name, strconv.Itoa(int(p.Partition)), &p.Counts)
		}
		row(name, "all", &tenant.InAll)
		t.add(name, "read model", "", "", "", grouped(tenant.ReadModel.Impressions), grouped(tenant.ReadModel.UniqueViewers), "")
	}
	t.print(env.stdout)
}

func join[T ~string](parts []T) string {
	all := make([]string, len(parts))
	for i, p := range parts {
		all[i] = string(p)
	}
	return strings.Join(all, ", ")
}

func (env *environment) printUndecided(u *verify.Undecided) {
	if u.Verdicts == 0 {
		return
	}
	env.printf("\nUndecided verdicts: %s. Brought to an end: %s (counted %s, refused %s). Undecided once more: %s. Still waiting: %s.\n",
		grouped(u.Verdicts), grouped(u.Counted+u.Refused), grouped(u.Counted), grouped(u.Refused), grouped(u.Again), grouped(u.Waiting))
	for _, w := range u.First {
		env.printf("  %s %s, by %s, view %d of partition %d, %s\n", w.Tenant, w.Post, w.Viewer, w.ViewOffset, w.Partition, waitsFor(&w))
	}
	if more := u.Waiting - int64(len(u.First)); more > 0 {
		env.printf("  and %s more\n", grouped(more))
	}
	if len(u.ParkedKeys) > 0 {
		env.printf("  These have dead letters, which are to be redriven or discarded first:\n")
		for _, k := range u.ParkedKeys {
			env.printf("    %s\n", k)
		}
	}
}

// waitsFor says what a view waits for.
func waitsFor(w *verify.Waiting) string {
	if w.Parked {
		return "waits for dead letters"
	}
	var waits []string
	for _, p := range w.WaitsFor {
		if p.Stands < p.NextOffset {
			waits = append(waits, fmt.Sprintf("%s/%d to reach %d (the read model stands at %d)", p.Topic, p.Partition, p.NextOffset, p.Stands))
		}
	}
	if len(waits) == 0 {
		return "waits for the keeper to bring it back"
	}
	return "waits for " + strings.Join(waits, " and ")
}

// printDifference prints what differs of a post.
func (env *environment) printDifference(d *verify.PostDifference) {
	for _, f := range []struct {
		name string
		verify.Compared
	}{
		{"impressions", d.Impressions}, {"anonymous impressions", d.AnonymousImpressions}, {"imported views", d.ImportedViews},
		{"unique viewers", d.UniqueViewers}, {"viewer rows", d.ViewerRows},
		{"imported impressions", d.ImportedImpressions}, {"imported viewers", d.ImportedUniqueViewers},
	} {
		if f.Differs() {
			env.printf("    %-22s %s, and by the log %s\n", f.name, grouped(f.ReadModel), grouped(f.Log))
		}
	}
	if d.ImportedAsOfDiffers {
		env.printf("    %-22s of another as_of than by the log\n", "imported counts")
	}
	if d.ViewerRowsDiffer && !d.ViewerRows.Differs() {
		env.printf("    %-22s as many as by the log, but at least one has another viewer, first, last, times or shard\n", "viewer rows")
	}
	if d.SpreadDiffers && !d.Impressions.Differs() && !d.AnonymousImpressions.Differs() && !d.ImportedViews.Differs() && !d.UniqueViewers.Differs() {
		env.printf("    %-22s right in sum, but spread over other rows (shards) than they should be\n", "counts")
	}
}

// printPost prints one post, row by row.
func (env *environment) printPost(r *verify.Report, d *verify.PostDetail) {
	env.printf("\nPost %s of tenant %s: %s verdicts\n", d.Post, d.Tenant, grouped(d.Verdicts))
	t := table{left: []bool{true, false, false, true}}
	t.add("", "READ MODEL", "LOG", "")
	for _, f := range []struct {
		name string
		verify.Compared
	}{
		{"impressions", d.Impressions}, {"anonymous impressions", d.AnonymousImpressions}, {"imported views", d.ImportedViews},
		{"unique viewers", d.UniqueViewers}, {"viewer rows", d.ViewerRows},
		{"imported impressions", d.ImportedImpressions}, {"imported viewers", d.ImportedUniqueViewers},
	} {
		t.add("  "+f.name, grouped(f.ReadModel), grouped(f.Log), differs(f.Differs()))
	}
	t.print(env.stdout)
	if len(r.Differing) == 1 && d.SpreadDiffers {
		env.printDifference(&d.PostDifference)
	}
	env.printf("\nViewers: %s whose rows differ, %s whose do not.\n", grouped(d.NotAlike), grouped(d.Alike))
	for _, v := range d.Viewers {
		env.printf("\n  %s %s\n", v.Viewer, differs(v.Differs))
		t := table{left: []bool{true, true, true, false}}
		t.add("    row", "FIRST", "LAST", "VIEWS")
		for _, row := range []struct {
			name string
			*verify.ViewerShown
		}{{"    read model", v.ReadModel}, {"    log", v.Log}} {
			if row.ViewerShown == nil {
				t.add(row.name, "none", "", "")
			} else {
				t.add(row.name, micros(row.First), micros(row.Last), grouped(row.Views))
			}
		}
		t.print(env.stdout)
		for _, c := range v.Verdicts {
			env.printf("    %s\n", verdictLine(&c))
		}
	}
	if more := d.Alike + d.NotAlike - int64(len(d.Viewers)); more > 0 {
		env.printf("\n  and %s more viewers\n", grouped(more))
	}
}

func verdictLine(c *verify.VerdictShown) string {
	line := fmt.Sprintf("verdicts/%d@%d %s view %d id %s viewed %s: %s", c.Partition, c.Offset, micros(c.Time), c.ViewOffset, c.ViewID, micros(c.ViewedAt), cmp.Or(string(c.Reason), reasonCounted))
	if c.Anonymous {
		line += ", anonymous"
	}
	if c.Readmits != nil {
		line += fmt.Sprintf(", view %d again", *c.Readmits)
	}
	if c.LeftOut != "" {
		line += ", " + c.LeftOut
	}
	return line
}

func differs(yes bool) string {
	if yes {
		return "DIFFERS"
	}
	return ""
}

func micros(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999999Z") }

// whatToDo is the message of a run that found something.
func whatToDo(r *verify.Report) string {
	var found []string
	switch n := len(r.Differing); n {
	case 0:
	case 1:
		found = append(found, "1 post differs from the log")
	default:
		found = append(found, grouped(int64(n))+" posts differ from the log")
	}
	switch n := r.FindingsInAll; n {
	case 0:
	case 1:
		found = append(found, "1 record is not as it must be")
	default:
		found = append(found, grouped(n)+" records are not as they must be")
	}
	text := strings.Join(found, ", and ") + ". "
	if len(r.Differing) > 0 && r.Post == nil {
		d := r.Differing[0]
		text += fmt.Sprintf("`seenby verify --tenant %s --post %s` shows the rows and verdicts of the first. ", d.Tenant, shellWord(string(d.Post)))
	}
	return text + "The log is the truth: docs/operations.md, \"Verify\", says how to mend the read models by it"
}

// shellWord quotes a post's id for a shell, where it needs that.
func shellWord(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:@", r)
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// grouped is a number with its thousands apart.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// table aligns columns: numbers to the right, words to the left.
type table struct {
	left  []bool
	lines [][]string
}

func (t *table) add(cells ...string) { t.lines = append(t.lines, cells) }

func (t *table) print(w io.Writer) {
	widths := make([]int, len(t.left))
	for _, line := range t.lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for _, line := range t.lines {
		var b strings.Builder
		for i, cell := range line {
			pad := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			if t.left[i] {
				b.WriteString(cell + pad)
			} else {
				b.WriteString(pad + cell)
			}
			b.WriteString("  ")
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// progressBar is a line on a terminal that says how far a command is. Elsewhere it says nothing.
type progressBar struct {
	w     io.Writer // nil: no terminal
	wide  func() int
	now   func() time.Time
	since time.Time // when verdicts were begun
	width int
}

func newProgressBar(w io.Writer, now func() time.Time) *progressBar {
	b := &progressBar{now: now}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.w = f
		b.wide = func() int {
			columns, _, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 0
			}
			return columns
		}
	}
	return b
}

func (b *progressBar) verify(p verify.Progress) {
	switch {
	case b.w == nil:
	case p.Of == 0:
		b.print(fmt.Sprintf("reading the tables: %s rows", grouped(p.Rows)))
	default:
		if b.since.IsZero() {
			b.since = b.now()
		}
		line := fmt.Sprintf("reading the log: %s of %s verdicts, %d %%", grouped(p.Verdicts), grouped(p.Of), 100*p.Verdicts/p.Of)
		if took := b.now().Sub(b.since).Seconds(); took > 1 && p.Verdicts > 0 {
			rate := float64(p.Verdicts) / took
			left := time.Duration(float64(p.Of-p.Verdicts) / rate * float64(time.Second))
			line += fmt.Sprintf(", %s a second, %v left", grouped(int64(rate)), left.Round(time.Second))
		}
		b.print(line)
	}
}

// print cuts what does not fit: a line that is broken could not be overwritten.
func (b *progressBar) print(line string) {
	if columns := b.wide(); columns > 1 {
		line = line[:min(len(line), columns-1)]
	}
	fmt.Fprintf(b.w, "\r%-*s", b.width, line)
	b.width = len(line)
}

func (b *progressBar) clear() {
	if b.w != nil && b.width > 0 {
		fmt.Fprintf(b.w, "\r%*s\r", b.width, "")
	}
}
