package main

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/projections/impressions"
)

// importFile writes lines to a file of a test.
func importFile(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lines.ndjson")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// importFrom runs the command with a standard input.
func (in *installation) importFrom(stdin io.Reader, c importCommand) (stdout string, err error) {
	var out, errs bytes.Buffer
	c.Tenant, c.LagMax = "demo", 2*time.Second
	err = c.Run(&environment{ctx: in.t.Context(), environ: in.environ, stdin: stdin, stdout: &out, stderr: &errs, flags: config.NewFlags(), now: clock, rand: rand.Reader})
	return out.String(), err
}

// importedCounts are a post's counts with their parts.
type importedCounts struct {
	Impressions   int64 `json:"impressions"`
	UniqueViewers int64 `json:"unique_viewers"`
	Counted       *struct {
		Impressions   int64 `json:"impressions"`
		UniqueViewers int64 `json:"unique_viewers"`
	} `json:"counted"`
	Imported *struct {
		Impressions   int64     `json:"impressions"`
		UniqueViewers int64     `json:"unique_viewers"`
		AsOf          time.Time `json:"as_of"`
	} `json:"imported"`
}

// importViews makes views of a post by a viewer, one a minute from a time on, the last ones of them twice.
func importViews(post string, n, twice int, from time.Time) []string {
	lines := make([]string, 0, n+twice)
	for i := range n {
		line := fmt.Sprintf(`{"id":%q,"post":%q,"viewer":"ben","viewed_at":%q}`, uuid.NewString(), post, from.Add(time.Duration(i)*time.Minute).Format(time.RFC3339))
		lines = append(lines, line)
		if n-i <= twice {
			lines = append(lines, line)
		}
	}
	return lines
}

// A system that begins with years of posts, counts, members and views: each import counts once, what it brings is read beside
// what comes after it, and verify and a rebuild say the same.
func TestImport(t *testing.T) {
	in, key := install(t)
	p := in.serve(key, "api,gate,keeper,projector")
	in.importsPostsAndMembers(p)
	in.importsCounts(p)
	in.importsOldViews(p)

	settled := in.verifiedWhole()
	in.command("rebuild", "posts")
	if again := in.verifiedWhole(); again != settled {
		t.Errorf("after a rebuild %+v, before it %+v", again, settled)
	}
	var post importedCounts
	p.must(http.StatusOK, "GET", "/v1/posts/old", nil, nil, &post)
	if post.Impressions != 120001 || post.Imported == nil || post.Imported.Impressions != 120000 {
		t.Errorf("after a rebuild: %+v", post)
	}
	for _, args := range [][]string{
		{"import", "things", "x", "--tenant", "demo"}, {"import", "views", "no such file", "--tenant", "demo"}, {"import", "views", "-", "--tenant", "demo"},
		{"import", "posts", importFile(t)},
	} {
		if code, stdout, stderr := in.try(args...); code != exitUsage {
			t.Errorf("%v: exit %d, %s%s", args, code, stdout, stderr)
		}
	}
	if code, _, stderr := in.try("import", "posts", importFile(t), "--tenant", "nobody"); code != exitFailed || !strings.Contains(stderr, "no open tenant") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

type verifiedCounts struct{ Reported, Counted, Refused, Impressions int64 }

// verifiedWhole waits until nothing is under way and nothing differs.
func (in *installation) verifiedWhole() (c verifiedCounts) {
	in.t.Helper()
	eventually(in.t, time.Minute, "the read models to hold every verdict", func() error {
		r := in.verify(exitOK)
		if len(r.Tenants) == 0 || r.Undecided.Waiting > 0 {
			return fmt.Errorf("%+v", r.Undecided)
		}
		all := r.Tenants[0].InAll
		views, err := in.records(domain.TopicViews)
		c = verifiedCounts{all.Reported, all.Counted, all.Refused, r.Tenants[0].ReadModel.Impressions}
		if err != nil || c.Reported != int64(len(views)) || c.Impressions != c.Counted {
			return fmt.Errorf("%+v of %d views, %w", c, len(views), err)
		}
		return nil
	})
	return c
}

func (in *installation) importsPostsAndMembers(p *process) {
	in.t.Helper()
	t := in.t.(*testing.T)
	posts := importFile(t,
		`{"id":"old","author":"ann","body":"Hello from last year","published_at":"2025-03-01T10:00:00Z"}`,
		`{"id":"club","author":"ann","audience":"audience:club","published_at":"2025-03-02T10:00:00Z"}`,
		`{"id":"bad","author":"ann","audience":"club"}`,
		`{"id":"new","author":"ben"}`)
	code, stdout, stderr := in.try("import", "posts", posts, "--tenant", "demo")
	if code != exitUsage || !strings.Contains(stdout, "Imported: 3 posts of 4 lines; 1 lines were rejected.\n  line 3: audience: must be") || !strings.Contains(stderr, posts+".rejected") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	mended, err := os.ReadFile(posts + ".rejected")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(posts+".rejected", bytes.Replace(mended, []byte(`"club"`), []byte(`"audience:club"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := in.command("import", "posts", posts+".rejected", "--tenant", "demo"); !strings.Contains(out, "Imported: 1 posts") {
		t.Error(out)
	}
	in.command("import", "members", importFile(t, `{"audience":"club","viewer":"ben"}`), "--tenant", "demo")
	eventually(t, time.Minute, "the posts to be read", func() error {
		var page struct{ Posts []map[string]any }
		status, err := p.get("/v1/posts?limit=10", nil, &page)
		if err != nil || status != http.StatusOK || len(page.Posts) != 4 {
			return fmt.Errorf("%d %v %w", status, page, err)
		}
		return nil
	})
	var post map[string]any
	p.must(http.StatusOK, "GET", "/v1/posts/old", nil, nil, &post)
	if post["body"] != "Hello from last year" || post["author"] != "ann" || post["published_at"] != "2025-03-01T10:00:00Z" {
		t.Errorf("%v", post)
	}
}

func (in *installation) importsCounts(p *process) {
	in.t.Helper()
	t := in.t.(*testing.T)
	lines := []string{
		`{"post":"old","impressions":119000,"unique_viewers":7000,"as_of":"2026-01-01T00:00:00Z"}`,
		`{"post":"old","impressions":120000,"unique_viewers":8000,"as_of":"2026-02-01T00:00:00Z"}`,
		`{"post":"elsewhere","impressions":5,"as_of":"2026-02-01T00:00:00Z"}`,
	}
	counts := importFile(t, lines...)
	if code, out, _ := in.try("import", "counts", counts, "--tenant", "demo", "--dry-run"); code != exitOK || !strings.Contains(out, "3 counts would be imported and 0 rejected") {
		t.Errorf("exit %d, %s", code, out)
	}
	if out := in.command("import", "counts", counts, "--tenant", "demo"); !strings.Contains(out, "Imported: 3 counts of 3 lines") {
		t.Error(out)
	}
	if out := in.command("import", "counts", counts, "--tenant", "demo"); !strings.Contains(out, "Nothing is left to do") {
		t.Error(out)
	}
	position := p.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: "old", Viewer: "cid"}}}, nil)
	eventually(t, time.Minute, "sum and parts", func() error {
		var all struct{ Counts []importedCounts }
		p.must(http.StatusOK, "GET", "/v1/counts?post=old&post=elsewhere&post=new", waitFor(position), nil, &all)
		old, elsewhere, plain := all.Counts[0], all.Counts[1], all.Counts[2]
		if old.Impressions != 120001 || old.UniqueViewers != 8001 || old.Counted == nil || old.Counted.Impressions != 1 || old.Imported == nil || old.Imported.UniqueViewers != 8000 ||
			elsewhere.Impressions != 5 || plain.Counted != nil || plain.Imported != nil {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	// Older ones are named, also where they come by another way; as old ones replace them.
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := io.WriteString(z, lines[0]+"\n"+`{"post":"elsewhere","impressions":6,"as_of":"2026-02-01T00:00:00Z"}`); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	rejected := filepath.Join(t.TempDir(), "rejected")
	out, err := in.importFrom(&packed, importCommand{What: "counts", File: "-", Name: "again", Rejected: rejected})
	if domain.CodeOf(err) != domain.CodeInvalid || !strings.Contains(out, "line 1: as_of: is older than that of the counts that stand, 2026-02-01T00:00:00Z") {
		t.Errorf("%v %s", err, out)
	}
	eventually(t, time.Minute, "counts as old to replace those that stood", func() error {
		if c := p.counts("", "elsewhere"); c.Impressions != 6 {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

// importsOldViews: more by one viewer than may be seen in an hour, years ago, and the viewer may see as many today.
func (in *installation) importsOldViews(p *process) {
	in.t.Helper()
	t := in.t.(*testing.T)
	then := time.Date(2024, 5, 6, 7, 0, 0, 0, time.UTC)
	lines := importViews("club", 100, 3, then)
	lines = append(lines,
		`{"post":"club","viewer":"ben","viewed_at":"2999-01-01T00:00:00Z"}`, // the future
		`{"post":"club","viewer":"stranger","viewed_at":"2024-05-06T07:00:00Z"}`,
		`{"post":"never","viewer":"ben","viewed_at":"2024-05-06T07:00:00Z"}`)
	file := importFile(t, lines...)
	code, out, stderr := in.try("import", "views", file, "--tenant", "demo")
	if code != exitUsage || !strings.Contains(out, "Imported: 105 views of 106 lines; 1 lines were rejected.\n  line 104: viewed_at: lies in the future") {
		t.Fatalf("exit %d\n%s%s", code, out, stderr)
	}
	// Another import with the same ids, while they are remembered.
	in.command("import", "views", importFile(t, lines[:10]...), "--tenant", "demo")
	eventually(t, time.Minute, "the old views to be judged", func() error {
		reasons := map[domain.Reason]int{}
		records, err := in.records(domain.TopicVerdicts)
		for _, r := range records {
			if v, ok := r.Event.(*domain.Verdict); ok && v.Imported {
				reasons[v.Reason]++
			}
		}
		if err != nil || len(reasons) != 4 || reasons[domain.ReasonNone] != 100 || reasons[domain.ReasonDuplicate] != 13 || reasons[domain.ReasonNotInAudience] != 1 || reasons[domain.ReasonUnknownPost] != 1 {
			return fmt.Errorf("%v %w", reasons, err)
		}
		return nil
	})
	views := viewsBody{}
	for range 60 {
		views.Views = append(views.Views, viewItem{ID: uuid.NewString(), Post: "club", Viewer: "ben"})
	}
	position := p.must(http.StatusAccepted, "POST", "/v1/views", nil, views, nil)
	if c := p.counts(position, "club"); c.Impressions != 160 || c.UniqueViewers != 1 {
		t.Errorf("%+v", c)
	}
	conn, err := pgx.Connect(t.Context(), in.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	key := domain.PostKey{Tenant: demoTenant, Post: "club"}
	if n, err := impressions.Counts(t.Context(), conn, []domain.PostKey{key}); err != nil || n[key] != (impressions.Count{Impressions: 160, ImportedImpressions: 100}) {
		t.Errorf("%+v %v", n, err)
	}
	var page struct {
		Viewers []struct {
			Viewer        string
			FirstViewedAt time.Time `json:"first_viewed_at"`
			Views         int64
		}
	}
	p.must(http.StatusOK, "GET", "/v1/posts/club/viewers", nil, nil, &page)
	if len(page.Viewers) != 1 || page.Viewers[0].Viewer != "ben" || !page.Viewers[0].FirstViewedAt.Equal(then) || page.Viewers[0].Views != 160 {
		t.Errorf("%+v", page)
	}
}
