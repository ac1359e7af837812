package domain_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
)

const (
	tenant = domain.TenantID("demo")
	hour   = time.Hour
)

var (
	noon   = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	anna   = domain.PersonRef{Tenant: tenant, Person: domain.PersonKey{'a'}}
	ben    = domain.PersonRef{Tenant: tenant, Person: domain.PersonKey{'b'}}
	author = domain.PersonKey{'w'}

	everyones = domain.PostAnswer{Known: true, Version: 3, Author: author, Audience: domain.AudienceEveryone, Final: true}
	limits    = domain.DefaultLimits()
)

func id(n byte) domain.ViewID { return domain.ViewID{0: n, 15: 1} }

// step is one view and what must become of it.
type step struct {
	view   domain.ViewReported
	at     time.Time // partition time of the record
	post   domain.PostAnswer
	limits domain.Limits
	want   domain.Reason
	commit bool // end the overlay here and begin another: the next step meets committed memory
}

// view is anna's view of post "p" at noon with id 1, changed by opts.
func view(opts ...func(*step)) step {
	s := step{
		view: domain.ViewReported{Viewer: anna, ViewID: id(1), Post: "p", ViewedAt: noon},
		at:   noon, post: everyones, limits: limits,
	}
	for _, o := range opts {
		o(&s)
	}
	return s
}

func is(want domain.Reason) func(*step)           { return func(s *step) { s.want = want } }
func withID(n byte) func(*step)                   { return func(s *step) { s.view.ViewID = id(n) } }
func by(p domain.PersonRef) func(*step)           { return func(s *step) { s.view.Viewer = p } }
func of(p domain.PostID) func(*step)              { return func(s *step) { s.view.Post = p } }
func viewed(t time.Time) func(*step)              { return func(s *step) { s.view.ViewedAt = t } }
func sent(t time.Time) func(*step)                { return func(s *step) { s.view.SentAt = t } }
func received(t time.Time) func(*step)            { return func(s *step) { s.at = t } }
func anonymous(s *step)                           { s.view.Anonymous = true }
func imported(s *step)                            { s.view.Imported = true }
func commit(s *step)                              { s.commit = true }
func found(p domain.PostAnswer) func(*step)       { return func(s *step) { s.post = p } }
func limited(f func(*domain.Limits)) func(*step)  { return func(s *step) { f(&s.limits) } }
func readmits(r domain.Readmission) func(s *step) { return func(s *step) { s.view.Readmitted = &r } }

func countUnknown(l *domain.Limits) { l.CountUnknownPosts = true }

func audience(a domain.Audience, member bool) domain.PostAnswer {
	p := everyones
	p.Audience, p.Member = a, member
	return p
}

func TestJudge(t *testing.T) {
	unknown := domain.PostAnswer{Final: true}
	deleted := domain.PostAnswer{Known: true, Deleted: true, Version: 4, Author: author, Final: true}
	unpassed := domain.PostAnswer{WaitsFor: []domain.Position{{Topic: domain.TopicPosts, NextOffset: 5}}}
	const ms = time.Millisecond

	for name, given := range map[string][]step{
		"a view of a post that everyone may see is counted": {view()},
		"without a time it happened when it was received":   {view(viewed(time.Time{}))},

		"a repeat in the same batch is a duplicate":       {view(), view(is(domain.ReasonDuplicate))},
		"a repeat in a later batch is a duplicate":        {view(commit), view(is(domain.ReasonDuplicate))},
		"the same id of another person is another view":   {view(), view(by(ben))},
		"an id counts once per person, whatever the post": {view(), view(of("q"), is(domain.ReasonDuplicate))},
		"a duplicate to the end of the window, its last instant included": {
			view(commit), view(viewed(time.Time{}), received(noon.Add(limits.DuplicateWindow)), is(domain.ReasonDuplicate)),
		},
		"the same within one long batch": {
			view(), view(viewed(time.Time{}), received(noon.Add(limits.DuplicateWindow)), is(domain.ReasonDuplicate)),
		},
		"a forgotten id without a time counts again": {
			view(commit), view(viewed(time.Time{}), received(noon.Add(limits.DuplicateWindow+ms))),
		},
		"a forgotten id with its time is stale": {
			view(commit), view(received(noon.Add(limits.DuplicateWindow+ms)), is(domain.ReasonStale)),
		},
		"a forgotten id from the furthest future is stale": {
			view(viewed(noon.Add(limits.Future)), commit),
			view(viewed(noon.Add(limits.Future)), received(noon.Add(limits.DuplicateWindow+ms)), is(domain.ReasonStale)),
		},
		"a refused view does not occupy its id": {
			view(found(unknown), is(domain.ReasonUnknownPost), commit), view(),
		},

		"exactly as old as allowed":          {view(viewed(noon.Add(-limits.Stale)))},
		"older by the least":                 {view(viewed(noon.Add(-limits.Stale-time.Microsecond)), is(domain.ReasonStale))},
		"exactly as far ahead as allowed":    {view(viewed(noon.Add(limits.Future)))},
		"further ahead by the least":         {view(viewed(noon.Add(limits.Future+time.Microsecond)), is(domain.ReasonFuture))},
		"a device clock ahead is set right":  {view(viewed(noon.Add(50*time.Minute)), sent(noon.Add(50*time.Minute)))},
		"a device clock behind stays":        {view(viewed(noon.Add(-25*hour)), sent(noon.Add(-25*hour)), is(domain.ReasonStale))},
		"a claimed time at its furthest":     {view(viewed(noon.Add(hour)), sent(noon.Add(hour)))},
		"a claimed time beyond, corrected":   {view(viewed(noon.Add(hour+time.Microsecond)), sent(noon.Add(hour+time.Microsecond)), is(domain.ReasonFuture))},
		"stale comes before duplicate":       {view(commit), view(viewed(noon.Add(-25*hour)), is(domain.ReasonStale))},
		"future comes before duplicate":      {view(commit), view(viewed(noon.Add(hour)), is(domain.ReasonFuture))},
		"duplicate comes before unknown":     {view(commit), view(found(unknown), is(domain.ReasonDuplicate))},
		"duplicate comes before undecided":   {view(commit), view(found(unpassed), is(domain.ReasonDuplicate))},
		"partition time never goes back":     {view(received(noon.Add(25*hour)), viewed(noon.Add(2*hour))), view(withID(2), viewed(noon), is(domain.ReasonStale))},
		"partition time is kept by a commit": {view(received(noon.Add(25*hour)), viewed(noon.Add(2*hour)), commit), view(withID(2), viewed(noon), is(domain.ReasonStale))},

		"a post that is known not to be there":              {view(found(unknown), is(domain.ReasonUnknownPost))},
		"an unknown post where those count":                 {view(found(unknown), limited(countUnknown))},
		"a post that may be there where unknown ones count": {view(found(unpassed), limited(countUnknown), is(domain.ReasonUndecided))},
		"a deleted post where unknown ones count":           {view(found(deleted), limited(countUnknown), is(domain.ReasonDeletedPost))},
		"an audience's post where unknown ones count":       {view(found(audience("audience:friends", false)), limited(countUnknown), is(domain.ReasonNotInAudience))},
		"a post that may be there":                          {view(found(unpassed), is(domain.ReasonUndecided))},
		"a deleted post":                                    {view(found(deleted), is(domain.ReasonDeletedPost))},
		"an author's own view counts":                       {view(by(domain.PersonRef{Tenant: tenant, Person: author}))},
		"an author's own view where refused": {view(by(domain.PersonRef{Tenant: tenant, Person: author}),
			limited(func(l *domain.Limits) { l.RefuseOwnViews = true }), is(domain.ReasonOwnView))},
		"own view comes before deleted": {view(found(deleted), by(domain.PersonRef{Tenant: tenant, Person: author}),
			limited(func(l *domain.Limits) { l.RefuseOwnViews = true }), is(domain.ReasonOwnView))},
		"an anonymous viewer is nobody's author": {view(by(domain.PersonRef{Tenant: tenant, Person: author}), anonymous,
			limited(func(l *domain.Limits) { l.RefuseOwnViews = true }))},

		"a member sees the audience's post":        {view(found(audience("audience:friends", true)))},
		"others do not":                            {view(found(audience("audience:friends", false)), is(domain.ReasonNotInAudience))},
		"an author sees the own post":              {view(found(audience("audience:friends", false)), by(domain.PersonRef{Tenant: tenant, Person: author}))},
		"a private post is the author's":           {view(found(audience(domain.AudienceAuthor, true)), is(domain.ReasonNotInAudience))},
		"an anonymous viewer is no member":         {view(found(audience("audience:friends", true)), anonymous, is(domain.ReasonNotInAudience))},
		"nor anybody's author":                     {view(found(audience(domain.AudienceAuthor, true)), by(domain.PersonRef{Tenant: tenant, Person: author}), anonymous, is(domain.ReasonNotInAudience))},
		"a membership that may be there":           {view(found(func() domain.PostAnswer { p := audience("audience:x", false); p.Final = false; return p }()), is(domain.ReasonUndecided))},
		"a positive answer stands without waiting": {view(found(func() domain.PostAnswer { p := everyones; p.Final = false; return p }()))},

		"an imported view is as old as it is":                 {view(imported, viewed(noon.Add(-9000*hour)))},
		"an imported view has a future too":                   {view(imported, viewed(noon.Add(limits.Future+time.Microsecond)), is(domain.ReasonFuture))},
		"an imported view counts once":                        {view(imported, commit), view(imported, is(domain.ReasonDuplicate))},
		"an imported view that was reported":                  {view(commit), view(imported, is(domain.ReasonDuplicate))},
		"an imported view of a post that may be there":        {view(imported, found(unpassed), is(domain.ReasonUndecided))},
		"an imported view of who is not in the audience":      {view(imported, found(audience("audience:friends", false)), is(domain.ReasonNotInAudience))},
		"an imported view that is readmitted keeps its times": {view(imported, viewed(noon.Add(-72*hour)), readmits(domain.Readmission{Offset: 4, Received: noon, ViewedAt: noon.Add(-72 * hour)}))},

		"a readmitted view keeps its times":            {view(viewed(noon.Add(-72*hour)), readmits(domain.Readmission{Offset: 4, Received: noon.Add(-71 * hour), ViewedAt: noon.Add(-72 * hour)}))},
		"a readmitted view that was counted meanwhile": {view(commit), view(readmits(domain.Readmission{Offset: 4, Received: noon, ViewedAt: noon}), is(domain.ReasonDuplicate))},
		"a readmitted view of an unknown post":         {view(readmits(domain.Readmission{Offset: 4, Received: noon, ViewedAt: noon}), found(unknown), is(domain.ReasonUnknownPost))},
	} {
		t.Run(name, func(t *testing.T) { run(t, given) })
	}
}

// run judges the steps and checks each verdict; it returns them.
func run(t *testing.T, given []step) []*domain.Verdict {
	t.Helper()
	memory := domain.NewMemory(limits)
	overlay := memory.Begin()
	var verdicts []*domain.Verdict
	for i, s := range given {
		v := overlay.Judge(domain.ViewRecord{View: s.view, Offset: int64(i), Appended: s.at}, s.post, s.limits)
		if v.Reason != s.want {
			t.Fatalf("view %d at %v: %q, want %q", i, s.at, v.Reason, s.want)
		}
		verdicts = append(verdicts, v)
		if s.commit {
			overlay.Commit()
			overlay = memory.Begin()
		}
	}
	return verdicts
}

// each makes n views by anna at one time, with ids of their own.
func each(n int, at time.Time, from int, opts ...func(*step)) []step {
	steps := make([]step, n)
	for i := range steps {
		steps[i] = view(viewed(at), received(at))
		steps[i].view.ViewID = domain.ViewID{0: byte((from + i) >> 8), 1: byte(from + i), 15: 2}
		for _, o := range opts {
			o(&steps[i])
		}
	}
	return steps
}

func TestPostCap(t *testing.T) {
	capped := is(domain.ReasonPostCap)
	for _, batch := range []string{"in one batch", "over commits"} {
		t.Run(batch, func(t *testing.T) {
			steps := each(60, noon, 0)
			steps = append(steps, each(1, noon, 60, capped)...)
			steps = append(steps, each(1, noon, 61, of("another post"))...)
			steps = append(steps, each(1, noon, 62, by(ben))...)
			// The hour slides: its last instant still holds the 60, and then they are gone.
			steps = append(steps, each(1, noon.Add(hour), 63, capped)...)
			steps = append(steps, each(60, noon.Add(hour+time.Millisecond), 64)...)
			steps = append(steps, each(1, noon.Add(hour+time.Millisecond), 124, capped)...)
			if batch == "over commits" {
				for i := range steps {
					steps[i].commit = i%7 == 0
				}
			}
			run(t, steps)
		})
	}
}

// named gives each view a post of its own, so that the cap has no say.
func named(s *step) { s.view.Post = domain.PostID(fmt.Sprintf("%x", s.view.ViewID[:2])) }

func TestViewerQuota(t *testing.T) {
	refused := is(domain.ReasonViewerQuota)
	for _, batch := range []string{"in one batch", "over commits"} {
		t.Run(batch, func(t *testing.T) {
			steps := each(2000, noon, 0, named)                                                       // the whole burst
			steps = append(steps, each(1, noon, 2000, named, refused)...)                             // and no more
			steps = append(steps, each(1, noon, 2001, named, by(ben))...)                             // others have their own
			steps = append(steps, each(1, noon.Add(99*time.Millisecond), 2002, named, refused)...)    // 10 a second:
			steps = append(steps, each(1, noon.Add(100*time.Millisecond), 2003, named)...)            // one after 100 ms
			steps = append(steps, each(1, noon.Add(100*time.Millisecond), 2004, named, refused)...)   // and only one
			steps = append(steps, each(600, noon.Add(60100*time.Millisecond), 2005, named)...)        // 600 after a minute
			steps = append(steps, each(1, noon.Add(60100*time.Millisecond), 2605, named, refused)...) // and no more
			steps = append(steps, each(2000, noon.Add(2*hour), 2606, named)...)                       // at rest it is whole again
			steps = append(steps, each(1, noon.Add(2*hour), 4606, named, refused)...)
			if batch == "over commits" {
				for i := range steps {
					steps[i].commit = i%97 == 0
				}
			}
			run(t, steps)
		})
	}
}

func TestReadmittedViewTakesNoQuota(t *testing.T) {
	again := readmits(domain.Readmission{Offset: 1, Received: noon, ViewedAt: noon})
	steps := each(2000, noon, 0, named)
	steps = append(steps, each(10, noon, 2000, named, again)...)
	steps = append(steps, each(1, noon, 2010, named, is(domain.ReasonViewerQuota))...)
	verdicts := run(t, steps)
	if v := verdicts[2005]; !v.QuotaFullAt.IsZero() || v.Readmits == nil || *v.Readmits != 1 {
		t.Errorf("a readmitted view's verdict: quota full at %v, readmits %v", v.QuotaFullAt, v.Readmits)
	}
}

// What a viewer saw elsewhere neither is bounded by what the viewer may see here nor takes anything of it, before the batch
// is committed and after.
func TestImportedViewsAreOutsideOfTheViewersLimits(t *testing.T) {
	for _, batch := range []string{"in one batch", "over commits"} {
		t.Run(batch, func(t *testing.T) {
			steps := each(3000, noon, 0, imported)
			steps = append(steps, each(60, noon, 3000)...)
			steps = append(steps, each(1, noon, 3060, is(domain.ReasonPostCap))...)
			steps = append(steps, each(1940, noon, 3061, named)...)
			steps = append(steps, each(1, noon, 5001, named, is(domain.ReasonViewerQuota))...)
			steps = append(steps, each(10, noon, 5002, imported)...)
			if batch == "over commits" {
				for i := range steps {
					steps[i].commit = i%97 == 0
				}
			}
			for _, v := range run(t, steps) {
				if v.Imported && !v.QuotaFullAt.IsZero() {
					t.Fatalf("an imported view took quota: %+v", v)
				}
			}
		})
	}
}

func TestVerdictCarriesAll(t *testing.T) {
	dwell := int64(5)
	context := &domain.ViewContext{App: "ios", DwellMS: &dwell}
	overlay := domain.NewMemory(limits).Begin()
	claimed, sentAt := noon.Add(30*time.Minute), noon.Add(40*time.Minute)
	got := overlay.Judge(domain.ViewRecord{
		View:   domain.ViewReported{Viewer: anna, ViewID: id(9), Post: "p", ViewedAt: claimed, SentAt: sentAt, Imported: true, Context: context},
		Offset: 77, Appended: noon,
	}, everyones, limits)
	want := &domain.Verdict{
		Viewer: anna, ViewID: id(9), ViewOffset: 77, Post: "p", Author: author, PostVersion: 3, AudienceKind: "everyone",
		LimitsRevision: 1, ClaimedAt: claimed, ViewedAt: noon.Add(-10 * time.Minute), Received: noon, Imported: true,
		Context: context,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	waits := []domain.Position{{Topic: domain.TopicPosts, Partition: 2, NextOffset: 5}}
	got = overlay.Judge(domain.ViewRecord{View: domain.ViewReported{Viewer: anna, ViewID: id(10), Post: "p"}, Offset: 78, Appended: noon},
		domain.PostAnswer{WaitsFor: waits, DeadLetters: true}, limits)
	want = &domain.Verdict{Viewer: anna, ViewID: id(10), ViewOffset: 78, Post: "p", LimitsRevision: 1, ViewedAt: noon, Received: noon,
		Reason: domain.ReasonUndecided, WaitsFor: waits, DeadLetters: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	got = overlay.Judge(domain.ViewRecord{View: domain.ViewReported{Viewer: ben}, Offset: 79, Appended: noon, Malformed: "post: is required"}, domain.PostAnswer{}, limits)
	want = &domain.Verdict{Viewer: ben, ViewOffset: 79, LimitsRevision: 1, ViewedAt: noon, Received: noon, Reason: domain.ReasonMalformed, Detail: "post: is required"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnOverlayThatIsDroppedLeavesNothing(t *testing.T) {
	memory := domain.NewMemory(limits)
	record := domain.ViewRecord{View: domain.ViewReported{Viewer: anna, ViewID: id(1), Post: "p"}, Appended: noon}
	if v := memory.Begin().Judge(record, everyones, limits); !v.Counted() {
		t.Fatal(v.Reason)
	}
	if !memory.Now().IsZero() {
		t.Error("partition time moved without a commit")
	}
	if v := memory.Begin().Judge(record, everyones, limits); !v.Counted() {
		t.Errorf("an aborted batch stayed in memory: %s", v.Reason)
	}
}
