package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"

	"seenby/domain"
	"seenby/internal/tenancy"
	"seenby/projections/posts"
)

// MembersInput is the body of a batch of an audience's members.
type MembersInput struct {
	Add    []string `json:"add,omitempty" maxItems:"1000" doc:"The app's own ids of who is to be in the audience."`
	Remove []string `json:"remove,omitempty" maxItems:"1000" doc:"And of who is not. Nobody stands in both; 1 to 1,000 in all."`
}

// MembersAccepted is the answer to a write of members.
type MembersAccepted struct {
	_        struct{} `json:"-" additionalProperties:"true"`
	Accepted int      `json:"accepted" doc:"Members whose change stands in the log."`
}

// Members is one page of an audience's members.
type Members struct {
	_          struct{} `json:"-" additionalProperties:"true"`
	Members    []Member `json:"members" nullable:"false" doc:"In an order that stays while members come and go."`
	NextCursor string   `json:"next_cursor,omitempty" doc:"Absent on the last page."`
}

// Member is one person of an audience.
type Member struct {
	_       struct{}  `json:"-" additionalProperties:"true"`
	Viewer  *string   `json:"viewer" doc:"The app's own id; null while the name has not reached the read models, or once it was erased."`
	AddedAt time.Time `json:"added_at"`
}

type membersWritten struct {
	Status   int
	Position string `header:"Seenby-Position" doc:"Covers all that the write appended; send it as Seenby-Wait-For."`
	Body     MembersAccepted
}

type membersOutput struct{ Body Members }

var readsOfMembers = reads{
	domain.TopicAudiences: {projectionPosts},
	domain.TopicPeople:    {projectionPeople},
}

const membersMax = 1000

func (s *server) putMemberOperation() huma.Operation {
	return huma.Operation{
		OperationID: "put-member", Method: http.MethodPut, Path: "/v1/audiences/{audience}/members/{viewer}", Summary: "Add a member to an audience",
		DefaultStatus: http.StatusAccepted,
		Description:   "Repeatable. 202: it stands in the log; a view reported after it is judged with it. An audience needs no creation: it is whoever is in it.",
	}
}

func (s *server) deleteMemberOperation() huma.Operation {
	return huma.Operation{
		OperationID: "delete-member", Method: http.MethodDelete, Path: "/v1/audiences/{audience}/members/{viewer}", Summary: "Remove a member from an audience",
		DefaultStatus: http.StatusAccepted,
		Description:   "Repeatable, also for somebody who is no member. Views that were counted stay counted.",
	}
}

func (s *server) membersBatchOperation(api huma.API) huma.Operation {
	return huma.Operation{
		OperationID: "change-members", Method: http.MethodPost, Path: "/v1/audiences/{audience}/members:batch", Summary: "Add and remove up to 1,000 members",
		DefaultStatus: http.StatusAccepted,
		Description:   "All of it or, where anything is wrong with it, none. Repeatable: after a 503 send it again.",
		RequestBody:   jsonBody[MembersInput](api),
		Errors:        []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge},
	}
}

func (s *server) getMembersOperation() huma.Operation {
	return huma.Operation{
		OperationID: "get-members", Method: http.MethodGet, Path: "/v1/audiences/{audience}/members", Summary: "List the members of an audience",
		Description: "An audience that nobody is in has an empty list.",
		Errors:      []int{http.StatusGatewayTimeout},
	}
}

type memberPath struct {
	Audience string `path:"audience" minLength:"1" maxLength:"255" doc:"The name after audience: in a post's audience."`
	Viewer   string `path:"viewer" minLength:"1" maxLength:"255"`
}

func (s *server) putMember(ctx context.Context, in *memberPath) (*membersWritten, error) {
	return s.changeMembers(ctx, in.Audience, MembersInput{Add: []string{in.Viewer}}, "viewer")
}

func (s *server) deleteMember(ctx context.Context, in *memberPath) (*membersWritten, error) {
	return s.changeMembers(ctx, in.Audience, MembersInput{Remove: []string{in.Viewer}}, "viewer")
}

func (s *server) membersBatch(ctx context.Context, in *struct {
	Audience string `path:"audience" minLength:"1" maxLength:"255"`
	RawBody  []byte
}) (*membersWritten, error) {
	var members MembersInput
	if err := json.Unmarshal(in.RawBody, &members, json.RejectUnknownMembers(true)); err != nil {
		return nil, jsonProblem(err)
	}
	switch n := len(members.Add) + len(members.Remove); {
	case n == 0:
		return nil, domain.Invalid("add", "is required, or remove: 1 to %d ids", membersMax)
	case n > membersMax:
		return nil, domain.Invalid("add", "and remove hold %d ids; at most %d are allowed", n, membersMax)
	}
	return s.changeMembers(ctx, in.Audience, members, "")
}

// changeMembers appends the changes with the names of people who are met for the first time. field names the id
// where there is but one.
func (s *server) changeMembers(ctx context.Context, audience string, in MembersInput, field string) (*membersWritten, error) {
	tenant := tenantOf(ctx)
	if err := domain.CheckID("audience", audience); err != nil {
		return nil, err
	}
	if err := in.check(field); err != nil {
		return nil, err
	}
	met := meeting{known: s.people, tenant: tenant}
	events := make([]domain.Event, 0, len(in.Add)+len(in.Remove))
	for _, id := range in.Add {
		person, named := met.person(id)
		if named != nil {
			events = append(events, *named)
		}
		events = append(events, domain.AudienceMemberAdded{Tenant: tenant.ID, Audience: audience, Person: person, EventID: domain.EventID(s.deps.NewID())})
	}
	for _, id := range in.Remove {
		// To remove somebody names nobody.
		person := domain.NewPersonKey(tenant.Key, domain.PersonKnown, id)
		events = append(events, domain.AudienceMemberRemoved{Tenant: tenant.ID, Audience: audience, Person: person, EventID: domain.EventID(s.deps.NewID())})
	}
	appending, cancel := s.appending(ctx)
	defer cancel()
	positions, err := s.append(appending, events)
	if err != nil {
		return nil, err
	}
	met.acknowledged()
	return &membersWritten{
		Status: http.StatusAccepted, Position: tenancy.SealPositions(tenant.Key, positions),
		Body: MembersAccepted{Accepted: len(in.Add) + len(in.Remove)},
	}, nil
}

// check looks at every id. One in both lists would be in or out by chance: the order of two lists means nothing.
func (in MembersInput) check(field string) error {
	at := func(list string, i int) string { return cmp.Or(field, list+"."+strconv.Itoa(i)) }
	adds := make(map[string]bool, len(in.Add))
	for i, id := range in.Add {
		if err := domain.CheckID(at("add", i), id); err != nil {
			return err
		}
		adds[id] = true
	}
	for i, id := range in.Remove {
		if err := domain.CheckID(at("remove", i), id); err != nil {
			return err
		}
		if adds[id] {
			return domain.Invalid(at("remove", i), "stands in add, too")
		}
	}
	return nil
}

func (s *server) getMembers(ctx context.Context, in *struct {
	WaitParams
	Audience string `path:"audience" minLength:"1" maxLength:"255"`
	Limit    string `query:"limit" example:"50" doc:"1 to 200; default 50."`
	Cursor   string `query:"cursor" doc:"next_cursor of the page before."`
}) (*membersOutput, error) {
	tenant := tenantOf(ctx)
	if err := domain.CheckID("audience", in.Audience); err != nil {
		return nil, err
	}
	limit, err := parseLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	after, err := openMembersCursor(tenant.Key, in.Audience, in.Cursor)
	if err != nil {
		return nil, err
	}
	out := &membersOutput{}
	err = s.answer(ctx, tenant, in.WaitParams, readsOfMembers, func(ctx context.Context, r reader) error {
		// One more than the page tells whether there is another.
		rows, err := r.members(ctx, tenant.ID, in.Audience, after, limit+1)
		if err != nil {
			return err
		}
		if len(rows) > limit {
			rows = rows[:limit]
			out.Body.NextCursor = sealList(tenant.Key, listOf("members", in.Audience), rows[limit-1].Person[:])
		}
		return out.fill(ctx, r, tenant.ID, rows)
	})
	return out, err
}

func (out *membersOutput) fill(ctx context.Context, r reader, tenant domain.TenantID, rows []posts.AudienceMember) error {
	persons := make([]domain.PersonKey, len(rows))
	for i, m := range rows {
		persons[i] = m.Person
	}
	names, err := r.names(ctx, tenant, persons)
	if err != nil {
		return err
	}
	out.Body.Members = make([]Member, len(rows))
	for i, m := range rows {
		out.Body.Members[i] = Member{Viewer: nameOf(names, m.Person), AddedAt: m.AddedAt.UTC()}
	}
	return nil
}

// openMembersCursor gives nil for an empty cursor: the first page.
func openMembersCursor(key domain.TenantKey, audience, cursor string) (*domain.PersonKey, error) {
	b, err := openList(key, listOf("members", audience), cursor)
	if err != nil || b == nil {
		return nil, err
	}
	if len(b) != len(domain.PersonKey{}) {
		return nil, errCursor
	}
	at := domain.PersonKey(b)
	return &at, nil
}
