// Package people is the read model of the app's own ids: person key to id.
//
// It folds the compacted topic people into the table people. A name and an Erased mark have record keys of
// their own, so they may come in either order and through two projectors at once: one row per person holds
// both, and the mark wins whatever comes later. A name's tombstone takes the row away, a mark stays for ever.
package people

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// Name is the projection's name.
const Name = "people"

// Projection folds names, their tombstones and Erased marks.
type Projection struct{}

var _ projections.Projection = Projection{}

// Name implements projections.Projection.
func (Projection) Name() string { return Name }

// FoldVersion implements projections.Projection.
func (Projection) FoldVersion() int { return 1 }

// Topics implements projections.Projection.
func (Projection) Topics() []domain.Topic { return []domain.Topic{domain.TopicPeople} }

// Tables implements projections.Projection.
func (Projection) Tables() []string { return []string{"people"} }

// Check implements projections.Projection.
func (Projection) Check(r domain.Record) error {
	switch e := r.Event.(type) {
	case domain.PersonNamed:
		if err := domain.CheckTenantID(string(e.Ref.Tenant)); err != nil {
			return err
		}
		return domain.CheckID("id", e.ID)
	case domain.PersonErased:
		if err := domain.CheckTenantID(string(e.Ref.Tenant)); err != nil {
			return err
		}
		return projections.CheckGivenTime("erased_at", e.ErasedAt)
	case domain.PersonForgotten:
		return domain.CheckTenantID(string(e.Ref.Tenant))
	}
	return domain.ErrUnknownEvent
}

// OrderKey implements projections.Projection: a name and its tombstone are in order, the mark has a key of its
// own and commutes.
func (Projection) OrderKey(r domain.Record) string { return string(r.Key) }

// change is what a batch does to a person.
type change struct {
	id        *string // named: the id
	forgotten bool    // the name's tombstone came last
	erasedAt  time.Time
}

// An erased person is never named again. Forgotten people are in it too, without an id: so all rows of a batch are
// locked by one statement, sorted by key, and two projectors cannot deadlock.
var writeSQL = projections.SQL("people.write", `
INSERT INTO people AS p (tenant, person, id, erased_at)
SELECT * FROM unnest(@tenants::text[], @persons::bytea[], @ids::text[], @erased::timestamptz[])
ON CONFLICT (tenant, person) DO UPDATE
SET id = CASE WHEN p.erased_at IS NULL AND EXCLUDED.erased_at IS NULL THEN EXCLUDED.id END,
    erased_at = COALESCE(EXCLUDED.erased_at, p.erased_at)`)

var forgetSQL = projections.SQL("people.forget", `
DELETE FROM people p
USING unnest(@tenants::text[], @persons::bytea[]) AS f (tenant, person)
WHERE p.tenant = f.tenant AND p.person = f.person AND p.id IS NULL AND p.erased_at IS NULL`)

// Apply implements projections.Projection.
func (Projection) Apply(ctx context.Context, tx projections.Tx, batch []domain.Record) error {
	changes := fold(batch)
	if len(changes) == 0 {
		return nil
	}
	all := slices.SortedFunc(maps.Keys(changes), func(a, b domain.PersonRef) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), bytes.Compare(a.Person[:], b.Person[:]))
	})
	var forgotten []domain.PersonRef
	ids, erased := make([]*string, len(all)), make([]*time.Time, len(all))
	for i, ref := range all {
		switch c := changes[ref]; {
		case !c.erasedAt.IsZero():
			erased[i] = &c.erasedAt
		case c.forgotten:
			forgotten = append(forgotten, ref)
		default:
			ids[i] = c.id
		}
	}
	args := refArgs(all)
	args["ids"], args["erased"] = ids, erased
	if _, err := tx.Exec(ctx, writeSQL, args); err != nil {
		return fmt.Errorf("write people: %w", err)
	}
	if len(forgotten) > 0 {
		if _, err := tx.Exec(ctx, forgetSQL, refArgs(forgotten)); err != nil {
			return fmt.Errorf("forget people: %w", err)
		}
	}
	return nil
}

func fold(batch []domain.Record) map[domain.PersonRef]change {
	changes := make(map[domain.PersonRef]change, len(batch))
	for _, r := range batch {
		switch e := r.Event.(type) {
		case domain.PersonNamed:
			c := changes[e.Ref]
			c.id, c.forgotten = &e.ID, false
			changes[e.Ref] = c
		case domain.PersonForgotten:
			c := changes[e.Ref]
			c.id, c.forgotten = nil, true
			changes[e.Ref] = c
		case domain.PersonErased:
			// The last mark stands, since compaction keeps no other.
			c := changes[e.Ref]
			c.erasedAt = projections.Micros(e.ErasedAt)
			changes[e.Ref] = c
		}
	}
	return changes
}

func refArgs(refs []domain.PersonRef) pgx.NamedArgs {
	tenants, persons := make([]string, len(refs)), make([][]byte, len(refs))
	for i := range refs {
		tenants[i], persons[i] = string(refs[i].Tenant), refs[i].Person[:]
	}
	return pgx.NamedArgs{"tenants": tenants, "persons": persons}
}

var erasedSQL = projections.SQL("people.erased", `
SELECT count(*) > 0
FROM people p
WHERE p.tenant = @tenant AND p.person = @person AND p.erased_at IS NOT NULL`)

// Erased tells whether the read model holds the person's Erased mark, and so will never name the person again.
func Erased(ctx context.Context, q projections.Querier, person domain.PersonRef) (bool, error) {
	var erased bool
	err := q.QueryRow(ctx, erasedSQL, pgx.NamedArgs{"tenant": string(person.Tenant), "person": person.Person[:]}).Scan(&erased)
	if err != nil {
		return false, fmt.Errorf("read erased person: %w", err)
	}
	return erased, nil
}

var namesSQL = projections.SQL("people.names", `
SELECT p.person, p.id
FROM people p
WHERE p.tenant = @tenant AND p.person = ANY(@persons::bytea[]) AND p.id IS NOT NULL`)

// Names gives the app's own ids of people. One who was erased, or whose name has not come yet, is not in the map.
func Names(ctx context.Context, q projections.Querier, tenant domain.TenantID, people []domain.PersonKey) (map[domain.PersonKey]string, error) {
	persons := make([][]byte, len(people))
	for i := range people {
		persons[i] = people[i][:]
	}
	rows, err := q.Query(ctx, namesSQL, pgx.NamedArgs{"tenant": string(tenant), "persons": persons})
	if err != nil {
		return nil, fmt.Errorf("read people: %w", err)
	}
	names := make(map[domain.PersonKey]string, len(people))
	var person []byte
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&person, &id}, func() error {
		names[domain.PersonKey(person)] = id
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read people: %w", err)
	}
	return names, nil
}
