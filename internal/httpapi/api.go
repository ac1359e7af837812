package httpapi

import (
	"context"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"seenby/domain"
)

// server is one api; every field is safe for concurrent use.
type server struct {
	cfg     Config
	deps    Deps
	models  models
	people  *knownPeople
	waits   *waits
	intake  intake
	appends chan struct{} // a slot per request that appends
}

// New makes the api's handler.
func New(cfg Config, deps Deps) (http.Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return build(cfg.withDefaults(), deps, stored{deps.ReadModels})
}

func build(cfg Config, deps Deps, m models) (http.Handler, error) {
	people, err := newKnownPeople(cfg.KnownPeopleMax)
	if err != nil {
		return nil, err
	}
	s := &server{
		cfg: cfg, deps: deps, models: m, people: people,
		waits: newWaits(deps.ReadModels, cfg.PollInterval, deps.Stopping), appends: make(chan struct{}, cfg.AppendsMax),
	}
	root := chi.NewRouter()
	root.Use(s.observe, middleware.GetHead)
	root.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, newProblem(domain.CodeNotFound, "", "There is nothing at this path."))
	})
	root.MethodNotAllowed(methodNotAllowed(root))
	health(root, cfg, deps)

	api := humachi.New(root.With(s.authenticate, checkQuery), openAPIConfig())
	s.register(api)
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

func (s *server) register(api huma.API) {
	route(s, api, s.putPostOperation(api), s.putPost)
	route(s, api, s.newPostOperation(api), s.newPost)
	route(s, api, s.postsBatchOperation(api), s.putPosts)
	route(s, api, s.patchPostOperation(api), s.patchPost)
	route(s, api, s.deletePostOperation(api), s.deletePost)
	route(s, api, s.viewsOperation(api), s.reportViews)
	route(s, api, s.getPostOperation(), s.getPost)
	route(s, api, s.countsOperation(), s.getCounts)
	route(s, api, s.viewersOperation(), s.getViewers)
	route(s, api, s.postTimeSeriesOperation(), s.getPostTimeSeries)
	route(s, api, s.timeSeriesOperation(), s.getTimeSeries)
	route(s, api, s.historyOperation(), s.getHistory)
	route(s, api, s.feedOperation(), s.getFeed)
	route(s, api, s.putMemberOperation(), s.putMember)
	route(s, api, s.deleteMemberOperation(), s.deleteMember)
	route(s, api, s.membersBatchOperation(api), s.membersBatch)
	route(s, api, s.getMembersOperation(), s.getMembers)
	route(s, api, s.eraseOperation(api), s.erasePerson)
	route(s, api, s.erasureOperation(), s.getErasure)
}

// route registers an operation whose errors become problems. Parameters and bodies are checked by the handlers:
// huma's own messages would send values back.
func route[I, O any](s *server, api huma.API, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	op.SkipValidateParams, op.SkipValidateBody = true, true
	op.MaxBodyBytes = requestBytesMax + 1 // huma refuses a body that reaches the limit
	op.BodyReadTimeout = s.cfg.RequestTimeout
	op.Security = []map[string][]string{{"key": {}}}
	op.Errors = append([]int{http.StatusUnauthorized, http.StatusUnprocessableEntity, http.StatusInternalServerError, http.StatusServiceUnavailable}, op.Errors...)
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, s.problemOf(ctx, err)
		}
		return out, nil
	})
	if limited := op.Responses[strconv.Itoa(http.StatusTooManyRequests)]; limited != nil {
		limited.Headers = headerDocs(rateLimitHeaders)
	}
	if op.RequestBody != nil {
		// Huma describes every raw body as bytes, beside what was said of it.
		delete(op.RequestBody.Content, "application/octet-stream")
	}
}

// answers describes the JSON answers of an operation that writes them itself; nil: without a body.
func answers(api huma.API, byStatus map[int]any, headers map[string]string) map[string]*huma.Response {
	out := map[string]*huma.Response{}
	for status, body := range byStatus {
		r := &huma.Response{
			Description: http.StatusText(status),
			Headers:     headerDocs(headers),
		}
		if body != nil {
			r.Content = map[string]*huma.MediaType{"application/json": {
				Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(body), true, ""),
			}}
		}
		out[strconv.Itoa(status)] = r
	}
	return out
}

func headerDocs(docs map[string]string) map[string]*huma.Param {
	headers := map[string]*huma.Param{}
	for name, doc := range docs {
		headers[name] = &huma.Param{Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return headers
}

// jsonBody describes the body of a request that the handler parses itself.
func jsonBody[T any](api huma.API) *huma.RequestBody {
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {
		Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, ""),
	}}}
}
