package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// newerEdits make this program its own successor: one's views of one's own posts no longer make a unique viewer.
var newerEdits = []struct{ file, old, new string }{
	{"projections/uniqueviews/uniqueviews.go", "FoldVersion() int { return 1 }", "FoldVersion() int { return 2 }"},
	{"projections/uniqueviews/uniqueviews.go", "if !ok || !v.Counted() || v.Anonymous {", "if !ok || !v.Counted() || v.Anonymous || v.OwnView {"},
}

// newerMigration adds a column with it, in every version that stands.
const newerMigration = `-- +goose Up
SELECT change_read_model('uniqueviews', $$ ALTER TABLE unique_views ADD COLUMN app text NOT NULL DEFAULT '' $$);
`

// buildNewer builds the successor over this tree, which it leaves as it is, and gives its path.
func buildNewer(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	texts := map[string]string{"migrations/90000_newer.sql": newerMigration}
	for _, e := range newerEdits {
		text, ok := texts[e.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		if strings.Count(text, e.old) != 1 {
			t.Fatalf("%q does not stand in %s once: the successor must follow the source", e.old, e.file)
		}
		texts[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	replace := map[string]string{}
	for file, text := range texts {
		path := filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "seenby")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlayFile, "-o", binary, "seenby/cmd/seenby").CombinedOutput(); err != nil {
		t.Fatalf("build the newer program: %v\n%s", err, out)
	}
	return binary
}

// newer is the successor's binary, beside the installation's own program.
type newer struct {
	*installation
	binary string
}

func (n newer) try(args ...string) (code int, out string) {
	n.t.Helper()
	cmd := exec.CommandContext(n.t.Context(), n.binary, args...)
	cmd.Env = n.environ
	text, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		n.t.Fatalf("newer seenby %v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

func (n newer) command(args ...string) string {
	n.t.Helper()
	code, out := n.try(args...)
	if code != exitOK {
		n.t.Fatalf("newer seenby %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// serve runs roles of the newer program until the test ends and waits until it is ready.
func (n newer) serve(key, roles string) *process {
	n.t.Helper()
	addr := freeAddr(n.t)
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	cmd := exec.CommandContext(ctx, n.binary, "serve", "--roles", roles, "--allow-undurable", "--http-addr", addr)
	p := &process{t: n.t, api: "http://" + addr, key: key, out: &syncBuffer{}, ended: make(chan struct{})}
	cmd.Env, cmd.Stdout, cmd.Stderr = n.environ, p.out, p.out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		cmd.Wait() //nolint:errcheck // how it ended is in its log
	}()
	p.stop = sync.OnceValue(func() int { cancel(); <-p.ended; return cmd.ProcessState.ExitCode() })
	n.t.Cleanup(func() {
		if code := p.stop(); code != exitOK {
			n.t.Errorf("the newer program: exit %d", code)
		}
		if n.t.Failed() {
			n.t.Logf("newer seenby serve\n%s", p.out)
		}
	})
	eventually(n.t, time.Minute, "the newer program to be ready", p.allReady)
	return p
}

// allReady is nil where /readyz misses nothing.
func (p *process) allReady() error {
	a, err := p.do(http.MethodGet, "/readyz", nil, nil)
	if err != nil || a.status != http.StatusOK || !bytes.Contains(a.body, []byte(`"ready"`)) {
		return fmt.Errorf("%d %s %w", a.status, a.body, err)
	}
	return nil
}

// metric is the value of a series, 0 where there is none.
func (p *process) metric(series string) (value float64) {
	p.t.Helper()
	a, err := p.do(http.MethodGet, "/metrics", nil, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(a.body)) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	return value
}

// upgradeAuthors view their own posts: enough of them to be in every partition, and other ones before the swap and after
// it, since the cap of views refuses what they report for long.
const upgradeAuthors = 40

// upgradeLagMax is what an upgrade may cost in freshness.
const upgradeLagMax = 5 * time.Second

// load reports views, also by authors from one number on, and reads counts by several apis, until stop: a read that fails, or shows counts older than
// upgradeLagMax, is an error. It tells how old the oldest were.
func (in *installation) load(by int, apis ...*process) (stop func() (oldest time.Duration)) {
	ending := make(chan struct{})
	var ended sync.WaitGroup
	var mu sync.Mutex
	var oldest time.Duration
	for _, api := range apis {
		ended.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-ending:
					return
				default:
				}
				var views viewsBody
				for i := range 20 {
					views.Views = append(views.Views, viewItem{ID: uuid.NewString(), Post: "hello", Viewer: fmt.Sprintf("viewer-%d", (20*n+i)%500)})
				}
				for i := range upgradeAuthors {
					views.Views = append(views.Views, viewItem{ID: uuid.NewString(), Post: fmt.Sprintf("by-%d", by+i), Viewer: fmt.Sprintf("author-%d", by+i)})
				}
				if a, err := api.do(http.MethodPost, "/v1/views", nil, views); err != nil || a.status != http.StatusAccepted {
					in.t.Errorf("views %d: %d %v", n, a.status, err)
				}
				for _, path := range []string{"/v1/posts/hello", "/v1/posts/hello/viewers", "/v1/counts?post=hello"} {
					var got postAnswer
					status, err := api.get(path, nil, &got)
					if err != nil || status != http.StatusOK {
						in.t.Errorf("read %s: %d %v", path, status, err)
					}
					mu.Lock()
					age := time.Since(got.AsOf)
					oldest = max(oldest, age)
					mu.Unlock()
					if age > upgradeLagMax {
						in.t.Errorf("%s is as of %v, %v ago", path, got.AsOf, age)
					}
				}
			}
		})
	}
	return func() time.Duration { close(ending); ended.Wait(); return oldest }
}

// uniqueViewers waits until an api has no more to count and gives what it counts.
func (in *installation) uniqueViewers(p *process) (n int64) {
	in.t.Helper()
	var got postAnswer
	position := p.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: "hello", Viewer: "viewer-0"}}}, nil)
	p.must(http.StatusOK, "GET", "/v1/posts/hello", waitFor(position), nil, &got)
	return got.UniqueViewers
}

// TestUpgradeOfAFold: a newer program with another fold runs beside this one, migrates, rebuilds and swaps, under load. No
// read fails and none is old, before, during or after; each program leaves the other's versions alone; there is a way
// back until the old version is dropped, and then the old projectors end.
func TestUpgradeOfAFold(t *testing.T) {
	in, key := install(t)
	in.setLimits(unlimited)
	n := newer{in, buildNewer(t)}
	conn, err := pgx.Connect(t.Context(), in.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	old := in.serve(key, "api,gate,projector,keeper")
	old.must(http.StatusCreated, "PUT", "/v1/posts/hello", nil, map[string]any{"author": "anna"}, nil)
	for i := range 2 * upgradeAuthors {
		old.must(http.StatusCreated, "PUT", fmt.Sprintf("/v1/posts/by-%d", i), nil, map[string]any{"author": fmt.Sprintf("author-%d", i)}, nil)
	}
	in.uniqueViewers(old)
	stop := in.load(0, old)
	n.command("migrate")
	t.Logf("before the newer program serves, counts were up to %v old", stop())

	fresh := n.serve(key, "api,gate,projector,keeper")
	stop = in.load(0, old, fresh)
	if !strings.Contains(fresh.out.String(), "older program's fold") {
		t.Error("the newer program does not say that it leaves the live version alone")
	}
	if code, out := n.try("verify"); code != exitFailed || !strings.Contains(out, "has fold version 1, and this program's is 2") {
		t.Errorf("verify by the newer program: exit %d\n%s", code, out)
	}
	code, out := n.try("rebuild", "uniqueviews")
	t.Log(out)
	if code != exitFailed || !strings.Contains(out, "--accept-differences") || !strings.Contains(out, fmt.Sprintf("unique_views: %d rows", upgradeAuthors)) {
		t.Errorf("the versions differ by the author's own views: exit %d\n%s", code, out)
	}
	if code, _, stderr := in.try("rebuild", "uniqueviews"); code != exitFailed || !strings.Contains(stderr, "is being made by a program with fold version 2") {
		t.Errorf("the older program over the newer one's unfinished rebuild: exit %d, %s", code, stderr)
	}
	t.Log(n.command("rebuild", "uniqueviews", "--accept-differences", "kim"))
	t.Logf("until the newer fold was live, counts were up to %v old", stop())

	stop = in.load(upgradeAuthors, old, fresh)
	if code, _, stderr := in.try("rebuild", "uniqueviews"); code != exitFailed || !strings.Contains(stderr, "an older one: use the program that has 2") {
		t.Errorf("the older program over the newer fold: exit %d, %s", code, stderr)
	}
	if code, _, stderr := in.try("verify"); code != exitFailed || !strings.Contains(stderr, "has fold version 2, and this program's is 1") {
		t.Errorf("verify by the older program: exit %d, %s", code, stderr)
	}
	eventually(t, time.Minute, "the older program to say who keeps what readers see", func() error {
		if !strings.Contains(old.out.String(), "newer program's fold") {
			return fmt.Errorf("it does not")
		}
		return nil
	})
	t.Log(n.command("rebuild", "--rollback", "uniqueviews")) // the older program has kept its version current
	t.Log(in.command("rebuild", "--rollback", "uniqueviews"))
	t.Logf("to and fro, counts were up to %v old", stop())

	eventually(t, time.Minute, "counts by the newer fold, by both programs", func() error {
		var all, mine, hello int64
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM uniqueviews_v1.unique_views").Scan(&all); err != nil {
			return err
		}
		if err := conn.QueryRow(t.Context(), "SELECT count(*), count(*) FILTER (WHERE post = 'hello') FROM uniqueviews_v2.unique_views WHERE app = ''").Scan(&mine, &hello); err != nil {
			return err
		}
		if a, b := in.uniqueViewers(old), in.uniqueViewers(fresh); a != hello || b != hello || mine != all-2*upgradeAuthors {
			return fmt.Errorf("%d and %d; the older version has %d, the newer one %d, of which %d of the post", a, b, all, mine, hello)
		}
		return nil
	})
	stop = in.load(upgradeAuthors, old, fresh)
	t.Log(n.command("rebuild", "--drop-old", "uniqueviews"))
	eventually(t, time.Minute, "the older program's projectors to end", func() error {
		if !strings.Contains(old.out.String(), "no longer following") {
			return fmt.Errorf("they do not")
		}
		return nil
	})
	t.Logf("when the older version was dropped, counts were up to %v old", stop())
	for name, p := range map[string]*process{"older": old, "newer": fresh} {
		if err := p.allReady(); err != nil {
			t.Errorf("the %s program is not ready: %v", name, err)
		}
		if strings.Contains(p.out.String(), "stopped for good") {
			t.Errorf("a role of the %s program has stopped", name)
		}
		if lag := p.metric(`seenby_projection_lag_seconds{projection="uniqueviews"}`); lag > upgradeLagMax.Seconds() {
			t.Errorf("the %s program shows a lag of %v s", name, lag)
		}
		if stopped := p.metric(`seenby_projection_stopped_workers{projection="uniqueviews"}`); stopped != 0 {
			t.Errorf("the %s program shows %v stopped workers", name, stopped)
		}
	}
	old.stop()
	in.uniqueViewers(fresh)
	if out := n.command("rebuild", "--list"); !strings.Contains(out, "accepted by kim") {
		t.Errorf("the history:\n%s", out)
	}
}
