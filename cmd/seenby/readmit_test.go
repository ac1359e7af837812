package main

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"seenby/domain"
)

// TestReadmit: what a quota refused is judged again, all of it or that of a post, with all rules but the quota; by two
// operators at once, and again after that, and each view still counts once.
func TestReadmit(t *testing.T) {
	in, key := install(t)
	in.setLimits(func(l *domain.Limits) { l.Quota = domain.Quota{ViewsPerMinute: 1, BurstViews: quotaViews} })
	p := in.serve(key, "api,gate,projector,keeper")
	view := func(post, viewer string, n int) (position string) {
		t.Helper()
		items := make([]viewItem, n)
		for i := range items {
			items[i] = viewItem{ID: uuid.NewString(), Post: post, Viewer: viewer}
		}
		return p.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: items}, nil)
	}
	for _, post := range []string{"a", "b"} {
		p.must(http.StatusCreated, "PUT", "/v1/posts/"+post, nil, map[string]any{"author": "anna"}, nil)
	}
	const refused = 65 // of 70, of which the cap of 60 an hour leaves 55
	p.counts(view("a", "ben", quotaViews+refused), "a")
	p.counts(view("a", "cleo", 2), "a")
	if c := p.counts(view("b", "ben", 3), "b"); c.Impressions != 0 {
		t.Fatalf("%+v", c)
	}

	readmit := []string{"readmit", "--reason", "viewer_quota", "--tenant", "demo"}
	if out := in.command(append(readmit, "--dry-run")...); out != "Nothing was appended. 68 views were refused as viewer_quota; 68 would be appended again, 0 were before, or count.\n" {
		t.Error(out)
	}
	if out := in.command(append(readmit, "--until", "2026-01-01T00:00:00Z")...); !lineOf(out, "BEFORE", "viewer_quota", "0") {
		t.Errorf("before there was any:\n%s", out)
	}
	if out := in.command(append(readmit, "--post", "b")...); !lineOf(out, "BEFORE", "viewer_quota", "3") || !lineOf(out, "AFTER", "counted", "3") || strings.Count(out, "AFTER") != 1 {
		t.Errorf("those of a post:\n%s", out)
	}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if code, out, stderr := in.try(readmit...); code != exitOK || !lineOf(out, "BEFORE", "viewer_quota", "68") {
				t.Errorf("exit %d\n%s%s", code, out, stderr)
			}
		})
	}
	both.Wait()
	in.verifiedWhole()
	for post, want := range map[string]int64{"a": 62, "b": 3} {
		if c := p.counts("", post); c.Impressions != want {
			t.Errorf("%+v, want %d", c, want)
		}
	}
	records := in.events(domain.TopicViews)
	if out := in.command(readmit...); !lineOf(out, "", "counted or appended again before", "68") || strings.Contains(out, "AFTER") {
		t.Errorf("once more:\n%s", out)
	}
	if now := in.events(domain.TopicViews); now != records {
		t.Errorf("%d views were appended once more", now-records)
	}
	if out := in.command(append(readmit, "--dry-run")...); !strings.Contains(out, "; 0 would be appended again, 68 were before") {
		t.Error(out)
	}

	for _, args := range [][]string{
		{"--reason", "stale", "--tenant", "demo"}, {"--tenant", "demo"}, {"--reason", "viewer_quota", "--tenant", "demo", "--since", "2999-01-01T00:00:00Z"},
		{"--reason", "viewer_quota", "--tenant", "demo", "--since", "yesterday"},
	} {
		if code, out, stderr := in.try(append([]string{"readmit"}, args...)...); code != exitUsage {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, stderr)
		}
	}
	if code, _, stderr := in.try("readmit", "--reason", "viewer_quota", "--tenant", "nobody"); code != exitFailed || !strings.Contains(stderr, "nobody") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

// lineOf tells whether a table has a line of these cells.
func lineOf(out string, cells ...string) bool {
	for line := range strings.Lines(out) {
		if strings.Join(strings.Fields(line), " ") == strings.TrimSpace(strings.Join(cells, " ")) {
			return true
		}
	}
	return false
}
