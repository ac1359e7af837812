package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/verify"
)

// TestVerify: after traffic of every kind the read models are what the log says; any row that is changed by hand names
// its post.
func TestVerify(t *testing.T) {
	in, key := install(t)
	in.setLimits(unlimited)
	in.verifiableTraffic(key)
	in.settle(t)
	conn, err := pgx.Connect(t.Context(), in.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var report verification
	eventually(t, time.Minute, "the read models to hold every verdict", func() error {
		report = in.verify(exitOK) // at any moment
		if n := report.Undecided.Waiting; n > 0 || report.Tenants[0].InAll.Reported < 200 {
			return fmt.Errorf("%d wait, %+v", n, report.Tenants)
		}
		return nil
	})
	t.Log(in.command("verify"))
	if u := report.Undecided; u.Verdicts != 24 || u.Counted != 12 || u.Refused != 12 {
		t.Errorf("undecided: %+v", u)
	}
	if c := report.Tenants[0].InAll; c.Reported != c.Counted+c.Refused || c.Reasons[domain.ReasonDuplicate] == 0 || c.Reasons[domain.ReasonStale] == 0 ||
		c.Impressions != c.Counted || report.Tenants[0].ReadModel.Impressions != c.Impressions || report.Tenants[0].ReadModel.UniqueViewers != c.UniquePairs {
		t.Errorf("figures: %+v", report.Tenants[0])
	}
	if code, stdout, stderr := in.try("verify", "--tenant", "demo", "--post", "hello"); code != exitOK || !strings.Contains(stdout, "Clean") {
		t.Errorf("one post: %d\n%s%s", code, stdout, stderr)
	}
	for name, c := range map[string]struct {
		change, says string
		row          bool
	}{
		"impressions":                {`UPDATE impressions SET impressions = impressions + 1 WHERE post = 'hello' AND shard = (SELECT min(shard) FROM impressions WHERE post = 'hello')`, "impressions", false},
		"anonymous impressions":      {`UPDATE impressions SET anonymous_impressions = impressions - anonymous_impressions WHERE post = 'hello' AND shard = (SELECT min(shard) FROM impressions WHERE post = 'hello' AND 2 * anonymous_impressions <> impressions)`, "anonymous impressions", false},
		"imported views":             {`UPDATE impressions SET imported_impressions = imported_impressions + 1 WHERE post = 'hello' AND shard = (SELECT min(shard) FROM impressions WHERE post = 'hello')`, "imported views", false},
		"a row of impressions less":  {`DELETE FROM impressions WHERE post = 'hello' AND shard = (SELECT min(shard) FROM impressions WHERE post = 'hello')`, "impressions", false},
		"a first time":               {`UPDATE unique_views SET first_viewed_at = first_viewed_at - interval '1 microsecond' WHERE post = 'hello' AND viewer = (SELECT viewer FROM unique_views WHERE post = 'hello' ORDER BY viewer LIMIT 1)`, "first", false},
		"times":                      {`UPDATE unique_views SET views = views + 1 WHERE post = 'hello' AND viewer = (SELECT viewer FROM unique_views WHERE post = 'hello' ORDER BY viewer LIMIT 1)`, "times", true},
		"a viewer less":              {`DELETE FROM unique_views WHERE post = 'hello' AND viewer = (SELECT viewer FROM unique_views WHERE post = 'hello' ORDER BY viewer LIMIT 1)`, "viewer rows", false},
		"a viewer more":              {`INSERT INTO unique_views VALUES ('demo', 'hello', 'sixteen bytes it', 'epoch', now(), 1, 0)`, "viewer rows", false},
		"a count of unique viewers":  {`UPDATE unique_view_counts SET unique_viewers = unique_viewers + 1 WHERE post = 'hello' AND shard = (SELECT min(shard) FROM unique_view_counts WHERE post = 'hello')`, "unique viewers", false},
		"imported counts":            {`UPDATE posts SET baseline_impressions = 7, baseline_as_of = 'epoch' WHERE post = 'hello'`, "imported impressions", false},
		"a row of unique views more": {`INSERT INTO unique_view_counts VALUES ('demo', 'hello', 7, 1) ON CONFLICT (tenant, post, shard) DO UPDATE SET unique_viewers = unique_view_counts.unique_viewers + 1`, "unique viewers", false},
	} {
		t.Run(name, func(t *testing.T) {
			in.mustChange(conn, `CREATE TABLE before_i AS TABLE impressions; CREATE TABLE before_u AS TABLE unique_views; CREATE TABLE before_c AS TABLE unique_view_counts`)
			defer in.mustChange(conn, `UPDATE posts SET baseline_impressions = 0, baseline_as_of = NULL WHERE post = 'hello'; DELETE FROM impressions; DELETE FROM unique_views; DELETE FROM unique_view_counts; INSERT INTO impressions TABLE before_i; INSERT INTO unique_views TABLE before_u;
				INSERT INTO unique_view_counts TABLE before_c; DROP TABLE before_i, before_u, before_c`)
			if tag, err := conn.Exec(t.Context(), c.change); err != nil || tag.RowsAffected() != 1 {
				t.Fatalf("%v %v", tag, err)
			}
			code, stdout, stderr := in.try("verify")
			if code != exitFailed || !strings.Contains(stdout, "demo hello\n") || !strings.Contains(stdout, c.says) || !strings.Contains(stderr, "--tenant demo --post hello") {
				t.Errorf("exit %d\n%s%s", code, stdout, stderr)
			}
			one := in.verify(exitFailed, "--tenant", "demo", "--post", "hello")
			if one.Post == nil || len(one.Post.Viewers) == 0 || len(one.Post.Viewers[0].Verdicts) == 0 && name != "a viewer more" || one.FindingsInAll != 0 {
				t.Errorf("asked for the post: %+v", one)
			}
			if c.row {
				in.verify(exitOK, "--tenant", "demo", "--post", "late-0")
				if code, stdout, _ := in.try("verify", "--tenant", "demo", "--post", "hello"); code != exitFailed || !strings.Contains(stdout, "DIFFERS\n") || !strings.Contains(stdout, ": duplicate") {
					t.Errorf("the post in words: exit %d\n%s", code, stdout)
				}
			}
		})
	}
	in.verify(exitOK)
	in.verifiesLetters(conn)
	for _, args := range [][]string{{"--post", "hello"}, {"--tenant", "No_Such"}, {"--tennant", "demo"}} {
		if code, _, stderr := in.try(append([]string{"verify"}, args...)...); code != exitUsage {
			t.Errorf("%v: exit %d, %s", args, code, stderr)
		}
	}
	in.mustChange(conn, `UPDATE positions SET next_offset = next_offset + 1000 WHERE projection = 'impressions'`)
	if code, _, stderr := in.try("verify"); code != exitFailed || !strings.Contains(stderr, "the log ends at") {
		t.Errorf("positions above the log's ends: exit %d, %s", code, stderr)
	}
}

// verifiesLetters: what is parked and what is discarded is left out; what is neither is found.
func (in *installation) verifiesLetters(conn *pgx.Conn) {
	in.t.Helper()
	in.poison(domain.TopicVerdicts, domain.PersonRef{Tenant: demoTenant, Person: domain.PersonKey{1}}.Key())
	for _, projection := range []string{"impressions", "uniqueviews"} {
		var l listedLetters
		eventually(in.t, time.Minute, "the record to be parked", func() error {
			l = listedLetters{}
			err := json.Unmarshal([]byte(in.command("deadletters", "list", "--projection", projection, "--json")), &l)
			if err == nil && len(l.Letters) != 1 {
				err = fmt.Errorf("there are %+v", l.Letters)
			}
			return err
		})
		in.verify(exitOK)
		if projection == "impressions" {
			in.command("deadletters", "discard", l.Letters[0].Letter, "--reason", "a test's record")
			in.verify(exitOK)
		}
	}
	in.mustChange(conn, `DELETE FROM dead_letters WHERE projection = 'uniqueviews'`)
	if r := in.verify(exitFailed); len(r.Differing) > 0 || r.FindingsInAll != 1 || !strings.Contains(r.Findings[0].What, "uniqueviews cannot hold it") {
		in.t.Errorf("a letter that was deleted by hand: %+v %+v", r.Differing, r.Findings)
	}
}

func (in *installation) mustChange(conn *pgx.Conn, sql string) {
	in.t.Helper()
	if _, err := conn.Exec(in.t.Context(), sql); err != nil {
		in.t.Fatal(err)
	}
}

// verification is the part of the report that tests look at.
type verification struct {
	Tenants   []verify.Tenant         `json:"tenants"`
	Differing []verify.PostDifference `json:"differing_posts"`
	Undecided struct {
		Verdicts, Counted, Refused int64
		Waiting                    int64 `json:"still_waiting"`
	}
	FindingsInAll int64 `json:"findings_in_all"`
	Findings      []verify.Finding
	Post          *struct {
		Viewers []struct {
			Differs  bool
			Verdicts []struct{ Offset int64 }
		}
	}
}

// verify runs the command as JSON.
func (in *installation) verify(code int, args ...string) (r verification) {
	in.t.Helper()
	got, stdout, stderr := in.try(append([]string{"verify", "--json"}, args...)...)
	if got != code {
		in.t.Fatalf("verify %v: exit %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		in.t.Fatalf("%v\n%s", err, stdout)
	}
	return r
}

// verifiableTraffic leaves counted and refused views of every common kind, and some that were undecided until the
// projection of posts was there.
func (in *installation) verifiableTraffic(key string) {
	in.t.Helper()
	projectors := in.serve(key, "projector")
	p := in.serve(key, "api,gate,keeper")
	p.must(http.StatusCreated, "PUT", "/v1/posts/hello", nil, map[string]any{"author": "anna"}, nil)
	p.must(http.StatusCreated, "PUT", "/v1/posts/gone", nil, map[string]any{"author": "anna"}, nil)
	p.must(http.StatusNoContent, "DELETE", "/v1/posts/gone", nil, nil, nil)
	old := time.Now().Add(-25 * time.Hour)
	var views viewsBody
	for i := range 150 {
		viewer, id := fmt.Sprintf("viewer-%d", i%40), uuid.NewString()
		views.Views = append(views.Views, viewItem{ID: id, Post: "hello", Viewer: viewer})
		if i < 40 { // each viewer has one that is refused, whichever of them a difference is made of
			views.Views = append(views.Views, viewItem{ID: id, Post: "hello", Viewer: viewer})
		}
		switch i % 10 {
		case 1:
			views.Views = append(views.Views, viewItem{ID: uuid.NewString(), Post: "hello", Anonymous: viewer})
		case 2:
			views.Views = append(views.Views, viewItem{ID: uuid.NewString(), Post: "hello", Viewer: viewer, ViewedAt: &old})
		case 3:
			views.Views = append(views.Views, viewItem{ID: uuid.NewString(), Post: "gone", Viewer: viewer})
		case 4:
			views.Views = append(views.Views, viewItem{ID: uuid.NewString(), Post: "nowhere", Viewer: viewer})
		}
	}
	p.must(http.StatusAccepted, "POST", "/v1/views", nil, views, nil)
	eventually(in.t, time.Minute, "the first views to be judged", func() error {
		l, err := in.ledger()
		if err == nil {
			err = l.settled()
		}
		return err
	})
	projectors.stop()
	for i := range 3 {
		p.must(http.StatusAccepted, "PUT", fmt.Sprintf("/v1/posts/late-%d", i), nil, map[string]any{"author": "anna"}, nil)
	}
	views.Views = nil
	for i := range 12 {
		late := fmt.Sprintf("late-%d", i%3)
		views.Views = append(views.Views, viewItem{ID: uuid.NewString(), Post: late, Viewer: fmt.Sprintf("viewer-%d", i)},
			viewItem{ID: uuid.NewString(), Post: beside(late), Viewer: fmt.Sprintf("viewer-%d", i)})
	}
	p.must(http.StatusAccepted, "POST", "/v1/views", nil, views, nil)
	eventually(in.t, time.Minute, "views to be undecided", func() error {
		l, err := in.ledger()
		if err == nil && l.reasons[domain.ReasonUndecided] < 24 {
			err = errors.New("too few are")
		}
		return err
	})
	in.serve(key, "projector")
}

// beside is a post that nobody publishes, in the partition of another: a view of it waits for what that one does.
func beside(post string) string {
	of := func(post string) int32 {
		return eventlog.PartitionOf(domain.PostKey{Tenant: demoTenant, Post: domain.PostID(post)}.Key(), 12)
	}
	for i := 0; ; i++ {
		if never := fmt.Sprintf("never-%d", i); of(never) == of(post) {
			return never
		}
	}
}
