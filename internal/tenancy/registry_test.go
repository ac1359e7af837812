package tenancy

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// fixture is an installation with one tenant and one key.
type fixture struct {
	log    *topic
	secret *Secret
	plain  string
	key    domain.KeyIssued
}

func newFixture(t testing.TB) fixture {
	t.Helper()
	f := fixture{log: &topic{appended: make(chan struct{})}, secret: secretOf(t, secretText)}
	var in domain.Installation
	events, err := CreateTenant(&in, random(1), now, f.secret, "acme", "")
	if err != nil {
		t.Fatal(err)
	}
	install(t, &in, events...)
	f.plain, f.key, err = IssueKey(&in, random(2), now, "acme", "")
	if err != nil {
		t.Fatal(err)
	}
	f.log.events = append(append(events, f.key), domain.PartitionsRecorded{Topic: domain.TopicViews, Partitions: 12})
	return f
}

// start runs a registry in the test's bubble.
func (f fixture) start(t testing.TB, secret *Secret) (*Registry, chan error) {
	t.Helper()
	r := NewRegistry(f.log, secret, quiet())
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	synctest.Wait()
	return r, done
}

func TestRegistry(t *testing.T) {
	f := newFixture(t)
	if _, err := NewRegistry(f.log, f.secret, quiet()).Authenticate(f.plain); domain.CodeOf(err) != domain.CodeUnavailable {
		t.Errorf("before the log was read: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		r, _ := f.start(t, f.secret)
		if !r.Ready() || r.WaitReady(t.Context()) != nil || r.Check(t.Context()) != nil {
			t.Fatal("not ready")
		}
		h, err := r.Authenticate(f.plain)
		if key, ok := r.Key("acme"); err != nil || h.ID != "acme" || h.KeyID != f.key.KeyID || !ok || h.Key != key || key == (domain.TenantKey{}) {
			t.Errorf("%+v, %v", h, err)
		}
		for _, bad := range []string{"", f.plain + "x", f.plain[1:], strings.ToUpper(f.plain), f.key.Prefix, strings.Repeat("x", 1000)} {
			if _, err := r.Authenticate(bad); domain.CodeOf(err) != domain.CodeUnauthorized {
				t.Errorf("%q: %v", bad, err)
			}
		}
		if l, ok := r.Limits("acme"); !ok || l != domain.DefaultLimits() {
			t.Errorf("limits %+v, %v", l, ok)
		}
		if n, ok := r.Partitions(domain.TopicViews); !ok || n != 12 {
			t.Errorf("partitions %d, %v", n, ok)
		}
		if _, ok := r.Partitions(domain.TopicPosts); ok {
			t.Error("partitions of a topic of which none are recorded")
		}
		if _, ok := r.Key("none"); ok {
			t.Error("the key of no tenant")
		}

		// Two records, of which one may be read first, or be missing for ever.
		f.log.add(domain.TenantCreated{Tenant: "half", WrappedKey: wrapped(t, f.secret, "half"), CreatedAt: now})
		if l, ok := r.Limits("half"); !ok || l != domain.DefaultLimits() {
			t.Errorf("limits of a tenant without a LimitsSet: %+v, %v", l, ok)
		}

		limits := domain.DefaultLimits()
		limits.Revision = 2
		f.log.add(domain.LimitsSet{Tenant: "acme", Limits: limits})
		if l, _ := r.Limits("acme"); l.Revision != 2 {
			t.Errorf("limits %+v", l)
		}
		f.log.add(domain.KeyRevoked{Tenant: "acme", KeyID: f.key.KeyID, Prefix: f.key.Prefix})
		if _, err := r.Authenticate(f.plain); domain.CodeOf(err) != domain.CodeUnauthorized {
			t.Errorf("a revoked key: %v", err)
		}
		f.log.add(domain.TenantClosed{Tenant: "acme"})
		if _, ok := r.Key("acme"); ok || len(r.Tenants()) != 1 {
			t.Error("a closed tenant has a key")
		}
	})
}

func wrapped(t testing.TB, s *Secret, id domain.TenantID) []byte {
	t.Helper()
	b, err := s.Wrap(random(7), id, domain.TenantKey{7})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		r, _ := f.start(t, f.secret)
		end := int64(len(f.log.events))
		at := func(next int64) []domain.Position {
			return []domain.Position{{Topic: domain.TopicTenants, NextOffset: next}, {Topic: domain.TopicPosts, NextOffset: 99}}
		}
		if err := r.WaitFor(t.Context(), at(end)); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.WaitFor(ctx, at(end+1)); domain.CodeOf(err) != domain.CodeNotYetApplied {
			t.Errorf("%v", err)
		}
		done := make(chan error)
		go func() { done <- r.WaitFor(t.Context(), at(end+2)) }()
		synctest.Wait()
		f.log.add(domain.DecisionRecorded{})
		select {
		case err := <-done:
			t.Errorf("ended early: %v", err)
		default:
		}
		f.log.add(domain.DecisionRecorded{})
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRegistryRefuses(t *testing.T) {
	another := secretOf(t, anotherText)
	for _, c := range []struct {
		name   string
		secret *Secret // nil: the right one
		events func(*fixture) []domain.Event
		says   string
	}{
		{"another secret", another, nil, "the tenants' keys are sealed under " + secretOf(t, secretText).Fingerprint()},
		{"a damaged tenant key", nil, func(*fixture) []domain.Event {
			return []domain.Event{domain.TenantCreated{Tenant: "odd", WrappedKey: []byte("odd")}}
		}, "tenant odd"},
		{"a foreign event", nil, func(*fixture) []domain.Event { return []domain.Event{domain.PostPublished{}} }, "PostPublished"},
		{"an unreadable record", nil, func(*fixture) []domain.Event { return []domain.Event{nil} }, "newer version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				if c.events != nil {
					f.log.events = append(f.log.events, c.events(&f)...)
				}
				secret := f.secret
				if c.secret != nil {
					secret = c.secret
				}
				r, done := f.start(t, secret)
				err := <-done
				if domain.CodeOf(err) != domain.CodeMisconfigured || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v does not say %q", err, c.says)
				}
				if r.Ready() {
					t.Error("ready all the same")
				}
			})
		})
	}
	t.Run("another partition count, later", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			_, done := f.start(t, f.secret)
			f.log.add(domain.PartitionsRecorded{Topic: domain.TopicViews, Partitions: 48})
			if err := <-done; domain.CodeOf(err) != domain.CodeMisconfigured || !strings.Contains(err.Error(), "from 12 to 48") {
				t.Errorf("%v", err)
			}
		})
	})
}

// While Kafka is away the last state answers; reading again from the start revives nothing.
func TestRegistryGoesOnWithoutKafka(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		second, issued, err := NewKey(random(9))
		if err != nil {
			t.Fatal(err)
		}
		issued.Tenant = "acme"
		f.log.events = append(f.log.events, issued, domain.KeyRevoked{Tenant: "acme", KeyID: issued.KeyID})
		f.log.away.Store(true)
		r, done := f.start(t, f.secret)
		<-time.After(time.Minute)
		if r.Ready() {
			t.Fatal("ready without having read anything")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.WaitReady(ctx); domain.CodeOf(err) != domain.CodeUnavailable {
			t.Errorf("%v", err)
		}
		// It comes, goes after a while and stays away, and comes again.
		f.log.away.Store(false)
		<-time.After(10 * time.Second)
		f.log.away.Store(true)
		f.log.add()
		for range 3 {
			<-time.After(time.Minute)
			if _, err := r.Authenticate(f.plain); err != nil {
				t.Errorf("%v", err)
			}
			if _, err := r.Authenticate(second); domain.CodeOf(err) != domain.CodeUnauthorized {
				t.Errorf("a revoked key: %v", err)
			}
		}
		attempts := f.log.attempts.Load()
		f.log.away.Store(false)
		<-time.After(10 * time.Second)
		if now := f.log.attempts.Load(); now != attempts+1 {
			t.Errorf("%d attempts, then %d", attempts, now)
		}
		f.log.add(domain.KeyRevoked{Tenant: "acme", KeyID: f.key.KeyID})
		if _, err := r.Authenticate(f.plain); domain.CodeOf(err) != domain.CodeUnauthorized {
			t.Errorf("a key revoked after the pause: %v", err)
		}
		select {
		case err := <-done:
			t.Errorf("ended: %v", err)
		default:
		}
	})
}

// A rotation under a running process: known tenants go on, new ones wait for the restart, but not with their views: a gate
// that does not know a tenant's limits refuses them for good.
func TestSecretRotatedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		r, _ := f.start(t, f.secret)
		before, _ := r.Key("acme")
		rotated := secretOf(t, anotherText)
		again, err := rotated.Wrap(random(5), "acme", before)
		if err != nil {
			t.Fatal(err)
		}
		f.log.add(domain.TenantCreated{Tenant: "acme", WrappedKey: again}, domain.SecretRecorded{Fingerprint: rotated.Fingerprint()})
		if key, ok := r.Key("acme"); !ok || key != before {
			t.Error("a known tenant was lost")
		}
		plain, issued, err := NewKey(random(9))
		if err != nil {
			t.Fatal(err)
		}
		issued.Tenant = "fresh"
		limits := domain.DefaultLimits()
		limits.Revision = 2
		f.log.add(domain.TenantCreated{Tenant: "fresh", WrappedKey: again}, domain.LimitsSet{Tenant: "fresh", Limits: limits}, issued)
		if _, ok := r.Key("fresh"); ok {
			t.Error("a key that does not open")
		}
		if l, ok := r.Limits("fresh"); !ok || l != limits || len(r.Tenants()) != 2 {
			t.Errorf("limits of a tenant that is not served here: %+v, %v", l, ok)
		}
		if _, err := r.Authenticate(plain); domain.CodeOf(err) != domain.CodeUnauthorized {
			t.Errorf("its API key: %v", err)
		}
	})
}

// Where and of what a core system is told is followed, and ends with its tenant.
func TestRegistryRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		r := NewRegistry(f.log, f.secret, quiet())
		if _, ok := r.Relay("acme"); ok || r.Endpoints("acme") != nil {
			t.Error("it answers before the log was read")
		}
		first := r.Changed()
		go func() { _ = r.Run(t.Context()) }()
		<-first
		synctest.Wait()
		if relay, ok := r.Relay("acme"); !ok || cmp.Diff(domain.RelaySet{}, relay) != "" || r.Endpoints("acme") != nil {
			t.Errorf("at first: %+v %v", relay, ok)
		}
		if _, ok := r.Relay("none"); ok || r.Endpoints("none") != nil {
			t.Error("of no tenant")
		}
		b := domain.EndpointSet{Tenant: "acme", EndpointID: "ep_b", URL: coreURL, SecretGeneration: 1, DisabledAt: now}
		a := domain.EndpointSet{Tenant: "acme", EndpointID: "ep_a", URL: coreURL, SecretGeneration: 2}
		relay := domain.RelaySet{Tenant: "acme", Enabled: true, Milestones: []int64{5, 50}, SetAt: now}
		for _, e := range []domain.Event{b, a, relay} {
			changed := r.Changed()
			select {
			case <-changed:
				t.Fatal("changed before anything did")
			default:
			}
			f.log.add(e)
			<-changed // else the bubble is deadlocked
		}
		want := []domain.EndpointSet{a, b}
		if diff := cmp.Diff(want, r.Endpoints("acme")); diff != "" {
			t.Error(diff)
		}
		got, ok := r.Relay("acme")
		if diff := cmp.Diff(relay, got); !ok || diff != "" {
			t.Error(diff)
		}
		// What is given is the caller's: the registry's own stays.
		got.Milestones[0] = 1
		r.Endpoints("acme")[0].URL = "changed"
		if again, _ := r.Relay("acme"); again.Milestones[0] != 5 || r.Endpoints("acme")[0].URL != coreURL {
			t.Error("a caller changed what the registry knows")
		}
		// A tenant's relay is known where its key is not.
		f.log.add(domain.TenantCreated{Tenant: "fresh", WrappedKey: []byte("sealed under another secret"), CreatedAt: now}, domain.RelaySet{Tenant: "fresh", Enabled: true})
		if relay, ok := r.Relay("fresh"); !ok || !relay.Enabled {
			t.Errorf("without a key: %+v %v", relay, ok)
		}
		// The end, and what is read after it although it was decided before.
		changed := r.Changed()
		f.log.add(domain.TenantClosed{Tenant: "acme", ClosedAt: now})
		<-changed
		f.log.add(a, relay)
		if relay, ok := r.Relay("acme"); ok || cmp.Diff(domain.RelaySet{}, relay) != "" || r.Endpoints("acme") != nil {
			t.Errorf("of a closed tenant: %+v %v %v", relay, ok, r.Endpoints("acme"))
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	f := newFixture(b)
	r := NewRegistry(f.log, f.secret, quiet())
	go func() { _ = r.Run(b.Context()) }()
	if err := r.WaitReady(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Authenticate(f.plain); err != nil {
			b.Fatal(err)
		}
	}
}
