package tenancy

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"seenby/domain"
)

// acme is an installation with the open tenant acme, which has a key, and the closed tenant gone.
func acme(t testing.TB) (*domain.Installation, domain.KeyIssued) {
	t.Helper()
	var in domain.Installation
	events, err := CreateTenant(&in, random(1), now, secretOf(t, secretText), "acme", "Acme")
	if err != nil {
		t.Fatal(err)
	}
	install(t, &in, events...)
	_, key, err := IssueKey(&in, random(2), now, "acme", "web")
	if err != nil {
		t.Fatal(err)
	}
	install(t, &in, key, domain.TenantCreated{Tenant: "gone", CreatedAt: now, WrappedKey: []byte("x")}, domain.TenantClosed{Tenant: "gone", ClosedAt: now})
	return &in, key
}

func TestSetLimits(t *testing.T) {
	in, _ := acme(t)
	all := []Limit{
		{"duplicate_window", "48h0m0s"}, {"stale", "24h30m0s"}, {"future", "0s"}, {"quota_views_per_minute", "60"},
		{"quota_burst_views", "100"}, {"post_cap_views", "5"}, {"post_cap_window", "1m30s"}, {"own_views", "refuse"},
		{"unknown_posts", "count"}, {"intake_views_per_second", "50"},
	}
	limits, events, err := SetLimits(in, now.Add(time.Hour), "acme", all)
	if err != nil {
		t.Fatal(err)
	}
	want := domain.Limits{
		Revision: 2, DuplicateWindow: 48 * time.Hour, Stale: 24*time.Hour + 30*time.Minute, Quota: domain.Quota{ViewsPerMinute: 60, BurstViews: 100},
		PostCap: domain.PostCap{Views: 5, Window: 90 * time.Second}, RefuseOwnViews: true, CountUnknownPosts: true, IntakeViewsPerSecond: 50,
	}
	if limits != want || !slices.Equal(events, []domain.Event{domain.LimitsSet{Tenant: "acme", Limits: want, SetAt: now.Add(time.Hour)}}) {
		t.Errorf("limits %+v, events %+v", limits, events)
	}
	if got := LimitsOf(limits); !slices.Equal(got, all) || len(LimitNames()) != len(all) {
		t.Errorf("as shown: %v", got)
	}
	install(t, in, events...)
	if limits, events, err := SetLimits(in, now, "acme", all); limits != want || len(events) > 0 || err != nil {
		t.Errorf("the same again: %+v %v %v", limits, events, err)
	}
	// One change leaves the rest alone.
	want.PostCap.Views, want.Revision = 6, 3
	if limits, _, err := SetLimits(in, now, "acme", []Limit{{"post_cap_views", "6"}}); limits != want || err != nil {
		t.Errorf("one of them: %+v %v", limits, err)
	}
	for _, c := range []struct {
		name    string
		tenant  domain.TenantID
		changes []Limit
		code    domain.Code
		field   string
	}{
		{"nothing", "acme", nil, domain.CodeInvalid, "limits"},
		{"an unknown name", "acme", []Limit{{"stale", "1h"}, {"colour", "red"}}, domain.CodeInvalid, "limits"},
		{"the revision", "acme", []Limit{{"revision", "9"}}, domain.CodeInvalid, "limits"},
		{"a name twice", "acme", []Limit{{"stale", "1h"}, {"stale", "2h"}}, domain.CodeInvalid, "stale"},
		{"no duration", "acme", []Limit{{"stale", "24"}}, domain.CodeInvalid, "stale"},
		{"a part of a millisecond", "acme", []Limit{{"stale", "1500us"}}, domain.CodeInvalid, "stale"},
		{"no number", "acme", []Limit{{"post_cap_views", "many"}}, domain.CodeInvalid, "post_cap_views"},
		{"a number that is too large", "acme", []Limit{{"post_cap_views", "10001"}}, domain.CodeInvalid, "post_cap_views"},
		{"no choice", "acme", []Limit{{"own_views", "true"}}, domain.CodeInvalid, "own_views"},
		{"stale + future over the window", "acme", []Limit{{"stale", "47h"}, {"future", "2h"}}, domain.CodeInvalid, "stale"},
		{"a window under an hour", "acme", []Limit{{"duplicate_window", "59m"}, {"stale", "30m"}, {"post_cap_window", "30m"}}, domain.CodeInvalid, "duplicate_window"},
		{"a sum that is too large for a duration", "acme", []Limit{{"stale", "2562047h"}, {"future", "2562047h"}}, domain.CodeInvalid, "stale"},
		{"a quota that refills too slowly", "acme", []Limit{{"quota_views_per_minute", "1"}, {"quota_burst_views", "9999"}}, domain.CodeInvalid, "quota_burst_views"},
		{"an unknown tenant", "none", all, domain.CodeNotFound, ""},
		{"a closed tenant", "gone", all, domain.CodeNotFound, ""},
	} {
		_, events, err := SetLimits(in, now, c.tenant, c.changes)
		if domain.CodeOf(err) != c.code || len(events) > 0 || c.field != "" && !strings.HasPrefix(err.Error(), c.field+": ") {
			t.Errorf("%s: %v, %v", c.name, events, err)
		}
	}
}

func TestCloseTenant(t *testing.T) {
	in, key := acme(t)
	install(t, in, domain.KeyIssued{Tenant: "acme", KeyID: "old"}, domain.KeyRevoked{Tenant: "acme", KeyID: "old"}, domain.LimitsSet{Tenant: "odd"})
	if ids := List(in); !slices.Equal(ids, []domain.TenantID{"acme", "gone"}) {
		t.Errorf("tenants %v", ids)
	}
	later := now.Add(time.Hour)
	events, err := CloseTenant(in, later, "acme")
	want := []domain.Event{
		domain.TenantClosed{Tenant: "acme", ClosedAt: later},
		domain.KeyRevoked{Tenant: "acme", KeyID: key.KeyID, Prefix: key.Prefix, RevokedAt: later},
	}
	if err != nil || !slices.Equal(events, want) {
		t.Errorf("%v, %v", events, err)
	}
	install(t, in, events...)
	if got := in.Tenants["acme"]; !got.Closed || got.ClosedAt != later || len(got.Created.WrappedKey) > 0 || len(in.KeysByHash) > 0 {
		t.Errorf("closed: %+v", got)
	}
	if events, err := CloseTenant(in, later, "acme"); len(events) > 0 || err != nil {
		t.Errorf("closed again: %v %v", events, err)
	}
	for _, unknown := range []domain.TenantID{"none", "odd", "", domain.TenantID(strings.Repeat("é", 100))} {
		if _, err := CloseTenant(in, now, unknown); domain.CodeOf(err) != domain.CodeNotFound || len(err.Error()) > 100 {
			t.Errorf("%q: %v", unknown, err)
		}
	}
}

// What remains is said of every topic that holds anything of a tenant, and of the marks that closing leaves.
func TestRemainders(t *testing.T) {
	var said strings.Builder
	for _, r := range Remainders() {
		said.WriteString(r.Where + ": " + r.What + "\n")
	}
	for _, want := range []string{"posts", "audiences", "views", "verdicts", "people", "bodies", "tenants", "topic impressions", "relay", "marks of people who were erased"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("nothing of %s in\n%s", want, said.String())
		}
	}
}

func TestRevokeKey(t *testing.T) {
	in, key := acme(t)
	want := domain.KeyRevoked{Tenant: "acme", KeyID: key.KeyID, Prefix: key.Prefix, RevokedAt: now}
	for _, name := range []string{key.KeyID, key.Prefix, key.Prefix + "_random_text"} {
		if id, events, err := RevokeKey(in, now, "acme", name); id != key.KeyID || err != nil || !slices.Equal(events, []domain.Event{want}) {
			t.Errorf("%s: %s %v %v", name, id, events, err)
		}
	}
	for _, c := range [][2]string{{"acme", "zzzzzzzz"}, {"acme", ""}, {"gone", key.KeyID}, {"none", key.KeyID}} {
		if _, events, err := RevokeKey(in, now, domain.TenantID(c[0]), c[1]); domain.CodeOf(err) != domain.CodeNotFound || len(events) > 0 {
			t.Errorf("%v: %v %v", c, events, err)
		}
	}
	install(t, in, want)
	if k := in.Tenants["acme"].Keys[key.KeyID]; !k.Revoked || k.RevokedAt != now || k.Label != "web" {
		t.Errorf("revoked: %+v", k)
	}
	if id, events, err := RevokeKey(in, now, "acme", key.KeyID); id != key.KeyID || len(events) > 0 || err != nil {
		t.Errorf("revoked again: %s %v %v", id, events, err)
	}
}

func TestRotateSecret(t *testing.T) {
	in, _ := acme(t)
	secret, next := secretOf(t, secretText), secretOf(t, anotherText)
	before, err := secret.Unwrap("acme", in.Tenants["acme"].Created.WrappedKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RotateSecret(in, random(3), next, secretOf(t, strings.Repeat("third", 9))); domain.CodeOf(err) != domain.CodeMisconfigured ||
		!strings.Contains(err.Error(), secret.Fingerprint()) || !strings.Contains(err.Error(), next.Fingerprint()) {
		t.Errorf("with another secret: %v", err)
	}
	events, err := RotateSecret(in, random(3), secret, next)
	if err != nil || len(events) != 2 || events[1] != (domain.SecretRecorded{Fingerprint: next.Fingerprint()}) {
		t.Fatalf("%v, %v", events, err)
	}
	install(t, in, events...)
	got := in.Tenants["acme"].Created
	if key, err := next.Unwrap("acme", got.WrappedKey); err != nil || key != before {
		t.Errorf("the key is another: %v", err)
	}
	if _, err := secret.Unwrap("acme", got.WrappedKey); err == nil {
		t.Error("the old secret opens it still")
	}
	if got.Name != "Acme" || got.CreatedAt != now || got.SecretFingerprint != next.Fingerprint() || !in.Tenants["gone"].Closed || in.Tenants["gone"].Created.WrappedKey != nil {
		t.Errorf("after: %+v, %+v", got, in.Tenants["gone"])
	}
	if events, err := RotateSecret(in, random(3), secret, next); len(events) > 0 || err != nil {
		t.Errorf("again: %v %v", events, err)
	}
	if _, err := RotateSecret(&domain.Installation{}, random(3), secret, next); domain.CodeOf(err) != domain.CodeConflict {
		t.Errorf("before the first tenant: %v", err)
	}
	if _, err := RotateSecret(in, bytes.NewReader(nil), next, secret); err == nil {
		t.Error("rotated without randomness")
	}
	install(t, in, domain.TenantCreated{Tenant: "odd", WrappedKey: []byte("damaged"), CreatedAt: now})
	if events, err := RotateSecret(in, random(3), next, secret); domain.CodeOf(err) != domain.CodeMisconfigured || len(events) > 0 {
		t.Errorf("with a damaged key: %v %v", events, err)
	}
}
