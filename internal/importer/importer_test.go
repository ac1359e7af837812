package importer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"seenby/domain"
)

func person(id string) domain.PersonKey { return domain.NewPersonKey(shop.Key, domain.PersonKnown, id) }

func ref(id string) domain.PersonRef { return domain.PersonRef{Tenant: shop.ID, Person: person(id)} }

const viewUUID = "01939a2b-7c3d-7e4f-8a5b-6c7d8e9f0a1b"

// Every kind of line becomes the event that the api would make of it.
func TestLines(t *testing.T) {
	last := time.Date(2025, 1, 2, 3, 4, 5, 600000000, time.UTC)
	const lastYear = `2025-01-02T03:04:05.6Z`
	key := func(post string) domain.PostKey { return domain.PostKey{Tenant: shop.ID, Post: domain.PostID(post)} }
	viewID, _ := domain.ParseViewID(viewUUID)
	dwell, ratio := int64(1500), 0.5
	nobody := domain.NewPersonKey(shop.Key, domain.PersonAnonymous, "s1")
	for name, c := range map[string]struct {
		what, line string
		want       map[domain.Topic][]domain.Event
	}{
		"a post": {"posts", `{"id":"p","author":"ann","body":"Hello","audience":"audience:friends","published_at":"` + lastYear + `"}`, map[domain.Topic][]domain.Event{
			domain.TopicPeople: {domain.PersonNamed{Ref: ref("ann"), ID: "ann"}},
			domain.TopicBodies: {domain.PostBodyWritten{PostRef: key("p"), Text: "Hello"}},
			domain.TopicPosts:  {domain.PostPublished{PostRef: key("p"), Author: person("ann"), Audience: "audience:friends", PublishedAt: last, Body: domain.NewDigest(shop.Key, "Hello")}},
		}},
		"the least post": {"posts", `{"id":"p","author":"ann"}`, map[domain.Topic][]domain.Event{
			domain.TopicPeople: {domain.PersonNamed{Ref: ref("ann"), ID: "ann"}},
			domain.TopicPosts:  {domain.PostPublished{PostRef: key("p"), Author: person("ann"), Audience: domain.AudienceEveryone}},
		}},
		"counts": {"counts", `{"post":"p","impressions":120000,"unique_viewers":345,"as_of":"` + lastYear + `"}`, map[domain.Topic][]domain.Event{
			domain.TopicPosts: {domain.CountsImported{PostRef: key("p"), Impressions: 120000, UniqueViewers: 345, AsOf: last}},
		}},
		"a view": {"views", `{"id":"` + viewUUID + `","post":"p","viewer":"ann","viewed_at":"` + lastYear + `","context":{"app":"web","surface":"feed","dwell_ms":1500,"visible_ratio":0.5}}`, map[domain.Topic][]domain.Event{
			domain.TopicPeople: {domain.PersonNamed{Ref: ref("ann"), ID: "ann"}},
			domain.TopicViews: {domain.ViewReported{Viewer: ref("ann"), ViewID: viewID, Post: "p", ViewedAt: last, Imported: true,
				Context: &domain.ViewContext{App: "web", Surface: "feed", DwellMS: &dwell, VisibleRatio: &ratio}}},
		}},
		"a view without an id": {"views", `{"post":"p","viewer":"ann","viewed_at":"` + lastYear + `"}`, map[domain.Topic][]domain.Event{
			domain.TopicPeople: {domain.PersonNamed{Ref: ref("ann"), ID: "ann"}},
			domain.TopicViews:  {domain.ViewReported{Viewer: ref("ann"), ViewID: domain.DeriveViewID(person("ann"), "p", last), Post: "p", ViewedAt: last, Imported: true}},
		}},
		"an anonymous view": {"views", `{"id":"` + viewUUID + `","post":"p","anonymous":"s1","viewed_at":"` + lastYear + `"}`, map[domain.Topic][]domain.Event{
			domain.TopicViews: {domain.ViewReported{Viewer: domain.PersonRef{Tenant: shop.ID, Person: nobody}, ViewID: viewID, Post: "p", ViewedAt: last, Anonymous: true, Imported: true}},
		}},
		"a view by an erased person": {"views", `{"id":"` + viewUUID + `","post":"p","viewer":"erased","viewed_at":"` + lastYear + `"}`, map[domain.Topic][]domain.Event{
			domain.TopicViews: {domain.ViewReported{Viewer: ref("erased"), ViewID: viewID, Post: "p", ViewedAt: last, Imported: true}},
		}},
		"a member": {"members", `{"audience":"friends","viewer":"ann"}`, map[domain.Topic][]domain.Event{
			domain.TopicPeople:    {domain.PersonNamed{Ref: ref("ann"), ID: "ann"}},
			domain.TopicAudiences: {domain.AudienceMemberAdded{Tenant: shop.ID, Audience: "friends", Person: person("ann")}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.erased[ref("erased")] = true
			opts := fileOf(t, c.what, "", "# a comment", c.line)
			r := w.run(t, opts)
			ids := map[domain.EventID]bool{}
			anyID := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".EventID" }, cmp.Comparer(func(a, b domain.EventID) bool {
				ids[a], ids[b] = true, true
				return true
			}))
			if diff := cmp.Diff(c.want, w.log, anyID); diff != "" {
				t.Error(diff)
			}
			if delete(ids, domain.EventID{}); len(ids) > 1 {
				t.Errorf("a text and its post have ids of their own: %v", ids)
			}
			if record := r.Record; record.Lines != 3 || record.Imported != 1 || record.Rejected != 0 || !record.Finished() || len(record.Since) > 0 || rejectedOf(t, opts) != "" {
				t.Errorf("%+v", record)
			}
		})
	}
}

// Every line that cannot be imported is named with the field and the reason; the others are imported.
func TestBadLines(t *testing.T) {
	long := strings.Repeat("x", 256)
	good := map[string]string{
		"posts": `{"id":"good","author":"ann"}`, "counts": `{"post":"good","impressions":1,"as_of":"2025-01-01T00:00:00Z"}`,
		"views": `{"post":"good","viewer":"ann","viewed_at":"2025-01-01T00:00:00Z"}`, "members": `{"audience":"a","viewer":"ann"}`,
	}
	for _, c := range []struct{ what, line, why string }{
		{"posts", `{"id":"p","author":"ann"`, "is not valid JSON, at byte 24"},
		{"posts", `["p"]`, "must be a JSON object"},
		{"posts", `{"id":"p"}`, "author: is required"},
		{"posts", `{"author":"ann"}`, "id: is required"},
		{"posts", `{"id":7,"author":"ann"}`, "id: must not be a JSON number"},
		{"posts", `{"id":"` + long + `","author":"ann"}`, "id: is 256 bytes long; at most 255 are allowed"},
		{"posts", `{"id":"p","author":"ann","text":"x"}`, "text: is no field of this line"},
		{"posts", `{"id":"p","id":"p","author":"ann"}`, "id: stands twice"},
		{"posts", `{"id":"p","author":"ann","audience":"friends"}`, `audience: must be "everyone", "author" or "audience:" and a name`},
		{"posts", `{"id":"p","author":"ann","published_at":"yesterday"}`, "published_at: must be a time of RFC 3339, e.g. 2026-11-23T12:00:00Z"},
		{"posts", `{"id":"p","author":"ann","body":"a\u0000b"}`, "body: must be UTF-8 without NUL"},
		{"posts", `{"id":"gone","author":"ann"}`, "id: is of a post that was deleted; it is never used again"},
		{"counts", `{"post":"p","as_of":"2025-01-01T00:00:00Z"}`, "impressions: is required"},
		{"counts", `{"post":"p","impressions":-1,"as_of":"2025-01-01T00:00:00Z"}`, "impressions: must be 0 to 9007199254740992"},
		{"counts", `{"post":"p","impressions":1.5,"as_of":"2025-01-01T00:00:00Z"}`, "impressions: must not be a JSON number"},
		{"counts", `{"post":"p","impressions":1,"unique_viewers":2,"as_of":"2025-01-01T00:00:00Z"}`, "unique_viewers: must be 0 to impressions"},
		{"counts", `{"post":"p","impressions":1}`, "as_of: is required"},
		{"counts", `{"post":"p","impressions":1,"as_of":"2026-11-23T12:00:01Z"}`, "as_of: lies in the future: it is 2026-11-23T12:00:00Z"},
		{"counts", `{"post":"good","impressions":1,"as_of":"2024-12-31T23:59:59Z"}`, "as_of: is older than that of the counts that stand, 2025-01-01T00:00:00Z"},
		{"views", `{"post":"p","viewed_at":"2025-01-01T00:00:00Z"}`, "viewer: is required, or anonymous"},
		{"views", `{"post":"p","viewer":"a","anonymous":"b","viewed_at":"2025-01-01T00:00:00Z"}`, "anonymous: cannot stand beside viewer"},
		{"views", `{"post":"p","viewer":"ann"}`, "viewed_at: is required"},
		{"views", `{"post":"p","viewer":"ann","viewed_at":"2027-01-01T00:00:00Z"}`, "viewed_at: lies in the future: it is 2026-11-23T12:00:00Z"},
		{"views", `{"post":"p","viewer":"ann","viewed_at":"1969-01-01T00:00:00Z"}`, "viewed_at: must lie between the years 1970 and 3000"},
		{"views", `{"id":"7","post":"p","viewer":"ann","viewed_at":"2025-01-01T00:00:00Z"}`, "id: must be a UUID, e.g. 01939a2b-7c3d-7e4f-8a5b-6c7d8e9f0a1b"},
		{"views", `{"post":"p","viewer":"ann","viewed_at":"2025-01-01T00:00:00Z","context":{"visible_ratio":2}}`, "context.visible_ratio: must be 0 to 1"},
		{"members", `{"audience":"","viewer":"ann"}`, "audience: is required"},
		{"members", `{"audience":"a"}`, "viewer: is required"},
	} {
		t.Run(c.what+" "+c.why, func(t *testing.T) {
			w := newWorld()
			w.gone["gone"] = true
			opts := fileOf(t, c.what, good[c.what], c.line)
			dry := opts
			dry.DryRun = true
			if r := w.run(t, dry); r.Record.Imported+r.Record.Rejected != 2 || len(w.log) > 0 || w.records > 0 || rejectedOf(t, opts) != "" {
				t.Errorf("a dry run: %+v %v", r.Record, w.log)
			}
			opts.batchLines = 1 // the second batch is held against the first
			r := w.run(t, opts)
			if r.Record.Imported != 1 || r.Record.Rejected != 1 || len(r.First) != 1 || r.First[0].String() != "line 2: "+c.why {
				t.Errorf("%+v %+v", r.Record, r.First)
			}
			if got, want := rejectedOf(t, opts), "# line 2: "+c.why+"\n"+c.line+"\n"; got != want {
				t.Errorf("rejected %q, want %q", got, want)
			}
		})
	}
}

func TestALineThatIsTooLong(t *testing.T) {
	w := newWorld()
	opts := fileOf(t, "members", strings.Repeat(" ", 3<<20)+"x", `{"audience":"a","viewer":"ann"}`)
	if r := w.run(t, opts); r.Record.Imported != 1 || r.Record.Rejected != 1 || !strings.HasPrefix(rejectedOf(t, opts), "# line 1: is longer") {
		t.Errorf("%+v %q", r.Record, rejectedOf(t, opts))
	}
}

// What was rejected is mended in its file and imported from there.
func TestRejectedLinesAreMended(t *testing.T) {
	w := newWorld()
	opts := fileOf(t, "members", `{"audience":"a","viewer":"ann"}`, `{"audience":"a","viewer":7}`, `{"audience":"a","viewer":"cid"}`)
	w.run(t, opts)
	mended := opts
	mended.Source.Path, mended.Rejected = opts.Rejected, opts.Rejected+".rejected"
	if err := os.WriteFile(opts.Rejected, []byte(strings.ReplaceAll(rejectedOf(t, opts), ":7}", `:"ben"}`)), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := w.run(t, mended); r.Record.Imported != 1 || r.Record.Rejected != 0 {
		t.Errorf("%+v", r.Record)
	}
	if len(w.log[domain.TopicAudiences]) != 3 {
		t.Errorf("%v", w.log)
	}
	// Another import does not overwrite it.
	other := fileOf(t, "members", `{}`)
	other.Rejected = opts.Rejected
	if _, err := Run(t.Context(), w.deps(), other); domain.CodeOf(err) != domain.CodeInvalid || !strings.Contains(err.Error(), "is there already") {
		t.Error(err)
	}
	if w.in.Tenants[shop.ID].Imports[fmt.Sprintf("members/%x", digestOf(t, other))].Run != (domain.RunID{}) {
		t.Error("it was begun")
	}
}

func digestOf(t *testing.T, opts Options) [32]byte {
	t.Helper()
	c, known, err := opts.Source.digest()
	if err != nil || !known {
		t.Fatal(known, err)
	}
	return c.sha256
}

var errKilled = errors.New("killed")

// manyLines are lines of a kind, some of them bad.
func manyLines(what string, n int) (lines []string, bad int) {
	for i := range n {
		line := map[string]string{
			"posts": `{"id":"p%d","author":"ann","body":"Hello"}`, "counts": `{"post":"p%d","impressions":10,"as_of":"2025-01-01T00:00:00Z"}`,
			"views":   `{"id":"00000000-0000-4000-8000-%012d","post":"p","viewer":"ann","viewed_at":"2025-01-01T00:00:00Z"}`,
			"members": `{"audience":"a","viewer":"v%d"}`,
		}[what]
		line = fmt.Sprintf(line, i)
		if i%5 == 3 {
			line, bad = "{"+line, bad+1
		}
		lines = append(lines, line)
	}
	return lines, bad
}

// Killed before or after any step, an import that is run again leaves each event once in the log, each bad line once in its
// file, and right figures; run once more, it does nothing.
func TestKilledAtEveryStep(t *testing.T) {
	for _, what := range Whats() {
		for _, every := range []time.Duration{1, time.Hour} {
			t.Run(fmt.Sprintf("%s, recorded every %v", what, every), func(t *testing.T) {
				lines, bad := manyLines(what, 23)
				steps := 0
				for at := 0; at == 0 || at <= steps; at++ {
					for _, after := range []bool{false, true} {
						w := newWorld()
						opts := fileOf(t, what, lines...)
						opts.batchLines, opts.RecordEvery = 3, every
						clock := now
						deps := w.deps()
						deps.Now = func() time.Time { clock = clock.Add(time.Millisecond); return clock }
						calls := 0
						w.fail = func(string) (error, error) {
							switch calls++; {
							case at > 0 && calls > at, calls == at && !after:
								return errKilled, nil
							case calls == at:
								return nil, errKilled
							}
							return nil, nil
						}
						_, err := Run(t.Context(), deps, opts)
						if at == 0 {
							steps = calls
						} else if !errors.Is(err, errKilled) {
							t.Fatalf("step %d: %v", at, err)
						}
						w.fail = nil
						r, err := Run(t.Context(), deps, opts)
						if err != nil {
							t.Fatalf("step %d, after %v: %v", at, after, err)
						}
						events := w.log[kinds[what].topic]
						once := map[string]bool{}
						for _, e := range events {
							once[fmt.Sprintf("%+v", e)] = true
						}
						if len(events) != 23-bad || len(once) != len(events) {
							t.Fatalf("step %d, after %v: %d events, %d of them once, want %d", at, after, len(events), len(once), 23-bad)
						}
						if r.Record.Imported != int64(23-bad) || r.Record.Rejected != int64(bad) || r.Record.Lines != 23 || !r.Record.Finished() {
							t.Fatalf("step %d, after %v: %+v", at, after, r.Record)
						}
						if got := rejectedOf(t, opts); strings.Count(got, "\n") != 2*bad || strings.Count(got, "# line ") != bad {
							t.Fatalf("step %d, after %v: rejected\n%s", at, after, got)
						}
						if r := w.run(t, opts); !r.Already || len(w.log[kinds[what].topic]) != len(events) {
							t.Fatalf("step %d, after %v: run once more: %+v", at, after, r)
						}
					}
				}
				if steps < 8 {
					t.Errorf("only %d steps", steps)
				}
			})
		}
	}
}

// An append that may or may not have come through is tried again in the same process.
func TestKafkaIsAwayForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lines, bad := manyLines("members", 10)
		opts := fileOf(t, "members", lines...)
		away := domain.Errorf(domain.CodeUnavailable, "away")
		failures := 0
		w.fail = func(call string) (error, error) {
			if failures++; failures%3 != 0 && (call == "append" || call == "change") {
				return away, nil
			}
			return nil, nil
		}
		if r := w.run(t, opts); r.Record.Imported != int64(10-bad) || failures < 6 {
			t.Errorf("%+v after %d calls", r.Record, failures)
		}
		// For longer than it waits, it ends, and says why; what was recorded stays.
		w = newWorld()
		w.fail = func(call string) (error, error) {
			if call == "append" {
				return away, nil
			}
			return nil, nil
		}
		deps := w.deps()
		deps.Now = time.Now
		opts.Rejected += "2"
		if _, err := Run(t.Context(), deps, opts); !errors.Is(err, away) {
			t.Error(err)
		}
		if record := w.in.Tenants[shop.ID].Imports[fmt.Sprintf("members/%x", digestOf(t, opts))]; record.Lines != 0 || len(record.Since) == 0 || record.Finished() {
			t.Errorf("%+v", record)
		}
	})
}

// A clean stop records where it is, with nothing left open.
func TestStopped(t *testing.T) {
	w := newWorld()
	lines, bad := manyLines("views", 40)
	opts := fileOf(t, "views", lines...)
	opts.batchLines = 4
	ctx, cancel := context.WithCancel(t.Context())
	deps := w.deps()
	deps.Progress = func(p Progress) {
		if p.Lines >= 12 {
			cancel()
		}
	}
	r, err := Run(ctx, deps, opts)
	record := w.in.Tenants[shop.ID].Imports[r.Record.ImportID]
	if !errors.Is(err, context.Canceled) || record.Lines < 12 || record.Lines > 16 || len(record.Since) > 0 || record.Finished() {
		t.Fatalf("%v %+v", err, record)
	}
	if r := w.run(t, opts); !r.Resumed || r.Record.Imported != int64(40-bad) || len(w.log[domain.TopicViews]) != 40-bad {
		t.Errorf("%+v", r.Record)
	}
}

// Two processes on one import: the second takes it over, and the first ends at its next record.
func TestTakenOver(t *testing.T) {
	w := newWorld()
	lines, _ := manyLines("posts", 20)
	opts := fileOf(t, "posts", lines...)
	opts.batchLines, opts.RecordEvery = 4, 1
	first := w.deps()
	clock := now
	first.Now = func() time.Time { clock = clock.Add(time.Second); return clock }
	taken := false
	first.Progress = func(p Progress) {
		if p.Lines >= 8 && !taken {
			taken = true
			second := opts
			second.Rejected += "2"
			w.run(t, second)
		}
	}
	if _, err := Run(t.Context(), first, opts); domain.CodeOf(err) != domain.CodeConflict || !strings.Contains(err.Error(), "taken this import over") {
		t.Error(err)
	}
	outcomes := map[domain.EventID]int{}
	for _, e := range w.log[domain.TopicPosts] {
		outcomes[e.(domain.PostEvent).ID()]++
	}
	if len(outcomes) != 16 {
		t.Errorf("%d ids of events, want 16: a line has one id whoever imports it", len(outcomes))
	}
}

func TestNames(t *testing.T) {
	w := newWorld()
	stdin := func(name string, lines ...string) Options {
		opts := fileOf(t, "members")
		opts.Name, opts.Source = name, Source{Path: "-", Stdin: strings.NewReader(strings.Join(lines, "\n"))}
		return opts
	}
	ann, ben, cid := `{"audience":"a","viewer":"ann"}`, `{"audience":"a","viewer":"ben"}`, `{"audience":"a","viewer":"cid"}`
	if _, err := Run(t.Context(), w.deps(), stdin("", ann)); domain.CodeOf(err) != domain.CodeInvalid || !strings.Contains(err.Error(), "--name") {
		t.Error(err)
	}
	killed := stdin("friends", ann, ben, cid)
	killed.batchLines = 1
	appends := 0
	w.fail = func(call string) (error, error) {
		if call == "append" {
			if appends++; appends > 2 {
				return errKilled, nil
			}
		}
		return nil, nil
	}
	if _, err := Run(t.Context(), w.deps(), killed); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	w.fail = nil
	for name, other := range map[string]Options{"other lines": stdin("friends", ben, ann, cid), "fewer": stdin("friends")} {
		if _, err := Run(t.Context(), w.deps(), other); domain.CodeOf(err) != domain.CodeConflict || !strings.Contains(err.Error(), "does not begin") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r := w.run(t, stdin("friends", ann, ben, cid)); r.Record.Imported != 3 || len(w.log[domain.TopicAudiences]) != 3 {
		t.Errorf("%+v", r.Record)
	}
	if r := w.run(t, stdin("friends", ann, ben, cid)); !r.Already {
		t.Errorf("%+v", r.Record)
	}
	for _, tenant := range []domain.TenantID{"none"} {
		opts := stdin("x", ann)
		opts.Tenant.ID = tenant
		if _, err := Run(t.Context(), w.deps(), opts); domain.CodeOf(err) != domain.CodeNotFound {
			t.Errorf("%s: %v", tenant, err)
		}
	}
}

// Compressed or not, the same lines are the same import; what is cut is an error behind its last line.
func TestCompressed(t *testing.T) {
	lines, _ := manyLines("members", 200)
	plain := fileOf(t, "members", lines...)
	text, err := os.ReadFile(plain.Source.Path)
	if err != nil {
		t.Fatal(err)
	}
	var zipped, zstded bytes.Buffer
	g := gzip.NewWriter(&zipped)
	z, err := zstd.NewWriter(&zstded)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []interface {
		Write([]byte) (int, error)
		Close() error
	}{g, z} {
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range map[string][]byte{"gzip": zipped.Bytes(), "zstd": zstded.Bytes()} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.run(t, plain)
			if err := os.Remove(plain.Rejected); err != nil {
				t.Fatal(err)
			}
			packed := fileOf(t, "members")
			if err := os.WriteFile(packed.Source.Path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if r := w.run(t, packed); !r.Already {
				t.Errorf("%+v", r)
			}
			if err := os.WriteFile(packed.Source.Path, b[:len(b)-9], 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Run(t.Context(), w.deps(), packed); domain.CodeOf(err) != domain.CodeInvalid || !strings.Contains(err.Error(), "cannot be read behind line") {
				t.Error(err)
			}
		})
	}
	missing := plain
	missing.Source.Path += "x"
	if _, err := Run(t.Context(), newWorld().deps(), missing); domain.CodeOf(err) != domain.CodeInvalid {
		t.Error(err)
	}
}

// Counts wait for the read model, and not for ever.
func TestCountsWaitForTheReadModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lines, bad := manyLines("counts", 20)
		opts := fileOf(t, "counts", lines...)
		opts.batchLines = 10
		w.behind = true
		deps := w.deps()
		deps.Now = func() time.Time { return now.Add(time.Since(synctestEpoch)) }
		r, err := Run(t.Context(), deps, opts)
		if domain.CodeOf(err) != domain.CodeUnavailable || r.Record.Lines != 10 || len(r.Record.Since) > 0 {
			t.Errorf("%v %+v", err, r.Record)
		}
		w.behind = false
		if r, err := Run(t.Context(), deps, opts); err != nil || r.Record.Imported != int64(20-bad) {
			t.Errorf("%v %+v", err, r.Record)
		}
	})
}

// synctestEpoch is when fake time begins.
var synctestEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
