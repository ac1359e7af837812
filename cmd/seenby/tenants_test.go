package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"seenby/domain"
	"seenby/internal/adminapi"
	"seenby/internal/eventlog"
	"seenby/internal/postgres"
	"seenby/projections"
)

const testAdminKey = "an-admin-key-of-at-least-32-bytes"

// serveAdmin runs roles with the admin API, and gives both sides of the process.
func (in *installation) serveAdmin(key, roles string) (api, admin *process) {
	in.t.Helper()
	addr, adminAddr := freeAddr(in.t), freeAddr(in.t)
	environ := append(slices.Clone(in.environ), "SEENBY_ADMIN_ADDR="+adminAddr, "SEENBY_ADMIN_KEY="+testAdminKey)
	api = start(in.t, addr, key, environ, "serve", "--roles", roles, "--allow-undurable", "--http-addr", addr)
	return api, &process{t: in.t, api: "http://" + adminAddr, key: testAdminKey}
}

// as is the process as another key sees it.
func (p *process) as(key string) *process {
	return &process{t: p.t, api: p.api, key: key, out: p.out, ended: p.ended}
}

// followed waits until every process answers a key with the status, which is to take two seconds at most.
func followed(t *testing.T, what, key string, status int, processes ...*process) {
	t.Helper()
	began := time.Now()
	eventually(t, 2*time.Second, what, func() error {
		for _, p := range processes {
			if a, err := p.as(key).do("GET", "/v1/counts?post=hello", nil, nil); err != nil || a.status != status {
				return fmt.Errorf("%s: %d %s %w", p.api, a.status, a.body, err)
			}
		}
		return nil
	})
	t.Logf("%s: after %v", what, time.Since(began))
}

// verdicts are all of a tenant.
func (in *installation) verdicts(tenant domain.TenantID) (all []*domain.Verdict, err error) {
	records, err := in.records(domain.TopicVerdicts)
	for _, r := range records {
		if v, ok := r.Event.(*domain.Verdict); ok && v.Viewer.Tenant == tenant {
			all = append(all, v)
		}
	}
	return all, err
}

// sharedLog lives as long as the test.
func (in *installation) sharedLog() *eventlog.Log {
	in.t.Helper()
	log, err := eventlog.Open(eventlog.Config{Brokers: in.brokers, Prefix: in.prefix})
	if err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(log.Close)
	return log
}

// TestTenantsWithoutRestart: what operators change is followed by processes that run.
func TestTenantsWithoutRestart(t *testing.T) {
	in, key := install(t)
	one := in.serve(key, "api,gate,projector,keeper")
	two, admin := in.serveAdmin(key, "api")
	log := in.sharedLog()

	// A key that is made is accepted, one that is revoked is refused, by every process.
	second := strings.TrimSpace(in.command("keys", "create", "demo", "--label", "second"))
	followed(t, "a new key", second, http.StatusOK, one, two)
	id := strings.Split(second, "_")[1]
	if out := in.command("keys", "list", "demo"); !strings.Contains(out, id) || !strings.Contains(out, "second") || strings.Contains(out, second) {
		t.Errorf("keys list:\n%s", out)
	}
	in.command("keys", "revoke", "demo", id)
	followed(t, "a revoked key", second, http.StatusUnauthorized, one, two)
	followed(t, "the other key", key, http.StatusOK, one, two)
	var keys adminapi.Keys
	if out := in.command("keys", "list", "demo", "--json"); json.Unmarshal([]byte(out), &keys) != nil || len(keys.Keys) != 2 || keys.Keys[1].Status != "revoked" {
		t.Errorf("keys list --json:\n%s", out)
	}

	// A changed cap is obeyed, and the verdict says by which revision.
	var position string
	one.must(http.StatusCreated, "PUT", "/v1/posts/hello", nil, map[string]any{"author": "anna", "body": "Hello"}, nil)
	views := func(p *process, viewer string, n int) {
		t.Helper()
		var items []viewItem
		for range n {
			items = append(items, viewItem{ID: uuid.NewString(), Post: "hello", Viewer: viewer})
		}
		position = p.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: items}, nil)
	}
	views(one, "before", 5)
	if out := in.command("tenants", "set", "demo", "post_cap_views=2", "stale=12h"); !strings.Contains(out, "revision 2") {
		t.Errorf("tenants set: %s", out)
	}
	round := 0
	eventually(t, 30*time.Second, "the new cap", func() error {
		round++
		viewer := fmt.Sprintf("after-%d", round)
		views(two, viewer, 5)
		var got postAnswer
		two.must(http.StatusOK, "GET", "/v1/posts/hello", waitFor(position), nil, &got)
		all, err := in.verdicts("demo")
		if err != nil {
			return err
		}
		counted, capped := 0, 0
		for _, v := range all {
			switch {
			case v.LimitsRevision != 2:
			case v.Counted():
				counted++
			case v.Reason == domain.ReasonPostCap:
				capped++
			}
		}
		if counted == 0 || counted*3 != capped*2 {
			return fmt.Errorf("by revision 2, %d views are counted and %d over the cap", counted, capped)
		}
		if got.Impressions != int64(5*(len(all)/5)-capped) {
			return fmt.Errorf("%d impressions of %d views, %d over the cap", got.Impressions, len(all), capped)
		}
		return nil
	})
	if out := in.command("tenants", "show", "demo"); !strings.Contains(out, "revision 2") || !strings.Contains(out, "post_cap_views           2") {
		t.Errorf("tenants show:\n%s", out)
	}

	closing(t, in, log, admin, one, two)
}

// closing makes a tenant over the admin API, uses it, and closes it.
func closing(t *testing.T, in *installation, log *eventlog.Log, admin *process, processes ...*process) {
	admin.must(http.StatusCreated, "POST", "/v1/tenants", nil, `{"id":"shop","name":"The shop"}`, nil)
	admin.must(http.StatusConflict, "POST", "/v1/tenants", nil, `{"id":"shop"}`, nil)
	var limits adminapi.Limits
	admin.must(http.StatusOK, "PATCH", "/v1/tenants/shop/limits", nil, `{"quota_burst_views":100}`, &limits)
	if limits.Revision != 2 || limits.QuotaBurstViews != 100 {
		t.Errorf("limits %+v", limits)
	}
	var issued adminapi.IssuedKey
	admin.must(http.StatusCreated, "POST", "/v1/tenants/shop/keys", nil, `{"label":"web"}`, &issued)
	followed(t, "the key of a new tenant", issued.Text, http.StatusOK, processes...)
	if a, err := admin.as(issued.Text).do("GET", "/v1/tenants", nil, nil); err != nil || a.status != http.StatusUnauthorized {
		t.Errorf("the admin API takes a tenant's key: %d %v", a.status, err)
	}
	if a, err := processes[0].as(testAdminKey).do("GET", "/v1/counts?post=hello", nil, nil); err != nil || a.status != http.StatusUnauthorized {
		t.Errorf("the api takes the admin key: %d %v", a.status, err)
	}

	shop := processes[0].as(issued.Text)
	shop.must(http.StatusCreated, "PUT", "/v1/posts/hello", nil, map[string]any{"author": "anna", "body": "A text"}, nil)
	position := shop.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: "hello", Viewer: "ben"}}}, nil)
	var post postAnswer
	shop.must(http.StatusOK, "GET", "/v1/posts/hello", waitFor(position), nil, &post)
	before, err := in.verdicts("shop")
	if err != nil || post.Impressions != 1 || len(before) != 1 {
		t.Fatalf("%+v, %d verdicts, %v", post, len(before), err)
	}

	var closed adminapi.Closed
	admin.must(http.StatusOK, "DELETE", "/v1/tenants/shop", nil, nil, &closed)
	if closed.Tenant.Status != "closed" || closed.NamesForgotten != 2 || closed.TextsForgotten != 1 || len(closed.Remains) == 0 {
		t.Errorf("closed: %+v", closed)
	}
	followed(t, "the key of a closed tenant", issued.Text, http.StatusUnauthorized, processes...)

	// A view that was accepted before is not counted.
	late := domain.ViewReported{Viewer: before[0].Viewer, ViewID: domain.ViewID(uuid.New()), Post: "hello"}
	if _, err := log.Append(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "its verdict", func() error {
		all, err := in.verdicts("shop")
		if err != nil {
			return err
		}
		if len(all) != 2 {
			return fmt.Errorf("%d verdicts", len(all))
		}
		if v := all[1]; v.Counted() || v.Reason != domain.ReasonMalformed {
			t.Errorf("a view of a closed tenant: %+v", v)
		}
		return nil
	})
	// Names and texts are gone from the read models; the counts stay.
	store, err := postgres.Open(t.Context(), postgres.Config{URL: in.database})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	eventually(t, 30*time.Second, "names and texts to go", func() error {
		left, err := leftOf(t.Context(), store, "shop")
		if err == nil && left != [3]int{0, 0, 1} {
			err = fmt.Errorf("names, texts, impressions: %v", left)
		}
		return err
	})
	out := in.command("tenants", "close", "shop", "--yes")
	for _, want := range []string{"tenant shop is closed", "2 names, 1 texts", "topics people, bodies", "person keys only", "two days", "for ever"} {
		if !strings.Contains(out, want) {
			t.Errorf("tenants close says nothing of %q:\n%s", want, out)
		}
	}
	var tenants adminapi.Tenants
	if out := in.command("tenants", "list", "--json"); json.Unmarshal([]byte(out), &tenants) != nil || len(tenants.Tenants) != 2 || tenants.Tenants[1].Status != "closed" {
		t.Errorf("tenants list --json:\n%s", out)
	}
	if out := in.command("tenants", "list"); !strings.Contains(out, "closed since") {
		t.Errorf("tenants list:\n%s", out)
	}
}

// leftOf counts a tenant's names, texts and impressions in the read models.
func leftOf(ctx context.Context, store *postgres.Store, tenant string) (left [3]int, err error) {
	err = store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		rows, err := q.Query(ctx, `
SELECT (SELECT count(*) FROM people WHERE tenant = $1),
       (SELECT count(*) FROM post_bodies WHERE tenant = $1 AND body IS NOT NULL),
       (SELECT coalesce(sum(impressions), 0)::int FROM impressions WHERE tenant = $1)`, tenant)
		if err != nil {
			return err
		}
		defer rows.Close()
		if !rows.Next() {
			return errors.Join(errors.New("no row"), rows.Err())
		}
		return rows.Scan(&left[0], &left[1], &left[2])
	})
	return left, err
}

// TestSecretRotation: running processes go on, the old secret starts nothing any more, the new one opens everything.
func TestSecretRotation(t *testing.T) {
	in, key := install(t)
	old, admin := in.serveAdmin(key, "api,gate,projector,keeper")
	old.must(http.StatusCreated, "PUT", "/v1/posts/hello", nil, map[string]any{"author": "anna"}, nil)
	view := func(p *process) (position string) {
		t.Helper()
		return p.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: "hello", Viewer: "ben"}}}, nil)
	}
	position := view(old)

	const next = "a-new-secret-that-has-32-bytes-and-more"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(next+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rotated := &installation{t: t, brokers: in.brokers, prefix: in.prefix, database: in.database, environ: append(slices.Clone(in.environ), "SEENBY_SECRET="+next)}
	early := []string{"serve", "--allow-undurable", "--http-addr", "127.0.0.1:0"}
	if code, _, says := rotated.try(early...); code != exitFailed || !strings.Contains(says, "fingerprint") {
		t.Errorf("the new secret, too early: exit %d\n%s", code, says)
	}
	out := in.command("secret", "rotate", "--new-secret-file", file)
	if strings.Contains(out, next) || !strings.Contains(out, "tenant keys sealed anew: 1") {
		t.Errorf("secret rotate:\n%s", out)
	}
	for _, again := range []*installation{in, rotated} {
		if out := again.command("secret", "rotate", "--new-secret-file", file); !strings.Contains(out, "already") {
			t.Errorf("again:\n%s", out)
		}
	}

	// The process that runs goes on with what it has.
	eventually(t, 30*time.Second, "the process to hear of it", func() error {
		if !strings.Contains(old.out.String(), "secret was changed while this process runs") {
			return errors.New("its log says nothing")
		}
		return nil
	})
	var got postAnswer
	if old.must(http.StatusOK, "GET", "/v1/posts/hello", waitFor(view(old)), nil, &got); got.Impressions != 2 {
		t.Errorf("after the rotation: %+v", got)
	}
	admin.must(http.StatusConflict, "POST", "/v1/tenants", nil, `{"id":"shop"}`, nil)

	// The old one opens nothing any more.
	_, after, _ := strings.Cut(out, "fingerprint ")
	fingerprints := strings.Fields(after) // "<old> before, <new> now; ..."
	for _, args := range [][]string{early, {"tenants", "create", "shop"}} {
		code, _, says := in.try(args...)
		if code != exitFailed || !strings.Contains(says, fingerprints[0]) || !strings.Contains(says, fingerprints[2]) {
			t.Errorf("seenby %v with the old secret: exit %d, without the fingerprints of\n%s\n%s", args, code, out, says)
		}
	}
	// The new one opens what the old one sealed: keys, tokens, people.
	p := rotated.serve(key, "api")
	p.must(http.StatusOK, "GET", "/v1/posts/hello", waitFor(position), nil, nil)
	var viewers struct {
		Viewers []struct {
			Viewer string `json:"viewer"`
			Views  int64  `json:"views"`
		} `json:"viewers"`
	}
	p.must(http.StatusOK, "GET", "/v1/posts/hello/viewers", waitFor(view(p)), nil, &viewers)
	if len(viewers.Viewers) != 1 || viewers.Viewers[0].Viewer != "ben" || viewers.Viewers[0].Views != 3 {
		t.Errorf("viewers: %+v", viewers)
	}
	// A tenant that is made now is served by restarted apis only, and its views are judged by the gate that was not restarted.
	rotated.command("tenants", "create", "shop")
	shop := p.as(strings.TrimSpace(rotated.command("keys", "create", "shop")))
	followed(t, "the key of a tenant made after the rotation", shop.key, http.StatusOK, p)
	if a, err := shop.do("PUT", "/v1/posts/hello", nil, map[string]any{"author": "anna"}); err != nil || a.status/100 != 2 {
		t.Fatalf("its post: %d %s %v", a.status, a.body, err)
	}
	if shop.must(http.StatusOK, "GET", "/v1/posts/hello", waitFor(view(shop)), nil, &got); got.Impressions != 1 {
		t.Errorf("a tenant made after the rotation: %+v", got)
	}
}

// TestTenantCommandsBadInput: one clear answer each, and nothing stands that did not before.
func TestTenantCommandsBadInput(t *testing.T) {
	in, _ := install(t)
	in.command("tenants", "create", "gone")
	in.command("tenants", "close", "gone", "--yes")
	log := in.sharedLog()
	before, err := log.Ends(t.Context(), domain.TopicTenants)
	if err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("short-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	noKey := &installation{t: t, environ: append(slices.Clone(in.environ), "SEENBY_ADMIN_ADDR=127.0.0.1:0")}
	shortKey := &installation{t: t, environ: append(slices.Clone(noKey.environ), "SEENBY_ADMIN_KEY=short")}
	for name, c := range map[string]struct {
		in   *installation
		args []string
		code int
		want []string
	}{
		"set: nothing":               {in, []string{"tenants", "set", "demo"}, exitUsage, []string{"limits"}},
		"set: no value":              {in, []string{"tenants", "set", "demo", "stale"}, exitUsage, []string{"name=value"}},
		"set: an unknown limit":      {in, []string{"tenants", "set", "demo", "stale=1h", "post_cap=3"}, exitUsage, []string{`"post_cap"`, "post_cap_views"}},
		"set: a limit twice":         {in, []string{"tenants", "set", "demo", "stale=1h", "stale=2h"}, exitUsage, []string{"stale: is given twice"}},
		"set: a value":               {in, []string{"tenants", "set", "demo", "own_views=never"}, exitUsage, []string{"own_views: must be count or refuse"}},
		"set: a contradiction":       {in, []string{"tenants", "set", "demo", "stale=25h"}, exitUsage, []string{"stale + future", "duplicate_window"}},
		"set: no such tenant":        {in, []string{"tenants", "set", "nobody", "stale=1h"}, exitFailed, []string{"no open tenant nobody"}},
		"set: a closed tenant":       {in, []string{"tenants", "set", "gone", "stale=1h"}, exitFailed, []string{"no open tenant gone"}},
		"show: no such tenant":       {in, []string{"tenants", "show", "nobody"}, exitFailed, []string{"no tenant nobody"}},
		"close: without --yes":       {in, []string{"tenants", "close", "demo"}, exitUsage, []string{"--yes", "no way back"}},
		"close: no such tenant":      {in, []string{"tenants", "close", "nobody", "--yes"}, exitFailed, []string{"no tenant nobody"}},
		"create: a closed one":       {in, []string{"tenants", "create", "gone", "--if-missing"}, exitFailed, []string{"closed"}},
		"keys create: a closed one":  {in, []string{"keys", "create", "gone"}, exitFailed, []string{"no open tenant gone"}},
		"keys list: no such tenant":  {in, []string{"keys", "list", "nobody"}, exitFailed, []string{"no tenant nobody"}},
		"keys revoke: no such key":   {in, []string{"keys", "revoke", "demo", "zzzzzzzz"}, exitFailed, []string{"keys list demo"}},
		"rotate: no file":            {in, []string{"secret", "rotate"}, exitUsage, []string{"--new-secret-file"}},
		"rotate: a file that is not": {in, []string{"secret", "rotate", "--new-secret-file", short + "er"}, exitUsage, []string{"--new-secret-file"}},
		"rotate: a short secret":     {in, []string{"secret", "rotate", "--new-secret-file", short}, exitUsage, []string{"--new-secret-file", "32 bytes"}},
		"admin: no key":              {noKey, []string{"serve", "--allow-undurable", "--http-addr", "127.0.0.1:0"}, exitFailed, []string{"admin.key"}},
		"admin: a short key":         {shortKey, []string{"serve", "--allow-undurable", "--http-addr", "127.0.0.1:0"}, exitFailed, []string{"admin.key", "32 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := c.in.try(c.args...)
			if code != c.code {
				t.Errorf("exit %d, want %d\n%s%s", code, c.code, stdout, stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("nothing of %q:\n%s%s", want, stdout, stderr)
				}
			}
			if strings.Contains(stdout+stderr, "short-secret") {
				t.Errorf("it shows the secret:\n%s%s", stdout, stderr)
			}
		})
	}
	if after, err := log.Ends(t.Context(), domain.TopicTenants); err != nil || !slices.Equal(after, before) {
		t.Errorf("the topic ended at %v and ends at %v, %v", before, after, err)
	}
}
