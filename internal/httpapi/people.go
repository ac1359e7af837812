package httpapi

import (
	"fmt"
	"strings"

	"github.com/maypok86/otter/v2"

	"seenby/domain"
	"seenby/internal/tenancy"
)

// knownPeople remembers whose name this process has appended, with the person key, so that a view of a known
// viewer costs neither an HMAC nor a record. Forgetting is harmless: the name is appended again, on a compacted
// topic. It is safe for concurrent use.
type knownPeople struct {
	cache *otter.Cache[appPerson, domain.PersonKey]
}

type appPerson struct {
	tenant domain.TenantID
	id     string // the app's own
}

func newKnownPeople(most int) (*knownPeople, error) {
	cache, err := otter.New(&otter.Options[appPerson, domain.PersonKey]{MaximumSize: most})
	if err != nil {
		return nil, fmt.Errorf("make cache of people: %w", err)
	}
	return &knownPeople{cache}, nil
}

// meeting is one request's dealings with people: those it meets for the first time become events, and are known
// once those are acknowledged.
type meeting struct {
	known  *knownPeople
	tenant tenancy.TenantHandle
	fresh  map[string]domain.PersonKey
}

// person is the person key of an app's id, and the event that names the person where this process is not known
// to have appended it.
func (m *meeting) person(id string) (domain.PersonKey, *domain.PersonNamed) {
	if key, ok := m.known.cache.GetIfPresent(appPerson{m.tenant.ID, id}); ok {
		return key, nil
	}
	if key, ok := m.fresh[id]; ok {
		return key, nil
	}
	// The id may be cut from a request's body, which a longer-lived map must not keep alive.
	id = strings.Clone(id)
	key := domain.NewPersonKey(m.tenant.Key, domain.PersonKnown, id)
	if m.fresh == nil {
		m.fresh = map[string]domain.PersonKey{}
	}
	m.fresh[id] = key
	return key, &domain.PersonNamed{Ref: domain.PersonRef{Tenant: m.tenant.ID, Person: key}, ID: id}
}

// acknowledged is called once the events of person are.
func (m *meeting) acknowledged() {
	for id, key := range m.fresh {
		m.known.cache.Set(appPerson{m.tenant.ID, id}, key)
	}
	m.fresh = nil
}
