package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"seenby/domain"
)

const (
	queueLinesMax = 40
	stepsMax      = 100 // of a queue that should have stopped
)

// integrateGuide is docs/integrate.md, cut into what it tells a developer to run.
type integrateGuide struct {
	shell          []string
	forward, queue string // the core's handler; what the app has
}

// readGuide knows every block of the page: none stands there that no test runs.
func readGuide(t *testing.T) integrateGuide {
	t.Helper()
	text, err := os.ReadFile("../../docs/integrate.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string][]string{}
	for i, part := range strings.Split("\n"+string(text), "\n```") {
		if i%2 == 1 {
			kind, block, _ := strings.Cut(part, "\n")
			blocks[kind] = append(blocks[kind], block)
		}
	}
	sh, ts := blocks["sh"], blocks["ts"]
	if len(blocks) != 3 || len(blocks[""]) != 1 || len(sh) != 5 || len(ts) != 3 {
		t.Fatalf("docs/integrate.md has other blocks than are known here: %d of shell, %d of TypeScript, %d kinds", len(sh), len(ts), len(blocks))
	}
	if lines := strings.Count(ts[1], "\n") + 1; lines > queueLinesMax {
		t.Errorf("the queue has %d lines, at most %d are promised", lines, queueLinesMax)
	}
	return integrateGuide{shell: sh, forward: ts[0], queue: ts[1] + "\n" + ts[2]}
}

// fault is what the core, or something before it, does to a request instead of answering as Seenby does.
type fault struct {
	status     int // 0: none
	retryAfter string
	cut        bool // the answer is lost, after the views were forwarded; with a status, before
}

// core is the system that owns posts and people: it forwards views by the guide's handler.
type core struct {
	t        *testing.T
	guide    integrateGuide
	env      map[string]string
	faults   []fault
	batches  []int // views of each request that an app sent
	position string
}

func (c *core) answer(r *http.Request) (answer, error) {
	person, err := r.Cookie("session")
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return answer{}, err
	}
	var views viewsBody
	if err := json.Unmarshal(body, &views); err != nil {
		return answer{}, err
	}
	c.batches = append(c.batches, len(views.Views))
	if r.URL.Path != "/people/"+person.Value+"/views" {
		return answer{status: http.StatusForbidden}, nil
	}
	var now fault
	if len(c.faults) > 0 {
		now, c.faults = c.faults[0], c.faults[1:]
	}
	switch {
	case now.status != 0 && now.cut:
		return answer{}, errors.New("the connection broke before the request arrived")
	case now.status != 0:
		return answer{status: now.status, header: http.Header{"Retry-After": {now.retryAfter}}}, nil
	}
	a := c.forward(person.Value, string(body))
	if now.cut {
		return answer{}, errors.New("the connection broke before the answer arrived")
	}
	return a, nil
}

// forward runs the guide's handler as a server would.
func (c *core) forward(viewer, body string) answer {
	c.t.Helper()
	d := newDevice(c.t, c.guide.forward, map[string]any{"viewer": viewer, "body": body, "process": map[string]any{"env": c.env}})
	d.eval(`var status = 0, retryAfter, position, text
		app.forward(viewer, body).then(async (r) => {
			[status, retryAfter, position] = [r.status, r.headers.get("Retry-After"), r.headers.get("Seenby-Position")]
			text = await r.text()
		})`)
	a := answer{status: int(d.eval("status").ToInteger()), header: http.Header{}, body: []byte(d.eval("text").String())}
	if a.status == 0 {
		c.t.Fatal("the core's handler failed")
	}
	if v := d.eval("retryAfter"); v.ToBoolean() {
		a.header.Set("Retry-After", v.String())
	}
	if v := d.eval("position"); v.ToBoolean() {
		c.position = v.String()
	}
	return a
}

// TestIntegrate is docs/integrate.md from its first line to its last, as it stands, on a network and with a core
// that fail in every way in between: every view counts once, and no queue holds any back.
func TestIntegrate(t *testing.T) {
	guide := readGuide(t)
	in, key := install(t)
	p := in.serve(key, "api,gate,projector,keeper")
	c := &core{t: t, guide: guide, env: map[string]string{"API": p.api, "KEY": key}}

	// Posts and groups, first.
	if got := c.curl(guide.shell[0]); !strings.Contains(got, `"id":"p1"`) || !strings.Contains(got, "\n201\n") {
		t.Errorf("PUT a post:\n%s", got)
	}
	if got := c.curl(guide.shell[1]); !strings.Contains(got, `{"accepted":2,"rejected":[]}`) {
		t.Errorf("a batch of posts:\n%s", got)
	}
	if got := c.curl(guide.shell[2]); strings.Count(got, "\n202\n") != 3 || !strings.Contains(got, `{"accepted":2}`) {
		t.Errorf("members:\n%s", got)
	}
	eventually(t, time.Minute, "the members to be ben and dora", func() error {
		var page struct{ Members []struct{ Viewer string } }
		_, err := p.get("/v1/audiences/hikers/members", nil, &page)
		names := map[string]bool{}
		for _, m := range page.Members {
			names[m.Viewer] = true
		}
		if err != nil || !maps.Equal(names, map[string]bool{"ben": true, "dora": true}) {
			return fmt.Errorf("%+v %w", page, err)
		}
		return nil
	})

	// Ben's device, whose clock is wrong, in a tunnel and worse. One of the views can never be accepted.
	local := &storage{values: map[string]string{}}
	ben := guide.app(t, "ben", local, c.answer)
	ben.now = ben.now.Add(20 * time.Minute)
	ben.seen("p1", "p1", "p2", "p3", "")
	c.faults = []fault{
		{status: 1, cut: true},
		{status: http.StatusServiceUnavailable, retryAfter: "7"},
		{status: http.StatusTooManyRequests, retryAfter: "3"},
		{status: http.StatusRequestEntityTooLarge},
		{status: http.StatusInternalServerError},
		{status: http.StatusGatewayTimeout},
		{cut: true}, // stored, and the device does not know
		{status: http.StatusUnauthorized},
	}
	var waits []time.Duration
	// It stops by itself, after the last fault. One that lost its views would go on for ever, asking its store.
	for ben.run(); ben.running() && len(waits) < stepsMax; {
		waits = append(waits, ben.step())
	}
	// Halves of 2, 4, 8, … s, on top of what was asked for; none after halving the batch.
	if want := seconds(0, 1, 7+2, 3+4, 0, 8, 16, 32); !reflect.DeepEqual(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
	if want := []int{5, 5, 5, 5, 3, 3, 3, 3}; !reflect.DeepEqual(c.batches, want) {
		t.Errorf("batches of %v, want %v", c.batches, want)
	}
	if len(local.keys) != 5 {
		t.Errorf("%d views are left, want all 5", len(local.keys))
	}

	// Somebody else signs in while ben's queue is there: nothing of his is taken as theirs.
	ben.session = "dora"
	ben.run()
	ben.step()
	if ben.running() || len(local.keys) != 5 {
		t.Errorf("under another session: running %v, %d views are left", ben.running(), len(local.keys))
	}

	// After a restart and a sign-in it goes on where it was.
	again := guide.app(t, "ben", local, c.answer)
	again.now = ben.now
	again.seen("p1")
	again.run()
	again.step()
	if len(local.keys) != 0 || len(again.logged) != 1 || !strings.Contains(again.logged[0], "post: ") {
		t.Errorf("after the restart: %v are left, logged %q", local.keys, again.logged)
	}

	// Others: dora is in the group, emil is not, and an app that claims to be somebody else is not believed.
	for _, person := range []string{"dora", "emil"} {
		d := guide.app(t, person, &storage{values: map[string]string{}}, c.answer)
		d.seen("p1", "p2")
		d.run()
		d.step()
	}
	forged := `{"views":[{"id":"0190a5b6-7c1d-7e2f-8a3b-4c5d6e7f8091","post":"p1","viewer":"anna"}]}`
	if a := c.forward("emil", forged); a.status != http.StatusAccepted {
		t.Errorf("forged: %d %s", a.status, a.body)
	}

	ledger := in.settle(t)
	want := map[string]postCount{
		"p1": {Post: "p1", Impressions: 3 + 1 + 2, UniqueViewers: 3},
		"p2": {Post: "p2", Impressions: 1 + 1, UniqueViewers: 2},
		"p3": {Post: "p3", Impressions: 1, UniqueViewers: 1},
	}
	for post, want := range want {
		if got := ledger.posts[domain.PostID(post)].impressions; got != want.Impressions {
			t.Errorf("%s: %d views were counted, want %d", post, got, want.Impressions)
		}
		// A view that was judged twice is counted by its second verdict, which its token does not wait for.
		eventually(t, time.Minute, "the counts", func() error {
			if got := p.counts(c.position, post); got != want {
				return fmt.Errorf("%+v, want %+v", got, want)
			}
			return nil
		})
	}
	for _, script := range guide.shell[3:] {
		var feed struct{ Counts []postCount }
		got, _, _ := strings.Cut(c.curl(script), "\n")
		if err := json.Unmarshal([]byte(got), &feed); err != nil || !reflect.DeepEqual(feed.Counts, []postCount{want["p1"], want["p2"]}) {
			t.Errorf("the feed: %v\n%s", err, got)
		}
	}
	// Names are another read model's, and a read without a token waits for none.
	eventually(t, time.Minute, "the viewers' names", func() error {
		var page struct{ Viewers []struct{ Viewer string } }
		p.must(http.StatusOK, "GET", "/v1/posts/p1/viewers", nil, nil, &page)
		viewers := map[string]bool{}
		for _, v := range page.Viewers {
			viewers[v.Viewer] = true
		}
		if !maps.Equal(viewers, map[string]bool{"ben": true, "dora": true, "emil": true}) {
			return fmt.Errorf("viewers %v", viewers)
		}
		return nil
	})
}

// curl runs a block of shell. Each request prints its status after its answer; one that fails ends the block.
func (c *core) curl(script string) string {
	c.t.Helper()
	home := c.t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".curlrc"), []byte("silent\nshow-error\nfail-with-body\nwrite-out = \"\\n%{http_code}\\n\"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return shell(c.t, home, fmt.Sprintf("export CURL_HOME=%q API=%q KEY=%q POSITION=%q\n%s", home, c.env["API"], c.env["KEY"], c.position, script))
}

func seconds(all ...int) (d []time.Duration) {
	for _, s := range all {
		d = append(d, time.Duration(s)*time.Second)
	}
	return d
}
