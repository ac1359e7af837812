package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"seenby/domain"
	"seenby/internal/tenancy"
)

type tenantContext struct{}

// authenticate lets a request with a valid API key pass, with its tenant. Absent, malformed, unknown and revoked
// keys get the same answer.
func (s *server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			bearer = ""
		}
		tenant, err := s.deps.Tenants.Authenticate(strings.TrimSpace(bearer))
		if err != nil {
			writeProblem(w, s.problemOf(r.Context(), err))
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), tenantContext{}, tenant)))
	})
}

func tenantOf(ctx context.Context) tenancy.TenantHandle {
	tenant, ok := ctx.Value(tenantContext{}).(tenancy.TenantHandle)
	if !ok {
		panic("httpapi: a route without authentication") // a mistake of ours: better 500 than another tenant's data
	}
	return tenant
}

var methods = []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete}

// observe reports every answer to the metrics hook, by route and never by path.
func (s *server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := s.deps.Now()
		seen := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		s.recovered(next, seen, r)
		if s.deps.Metrics.Request == nil {
			return
		}
		pattern := "none"
		if rc := chi.RouteContext(r.Context()); rc != nil && rc.RoutePattern() != "" {
			pattern = rc.RoutePattern()
		}
		method := r.Method
		if !slices.Contains(methods, method) {
			method = "other" // anything may stand there, and a label must not
		}
		s.deps.Metrics.Request(method, pattern, max(seen.Status(), http.StatusOK), s.deps.Now().Sub(began))
	})
}

// recovered makes a panic an internal problem; where an answer was begun, it breaks the connection off, so that
// nobody takes half an answer for a whole one.
func (s *server) recovered(next http.Handler, w middleware.WrapResponseWriter, r *http.Request) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(v)
		}
		p := s.problemOf(r.Context(), fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		if w.Status() != 0 {
			panic(http.ErrAbortHandler)
		}
		writeProblem(w, p)
	}()
	next.ServeHTTP(w, r)
}

// singles are the query parameters that may be given once.
var singles = []string{"limit", "cursor", "author", "audience", "from", "to", "interval"}

// filters are those that choose: an empty one would choose everything.
var filters = []string{"author", "audience"}

// checkQuery refuses a query that would be read in part: net/http drops what it cannot read without a word.
func checkQuery(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			writeProblem(w, newProblem(domain.CodeInvalid, "query", "cannot be read: percent-encode its values, and part them by &"))
			return
		}
		for _, name := range singles {
			if len(query[name]) > 1 {
				writeProblem(w, newProblem(domain.CodeInvalid, name, "is given more than once"))
				return
			}
		}
		for _, name := range filters {
			if query.Has(name) && query.Get(name) == "" {
				writeProblem(w, newProblem(domain.CodeInvalid, name, "must not be empty: leave it out"))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// methodNotAllowed answers 405 with the methods that the path has, which RFC 9110 asks for.
func methodNotAllowed(routes chi.Routes) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.EscapedPath()
		var allowed []string
		for _, m := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete} {
			if routes.Match(chi.NewRouteContext(), m, path) {
				allowed = append(allowed, m)
			}
		}
		writeProblem(w, newProblem(codeMethod, "", "This path has no such method.").with("Allow", strings.Join(allowed, ", ")))
	}
}

// patience bounds the reading of an answer; the time of Prefer: wait is not counted in it.
func (s *server) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.cfg.RequestTimeout)
}
