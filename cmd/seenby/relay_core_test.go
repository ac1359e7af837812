package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/internal/testenv"
)

// seeBy reports one view of a post by each of n new viewers.
func (p *process) seeBy(post string, n int) {
	p.t.Helper()
	views := viewsBody{}
	for range n {
		views.Views = append(views.Views, viewItem{ID: uuid.NewString(), Post: post, Viewer: "viewer " + uuid.NewString()})
	}
	p.must(http.StatusAccepted, "POST", "/v1/views", nil, views, nil)
}

func (r *receiver) waitFor(post string, impressions int64) {
	r.t.Helper()
	eventually(r.t, time.Minute, "the core system to have the count", func() error {
		if have := r.has(post); have.Impressions != impressions {
			return fmt.Errorf("it has %+v of %s, not %d", have, post, impressions)
		}
		return nil
	})
}

const relayRoles = "api,gate,projector,keeper,relay"

// TestRelay is a core system with a history: first contact, views, milestones, an import, a rebuild, another count at the core,
// and a relay whose tables are lost.
func TestRelay(t *testing.T) {
	t.Run("embedded", func(t *testing.T) { testRelay(t, testenv.Embedded) })
	t.Run("real", func(t *testing.T) { testRelay(t) })
}

func testRelay(t *testing.T, kinds ...testenv.Kind) {
	in, key := install(t, kinds...)
	p := in.serve(key, relayRoles)
	core := newReceiver(t)
	core.posts["old"] = told{Impressions: 120_000}
	if code, _, stderr := in.try("relay", "enable", "demo"); code != exitFailed || !strings.Contains(stderr, "has no enabled endpoint") {
		t.Errorf("without an endpoint: exit %d, %s", code, stderr)
	}
	endpoint := in.endpoint(core)
	says(t, "endpoints test", in.command("relay", "endpoints", "test", "demo", endpoint),
		"POST "+core.url, "webhook-id: test_", "webhook-signature: v1,", `"type":"seenby.test"`, "204 after", "delivered")

	p.must(http.StatusCreated, "PUT", "/v1/posts/old", nil, map[string]any{"author": "ann"}, nil)
	p.must(http.StatusCreated, "PUT", "/v1/posts/new", nil, map[string]any{"author": "ann"}, nil)
	code, stdout, stderr := in.try("relay", "enable", "demo")
	if code != exitFailed || !strings.Contains(stderr, "--import-baseline") {
		t.Errorf("the core has more, and enabling ends with %d\n%s%s", code, stdout, stderr)
	}
	says(t, "enable", stdout, "has 1 posts", "of 1 of them", "old: the core has 120,000, counted here are 0")
	says(t, "enable", in.command("relay", "enable", "demo", "--import-baseline"), "imported 1 baselines", "is told from now on")
	p.seeBy("old", 1)
	core.waitFor("old", 120_001)
	if got := in.command("relay", "enable", "demo"); !strings.Contains(got, "already") {
		t.Errorf("enabling again: %s", got)
	}

	// Milestones are called by views of today, each once; what an import passes is not.
	in.command("relay", "milestones", "demo", "3,5,8")
	p.seeBy("new", 2)
	core.waitFor("new", 2)
	p.seeBy("new", 2)
	core.waitFor("new", 4)
	in.command("import", "views", importFile(t, importViews("new", 2, 0, time.Now().AddDate(-1, 0, 0))...), "--tenant", "demo")
	core.waitFor("new", 6)
	p.seeBy("new", 2)
	core.waitFor("new", 8)
	eventually(t, time.Minute, "the milestones to be called", func() error {
		if called := core.thresholds("new"); !slices.Equal(called, []int64{3, 8}) {
			return fmt.Errorf("called were %v", called)
		}
		return nil
	})

	// A rebuild tells nothing, since nothing changed.
	told := in.toldOf("new")
	in.command("rebuild", "impressions")
	p.seeBy("old", 1)
	core.waitFor("old", 120_002)
	if again := in.toldOf("new"); again != told {
		t.Errorf("after a rebuild revision %d of a post that did not change was told, before it %d", again, told)
	}

	// Somebody has changed the core's own count.
	core.change(func(r *receiver) { r.posts["new"] = tolds(1, 99) })
	says(t, "reconcile", in.command("relay", "reconcile", "demo"), "new: the core has 1 under revision 99", "of 2 posts 1 differ: 1 lower")
	core.waitFor("new", 8)
	if have := core.has("new"); have.Revision <= 99 {
		t.Errorf("it was told again under revision %d", have.Revision)
	}
	eventually(t, time.Minute, "nothing to differ", func() error {
		if got := in.command("relay", "reconcile", "demo", "--dry-run"); !strings.Contains(got, "of 2 posts 0 differ") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})

	if soonest := in.soonest(); soonest < 400*time.Millisecond { // a round that was late lets the next one come sooner
		t.Errorf("a post was told again after %v", soonest)
	}

	// What the relay knows is lost: it has it back from the topic, and nothing is lowered or called twice.
	p.stop()
	told = in.toldOf("new")
	conn, err := pgx.Connect(t.Context(), in.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "TRUNCATE relay_partitions, relay_counts, relay_cursors, relay_endpoints, relay_milestones, relay_resends"); err != nil {
		t.Fatal(err)
	}
	p = in.serve(key, relayRoles)
	p.seeBy("new", 1)
	core.waitFor("new", 9)
	if have := core.has("new"); have.Revision != told+1 {
		t.Errorf("revision %d was told after %d", have.Revision, told)
	}
	core.change(func(r *receiver) {
		if len(r.lowered) > 0 {
			t.Errorf("counts went back: %v", r.lowered)
		}
	})
	if called := core.thresholds("new"); !slices.Equal(called, []int64{3, 8}) {
		t.Errorf("called were %v", called)
	}
}

func tolds(impressions, revision int64) told {
	return told{Impressions: impressions, Revision: revision}
}

// soonest is the shortest time after which a post was told again.
func (in *installation) soonest() time.Duration {
	in.t.Helper()
	records, err := in.records(domain.TopicImpressions)
	if err != nil {
		in.t.Fatal(err)
	}
	soonest, last := time.Hour, map[domain.PostID]time.Time{}
	for _, r := range records {
		if e, ok := r.Event.(domain.ImpressionsChanged); ok {
			if before, ok := last[e.PostRef.Post]; ok {
				soonest = min(soonest, r.Time.Sub(before))
			}
			last[e.PostRef.Post] = r.Time
		}
	}
	return soonest
}

// toldOf is the revision of a post that was told last.
func (in *installation) toldOf(post domain.PostID) (revision int64) {
	in.t.Helper()
	records, err := in.records(domain.TopicImpressions)
	if err != nil {
		in.t.Fatal(err)
	}
	for _, r := range records {
		if e, ok := r.Event.(domain.ImpressionsChanged); ok && e.PostRef.Post == post {
			if e.Revision <= revision {
				in.t.Errorf("%s: revision %d follows %d", post, e.Revision, revision)
			}
			revision = e.Revision
		}
	}
	return revision
}

// TestRelayEndpointsThatRefuse: a post that is refused holds up no other, an endpoint that is gone is called no more, and
// operators see and mend both.
func TestRelayEndpointsThatRefuse(t *testing.T) {
	in, key := install(t)
	p := in.serve(key, relayRoles)
	core := newReceiver(t)
	core.answer = func(body callBody) int {
		for _, post := range body.Data.Posts {
			if post.Post == "bad" {
				return http.StatusUnprocessableEntity
			}
		}
		return 0
	}
	endpoint := in.endpoint(core)
	in.command("relay", "enable", "demo")
	for _, post := range []string{"good", "bad", "better"} {
		p.must(http.StatusCreated, "PUT", "/v1/posts/"+post, nil, map[string]any{"author": "ann"}, nil)
		p.seeBy(post, 2)
	}
	core.waitFor("good", 2)
	core.waitFor("better", 2)
	eventually(t, time.Minute, "the bad post to be parked", func() error {
		if out := in.command("relay", "parked", "demo"); !strings.Contains(out, "bad") || !strings.Contains(out, "422: as the test wants it") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	says(t, "parked", in.command("relay", "parked", "demo", "--json", "--post", "bad"), `"post": "bad"`, `"impressions": 2`, `"reason": "422: as the test wants it"`)
	says(t, "status", in.command("relay", "status", "demo"), "is told. Milestones: none.", endpoint)
	if status := in.relayStatus(); status.Parked != 1 || status.WaitingPosts != 0 || status.LastSuccessAt == nil || status.Attempts != 0 {
		t.Errorf("status: %+v", status)
	}

	core.change(func(r *receiver) { r.answer = nil })
	says(t, "redrive", in.command("relay", "redrive", "demo", "--endpoint", endpoint), "1 are sent again")
	core.waitFor("bad", 2)
	if out := in.command("relay", "parked", "demo"); strings.Contains(out, "bad") {
		t.Errorf("after the redrive still parked:\n%s", out)
	}
	if n := p.metric("seenby_relay_parked_total"); n != 1 {
		t.Errorf("%v posts were parked", n)
	}

	core.change(func(r *receiver) { r.answer = func(callBody) int { return http.StatusGone } })
	p.seeBy("good", 1)
	eventually(t, time.Minute, "the endpoint to be disabled", func() error {
		if out := in.command("relay", "endpoints", "list", "demo"); !strings.Contains(out, "disabled") || !strings.Contains(out, "410") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	core.change(func(r *receiver) { r.answer = nil })
	p.seeBy("better", 1)
	in.command("relay", "endpoints", "enable", "demo", endpoint)
	core.waitFor("good", 3)
	core.waitFor("better", 3)
	in.command("relay", "disable", "demo")
	says(t, "status", in.command("relay", "status", "demo"), "is told nothing")
}

// relayStatus is that of the only endpoint.
func (in *installation) relayStatus() endpointStatus {
	in.t.Helper()
	var out struct {
		Endpoints []endpointStatus `json:"endpoints"`
	}
	if err := json.Unmarshal([]byte(in.command("relay", "status", "demo", "--json")), &out); err != nil || len(out.Endpoints) != 1 {
		in.t.Fatalf("%v, %d endpoints", err, len(out.Endpoints))
	}
	return out.Endpoints[0]
}
