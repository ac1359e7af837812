package gate

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/topics/eventspb"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// Every reason, through real records.
func TestEveryVerdict(t *testing.T) {
	w := newWorld(t, worldOption{createTime: true})
	w.posts.publish("p")
	w.posts.posts[postKey0("gone")] = domain.PostAnswer{Known: true, Deleted: true, Author: person(999)}
	w.posts.posts[postKey0("mine")] = domain.PostAnswer{Known: true, Version: 3, Author: person(999), Audience: domain.AudienceAuthor}
	w.posts.parked[postKey0("parked")] = true
	w.posts.pass(0, 10)
	w.ends.end(0, 10)
	w.tenants.set(tenant, func(l *domain.Limits) {
		l.RefuseOwnViews, l.PostCap.Views, l.Quota = true, 2, domain.Quota{ViewsPerMinute: 1, BurstViews: 4}
	})
	at := func(v domain.ViewReported, at time.Time) domain.ViewReported { v.ViewedAt = at; return v }
	dwell := int64(-1)
	bad := view(1, 900, "p")
	bad.Context = &domain.ViewContext{DwellMS: &dwell}
	cases := []struct {
		name string
		view domain.ViewReported
		want domain.Reason
	}{
		{"counted", view(1, 1, "p"), domain.ReasonNone},
		{"duplicate", view(1, 1, "p"), domain.ReasonDuplicate},
		{"same id, other viewer", view(2, 1, "p"), domain.ReasonNone},
		{"stale", at(view(1, 2, "p"), noon.Add(-25*time.Hour)), domain.ReasonStale},
		{"future", at(view(1, 3, "p"), noon.Add(2*time.Hour)), domain.ReasonFuture},
		{"own", view(999, 4, "p"), domain.ReasonOwnView},
		{"unknown", view(1, 5, "nowhere"), domain.ReasonUnknownPost},
		{"deleted", view(1, 6, "gone"), domain.ReasonDeletedPost},
		{"not in audience", view(1, 7, "mine"), domain.ReasonNotInAudience},
		{"parked", view(1, 8, "parked"), domain.ReasonUndecided},
		{"second of the cap", view(1, 9, "p"), domain.ReasonNone},
		{"over the cap", view(1, 10, "p"), domain.ReasonPostCap},
		{"quota 1", view(3, 11, "p"), domain.ReasonNone},
		{"malformed", bad, domain.ReasonMalformed},
	}
	for i := range 4 {
		w.posts.publish(ids(i))
	}
	for i := range 4 {
		want := domain.ReasonNone
		if i == 3 {
			want = domain.ReasonViewerQuota
		}
		cases = append(cases, struct {
			name string
			view domain.ViewReported
			want domain.Reason
		}{"quota " + ids(i), view(3, 100+i, ids(i)), want})
	}
	for _, c := range cases {
		w.report(noon, c.view)
	}
	w.gate(w.views...)
	got := w.verdicts(0, len(cases))
	for i, c := range cases {
		if got[i].Reason != c.want {
			t.Errorf("%s: %q, want %q", c.name, got[i].Reason, c.want)
		}
		if !got[i].at.Equal(noon) {
			t.Errorf("%s: record time %v, want the partition time", c.name, got[i].at)
		}
	}
	parked := got[9]
	if !parked.DeadLetters || !slices.Equal(parked.WaitsFor, []domain.Position{{Topic: domain.TopicPosts, TopicID: topicIDs[domain.TopicPosts], NextOffset: 10}}) {
		t.Errorf("parked: %+v", parked.Verdict)
	}
	if got[13].Detail == "" {
		t.Error("malformed without detail")
	}
	if c := got[0]; c.Author != person(999) || c.PostVersion != 1 || c.QuotaFullAt.IsZero() || c.LimitsRevision != 1 {
		t.Errorf("counted carries too little: %+v", c.Verdict)
	}
}

// No record, whatever it holds, stops a partition.
func TestMalformedRecords(t *testing.T) {
	w := newWorld(t, worldOption{})
	w.posts.publish("p")
	good := view(1, 1, "p")
	key, value, err := eventlog.Encode(good)
	check(t, err)
	encode := func(e domain.Event) []byte {
		_, v, err := eventlog.Encode(e)
		check(t, err)
		return v
	}
	foreign := encode(domain.PersonNamed{Ref: good.Viewer, ID: "someone@example.com"})
	noPost := good
	noPost.Post = ""
	short, err := proto.Marshal(&eventspb.Event{Kind: &eventspb.Event_ViewReported{ViewReported: &eventspb.ViewReported{ViewId: []byte{1, 2}, Post: "p"}}})
	check(t, err)
	badTenant := good
	badTenant.Viewer.Tenant = "-ACME-"
	noTenant := good
	noTenant.Viewer.Tenant = "nobody"
	for _, r := range [][2][]byte{
		{key, []byte("{\"json\":true}")},
		{key, nil},
		{key, {}},
		{key, foreign},
		{key, encode(noPost)},
		{key, short},
		{nil, value},
		{[]byte("someone@example.com"), value},
		{append(slices.Clone(key), "erased"...), value},
		{badTenant.Viewer.Key(), value},
		{noTenant.Viewer.Key(), value},
		{key, value[:len(value)-3]},
	} {
		w.raw(0, r[0], r[1])
	}
	w.report(time.Time{}, good)
	w.gate(w.views...)
	got := w.verdicts(0, 13)
	for i, v := range got[:12] {
		if v.Reason != domain.ReasonMalformed || v.Detail == "" || v.LimitsRevision != 0 || v.ViewID != (domain.ViewID{}) {
			t.Errorf("record %d: %+v", i, v.Verdict)
		}
	}
	if got[12].Reason != domain.ReasonNone {
		t.Errorf("the good view: %q", got[12].Reason)
	}
}

// An event of a later version is not guessed at: its partition stops, the others go on.
func TestUnknownEventStopsItsPartitionOnly(t *testing.T) {
	w := newWorld(t, worldOption{partitions: 2})
	w.posts.publish("p")
	w.report(time.Time{}, view(1, 1, "p"))
	newEvent := []byte{0xda, 0x3e, 0x02, 0x08, 0x01} // field 1003, a message
	w.raw(0, view(1, 1, "p").Viewer.Key(), newEvent)
	r, err := w.kafka.NewRecord(view(2, 2, "p"), 1, time.Time{})
	check(t, err)
	w.raw(1, r.Key, r.Value)
	g, _, _ := w.gate(w.views...)
	w.verdicts(1, 1)
	eventually(t, "the partition stops", func() bool { return stateOf(g, 0) == StateStopped })
	if err := g.Ready(); domain.CodeOf(g.Status()[0].Err) != domain.CodeMisconfigured || err == nil {
		t.Errorf("status %v, ready %v", g.Status()[0].Err, err)
	}
	w.raw(1, r.Key, r.Value)
	if got := w.verdicts(1, 2); got[1].Reason != domain.ReasonDuplicate {
		t.Errorf("the other partition: %q", got[1].Reason)
	}
}

// A tenant that the registry has not read yet is waited for, not refused.
func TestTenantNotReadYet(t *testing.T) {
	w := newWorld(t, worldOption{})
	w.posts.posts[domain.PostKey{Tenant: "late", Post: "p"}] = domain.PostAnswer{Known: true, Audience: domain.AudienceEveryone}
	tries := 0
	w.tenants.onWait = func(f *fakeTenants) error {
		if tries++; tries < 3 {
			return errAway // the registry cannot say: nothing is decided
		}
		f.limits["late"] = domain.DefaultLimits()
		return nil
	}
	v := view(1, 1, "p")
	v.Viewer.Tenant = "late"
	w.report(time.Time{}, v)
	w.gate(w.views...)
	if got := w.verdicts(0, 1); got[0].Reason != domain.ReasonNone {
		t.Fatalf("%q %q", got[0].Reason, got[0].Detail)
	}
}

func TestRaisedWindowReopens(t *testing.T) {
	w := newWorld(t, worldOption{createTime: true})
	w.posts.publish("p")
	w.report(noon, view(1, 1, "p"))
	s := w.mustOpen(w.views[0])
	s.stepTo(t, 1)
	// The memory of 25 h has forgotten the view after 40 h; one of 50 h must not.
	w.report(noon.Add(40*time.Hour), view(1, 1, "p"))
	w.tenants.set(tenant, func(l *domain.Limits) { l.DuplicateWindow = 50 * time.Hour })
	if err := s.step(t.Context()); !errors.Is(err, errWindow) {
		t.Fatalf("judged with too short a memory: %v", err)
	}
	s.client.Close()
	w.mustOpen(w.views[0]).stepTo(t, 2)
	if got := reasons(w.verdicts(0, 2)); !cmp.Equal(got, []domain.Reason{"", domain.ReasonDuplicate}) {
		t.Fatal(got)
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	err := Config{BatchViewsMax: -1, GatherFor: time.Hour, NegativeWait: time.Hour, AnswersMax: -1, TransactionTimeout: time.Hour}.Validate()
	for _, field := range []string{"brokers", "batch_views_max", "gather_for", "negative_wait", "answers_max", "transaction_timeout"} {
		if err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("%s is not named: %v", field, err)
		}
	}
}

// A clock that is wrong by a month is said once, and once when it is right again.
func TestKafkaAheadIsSaid(t *testing.T) {
	w := newWorld(t, worldOption{})
	w.posts.publish("p")
	a := &fakeAssigner{changed: make(chan struct{})}
	a.assign(w.views...)
	deps := w.deps(a)
	var log syncLog
	deps.Logger = slog.New(slog.NewTextHandler(&log, nil))
	w.gateWith(a, deps)
	for i, at := range []time.Time{{}, time.Now().AddDate(0, 1, 0), time.Now().AddDate(0, 1, 0), {}} {
		w.report(at, view(1, i, "p"))
		w.verdicts(0, i+1)
	}
	eventually(t, "it says so", func() bool {
		return strings.Count(log.String(), "clock is ahead") == 1 && strings.Count(log.String(), "agree again") == 1
	})
}

type syncLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *syncLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *syncLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
