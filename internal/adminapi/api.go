package adminapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"seenby/domain"
	"seenby/internal/httpapi"
	"seenby/internal/tenancy"
)

// Log is the topic tenants, and what closing a tenant reaches beyond it. ChangeTenants appends what decide says,
// whole or not at all, decided on what stands: CodeConflict where another command came in between. ForgetTenant
// appends a tombstone for each name and text of a tenant. CodeUnavailable: Kafka is away.
type Log interface {
	Installation(ctx context.Context) (*domain.Installation, error)
	ChangeTenants(ctx context.Context, decide func(*domain.Installation) ([]domain.Event, error)) error
	ForgetTenant(ctx context.Context, tenant domain.TenantID) (names, texts int, err error)
}

// Deps is what the admin API needs from others. All but Request must be set.
type Deps struct {
	Log     Log
	Secret  *tenancy.Secret // of the installation
	Key     string          // of the admin API: whoever has it may do all of this
	Now     func() time.Time
	Rand    io.Reader
	NewID   func() [16]byte // for the ids of requests that failed here
	Logger  *slog.Logger
	Request func(method, route string, status int, took time.Duration) // see httpapi.Metrics
}

const (
	// requestTimeout bounds a request: closing a tenant reads all names and texts of the installation.
	requestTimeout = 10 * time.Minute
	// changeTimeout bounds all others.
	changeTimeout = 30 * time.Second
)

var contract = httpapi.Contract{
	Title: "Seenby admin", Version: "1.0.0", Key: "The admin key, SEENBY_ADMIN_KEY.",
	Text: `Tenants, their limits and their API keys: what ` + "`seenby tenants` and `seenby keys`" + ` do, over HTTP.

It has an address and a key of its own (SEENBY_ADMIN_ADDR, SEENBY_ADMIN_KEY). A change is whole or not at all, and
running processes follow it within two seconds. 409: another operator came in between, or the thing is there already;
look at what stands, then repeat.

Every error is application/problem+json; its *code* is what programs look at.`,
}

type server struct {
	deps  Deps
	frame httpapi.Frame
}

// New makes the server of the admin API.
func New(deps Deps) (*http.Server, error) {
	cfg := httpapi.Config{RequestTimeout: requestTimeout}
	frame, err := httpapi.NewFrame(cfg, httpapi.Deps{
		Now: deps.Now, NewID: deps.NewID, Logger: deps.Logger, Metrics: httpapi.Metrics{Request: deps.Request},
	})
	if err != nil {
		return nil, err
	}
	s := &server{deps: deps, frame: frame}
	handler, err := frame.Handler(contract, s.authenticate, s.register)
	if err != nil {
		return nil, err
	}
	return cfg.Server(handler), nil
}

// OpenAPI is the contract as JSON, indented: what docs/admin-openapi.json holds and /openapi.json serves.
func OpenAPI() ([]byte, error) {
	frame, err := httpapi.NewFrame(httpapi.Config{}, httpapi.Deps{})
	if err != nil {
		return nil, err
	}
	return contract.OpenAPI((&server{frame: frame}).register)
}

// authenticate compares hashes, in constant time: their length tells nothing of the key's.
func (s *server) authenticate(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.deps.Key))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(bearer)))
		if !strings.EqualFold(scheme, "Bearer") || s.deps.Key == "" || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			s.frame.Fail(w, r, domain.Errorf(domain.CodeUnauthorized, "send the admin key: Authorization: Bearer ..."))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) register(api huma.API) {
	httpapi.Route(s.frame, api, huma.Operation{
		OperationID: "list-tenants", Method: http.MethodGet, Path: "/v1/tenants", Summary: "All tenants, by id",
	}, s.listTenants)
	httpapi.Route(s.frame, api, huma.Operation{
		OperationID: "create-tenant", Method: http.MethodPost, Path: "/v1/tenants", Summary: "Create a tenant",
		DefaultStatus: http.StatusCreated, RequestBody: httpapi.JSONBody[TenantInput](api),
		Description: "409 where it is there already: then it is left as it is. An id is never used again.",
		Errors:      []int{http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge},
	}, s.createTenant)
	httpapi.Route(s.frame, api, huma.Operation{
		OperationID: "get-tenant", Method: http.MethodGet, Path: "/v1/tenants/{tenant}", Summary: "A tenant with its limits",
		Errors: []int{http.StatusNotFound},
	}, s.getTenant)
	httpapi.Route(s.frame, api, huma.Operation{
		OperationID: "close-tenant", Method: http.MethodDelete, Path: "/v1/tenants/{tenant}", Summary: "Close a tenant for ever",
		Description: "There is no way back: its key is destroyed, its API keys are revoked, its names and texts are forgotten. The answer says what remains. It reads all names and texts of the installation, which may take minutes; repeat it where it was broken off.",
		Errors:      []int{http.StatusNotFound, http.StatusConflict},
	}, s.closeTenant)
	httpapi.Route(s.frame, api, huma.Operation{
		OperationID: "set-limits", Method: http.MethodPatch, Path: "/v1/tenants/{tenant}/limits", Summary: "Change limits",
		RequestBody: httpapi.JSONBody[LimitsInput](api),
		Description: "Limits that are not named stay. The next revision, unless nothing changes.",
		Errors:      []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge},
	}, s.setLimits)
	httpapi.Route(s.frame, api, huma.Operation{
		OperationID: "list-keys", Method: http.MethodGet, Path: "/v1/tenants/{tenant}/keys", Summary: "A tenant's API keys, oldest first",
		Errors: []int{http.StatusNotFound},
	}, s.listKeys)
	httpapi.Route(s.frame, api, huma.Operation{
		OperationID: "create-key", Method: http.MethodPost, Path: "/v1/tenants/{tenant}/keys", Summary: "Create an API key",
		DefaultStatus: http.StatusCreated, RequestBody: httpapi.JSONBody[KeyInput](api),
		Description: "A repeat creates another key.",
		Errors:      []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge},
	}, s.createKey)
	httpapi.Route(s.frame, api, huma.Operation{
		OperationID: "revoke-key", Method: http.MethodDelete, Path: "/v1/tenants/{tenant}/keys/{key}", Summary: "Revoke an API key",
		Description: "Every api refuses it within two seconds. One that is revoked already stays so.",
		Errors:      []int{http.StatusNotFound, http.StatusConflict},
	}, s.revokeKey)
}

// read gives what stands on the log.
func (s *server) read(ctx context.Context) (*domain.Installation, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	return s.deps.Log.Installation(ctx)
}

// change carries a command out and gives what stands then: the fold of what was decided on and what was appended.
func (s *server) change(ctx context.Context, decide func(*domain.Installation) ([]domain.Event, error)) (*domain.Installation, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	var after *domain.Installation
	err := s.deps.Log.ChangeTenants(ctx, func(in *domain.Installation) ([]domain.Event, error) {
		events, err := decide(in)
		for _, e := range events {
			in.Apply(e)
		}
		after = in
		return events, err
	})
	return after, err
}
