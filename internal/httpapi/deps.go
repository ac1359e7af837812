package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"seenby/domain"
	"seenby/internal/tenancy"
	"seenby/projections"
)

// Log appends events. Append answers once all of them are acknowledged by all in-sync replicas, with one position
// per partition, past the last event there. CodeUnavailable: not acknowledged in time; the events may or may not
// be in the log. It may keep the events until it returns, not longer.
type Log interface {
	Append(ctx context.Context, events ...domain.Event) ([]domain.Position, error)
}

// Tenants knows the callers. Authenticate fails with CodeUnauthorized, or with CodeUnavailable while the tenants
// are not read yet. Limits are those that stand now; false for a tenant that is unknown or closed.
type Tenants interface {
	Authenticate(bearer string) (tenancy.TenantHandle, error)
	Limits(domain.TenantID) (domain.Limits, bool)
}

// ReadModels is PostgreSQL. Snapshot runs the function in one read-only transaction that sees one state.
// Positions are the rows of the live version of each projection, by its name. CodeUnavailable: it is away.
type ReadModels interface {
	Snapshot(ctx context.Context, read func(ctx context.Context, q projections.Querier) error) error
	Positions(ctx context.Context) (map[string][]projections.PositionRow, error)
}

// Erasures knows who was erased, from the topic people. ErasedAt is false for everybody else, and for everybody while
// Check says that the topic is not read yet (CodeUnavailable). Note takes over a mark that was acknowledged.
type Erasures interface {
	ErasedAt(person domain.PersonRef) (at time.Time, erased bool)
	Note(mark domain.PersonErased)
	Check(ctx context.Context) error
}

// Metrics are hooks; nil ones are skipped. They must be fast and safe for concurrent use.
type Metrics struct {
	ViewsAccepted func(n int)
	ViewsRejected func(n int)
	// ViewsRateLimited is called for views that were over their tenant's rate.
	ViewsRateLimited func(n int)
	// Request is called for every answer; route is the pattern, never the path.
	Request func(method, route string, status int, took time.Duration)
}

// Deps is what the api needs from others. All but Metrics, MetricsHandler, TopicID, Checks and Stopping must be set.
type Deps struct {
	Log        Log
	Tenants    Tenants
	ReadModels ReadModels
	Erasures   Erasures
	// TopicID is the present id of a topic, false where it is not known (yet): a token of another id is refused.
	TopicID func(domain.Topic) (domain.TopicID, bool)
	Now     func() time.Time
	NewID   func() [16]byte // UUIDs of version 7: for events and for posts without an id
	Logger  *slog.Logger
	Metrics Metrics

	MetricsHandler http.Handler // serves /metrics
	// Checks are the dependencies that /readyz asks, by name; the message of a domain.Error is shown.
	Checks map[string]func(ctx context.Context) error
	// Stopping, once closed, ends the waits of requests, which may be longer than a clean stop can be.
	Stopping <-chan struct{}
}
