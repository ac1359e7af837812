package adminapi

import (
	"context"
	"strconv"

	"seenby/domain"
	"seenby/internal/httpapi"
	"seenby/internal/tenancy"
)

// TenantInput is the body that creates a tenant.
type TenantInput struct {
	ID   string `json:"id" minLength:"1" maxLength:"63" pattern:"^[a-z0-9-]+$"`
	Name string `json:"name,omitempty" maxLength:"255" doc:"For people. Default: the id."`
}

// LimitsInput is the body that changes limits; see Limits.
type LimitsInput struct {
	DuplicateWindow      *string `json:"duplicate_window,omitempty" example:"25h"`
	Stale                *string `json:"stale,omitempty" example:"24h"`
	Future               *string `json:"future,omitempty" example:"10m"`
	QuotaViewsPerMinute  *int64  `json:"quota_views_per_minute,omitempty"`
	QuotaBurstViews      *int64  `json:"quota_burst_views,omitempty"`
	PostCapViews         *int64  `json:"post_cap_views,omitempty"`
	PostCapWindow        *string `json:"post_cap_window,omitempty" example:"1h"`
	OwnViews             *string `json:"own_views,omitempty" enum:"count,refuse"`
	UnknownPosts         *string `json:"unknown_posts,omitempty" enum:"refuse,count"`
	IntakeViewsPerSecond *int64  `json:"intake_views_per_second,omitempty"`
}

func (in LimitsInput) changes() (changes []tenancy.Limit) {
	text := func(name string, v *string) {
		if v != nil {
			changes = append(changes, tenancy.Limit{Name: name, Value: *v})
		}
	}
	number := func(name string, v *int64) {
		if v != nil {
			changes = append(changes, tenancy.Limit{Name: name, Value: strconv.FormatInt(*v, 10)})
		}
	}
	text("duplicate_window", in.DuplicateWindow)
	text("stale", in.Stale)
	text("future", in.Future)
	number("quota_views_per_minute", in.QuotaViewsPerMinute)
	number("quota_burst_views", in.QuotaBurstViews)
	number("post_cap_views", in.PostCapViews)
	text("post_cap_window", in.PostCapWindow)
	text("own_views", in.OwnViews)
	text("unknown_posts", in.UnknownPosts)
	number("intake_views_per_second", in.IntakeViewsPerSecond)
	return changes
}

// TenantPath is what most routes have in common; it is exported because huma fills it.
type TenantPath struct {
	Tenant string `path:"tenant" doc:"Id of the tenant."`
}

func (p TenantPath) id() domain.TenantID { return domain.TenantID(p.Tenant) }

type answered[T any] struct {
	CacheControl string `header:"Cache-Control" hidden:"true"`
	Body         T
}

// answer is never kept by a cache: it may hold a key, and what stands may change at any time.
func answer[T any](body T) *answered[T] { return &answered[T]{CacheControl: "no-store", Body: body} }

// Tenants is the answer of GET /v1/tenants.
type Tenants struct {
	_       struct{} `json:"-" additionalProperties:"true"`
	Tenants []Tenant `json:"tenants" nullable:"false"`
}

// TenantsOf lists all tenants, by id.
func TenantsOf(in *domain.Installation) Tenants {
	out := Tenants{Tenants: []Tenant{}}
	for _, id := range tenancy.List(in) {
		out.Tenants = append(out.Tenants, TenantOf(id, in.Tenants[id]))
	}
	return out
}

func (s *server) listTenants(ctx context.Context, _ *struct{}) (*answered[Tenants], error) {
	in, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	return answer(TenantsOf(in)), nil
}

func (s *server) createTenant(ctx context.Context, req *struct{ RawBody []byte }) (*answered[Tenant], error) {
	var body TenantInput
	if err := httpapi.ParseBody(req.RawBody, &body); err != nil {
		return nil, err
	}
	id := domain.TenantID(body.ID)
	in, err := s.change(ctx, func(in *domain.Installation) ([]domain.Event, error) {
		return tenancy.CreateTenant(in, s.deps.Rand, s.deps.Now(), s.deps.Secret, id, body.Name)
	})
	if domain.CodeOf(err) == domain.CodeMisconfigured {
		// The secret was rotated since this process started: it says so to operators, who can do something about it.
		return nil, domain.Errorf(domain.CodeConflict, "this process cannot create tenants; restart it with the installation's present secret").Because(err)
	}
	if err != nil {
		return nil, err
	}
	return answer(TenantOf(id, in.Tenants[id])), nil
}

func (s *server) getTenant(ctx context.Context, req *TenantPath) (*answered[Tenant], error) {
	in, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	t, err := tenancy.TenantOf(in, req.id())
	if err != nil {
		return nil, err
	}
	return answer(TenantOf(req.id(), t)), nil
}

func (s *server) setLimits(ctx context.Context, req *struct {
	TenantPath
	RawBody []byte
}) (*answered[Limits], error) {
	var body LimitsInput
	if err := httpapi.ParseBody(req.RawBody, &body); err != nil {
		return nil, err
	}
	in, err := s.change(ctx, func(in *domain.Installation) ([]domain.Event, error) {
		_, events, err := tenancy.SetLimits(in, s.deps.Now(), req.id(), body.changes())
		return events, err
	})
	if err != nil {
		return nil, err
	}
	return answer(limitsOf(in.Tenants[req.id()])), nil
}

func (s *server) closeTenant(ctx context.Context, req *TenantPath) (*answered[Closed], error) {
	in, err := s.change(ctx, func(in *domain.Installation) ([]domain.Event, error) {
		return tenancy.CloseTenant(in, s.deps.Now(), req.id())
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	names, texts, err := s.deps.Log.ForgetTenant(ctx, req.id())
	if err != nil {
		return nil, err
	}
	return answer(Closed{
		Tenant: TenantOf(req.id(), in.Tenants[req.id()]), NamesForgotten: names, TextsForgotten: texts,
		Remains: tenancy.Remainders(), RepeatIfInDoubt: RepeatClose,
	}), nil
}
