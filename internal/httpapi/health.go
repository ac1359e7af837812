package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"

	"github.com/go-chi/chi/v5"

	"seenby/domain"
)

// Readiness is the answer of /readyz.
type Readiness struct {
	Status       string            `json:"status"` // ready, degraded or unready
	Dependencies map[string]string `json:"dependencies"`
}

// Health is /healthz, /readyz and /metrics alone, for processes without the api.
func Health(cfg Config, deps Deps) http.Handler {
	root := chi.NewRouter()
	root.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, newProblem(domain.CodeNotFound, "", "There is nothing at this path; this process serves no api."))
	})
	root.MethodNotAllowed(methodNotAllowed(root))
	health(root, cfg.withDefaults(), deps)
	return root
}

func health(root chi.Router, cfg Config, deps Deps) {
	root.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	before := &lastChecks{missing: map[string]bool{}, log: deps.Logger}
	root.Get("/readyz", func(w http.ResponseWriter, r *http.Request) {
		answer := readiness(r.Context(), cfg, deps, before)
		status := http.StatusOK
		if answer.Status == "unready" {
			w.Header().Set("Retry-After", retryAfter)
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, answer)
	})
	if deps.MetricsHandler != nil {
		root.Method(http.MethodGet, "/metrics", deps.MetricsHandler)
	}
}

// lastChecks remembers what the last probe found: probes come every few seconds, and the log is to tell the
// beginning and the end of an outage.
type lastChecks struct {
	mu      sync.Mutex
	missing map[string]bool
	log     *slog.Logger
}

func (l *lastChecks) note(ctx context.Context, name string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch was := l.missing[name]; {
	case err != nil && !was:
		l.log.WarnContext(ctx, "not ready", "dependency", name, "err", err)
	case err == nil && was:
		l.log.InfoContext(ctx, "ready again", "dependency", name)
	}
	l.missing[name] = err != nil
}

// readiness asks all dependencies at once. Whoever asks needs no key, so only messages made to be shown are.
func readiness(ctx context.Context, cfg Config, deps Deps, before *lastChecks) Readiness {
	ctx, cancel := context.WithTimeout(ctx, cfg.CheckTimeout)
	defer cancel()
	answer := Readiness{Status: "ready", Dependencies: map[string]string{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, check := range deps.Checks {
		wg.Go(func() {
			err := check(ctx)
			before.note(ctx, name, err)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				answer.Dependencies[name] = "ok"
				return
			}
			answer.Dependencies[name] = "missing"
			var e *domain.Error
			if errors.As(err, &e) {
				answer.Dependencies[name] = "missing: " + e.Message
			}
			if !slices.Contains(cfg.OptionalChecks, name) {
				answer.Status = "unready"
			} else if answer.Status == "ready" {
				answer.Status = "degraded"
			}
		})
	}
	wg.Wait()
	return answer
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone; there is nobody to tell
}
