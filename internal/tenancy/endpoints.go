package tenancy

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"seenby/domain"
)

const (
	// endpointMark begins an endpoint's id, so that it is not taken for that of an API key.
	endpointMark = "ep_"
	// endpointIDChars of 32 letters are 60 bits: no two endpoints of a tenant have one id, and a new one never gets the
	// secrets of another.
	endpointIDChars = 12
	// endpointURLBytesMax is what common servers and proxies take of a request's first line, with room to spare.
	endpointURLBytesMax = 2000
	// endpointsEnabledMax: every change is sent to each of them. That is room for a core system, the one it moves to, and some
	// trials, and bounds what one change costs.
	endpointsEnabledMax = 5
	// milestonesMax: each change is held against all of a tenant's, and a post that passes them all at once sets off as many calls.
	milestonesMax = 20
	// milestoneMax is as far as a number in JSON is exact wherever it is read.
	milestoneMax = int64(1) << 53
)

// CreateEndpoint decides a further endpoint of a tenant, enabled, with the first of its secrets. Whether the address may be
// called is looked at before; here it is only an http or https URL of 1 to 2,000 bytes, else CodeInvalid. CodeConflict: an
// enabled endpoint has the URL already, or there are as many as there may be.
func CreateEndpoint(in *domain.Installation, rand io.Reader, now time.Time, tenant domain.TenantID, address string, allowPrivate bool) (domain.EndpointSet, []domain.Event, error) {
	t, err := open(in, tenant)
	if err != nil {
		return domain.EndpointSet{}, nil, err
	}
	if err := checkEndpointURL(address); err != nil {
		return domain.EndpointSet{}, nil, err
	}
	if err := roomFor(t, tenant, address); err != nil {
		return domain.EndpointSet{}, nil, err
	}
	var random [endpointIDChars]byte
	if _, err := io.ReadFull(rand, random[:]); err != nil {
		return domain.EndpointSet{}, nil, fmt.Errorf("read random endpoint id: %w", err)
	}
	id := endpointMark + spell(random[:])
	if _, taken := t.Endpoints[id]; taken {
		return domain.EndpointSet{}, nil, domain.Errorf(domain.CodeConflict, "the endpoint id %s is taken; run the command again", id)
	}
	e := domain.EndpointSet{Tenant: tenant, EndpointID: id, URL: address, SecretGeneration: 1, AllowPrivate: allowPrivate, CreatedAt: now}
	return e, []domain.Event{e}, nil
}

func checkEndpointURL(address string) error {
	const field = "url"
	switch {
	case address == "":
		return domain.Invalid(field, "is required")
	case len(address) > endpointURLBytesMax:
		return domain.Invalid(field, "is %d bytes long; at most %d are allowed", len(address), endpointURLBytesMax)
	case strings.ContainsFunc(address, func(c rune) bool { return c <= ' ' || c > '~' }):
		return domain.Invalid(field, "must be ASCII without spaces; write other characters as %%XX, and in a host's name as xn--")
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return domain.Invalid(field, "must be an http or https URL, such as https://core.example/seenby")
	}
	return nil
}

// roomFor tells whether a tenant may have one more enabled endpoint, of this URL: else CodeConflict.
func roomFor(t *domain.Tenant, tenant domain.TenantID, address string) error {
	enabled := 0
	for _, e := range sortedEndpoints(t) {
		if !e.Enabled() {
			continue
		}
		enabled++
		if e.URL == address {
			return domain.Errorf(domain.CodeConflict, "endpoint %s of tenant %s has this URL and is enabled", e.EndpointID, tenant)
		}
	}
	if enabled >= endpointsEnabledMax {
		return domain.Errorf(domain.CodeConflict, "tenant %s has %d enabled endpoints, as many as it may; disable one: `seenby relay endpoints list %s` shows them", tenant, enabled, tenant)
	}
	return nil
}

// DisableEndpoint decides that an endpoint is sent nothing any more; reason is for people, and may be empty. One that is
// disabled already gives no event, and keeps its reason.
func DisableEndpoint(in *domain.Installation, now time.Time, tenant domain.TenantID, id, reason string) (domain.EndpointSet, []domain.Event, error) {
	e, err := EndpointOf(in, tenant, id)
	if err != nil {
		return domain.EndpointSet{}, nil, err
	}
	if err := checkText("reason", reason, labelBytesMax); err != nil {
		return domain.EndpointSet{}, nil, err
	}
	if !e.Enabled() {
		return e, nil, nil
	}
	e.DisabledAt, e.DisabledReason = now, reason
	return e, []domain.Event{e}, nil
}

// EnableEndpoint decides that a disabled endpoint is sent to again, within the bounds of CreateEndpoint. One that is enabled
// gives no event.
func EnableEndpoint(in *domain.Installation, tenant domain.TenantID, id string) (domain.EndpointSet, []domain.Event, error) {
	e, err := EndpointOf(in, tenant, id)
	if err != nil || e.Enabled() {
		return e, nil, err
	}
	if err := roomFor(in.Tenants[tenant], tenant, e.URL); err != nil {
		return domain.EndpointSet{}, nil, err
	}
	e.DisabledAt, e.DisabledReason = time.Time{}, ""
	return e, []domain.Event{e}, nil
}

// RotateEndpoint decides a new secret of an endpoint; the one before signs too until OverlapEnds. While an earlier rotation's
// overlap runs it is CodeConflict, unless forced: then the oldest of the three secrets signs nothing any more, at once.
func RotateEndpoint(in *domain.Installation, now time.Time, tenant domain.TenantID, id string, force bool) (domain.EndpointSet, []domain.Event, error) {
	e, err := EndpointOf(in, tenant, id)
	if err != nil {
		return domain.EndpointSet{}, nil, err
	}
	if ends := OverlapEnds(e); now.Before(ends) && !force {
		return domain.EndpointSet{}, nil, domain.Errorf(domain.CodeConflict,
			"the rotation before lets two secrets of endpoint %s sign until %s: a receiver may have the older one still. Wait, or drop that one at once by --force",
			id, ends.UTC().Format(time.RFC3339))
	}
	e.SecretGeneration++
	e.RotatedAt = now
	return e, []domain.Event{e}, nil
}

// OverlapEnds is until when the secret before the present one signs too; zero where there is none.
func OverlapEnds(e domain.EndpointSet) time.Time {
	if e.SecretGeneration < 2 || e.RotatedAt.IsZero() {
		return time.Time{}
	}
	return e.RotatedAt.Add(domain.SecretOverlap)
}

// EndpointOf finds an endpoint of an open tenant, enabled or not; an unknown one is CodeNotFound.
func EndpointOf(in *domain.Installation, tenant domain.TenantID, id string) (domain.EndpointSet, error) {
	t, err := open(in, tenant)
	if err != nil {
		return domain.EndpointSet{}, err
	}
	if e, ok := t.Endpoints[id]; ok {
		return e, nil
	}
	// What was given is not repeated: it may be a secret.
	return domain.EndpointSet{}, domain.Errorf(domain.CodeNotFound, "tenant %s has no endpoint of this id; `seenby relay endpoints list %s` shows its endpoints", tenant, tenant)
}

// EndpointsOf lists the endpoints of an open tenant, enabled and not, by their ids.
func EndpointsOf(in *domain.Installation, tenant domain.TenantID) ([]domain.EndpointSet, error) {
	t, err := open(in, tenant)
	if err != nil {
		return nil, err
	}
	return sortedEndpoints(t), nil
}

func sortedEndpoints(t *domain.Tenant) []domain.EndpointSet {
	if len(t.Endpoints) == 0 {
		return nil
	}
	out := make([]domain.EndpointSet, 0, len(t.Endpoints))
	for _, e := range t.Endpoints {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b domain.EndpointSet) int { return cmp.Compare(a.EndpointID, b.EndpointID) })
	return out
}

// RelayOf is what an open tenant's core system is told; where nothing was ever set, nothing.
func RelayOf(in *domain.Installation, tenant domain.TenantID) (domain.RelaySet, error) {
	t, err := open(in, tenant)
	if err != nil {
		return domain.RelaySet{}, err
	}
	relay := t.Relay
	relay.Tenant = tenant
	return relay, nil
}

// SetRelay decides whether a tenant's core system is told anything, and of which milestones, in any order; what is nil stays
// as it is, and milestones that are empty but not nil are none. What changes nothing gives no event. CodeInvalid: a milestone
// that is under 1, over 2^53 or there twice, and more than 20.
func SetRelay(in *domain.Installation, now time.Time, tenant domain.TenantID, enabled *bool, milestones []int64) (domain.RelaySet, []domain.Event, error) {
	stands, err := RelayOf(in, tenant)
	if err != nil {
		return domain.RelaySet{}, nil, err
	}
	relay := stands
	if enabled != nil {
		relay.Enabled = *enabled
	}
	if milestones != nil {
		relay.Milestones = slices.Sorted(slices.Values(milestones))
		if err := checkMilestones(relay.Milestones); err != nil {
			return domain.RelaySet{}, nil, err
		}
	}
	if relay.Enabled == stands.Enabled && slices.Equal(relay.Milestones, stands.Milestones) {
		return stands, nil, nil
	}
	relay.SetAt = now
	return relay, []domain.Event{relay}, nil
}

func checkMilestones(sorted []int64) error {
	const field = "milestones"
	if len(sorted) > milestonesMax {
		return domain.Invalid(field, "are %d; at most %d are allowed", len(sorted), milestonesMax)
	}
	for i, m := range sorted {
		switch {
		case m < 1 || m > milestoneMax:
			return domain.Invalid(field, "must be 1 to %d impressions; %d is not", milestoneMax, m)
		case i > 0 && m == sorted[i-1]:
			return domain.Invalid(field, "%d is given twice", m)
		}
	}
	return nil
}

const (
	// webhookDomain keeps these secrets apart from tokens, person keys and digests, which use the tenant's key too.
	webhookDomain = "seenby webhook secret v1"
	// webhookMark begins a secret as Standard Webhooks writes it; base64 of the secret's bytes follows.
	webhookMark = "whsec_"
)

// WebhookSecret is a secret of an endpoint, from generation 1 on, as it is given to the receiver: whsec_ and base64 of 32
// bytes. It is stored nowhere: without the tenant's key nobody can make it, and with the key gone it is gone.
func WebhookSecret(key domain.TenantKey, endpointID string, generation int64) string {
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte(webhookDomain))
	h.Write([]byte(endpointID))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(generation))) //nolint:gosec // never negative; of fixed length, so the id needs no end
	return webhookMark + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// EndpointSecrets are the secrets that sign what an endpoint is sent at a time, newest first: one, or two in an overlap.
func EndpointSecrets(key domain.TenantKey, e domain.EndpointSet, now time.Time) []string {
	secrets := []string{WebhookSecret(key, e.EndpointID, e.SecretGeneration)}
	if now.Before(OverlapEnds(e)) {
		secrets = append(secrets, WebhookSecret(key, e.EndpointID, e.SecretGeneration-1))
	}
	return secrets
}
