package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"seenby/internal/testenv"
)

// on is the installation on another database.
func (in *installation) on(database string) *installation {
	other := *in
	other.database, other.environ = database, slices.Clone(in.environ)
	for i, variable := range other.environ {
		if strings.HasPrefix(variable, "SEENBY_DATABASE_URL=") {
			other.environ[i] = "SEENBY_DATABASE_URL=" + database
		}
	}
	return &other
}

// copyDatabase makes a copy of a database that nobody uses, which is dropped when the test ends, and gives its URL.
func copyDatabase(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	from := strings.TrimPrefix(u.Path, "/")
	name := from + "_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:8]
	u.Path = "/postgres"
	server, err := pgx.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		defer server.Close(ctx)
		if _, err := server.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	eventually(t, time.Minute, "a copy of the database", func() error { // its last users may be on their way out
		_, err := server.Exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+from)
		return err
	})
	u.Path = "/" + name
	return u.String()
}

// complete waits until the counts include everything that was accepted by now.
func (p *process) complete() {
	p.t.Helper()
	now := time.Now()
	eventually(p.t, time.Minute, "counts that are complete", func() error {
		var got struct {
			AsOf time.Time `json:"as_of"`
		}
		if status, err := p.get("/v1/counts?post=hello", nil, &got); err != nil || got.AsOf.Before(now) {
			return fmt.Errorf("%d %w, as of %v", status, err, got.AsOf)
		}
		return nil
	})
}

// answers are what an api says of everything, but for how fresh it is.
func (in *installation) answers(p *process) map[string]string {
	in.t.Helper()
	all := map[string]string{}
	for _, path := range []string{
		"/v1/posts/hello", "/v1/posts/hello/viewers", "/v1/posts/hello/history", "/v1/posts?author=anna", "/v1/posts/after", "/v1/posts/after/viewers",
		"/v1/counts?post=hello&post=after&post=gone", "/v1/posts/gone",
	} {
		a, err := p.do(http.MethodGet, path, nil, nil)
		if err != nil {
			in.t.Fatal(err)
		}
		var body any
		if err := json.Unmarshal(a.body, &body); err != nil {
			in.t.Fatalf("%s: %v\n%s", path, err, a.body)
		}
		without(body, "as_of", "instance", "next")
		text, err := json.Marshal(body)
		if err != nil {
			in.t.Fatal(err)
		}
		all[path] = fmt.Sprint(a.status, " ", string(text))
	}
	return all
}

func without(body any, names ...string) {
	switch v := body.(type) {
	case map[string]any:
		for _, name := range names {
			delete(v, name)
		}
		for _, inner := range v {
			without(inner, names...)
		}
	case []any:
		for _, inner := range v {
			without(inner, names...)
		}
	}
}

// TestRebuildAfterADisaster: only Kafka survived. From nothing, and from a backup that is older than much of the log, with
// and without processes that serve meanwhile, everything comes back: read models, tenants, limits and keys.
func TestRebuildAfterADisaster(t *testing.T) {
	t.Parallel()
	in, key := install(t)
	in.setLimits(unlimited)
	t.Run("before the backup", func(t *testing.T) { // its processes end with it
		in := *in
		in.t = t
		in.verifiableTraffic(key)
		in.settle(t)
	})
	backup := copyDatabase(t, in.database)
	p := in.serve(key, "api,gate,projector,keeper")
	p.must(http.StatusCreated, "PUT", "/v1/posts/after", nil, map[string]any{"author": "anna", "body": "after the backup"}, nil)
	var views viewsBody
	for i := range 100 {
		views.Views = append(views.Views, viewItem{ID: uuid.NewString(), Post: []string{"hello", "after"}[i%2], Viewer: fmt.Sprintf("later-%d", i)})
	}
	p.must(http.StatusAccepted, "POST", "/v1/views", nil, views, nil)
	in.command("tenants", "set", "demo", "own_views=refuse")
	in.command("tenants", "create", "later")
	laterKey := strings.TrimSpace(in.command("keys", "create", "later"))
	in.settle(t)
	p.complete()
	want := in.answers(p)
	p.stop()

	for name, database := range map[string]func() string{
		"nothing":  func() string { return testenv.EmptyPostgres(t).DSN },
		"a backup": func() string { return copyDatabase(t, backup) },
	} {
		for _, serving := range []bool{false, true} {
			t.Run(fmt.Sprintf("from %s, serving: %v", name, serving), func(t *testing.T) {
				in := in.on(database())
				in.t = t
				in.command("migrate")
				if serving {
					in.serve(key, "api,gate,projector,keeper")
				}
				if plan := in.command("rebuild", "--all", "--dry-run"); strings.Count(plan, "Nothing was changed") != len(allProjections) || !strings.Contains(plan, " to read") {
					t.Errorf("the plan:\n%s", plan)
				}
				out := in.command("rebuild", "--all", "--lag-max", "0")
				t.Log(out)
				if n := strings.Count(out, " is live: "); n != len(allProjections) {
					t.Errorf("%d read models are live", n)
				}
				if !serving && (strings.Count(out, "both versions said the same") == len(allProjections)) != (name == "a backup") {
					t.Error("what there was to compare with?")
				}
				if !serving {
					in.command("rebuild", "--drop-old", "--all")
				}
				p := in.serve(key, "api,gate,projector,keeper")
				p.complete()
				for path, answer := range in.answers(p) {
					if answer != want[path] {
						t.Errorf("%s:\n%s\nwas\n%s", path, answer, want[path])
					}
				}
				in.verify(exitOK)
				p.key = laterKey
				p.must(http.StatusNotFound, "GET", "/v1/posts/hello", nil, nil, nil)
				if out := in.command("tenants", "show", "demo"); !strings.Contains(out, "refuse") {
					t.Errorf("limits:\n%s", out)
				}
			})
		}
	}
}

// TestRebuildAllGoesOn: one read model that is refused keeps no other from being rebuilt.
func TestRebuildAllGoesOn(t *testing.T) {
	t.Parallel()
	in, _ := install(t)
	in.command("rebuild", "people", "--lag-max", "0")
	if code, stdout, _ := in.try("rebuild", "people", "--dry-run"); code != exitFailed || !strings.Contains(stdout, "refused  version 1 of people is still kept") {
		t.Errorf("the plan: exit %d\n%s", code, stdout)
	}
	code, stdout, stderr := in.try("rebuild", "--all", "--lag-max", "0")
	if code != exitFailed || strings.Count(stdout, " is live: ") != len(allProjections)-1 ||
		!strings.Contains(stderr, "seenby: people: version 1") || !strings.Contains(stderr, fmt.Sprintf("1 of %d could not be done: people", len(allProjections))) {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
}
