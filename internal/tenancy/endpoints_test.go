package tenancy

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
)

const coreURL = "https://core.example/seenby"

// endpointOf creates an endpoint of acme, and applies what was decided.
func endpointOf(t testing.TB, in *domain.Installation, seed uint64, address string) domain.EndpointSet {
	t.Helper()
	e, events, err := CreateEndpoint(in, random(seed), now, "acme", address, false)
	if err != nil {
		t.Fatal(err)
	}
	install(t, in, events...)
	return e
}

func TestCreateEndpoint(t *testing.T) {
	in, _ := acme(t)
	got, events, err := CreateEndpoint(in, random(1), now, "acme", coreURL, true)
	if err != nil || !regexp.MustCompile(`^ep_[0-9a-z]{12}$`).MatchString(got.EndpointID) {
		t.Fatalf("%+v, %v", got, err)
	}
	want := domain.EndpointSet{Tenant: "acme", EndpointID: got.EndpointID, URL: coreURL, SecretGeneration: 1, AllowPrivate: true, CreatedAt: now}
	if diff := cmp.Diff(want, got); diff != "" || !slices.Equal(events, []domain.Event{want}) {
		t.Errorf("%s, events %v", diff, events)
	}
	install(t, in, events...)
	for _, good := range []string{"http://127.0.0.1:8080", "HTTPS://core.example/?a=b%20c", "https://core.example/" + strings.Repeat("x", endpointURLBytesMax-21)} {
		if _, events, err := CreateEndpoint(in, random(2), now, "acme", good, false); err != nil || len(events) != 1 {
			t.Errorf("%.40s: %v %v", good, events, err)
		}
	}
	for _, c := range []struct {
		name, address string
		tenant        domain.TenantID
		seed          uint64
		code          domain.Code
		says          string
	}{
		{"no URL", "", "acme", 2, domain.CodeInvalid, "url: is required"},
		{"a long one", "https://core.example/" + strings.Repeat("x", endpointURLBytesMax-20), "acme", 2, domain.CodeInvalid, "2001 bytes"},
		{"another scheme", "ftp://core.example/", "acme", 2, domain.CodeInvalid, "http or https"},
		{"no scheme", "core.example/seenby", "acme", 2, domain.CodeInvalid, "http or https"},
		{"no host", "https:///seenby", "acme", 2, domain.CodeInvalid, "http or https"},
		{"a port alone", "https://:443/seenby", "acme", 2, domain.CodeInvalid, "http or https"},
		{"what does not parse", "https://core.example/%zz", "acme", 2, domain.CodeInvalid, "http or https"},
		{"a space", "https://core.example/a b", "acme", 2, domain.CodeInvalid, "ASCII"},
		{"a letter that is not ASCII", "https://köln.example/", "acme", 2, domain.CodeInvalid, "ASCII"},
		{"bytes that are no text", "https://core.example/\xff", "acme", 2, domain.CodeInvalid, "ASCII"},
		{"a URL that is enabled", coreURL, "acme", 2, domain.CodeConflict, got.EndpointID},
		{"an id that is taken", coreURL + "/2", "acme", 1, domain.CodeConflict, "run the command again"},
		{"an unknown tenant", coreURL, "none", 2, domain.CodeNotFound, "none"},
		{"a closed tenant", coreURL, "gone", 2, domain.CodeNotFound, "gone"},
	} {
		_, events, err := CreateEndpoint(in, random(c.seed), now, c.tenant, c.address, false)
		if domain.CodeOf(err) != c.code || len(events) > 0 || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v", c.name, events, err)
		}
	}
	if _, events, err := CreateEndpoint(in, bytes.NewReader(nil), now, "acme", coreURL+"/2", false); err == nil || len(events) > 0 {
		t.Errorf("without randomness: %v", events)
	}
}

// As many as there may be: disabled ones are none of them, and one comes back only where there is room.
func TestEndpointsEnabledMax(t *testing.T) {
	in, _ := acme(t)
	var all []domain.EndpointSet
	for i := range endpointsEnabledMax {
		all = append(all, endpointOf(t, in, uint64(10+i), coreURL+strings.Repeat("/x", i)))
	}
	if _, events, err := CreateEndpoint(in, random(20), now, "acme", coreURL+"/new", false); domain.CodeOf(err) != domain.CodeConflict || len(events) > 0 || !strings.Contains(err.Error(), "endpoints list acme") {
		t.Errorf("one too many: %v %v", events, err)
	}
	_, events, err := DisableEndpoint(in, now, "acme", all[2].EndpointID, "")
	if err != nil {
		t.Fatal(err)
	}
	install(t, in, events...)
	same := endpointOf(t, in, 20, all[2].URL)
	if _, events, err := EnableEndpoint(in, "acme", all[2].EndpointID); domain.CodeOf(err) != domain.CodeConflict || len(events) > 0 || !strings.Contains(err.Error(), same.EndpointID) {
		t.Errorf("enabled beside one of its URL: %v %v", events, err)
	}
	_, events, err = DisableEndpoint(in, now, "acme", same.EndpointID, "")
	if err != nil {
		t.Fatal(err)
	}
	install(t, in, events...)
	endpointOf(t, in, 21, coreURL+"/new")
	if _, events, err := EnableEndpoint(in, "acme", all[2].EndpointID); domain.CodeOf(err) != domain.CodeConflict || len(events) > 0 || !strings.Contains(err.Error(), "5 enabled") {
		t.Errorf("enabled as one too many: %v %v", events, err)
	}
}

func TestDisableAndEnableEndpoint(t *testing.T) {
	in, _ := acme(t)
	e := endpointOf(t, in, 1, coreURL)
	later := now.Add(time.Hour)
	want := e
	want.DisabledAt, want.DisabledReason = later, "it moves"
	got, events, err := DisableEndpoint(in, later, "acme", e.EndpointID, "it moves")
	if err != nil || got != want || !slices.Equal(events, []domain.Event{want}) {
		t.Fatalf("%+v %v %v", got, events, err)
	}
	install(t, in, events...)
	if got, events, err := DisableEndpoint(in, later.Add(1), "acme", e.EndpointID, "again"); err != nil || got != want || len(events) > 0 {
		t.Errorf("again: %+v %v %v", got, events, err)
	}
	got, events, err = EnableEndpoint(in, "acme", e.EndpointID)
	if err != nil || got != e || !slices.Equal(events, []domain.Event{e}) {
		t.Errorf("enabled: %+v %v %v", got, events, err)
	}
	install(t, in, events...)
	if got, events, err := EnableEndpoint(in, "acme", e.EndpointID); err != nil || got != e || len(events) > 0 {
		t.Errorf("enabled again: %+v %v %v", got, events, err)
	}
	for _, reason := range []string{strings.Repeat("x", labelBytesMax+1), "a\nb"} {
		if _, events, err := DisableEndpoint(in, later, "acme", e.EndpointID, reason); domain.CodeOf(err) != domain.CodeInvalid || len(events) > 0 {
			t.Errorf("%q: %v %v", reason, events, err)
		}
	}
}

func TestRotateEndpoint(t *testing.T) {
	in, _ := acme(t)
	e := endpointOf(t, in, 1, coreURL)
	rotate := func(at time.Time, force bool) (domain.EndpointSet, error) {
		t.Helper()
		before := in.Tenants["acme"].Endpoints[e.EndpointID]
		got, events, err := RotateEndpoint(in, at, "acme", e.EndpointID, force)
		if err != nil {
			if len(events) > 0 {
				t.Errorf("refused, with %v", events)
			}
			return got, err
		}
		want := before
		want.SecretGeneration, want.RotatedAt = before.SecretGeneration+1, at
		if got != want || !slices.Equal(events, []domain.Event{want}) {
			t.Errorf("%+v %v", got, events)
		}
		install(t, in, events...)
		return got, nil
	}
	first := now.Add(time.Hour)
	if _, err := rotate(first, false); err != nil {
		t.Fatal(err)
	}
	ends := first.Add(domain.SecretOverlap)
	for _, at := range []time.Time{first.Add(-time.Minute), first, ends.Add(-1)} {
		if _, err := rotate(at, false); domain.CodeOf(err) != domain.CodeConflict || !strings.Contains(err.Error(), "2026-11-24T13:00:00Z") || !strings.Contains(err.Error(), "--force") {
			t.Errorf("at %v: %v", at, err)
		}
	}
	if _, err := rotate(ends, false); err != nil {
		t.Errorf("after the overlap: %v", err)
	}
	if got, err := rotate(ends.Add(1), true); err != nil || got.SecretGeneration != 4 {
		t.Errorf("forced: %+v %v", got, err)
	}
}

// What is not there, or of a closed tenant, is not found by any decision, and what was given is not repeated.
func TestEndpointNotFound(t *testing.T) {
	in, _ := acme(t)
	e := endpointOf(t, in, 1, coreURL)
	install(t, in, domain.EndpointSet{Tenant: "gone", EndpointID: e.EndpointID, URL: coreURL, SecretGeneration: 1}, domain.RelaySet{Tenant: "gone", Enabled: true})
	for name, decide := range map[string]func(domain.TenantID, string) ([]domain.Event, error){
		"disable": func(tenant domain.TenantID, id string) ([]domain.Event, error) {
			_, events, err := DisableEndpoint(in, now, tenant, id, "")
			return events, err
		},
		"enable": func(tenant domain.TenantID, id string) ([]domain.Event, error) {
			_, events, err := EnableEndpoint(in, tenant, id)
			return events, err
		},
		"rotate": func(tenant domain.TenantID, id string) ([]domain.Event, error) {
			_, events, err := RotateEndpoint(in, now, tenant, id, true)
			return events, err
		},
		"show": func(tenant domain.TenantID, id string) ([]domain.Event, error) {
			_, err := EndpointOf(in, tenant, id)
			return nil, err
		},
	} {
		for _, c := range []struct {
			tenant   domain.TenantID
			id, says string
		}{
			{"acme", "whsec_text", "seenby relay endpoints list acme"},
			{"acme", "", "seenby relay endpoints list acme"},
			{"gone", e.EndpointID, "no open tenant gone"},
			{"none", e.EndpointID, "no open tenant none"},
		} {
			events, err := decide(c.tenant, c.id)
			if domain.CodeOf(err) != domain.CodeNotFound || len(events) > 0 || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "whsec_") {
				t.Errorf("%s of %s %q: %v, %v", name, c.tenant, c.id, events, err)
			}
		}
	}
	yes := true
	for _, tenant := range []domain.TenantID{"gone", "none"} {
		if _, err := EndpointsOf(in, tenant); domain.CodeOf(err) != domain.CodeNotFound {
			t.Errorf("%s: endpoints: %v", tenant, err)
		}
		if _, err := RelayOf(in, tenant); domain.CodeOf(err) != domain.CodeNotFound {
			t.Errorf("%s: relay: %v", tenant, err)
		}
		if _, events, err := SetRelay(in, now, tenant, &yes, nil); domain.CodeOf(err) != domain.CodeNotFound || len(events) > 0 {
			t.Errorf("%s: set relay: %v %v", tenant, events, err)
		}
	}
}

func TestSetRelay(t *testing.T) {
	in, _ := acme(t)
	if relay, err := RelayOf(in, "acme"); err != nil || cmp.Diff(domain.RelaySet{Tenant: "acme"}, relay) != "" {
		t.Errorf("at first: %+v %v", relay, err)
	}
	yes, no := true, false
	at := now
	for _, c := range []struct {
		name       string
		enabled    *bool
		milestones []int64
		want       domain.RelaySet // of what stands after; its time is that of the last change
		changes    bool
	}{
		{"off, which it is", &no, nil, domain.RelaySet{}, false},
		{"nothing", nil, nil, domain.RelaySet{}, false},
		{"no milestones, which there are", nil, []int64{}, domain.RelaySet{}, false},
		{"milestones, in any order", nil, []int64{1000, 1, 1 << 53, 100}, domain.RelaySet{Milestones: []int64{1, 100, 1000, 1 << 53}}, true},
		{"the same, in another order", nil, []int64{1, 1 << 53, 100, 1000}, domain.RelaySet{Milestones: []int64{1, 100, 1000, 1 << 53}}, false},
		{"on", &yes, nil, domain.RelaySet{Enabled: true, Milestones: []int64{1, 100, 1000, 1 << 53}}, true},
		{"on again", &yes, nil, domain.RelaySet{Enabled: true, Milestones: []int64{1, 100, 1000, 1 << 53}}, false},
		{"other milestones", nil, []int64{5}, domain.RelaySet{Enabled: true, Milestones: []int64{5}}, true},
		{"off, with as many as there may be", &no, upTo(milestonesMax), domain.RelaySet{Milestones: upTo(milestonesMax)}, true},
		{"no milestones", nil, []int64{}, domain.RelaySet{}, true},
	} {
		at = at.Add(time.Minute)
		given := slices.Clone(c.milestones)
		relay, events, err := SetRelay(in, at, "acme", c.enabled, c.milestones)
		if err != nil || len(events) > 0 != c.changes || !slices.Equal(given, c.milestones) {
			t.Fatalf("%s: %v, %v, and the caller's are %v", c.name, events, err, c.milestones)
		}
		c.want.Tenant, c.want.SetAt = "acme", in.Tenants["acme"].Relay.SetAt
		if c.changes {
			c.want.SetAt = at
			if diff := cmp.Diff([]domain.Event{relay}, events); diff != "" {
				t.Errorf("%s: %s", c.name, diff)
			}
		}
		if diff := cmp.Diff(c.want, relay); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		install(t, in, events...)
	}
	for name, milestones := range map[string][]int64{
		"zero": {5, 0}, "negative": {-1}, "more than JSON can tell": {1<<53 + 1}, "twice": {5, 7, 5}, "too many": upTo(milestonesMax + 1),
	} {
		if _, events, err := SetRelay(in, at, "acme", &yes, milestones); domain.CodeOf(err) != domain.CodeInvalid || len(events) > 0 || !strings.HasPrefix(err.Error(), "milestones: ") {
			t.Errorf("%s: %v %v", name, events, err)
		}
	}
}

func upTo(n int64) (all []int64) {
	for i := range n {
		all = append(all, i+1)
	}
	return all
}

func TestWebhookSecret(t *testing.T) {
	key := domain.TenantKey{1}
	secret := WebhookSecret(key, "ep_7", 1)
	// Golden: receivers keep it. A later version, and another process, must make the same one.
	if want := "whsec_lgNyE3n7CEkm1VTSz7Mtlz6b0vVwnVesmuTatUnobQc="; secret != want {
		t.Errorf("%s, want %s", secret, want)
	}
	text, ok := strings.CutPrefix(secret, "whsec_")
	if b, err := base64.StdEncoding.DecodeString(text); !ok || err != nil || len(b) != 32 {
		t.Errorf("%s: %d bytes, %v", secret, len(b), err)
	}
	all := []string{secret, WebhookSecret(key, "ep_7", 2), WebhookSecret(key, "ep_8", 1), WebhookSecret(domain.TenantKey{2}, "ep_7", 1), WebhookSecret(key, "ep_7\x00", 1)}
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != 5 {
		t.Errorf("%d secrets of five", n)
	}
	// No token, of whatever kind, tells a secret.
	token := tokenMAC(key, 'e', []byte("p_7\x00\x00\x00\x00\x00\x00\x00\x01"))
	if text == base64.StdEncoding.EncodeToString(token[:]) {
		t.Error("a token is signed by what is a webhook's secret")
	}
}

func TestEndpointSecrets(t *testing.T) {
	key := domain.TenantKey{1}
	one, two := WebhookSecret(key, "ep_7", 1), WebhookSecret(key, "ep_7", 2)
	created := domain.EndpointSet{EndpointID: "ep_7", SecretGeneration: 1}
	odd := created
	odd.RotatedAt = now
	rotated := odd
	rotated.SecretGeneration = 2
	unknown := rotated
	unknown.RotatedAt = time.Time{}
	for _, c := range []struct {
		name string
		e    domain.EndpointSet
		at   time.Time
		want []string
	}{
		{"as created", created, now, []string{one}},
		{"without a generation before", odd, now, []string{one}},
		{"at the rotation", rotated, now, []string{two, one}},
		{"by a clock that is behind", rotated, now.Add(-time.Minute), []string{two, one}},
		{"within the overlap", rotated, now.Add(domain.SecretOverlap - 1), []string{two, one}},
		{"after it", rotated, now.Add(domain.SecretOverlap), []string{two}},
		{"rotated at no known time", unknown, now, []string{two}},
	} {
		if got := EndpointSecrets(key, c.e, c.at); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if ends := OverlapEnds(c.e); ends.IsZero() != (c.e != rotated) {
			t.Errorf("%s: two sign until %v", c.name, ends)
		}
	}
}

// A closed tenant's core system is told nothing, and its URLs leave the log.
func TestCloseTenantWithEndpoints(t *testing.T) {
	in, _ := acme(t)
	one := endpointOf(t, in, 1, coreURL)
	two := endpointOf(t, in, 2, coreURL+"/2")
	_, events, err := DisableEndpoint(in, now.Add(-time.Hour), "acme", two.EndpointID, "it moved")
	if err != nil {
		t.Fatal(err)
	}
	install(t, in, append(events, domain.RelaySet{Tenant: "acme", Enabled: true, Milestones: []int64{5}})...)
	later := now.Add(time.Hour)
	events, err = CloseTenant(in, later, "acme")
	if err != nil {
		t.Fatal(err)
	}
	one.URL, one.DisabledAt = "", later
	two.URL, two.DisabledAt = "", now.Add(-time.Hour)
	want := []domain.Event{domain.RelaySet{Tenant: "acme", SetAt: later}, one, two}
	if two.EndpointID < one.EndpointID {
		want[1], want[2] = want[2], want[1]
	}
	if diff := cmp.Diff(want, events[max(0, len(events)-3):]); diff != "" {
		t.Error(diff)
	}
	install(t, in, events...)
	if events, err := CloseTenant(in, later, "acme"); len(events) > 0 || err != nil {
		t.Errorf("closed again: %v %v", events, err)
	}
}
