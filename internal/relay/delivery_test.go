package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"seenby/domain"
	"seenby/internal/webhook"
	"seenby/projections"
)

// tell writes that posts were told, as the teller does, each under its next revision; threshold 0: without a milestone.
func (w *world) tell(threshold int64, posts ...string) {
	w.t.Helper()
	for _, post := range posts {
		p := part(domain.TopicImpressions, partitionOf(key(post)))
		w.exec(`INSERT INTO relay_partitions VALUES ($1, $2, 0, 0, '{}', '{}', '{}', '{}', '') ON CONFLICT DO NOTHING`, p.Partition, [16]byte(p.TopicID))
		e := domain.ImpressionsChanged{PostRef: key(post), Revision: int64(len(w.kafka.told(post))) + 1, AsOf: w.clock()}
		e.Impressions = 10 * e.Revision
		w.kafka.mu.Lock()
		from := w.kafka.ends[p]
		at := w.kafka.add(p, e)[0]
		w.kafka.mu.Unlock()
		var calls []milestone
		if threshold > 0 {
			calls = append(calls, milestoneOf(e, p.Partition, threshold))
		}
		if err := w.store.Store.InTx(w.t.Context(), func(ctx ctx, tx projections.Tx) error {
			return fold(ctx, tx, []move{{p.At(from), at + 1}}, []record{{e, p.Partition, at}}, calls)
		}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func milestoneOf(e domain.ImpressionsChanged, p int32, threshold int64) milestone {
	return milestone{
		item:   item{post: e.PostRef.Post, partition: p, impressions: e.Impressions, revision: e.Revision, milestone: threshold},
		tenant: shop, endpoint: "e1",
	}
}

// sender is one to the endpoint e1 whose steps the test makes.
func (w *world) sender() *sender {
	d := newDelivery(w.deps(&group{}), New(w.deps(&group{})).log)
	d.own([]int32{0, 1})
	return &sender{d: d, key: endpointKey{shop, "e1"}, endpoint: endpoint("e1"), size: batchMax, kicked: make(chan struct{}, 1)}
}

// steps makes steps as long as they are to follow within a second, and tells how long to wait then.
func (s *sender) steps(t *testing.T) time.Duration {
	t.Helper()
	for range 200 {
		wait, err := s.step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if wait >= 500*time.Millisecond {
			return wait
		}
	}
	t.Fatal("the steps do not end")
	return 0
}

// sent are the posts of a call of counts, with their revisions; of a milestone, its post and threshold.
func (c call) sent(t *testing.T) string {
	t.Helper()
	var body struct {
		Type string
		Data struct {
			Post      string
			Milestone int64
			Posts     []struct {
				Post     string
				Revision int64
			}
		}
	}
	if err := json.Unmarshal([]byte(c.body), &body); err != nil {
		t.Fatal(err)
	}
	if body.Data.Milestone > 0 {
		return fmt.Sprintf("%s passes %d", body.Data.Post, body.Data.Milestone)
	}
	var posts []string
	for _, p := range body.Data.Posts {
		posts = append(posts, fmt.Sprintf("%s@%d", p.Post, p.Revision))
	}
	return strings.Join(posts, " ")
}

func wantSent(t *testing.T, what string, calls []call, want ...string) {
	t.Helper()
	var got []string
	for _, c := range calls {
		got = append(got, c.sent(t))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: sent was %q, not %q", what, got, want)
	}
}

// answers makes the receiver answer by what is sent.
func (w *world) answers(f func(sent string) webhook.Answer) {
	w.caller.mu.Lock()
	defer w.caller.mu.Unlock()
	w.caller.answer = func(_ context.Context, c call) webhook.Answer { return f(c.sent(w.t)) }
}

func failing(status int) webhook.Answer {
	return webhook.Answer{Outcome: webhook.Failed, Status: status, Detail: "it is broken"}
}

var delivered = webhook.Answer{Outcome: webhook.Delivered, Status: 200}

// What was taken is not sent again; a post that changed meanwhile is sent once, as it stands.
func TestDelivery(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	w.tell(0, "a0", "b0", "c1")
	w.tell(0, "a0")
	w.tell(5, "d1")
	s.steps(t)
	wantSent(t, "at first", w.caller.take(), "d1 passes 5", "b0@1 a0@2 c1@1 d1@1")
	if n := w.number("SELECT count(*) FROM relay_milestones"); n != 0 {
		t.Errorf("%d milestones wait", n)
	}
	s.steps(t)
	wantSent(t, "nothing new", w.caller.take())
	w.tell(0, "b0")
	s.steps(t)
	wantSent(t, "then", w.caller.take(), "b0@2")
	// Another process takes one partition over.
	s.d.own([]int32{1})
	w.tell(0, "a0", "c1")
	s.steps(t)
	wantSent(t, "of one partition", w.caller.take(), "c1@2")
	if status, err := statusOf(w); err != nil || status.Waiting != 1 || status.LastSuccessAt == nil {
		t.Errorf("status %+v: %v", status, err)
	}
}

func statusOf(w *world) (s EndpointStatus, err error) {
	err = w.store.Snapshot(w.t.Context(), func(ctx ctx, q projections.Querier) (err error) {
		s, err = Status(ctx, q, shop, "e1")
		return err
	})
	return s, err
}

// Sent again, a call has the id that it had; a milestone's id is the same from everybody.
func TestStableIDs(t *testing.T) {
	w := newWorld(t)
	w.tell(5, "a0", "b1")
	fails := true
	w.answers(func(string) webhook.Answer {
		if fails {
			return failing(503)
		}
		return delivered
	})
	w.sender().steps(t)
	w.pass(time.Minute)
	fails = false
	w.sender().steps(t)
	calls := w.caller.take()
	wantSent(t, "all", calls, "a0 passes 5", "a0 passes 5", "b1 passes 5", "a0@1 b1@1")
	if calls[0].id != calls[1].id || calls[1].id != webhook.MilestoneID(shop, "a0", 5) || calls[1].id == calls[2].id {
		t.Errorf("ids %v", calls)
	}
	w.exec("DELETE FROM relay_cursors")
	w.pass(time.Minute)
	w.sender().steps(t)
	again := w.caller.take()
	if len(again) != 1 || again[0].id != calls[3].id {
		t.Errorf("ids %v", again)
	}
	w.tell(0, "a0")
	w.exec("DELETE FROM relay_cursors")
	w.sender().steps(t)
	if other := w.caller.take(); len(other) != 1 || other[0].id == calls[3].id {
		t.Errorf("ids %v", other)
	}
}

// An endpoint that fails is left alone, longer each time, and at least for as long as it asks for.
func TestBackoff(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	w.tell(0, "a0")
	w.answers(func(string) webhook.Answer { return failing(502) })
	next := func() time.Duration {
		var at time.Time
		if err := w.conn.QueryRow(t.Context(), "SELECT next_attempt_at FROM relay_endpoints").Scan(&at); err != nil {
			t.Fatal(err)
		}
		return at.Sub(w.clock())
	}
	for i := range 10 {
		s.steps(t)
		if n := len(w.caller.take()); n != 1 {
			t.Fatalf("%d calls", n)
		}
		first := backoffFirst << i
		if wait := next(); wait < first/2 || wait >= 3*first/2 {
			t.Errorf("after %d failures it waits %v", i+1, wait)
		}
		s.kick()
		if wait := s.steps(t); wait >= lookEvery {
			t.Errorf("it can be woken within %v", wait)
		}
		wantSent(t, "while it waits", w.caller.take())
		w.pass(next())
	}
	w.answers(func(string) webhook.Answer {
		return webhook.Answer{Outcome: webhook.Limited, Status: 429, RetryAfter: 5 * time.Hour}
	})
	s.steps(t)
	if wait := next(); wait != 5*time.Hour {
		t.Errorf("asked for five hours, it waits %v", wait)
	}
	w.pass(5 * time.Hour)
	w.answers(func(string) webhook.Answer { return delivered })
	s.steps(t)
	if status, err := statusOf(w); err != nil || status.Attempts != 0 || status.FailingSince != nil || status.NextAttemptAt != nil || status.LastError != "" {
		t.Errorf("status %+v: %v", status, err)
	}
}

func TestBackoffIsBounded(t *testing.T) {
	for failures := range 100 {
		if wait := backoff(failures); wait < backoffFirst/2 || wait >= 3*backoffMost/2 {
			t.Errorf("after %d failures it waits %v", failures, wait)
		}
	}
}

// A post that an endpoint cannot take is found and parked, though others are told all the time, and they arrive.
func TestPoison(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	w.tell(0, "a0", "b1", "c0", "bad1", "d1", "e0")
	w.answers(func(sent string) webhook.Answer {
		if strings.Contains(sent, "bad1@") {
			return failing(500)
		}
		return delivered
	})
	seen := map[string]bool{}
	alone := 0
	for i := 0; !seen["d1@1"]; i++ {
		if i == 300 {
			t.Fatalf("after %d steps of a busy tenant %v have arrived; the one to blame was sent alone %d times", i, seen, alone)
		}
		w.tell(0, "busy0")
		wait, err := s.step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range w.caller.take() {
			sent := c.sent(t)
			if strings.Contains(sent, "bad1@") {
				if sent == "bad1@1" {
					alone++
				}
				continue
			}
			for _, one := range strings.Fields(sent) {
				seen[one] = true
			}
		}
		w.pass(wait)
	}
	for _, want := range strings.Fields("a0@1 b1@1 c0@1 d1@1 e0@1") {
		if !seen[want] {
			t.Errorf("%s has not arrived", want)
		}
	}
	if n := w.number("SELECT count(*) FROM relay_parked WHERE post = 'bad1' AND milestone = 0 AND revision = 1"); n != 1 || alone != suspectAttempts {
		t.Errorf("%d are parked after %d attempts", n, alone)
	}
	for range 12 {
		w.tell(0, "busy0")
		s.steps(t)
	}
	if s.size != batchMax {
		t.Errorf("it sends %d at a time", s.size)
	}
	// Its next count is taken: it is parked no more.
	w.answers(func(string) webhook.Answer { return delivered })
	w.tell(0, "bad1")
	s.steps(t)
	if n := w.number("SELECT count(*) FROM relay_parked"); n != 0 {
		t.Errorf("%d are parked", n)
	}
}

// No partition waits for others, however small the calls are.
func TestPartitionsTakeTurns(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	w.tell(0, "a0", "b0", "c0", "x1")
	s.size = 1
	for range 3 {
		if _, err := s.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.size = 1
	}
	wantSent(t, "one by one", w.caller.take(), "a0@1", "x1@1", "b0@1")
}

// A post that is refused is parked at once; an endpoint that refuses everything is as if it were away.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	w.tell(3, "m0")
	w.tell(0, "a0", "bad1", "c1")
	refused := webhook.Answer{Outcome: webhook.Refused, Status: 422, Detail: "no such post"}
	w.answers(func(sent string) webhook.Answer {
		if strings.Contains(sent, "bad1@") || sent == "m0 passes 3" {
			return refused
		}
		return delivered
	})
	s.steps(t)
	w.caller.take()
	if n := w.number("SELECT count(*) FROM relay_parked WHERE reason = '422: no such post' AND (post, milestone) IN (('bad1', 0), ('m0', 3))"); n != 2 {
		t.Errorf("%d are parked", n)
	}
	if status, err := statusOf(w); err != nil || status.Waiting != 0 || status.Parked != 2 || status.Milestones != 0 {
		t.Errorf("status %+v: %v", status, err)
	}

	// Redriven, both are sent again: the counts under the next revision, once the teller has told them.
	w.answers(func(string) webhook.Answer { return delivered })
	if err := w.store.InTx(t.Context(), func(ctx ctx, tx projections.Tx) error {
		items, err := Parked(ctx, tx, shop, "e1", "", 10)
		if err != nil || len(items) != 2 {
			return fmt.Errorf("parked are %v: %w", items, err)
		}
		return Redrive(ctx, tx, shop, items)
	}); err != nil {
		t.Fatal(err)
	}
	if n := w.number("SELECT above FROM relay_resends WHERE post = 'bad1' AND partition = 1"); n != 1 {
		t.Errorf("it is told again above %d", n)
	}
	s.steps(t)
	wantSent(t, "redriven", w.caller.take(), "m0 passes 3")
	if n := w.number("SELECT count(*) FROM relay_parked"); n != 0 {
		t.Errorf("%d are parked", n)
	}

	w.answers(func(string) webhook.Answer { return refused })
	for i := range refusalsMax + 5 {
		w.tell(0, fmt.Sprintf("r%02d0", i))
	}
	s.steps(t)
	if status, err := statusOf(w); err != nil || status.Parked != refusalsMax || status.Attempts != 1 || status.Waiting != 5 {
		t.Errorf("status %+v: %v", status, err)
	}
}

// 410 is taken at its word: the endpoint is disabled, and not called again before it is enabled.
func TestGone(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	w.tell(0, "a0")
	w.answers(func(string) webhook.Answer { return failing(503) })
	s.steps(t)
	w.pass(time.Minute)
	w.answers(func(string) webhook.Answer { return webhook.Answer{Outcome: webhook.Gone, Status: 410} })
	wait, err := s.step(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if wait >= lookEvery {
		t.Error("what is new calls it again before it is known to be disabled")
	}
	if got := w.disabled(); len(got) != 1 || !strings.HasPrefix(got[0], "e1: it answered 410") {
		t.Errorf("disabled are %q", got)
	}
	if status, err := statusOf(w); err != nil || status.Attempts != 0 || status.FailingSince != nil || status.NextAttemptAt != nil {
		t.Errorf("status %+v: %v", status, err)
	}
}

// After a day without a call that works an endpoint is disabled, for a reason that fits where it is kept.
func TestGiveUp(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	w.tell(0, "a0")
	w.answers(func(string) webhook.Answer {
		return webhook.Answer{Outcome: webhook.Failed, Status: 503, Detail: strings.Repeat("ü", 127) + "."}
	})
	begun := w.clock()
	for len(w.disabled()) == 0 {
		if w.clock().Sub(begun) > giveUpAfter+2*backoffMost {
			t.Fatal("it is not given up")
		}
		wait, err := s.step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.pass(wait)
	}
	if took := w.clock().Sub(begun); took < giveUpAfter {
		t.Errorf("it was given up after %v", took)
	}
	_, reason, _ := strings.Cut(w.disabled()[0], ": ")
	if len(reason) > 255 || !strings.HasPrefix(reason, "no call has worked since 2026-05-04T12:00:00Z; the last one: 503: üü") ||
		strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("the reason has %d bytes: %q", len(reason), reason)
	}
	if n := w.number("SELECT attempts FROM relay_endpoints"); n != 0 {
		t.Errorf("%d attempts are remembered", n)
	}
}

// A relay that was away itself does not hold that against an endpoint.
func TestGiveUpTakesAttempts(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	w.tell(0, "a0")
	w.answers(func(string) webhook.Answer { return webhook.Answer{Outcome: webhook.Failed, Status: 503} })
	s.steps(t)
	w.pass(giveUpAfter + time.Hour)
	s.steps(t)
	if n := w.number("SELECT attempts FROM relay_endpoints"); n != 2 || len(w.disabled()) > 0 {
		t.Errorf("after %d attempts disabled: %v", n, w.disabled())
	}
}

// running is deliveries of all endpoints, until the test ends.
func (w *world) running() *delivery {
	d := newDelivery(w.deps(&group{}), New(w.deps(&group{})).log)
	d.own([]int32{0, 1})
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.run(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-ended
	})
	return d
}

// waitSent waits until something was sent to an endpoint's URL.
func (w *world) waitSent(url, sent string) (c call) {
	w.t.Helper()
	eventually(w.t, sent+" at "+url, func() bool {
		all := w.caller.all()
		i := slices.IndexFunc(all, func(c call) bool { return c.endpoint.URL == url && strings.Contains(c.sent(w.t), sent) })
		if i >= 0 {
			c = all[i]
		}
		return i >= 0
	})
	return c
}

// An endpoint that hangs holds up no other one, of its tenant or of another.
func TestHanging(t *testing.T) {
	w := newWorld(t)
	w.tenants.change(func() {
		w.tenants.endpoints[shop] = []domain.EndpointSet{endpoint("e1"), endpoint("e2")}
	})
	w.caller.answer = func(ctx context.Context, c call) webhook.Answer {
		if strings.HasSuffix(c.endpoint.URL, "e1") {
			<-ctx.Done()
			return failing(0)
		}
		return delivered
	}
	d := w.running()
	w.tell(0, "a0")
	d.kick(map[domain.TenantID]bool{shop: true})
	w.waitSent("https://core.example/e1", "a0@1")
	w.waitSent("https://core.example/e2", "a0@1")
	w.tell(0, "a0")
	d.kick(map[domain.TenantID]bool{shop: true})
	w.waitSent("https://core.example/e2", "a0@2")
	hanging := 0
	for _, c := range w.caller.all() {
		if strings.HasSuffix(c.endpoint.URL, "e1") {
			hanging++
		}
	}
	if hanging != 1 {
		t.Errorf("%d calls are under way at one endpoint", hanging)
	}
}

// An endpoint that was changed is called as it is now, at once, though it failed before; a tenant that is told nothing is not.
func TestEndpointChanges(t *testing.T) {
	w := newWorld(t)
	w.answers(func(string) webhook.Answer { return failing(503) })
	d := w.running()
	w.tell(0, "a0")
	d.kick(map[domain.TenantID]bool{shop: true})
	w.waitSent("https://core.example/e1", "a0@1")
	eventually(t, "the failure to be written", func() bool { return w.number("SELECT count(*) FROM relay_endpoints") == 1 })
	w.exec("UPDATE relay_endpoints SET next_attempt_at = $1", w.clock().Add(time.Hour))

	w.answers(func(string) webhook.Answer { return delivered })
	e := endpoint("e1")
	e.SecretGeneration, e.RotatedAt = 2, w.clock()
	w.caller.take()
	w.tenants.change(func() { w.tenants.endpoints[shop] = []domain.EndpointSet{e} })
	if c := w.waitSent("https://core.example/e1", "a0@1"); !slices.Equal(c.endpoint.Secrets, []string{"secret 2"}) {
		t.Errorf("called was %+v", c)
	}
	eventually(t, "the success to be written", func() bool {
		return w.number("SELECT count(*) FROM relay_endpoints WHERE last_success_at IS NOT NULL") == 1
	})

	w.tenants.change(func() { w.tenants.relays[shop] = domain.RelaySet{Tenant: shop} })
	eventually(t, "the sender to be gone", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.senders) == 0
	})
	w.caller.take()
	w.tell(0, "b0")
	d.kick(map[domain.TenantID]bool{shop: true})
	e.DisabledAt = w.clock()
	w.tenants.change(func() {
		w.tenants.relays[shop] = domain.RelaySet{Tenant: shop, Enabled: true}
		other := endpoint("e2")
		w.tenants.endpoints[shop] = []domain.EndpointSet{e, other}
	})
	w.waitSent("https://core.example/e2", "b0@1")
	for _, c := range w.caller.all() {
		if c.endpoint.URL != "https://core.example/e2" {
			t.Errorf("one that is disabled was called: %+v", c)
		}
	}
	e.DisabledAt = time.Time{}
	w.tenants.change(func() { w.tenants.endpoints[shop] = []domain.EndpointSet{e} })
	w.waitSent("https://core.example/e1", "b0@1")
}

// What is written of a call that was taken and not written down is sent once more.
func TestAcknowledgementFails(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	w.tell(5, "a0")
	w.store.set(func() { w.store.strike = func() (error, error) { return errAway, nil } })
	if _, err := s.step(t.Context()); !errors.Is(err, errAway) {
		t.Fatalf("the step ended with %v", err)
	}
	w.store.set(func() { w.store.strike = nil })
	s.steps(t)
	wantSent(t, "all", w.caller.take(), "a0 passes 5", "a0 passes 5", "a0@1")
}
