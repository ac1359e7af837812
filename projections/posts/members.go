package posts

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

// Member names a person's membership of an audience, whether it stands or not.
type Member struct {
	Tenant   domain.TenantID
	Audience string
	Person   domain.PersonKey
}

// Key is the record key of the membership's events.
func (m Member) Key() []byte { return domain.MemberKey(m.Tenant, m.Audience, m.Person) }

func compareMembers(a, b Member) int {
	return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Audience, b.Audience), bytes.Compare(a.Person[:], b.Person[:]))
}

// membership is the fold of a batch's events of one member: as if the row was removed first, where it says so, and
// then inserted, where there is a time for it. A member who is added again keeps the first time.
type membership struct {
	removed bool
	added   time.Time // zero: not added since it was removed last
}

func (m *membership) apply(e domain.Event, at time.Time) {
	switch e.(type) {
	case domain.AudienceMemberRemoved:
		*m = membership{removed: true}
	case domain.AudienceMemberAdded:
		if m.added.IsZero() {
			m.added = at
		}
	}
}

var removeMembersSQL = projections.SQL("posts.remove_members", `
DELETE FROM audience_members m
USING unnest(@tenants::text[], @audiences::text[], @persons::bytea[]) AS r (tenant, audience, person)
WHERE m.tenant = r.tenant AND m.audience = r.audience AND m.person = r.person`)

var addMembersSQL = projections.SQL("posts.add_members", `
INSERT INTO audience_members (tenant, audience, person, added_at)
SELECT * FROM unnest(@tenants::text[], @audiences::text[], @persons::bytea[], @times::timestamptz[])
ON CONFLICT (tenant, audience, person) DO NOTHING`)

func applyMembers(ctx context.Context, tx projections.Tx, memberships map[Member]*membership) error {
	var removed, added []Member
	var times []time.Time
	for _, m := range slices.SortedFunc(maps.Keys(memberships), compareMembers) {
		if memberships[m].removed {
			removed = append(removed, m)
		}
		if at := memberships[m].added; !at.IsZero() {
			added, times = append(added, m), append(times, at)
		}
	}
	if len(removed) > 0 {
		if _, err := tx.Exec(ctx, removeMembersSQL, memberArgs(removed)); err != nil {
			return fmt.Errorf("remove members of audiences: %w", err)
		}
	}
	if len(added) > 0 {
		args := memberArgs(added)
		args["times"] = times
		if _, err := tx.Exec(ctx, addMembersSQL, args); err != nil {
			return fmt.Errorf("add members of audiences: %w", err)
		}
	}
	return nil
}

func memberArgs(members []Member) pgx.NamedArgs {
	tenants, audiences, persons := make([]string, len(members)), make([]string, len(members)), make([][]byte, len(members))
	for i, m := range members {
		tenants[i], audiences[i], persons[i] = string(m.Tenant), m.Audience, m.Person[:]
	}
	return pgx.NamedArgs{"tenants": tenants, "audiences": audiences, "persons": persons}
}

// AudienceMember is a row of an audience's list.
type AudienceMember struct {
	Person  domain.PersonKey
	AddedAt time.Time
}

var membersSQL = projections.SQL("posts.members", `
SELECT m.person, m.added_at
FROM audience_members m
WHERE m.tenant = @tenant AND m.audience = @audience AND m.person > @after::bytea
ORDER BY m.person
LIMIT @limit`)

// Members gives the members of an audience by their person keys, from after on; nil: from the start. The order
// means nothing to people, and stays while members come and go.
func Members(ctx context.Context, q projections.Querier, tenant domain.TenantID, audience string, after *domain.PersonKey, limit int) ([]AudienceMember, error) {
	from := []byte{}
	if after != nil {
		from = after[:]
	}
	rows, err := q.Query(ctx, membersSQL, pgx.NamedArgs{"tenant": string(tenant), "audience": audience, "after": from, "limit": limit})
	if err != nil {
		return nil, fmt.Errorf("read members of an audience: %w", err)
	}
	members, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m AudienceMember, err error) {
		var person []byte
		if err = row.Scan(&person, &m.AddedAt); err == nil {
			m.Person, m.AddedAt = domain.PersonKey(person), m.AddedAt.UTC()
		}
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("read members of an audience: %w", err)
	}
	return members, nil
}
