package tenancy

import (
	"fmt"
	"io"
	"time"

	"seenby/domain"
)

// Lengths of what people write, in bytes.
const (
	nameBytesMax  = 255
	labelBytesMax = 255
)

// CreateTenant decides what opens a tenant: the mark of the installation's secret where none stands yet, the
// tenant with its own key wrapped, and its first limits. An existing or closed tenant is CodeConflict, another
// secret CodeMisconfigured.
func CreateTenant(in *domain.Installation, rand io.Reader, now time.Time, secret *Secret, id domain.TenantID, name string) ([]domain.Event, error) {
	if err := domain.CheckTenantID(string(id)); err != nil {
		return nil, err
	}
	if name == "" {
		name = string(id)
	}
	if err := checkText("name", name, nameBytesMax); err != nil {
		return nil, err
	}
	if err := secret.check(in.Fingerprint); err != nil {
		return nil, err
	}
	if t := in.Tenants[id]; t != nil && exists(t) {
		return nil, domain.Errorf(domain.CodeConflict, "there is a tenant %s already; ids are never used again", id)
	}
	var key domain.TenantKey
	if _, err := io.ReadFull(rand, key[:]); err != nil {
		return nil, fmt.Errorf("read random tenant key: %w", err)
	}
	wrapped, err := secret.Wrap(rand, id, key)
	if err != nil {
		return nil, err
	}
	var events []domain.Event
	if in.Fingerprint == "" {
		events = append(events, domain.SecretRecorded{Fingerprint: secret.Fingerprint()})
	}
	return append(events,
		domain.TenantCreated{Tenant: id, Name: name, WrappedKey: wrapped, SecretFingerprint: secret.Fingerprint(), CreatedAt: now},
		domain.LimitsSet{Tenant: id, Limits: domain.DefaultLimits(), SetAt: now},
	), nil
}

// IssueKey decides a new API key of a tenant: the plain text to show once, and the event to append. An unknown
// or closed tenant is CodeNotFound.
func IssueKey(in *domain.Installation, rand io.Reader, now time.Time, tenant domain.TenantID, label string) (plain string, event domain.KeyIssued, err error) {
	t, err := open(in, tenant)
	if err != nil {
		return "", domain.KeyIssued{}, err
	}
	if err := checkText("label", label, labelBytesMax); err != nil {
		return "", domain.KeyIssued{}, err
	}
	plain, event, err = NewKey(rand)
	if err != nil {
		return "", domain.KeyIssued{}, err
	}
	if _, taken := t.Keys[event.KeyID]; taken {
		// One in 10^12; the command can simply be repeated, an overwritten key could not be.
		return "", domain.KeyIssued{}, domain.Errorf(domain.CodeConflict, "the key id %s is taken; run the command again", event.KeyID)
	}
	event.Tenant, event.Label, event.IssuedAt = tenant, label, now
	return plain, event, nil
}

// exists tells a tenant that was created from one of which only keys or limits were read.
func exists(t *domain.Tenant) bool {
	return t.Closed || !t.Created.CreatedAt.IsZero() || len(t.Created.WrappedKey) > 0
}

func checkText(field, text string, bytesMax int) error {
	if text == "" {
		return nil
	}
	if len(text) > bytesMax {
		return domain.Invalid(field, "is %d bytes long; at most %d are allowed", len(text), bytesMax)
	}
	return domain.CheckID(field, text)
}
