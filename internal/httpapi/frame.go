package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-json-experiment/json"

	"seenby/domain"
)

// Frame is what stands around the routes of an api: problems, panics, metrics, checks of method and query, and the
// OpenAPI document. The admin API is built in it too.
type Frame struct{ server *server }

// Contract is what an OpenAPI document says before it comes to the routes.
type Contract struct {
	Title, Version, Text string
	Key                  string // what the bearer token is
}

// NewFrame makes a frame. Of deps it uses Now, NewID, Logger and Metrics.
func NewFrame(cfg Config, deps Deps) (Frame, error) {
	if err := cfg.Validate(); err != nil {
		return Frame{}, err
	}
	return Frame{&server{cfg: cfg.withDefaults(), deps: deps}}, nil
}

// Handler serves the registered routes to requests that authenticate lets pass, and the contract to all.
func (f Frame) Handler(c Contract, authenticate func(http.Handler) http.Handler, register func(huma.API)) (http.Handler, error) {
	root := chi.NewRouter()
	root.Use(f.server.observe, middleware.GetHead)
	root.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, newProblem(domain.CodeNotFound, "", "There is nothing at this path."))
	})
	root.MethodNotAllowed(methodNotAllowed(root))
	api := humachi.New(root.With(authenticate, checkQuery), c.config())
	register(api)
	spec, err := marshalOpenAPI(api)
	if err != nil {
		return nil, err
	}
	root.Get("/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(spec)
	})
	return root, nil
}

// OpenAPI is the contract of the registered routes as JSON, indented.
func (c Contract) OpenAPI(register func(huma.API)) ([]byte, error) {
	api := humachi.New(chi.NewRouter(), c.config())
	register(api)
	return marshalOpenAPI(api)
}

func (c Contract) config() huma.Config {
	cfg := openAPIConfig()
	cfg.Info.Title, cfg.Info.Version, cfg.Info.Description = c.Title, c.Version, c.Text
	cfg.Components.SecuritySchemes["key"].Description = c.Key
	return cfg
}

// Fail answers with err as a problem, for middleware.
func (f Frame) Fail(w http.ResponseWriter, r *http.Request, err error) {
	writeProblem(w, f.server.problemOf(r.Context(), err))
}

// JSONBody describes the body of a request that is read by ParseBody.
func JSONBody[T any](api huma.API) *huma.RequestBody { return jsonBody[T](api) }

// ParseBody reads a body strictly; unknown and repeated fields are refused, each error names its field and no value.
func ParseBody(raw []byte, into any) error {
	if err := json.Unmarshal(raw, into, json.RejectUnknownMembers(true)); err != nil {
		return jsonProblem(err)
	}
	return nil
}

// Route registers an operation whose errors become problems.
func Route[I, O any](f Frame, api huma.API, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	route(f.server, api, op, handle)
}
