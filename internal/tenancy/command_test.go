package tenancy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"seenby/domain"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// random is a reproducible source.
func random(seed uint64) *rand.ChaCha8 {
	var s [32]byte
	s[0] = byte(seed)
	return rand.NewChaCha8(s)
}

func secretOf(t testing.TB, text string) *Secret {
	t.Helper()
	s, err := NewSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	secretText  = "0123456789abcdef0123456789abcdef"
	anotherText = "fedcba9876543210fedcba9876543210"
)

func install(t testing.TB, in *domain.Installation, events ...domain.Event) {
	t.Helper()
	for _, e := range events {
		if !in.Apply(e) {
			t.Fatalf("%s does not belong on tenants", e.EventType())
		}
	}
}

func TestSecret(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("x", 31), " " + strings.Repeat("x", 31) + "\n"} {
		if _, err := NewSecret(text); domain.CodeOf(err) != domain.CodeMisconfigured || !strings.Contains(err.Error(), "openssl rand -hex 32") {
			t.Errorf("%q: %v", text, err)
		}
	}
	s, same, another := secretOf(t, secretText), secretOf(t, secretText+"\n"), secretOf(t, anotherText)
	// Golden: what stands on the log must be found again by every later version.
	if s.Fingerprint() != "97afd551f933640d" || same.Fingerprint() != s.Fingerprint() {
		t.Errorf("fingerprints %s, %s", s.Fingerprint(), same.Fingerprint())
	}
	if another.Fingerprint() == s.Fingerprint() {
		t.Error("two secrets of one fingerprint")
	}
	if got := fmt.Sprintf("%v %+v %s", s, s, s); got != "*** *** ***" {
		t.Errorf("the secret prints as %s", got)
	}
	key := domain.TenantKey{1, 2, 3}
	wrapped, err := s.Wrap(random(1), "acme", key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := same.Unwrap("acme", wrapped); err != nil || got != key {
		t.Errorf("unwrapped %v, %v", got, err)
	}
	damaged := bytes.Clone(wrapped)
	damaged[len(damaged)-1] ^= 1
	for name, try := range map[string]func() (domain.TenantKey, error){
		"another secret": func() (domain.TenantKey, error) { return another.Unwrap("acme", wrapped) },
		"another tenant": func() (domain.TenantKey, error) { return s.Unwrap("other", wrapped) },
		"damaged":        func() (domain.TenantKey, error) { return s.Unwrap("acme", damaged) },
		"cut":            func() (domain.TenantKey, error) { return s.Unwrap("acme", wrapped[:5]) },
		"nothing":        func() (domain.TenantKey, error) { return s.Unwrap("acme", nil) },
	} {
		if _, err := try(); domain.CodeOf(err) != domain.CodeMisconfigured {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Wrap(bytes.NewReader(nil), "acme", key); err == nil {
		t.Error("wrapped without randomness")
	}
}

func TestCreateTenant(t *testing.T) {
	secret := secretOf(t, secretText)
	var before domain.Installation
	first, err := CreateTenant(&before, random(1), now, secret, "acme", "")
	if err != nil || len(first) != 3 {
		t.Fatalf("%v, %v", first, err)
	}
	if first[0] != (domain.SecretRecorded{Fingerprint: secret.Fingerprint()}) {
		t.Errorf("first %v", first[0])
	}
	created, ok := first[1].(domain.TenantCreated)
	if !ok {
		t.Fatalf("second %v", first[1])
	}
	if created.Name != "acme" || created.CreatedAt != now || created.SecretFingerprint != secret.Fingerprint() {
		t.Errorf("created %+v", created)
	}
	if key, err := secret.Unwrap("acme", created.WrappedKey); err != nil || key == (domain.TenantKey{}) {
		t.Errorf("its key: %v, %v", key, err)
	}
	if first[2] != (domain.LimitsSet{Tenant: "acme", Limits: domain.DefaultLimits(), SetAt: now}) {
		t.Errorf("limits %+v", first[2])
	}
	in := func(events ...domain.Event) *domain.Installation {
		var in domain.Installation
		install(t, &in, append(append([]domain.Event{}, first...), events...)...)
		return &in
	}
	for _, c := range []struct {
		name   string
		in     *domain.Installation
		secret *Secret
		id     domain.TenantID
		label  string
		events int
		code   domain.Code
	}{
		{"a second one", in(), secret, "other", "The other", 2, ""},
		{"the same again", in(), secret, "acme", "", 0, domain.CodeConflict},
		{"a closed one", in(domain.TenantClosed{Tenant: "acme"}), secret, "acme", "", 0, domain.CodeConflict},
		{"one of which only limits are known", in(domain.LimitsSet{Tenant: "odd"}), secret, "odd", "", 2, ""},
		{"another secret", in(), secretOf(t, anotherText), "other", "", 0, domain.CodeMisconfigured},
		{"no id", in(), secret, "", "", 0, domain.CodeInvalid},
		{"a bad id", in(), secret, "Acme", "", 0, domain.CodeInvalid},
		{"a long name", in(), secret, "other", strings.Repeat("n", 256), 0, domain.CodeInvalid},
		{"an unprintable name", in(), secret, "other", "a\x00", 0, domain.CodeInvalid},
	} {
		events, err := CreateTenant(c.in, random(2), now, c.secret, c.id, c.label)
		if len(events) != c.events || (c.code == "") != (err == nil) || err != nil && domain.CodeOf(err) != c.code {
			t.Errorf("%s: %v, %v", c.name, events, err)
		}
	}
	if _, err := CreateTenant(&before, bytes.NewReader(nil), now, secret, "acme", ""); err == nil {
		t.Error("created without randomness")
	}
}

func TestIssueKey(t *testing.T) {
	secret := secretOf(t, secretText)
	var in domain.Installation
	events, err := CreateTenant(&in, random(1), now, secret, "acme", "")
	if err != nil {
		t.Fatal(err)
	}
	install(t, &in, events...)
	install(t, &in, domain.TenantCreated{Tenant: "gone", CreatedAt: now}, domain.TenantClosed{Tenant: "gone"}, domain.LimitsSet{Tenant: "odd"})
	plain, key, err := IssueKey(&in, random(3), now, "acme", "web")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(plain, "seenby_"+key.KeyID+"_") || len(key.KeyID) != 8 || key.Prefix != "seenby_"+key.KeyID || len(plain) != 7+8+1+43 {
		t.Errorf("key %s, %+v", plain, key)
	}
	if key.SHA256 != sha256.Sum256([]byte(plain)) || key.Tenant != "acme" || key.Label != "web" || key.IssuedAt != now {
		t.Errorf("event %+v", key)
	}
	install(t, &in, key)
	for _, c := range []struct {
		name, tenant, label string
		seed                uint64
		code                domain.Code
	}{
		{"another key", "acme", "", 4, ""},
		{"the same id", "acme", "", 3, domain.CodeConflict},
		{"no such tenant", "none", "", 4, domain.CodeNotFound},
		{"a closed tenant", "gone", "", 4, domain.CodeNotFound},
		{"a tenant that was not created", "odd", "", 4, domain.CodeNotFound},
		{"a long label", "acme", strings.Repeat("l", 256), 4, domain.CodeInvalid},
	} {
		_, _, err := IssueKey(&in, random(c.seed), now, domain.TenantID(c.tenant), c.label)
		if (c.code == "") != (err == nil) || err != nil && domain.CodeOf(err) != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, _, err := NewKey(bytes.NewReader(make([]byte, 39))); err == nil {
		t.Error("made a key without enough randomness")
	}
}
