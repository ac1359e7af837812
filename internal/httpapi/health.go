package httpapi

import (
	"context"
	"encoding/json"
	"errors"
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
	root.Get("/readyz", func(w http.ResponseWriter, r *http.Request) {
		answer := readiness(r.Context(), cfg, deps)
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

// readiness asks all dependencies at once. Whoever asks needs no key, so only messages made to be shown are.
func readiness(ctx context.Context, cfg Config, deps Deps) Readiness {
	ctx, cancel := context.WithTimeout(ctx, cfg.CheckTimeout)
	defer cancel()
	answer := Readiness{Status: "ready", Dependencies: map[string]string{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, check := range deps.Checks {
		wg.Go(func() {
			err := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				answer.Dependencies[name] = "ok"
				return
			}
			deps.Logger.WarnContext(ctx, "not ready", "dependency", name, "err", err)
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
