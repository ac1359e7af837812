package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/erasure"
	"seenby/internal/eventlog"
	"seenby/internal/httpapi"
	"seenby/internal/postgres"
	"seenby/internal/telemetry"
	"seenby/internal/tenancy"
	"seenby/projections"
)

// service is one process of an installation: its roles, and what they share.
type service struct {
	settings    config.Settings
	roles       []role
	projections []projections.Projection // for the role projector
	log         *slog.Logger
	now         func() time.Time
	listener    net.Listener
	admin       net.Listener // nil: there is no admin API here
	secret      *tenancy.Secret

	metrics  *telemetry.Metrics
	events   *eventlog.Log
	store    *postgres.Store
	registry *tenancy.Registry
	erasures *erasure.Marks // followed where the process has the role api
	checks   checks

	waiting   context.Context //nolint:containedctx // it ends waits in the middle of requests, which none of theirs can
	stopWaits context.CancelFunc
}

// newService opens everything without touching the network, so that a process starts, and says what is
// missing, while Kafka or PostgreSQL is away. Close the service when it has run.
func newService(ctx context.Context, settings config.Settings, log *slog.Logger, now func() time.Time) (*service, error) {
	secret, err := openSecret(settings)
	if err != nil {
		return nil, err
	}
	store, err := openStore(ctx, settings)
	if err != nil {
		return nil, err
	}
	events, err := openLog(settings, log)
	if err != nil {
		store.Close()
		return nil, err
	}
	s := &service{
		settings: settings, log: log, now: now, secret: secret,
		metrics: telemetry.NewMetrics(telemetry.ReadBuild()),
		events:  events, store: store, registry: tenancy.NewRegistry(events, secret, log),
		erasures: erasure.NewMarks(events, events, now, log),
	}
	s.waiting, s.stopWaits = context.WithCancel(context.WithoutCancel(ctx))
	return s, nil
}

func (s *service) close() {
	s.stopWaits()
	s.events.Close()
	s.store.Close()
}

// run serves until ctx ends, or until something is wrong that waiting does not cure. A clean stop first lets
// the api answer what it has accepted, which may be waiting for the projectors, and then ends the rest.
func (s *service) run(ctx context.Context) error {
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorking()
	group, working := errgroup.WithContext(working)

	s.checks.set("kafka", s.events.Ping)
	s.checks.set("tenants", s.registry.Check)
	s.checks.set("postgres", s.store.Ping)
	if slices.Contains(s.roles, roleAPI) {
		s.checks.set("people", s.erasures.Check)
	}
	for _, name := range s.checkNames() {
		s.checks.set(name, starting)
	}
	server, err := s.server()
	if err != nil {
		return err
	}
	stopAdmin, err := s.serveAdmin(group)
	if err != nil {
		return err
	}
	group.Go(func() error {
		if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error { return s.registry.Run(working) })
	if slices.Contains(s.roles, roleAPI) {
		group.Go(func() error {
			return s.eventually(working, "the erasures on topic people", func() error { return s.erasures.Run(working) })
		})
	}
	group.Go(func() error { return s.work(working) })

	select {
	case <-ctx.Done():
		s.log.Info("stopping")
	case <-working.Done():
		// Said at once: what follows may take its time, and a stop that is cut short would hide the cause.
		s.log.Error("stopping, since a part has failed", "err", context.Cause(working))
	}
	// A third of the time for requests to end as they are, a third for those that are told not to wait any longer,
	// and the rest for the roles.
	third := s.settings.ShutdownTimeout / 3
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.settings.ShutdownTimeout)
	defer cancel()
	defer time.AfterFunc(third, s.stopWaits).Stop()
	answering, cancel := context.WithTimeout(stopping, 2*third)
	defer cancel()
	go stopAdmin(answering)
	if err := server.Shutdown(answering); err != nil {
		s.log.Warn("requests were cut off: they did not end within two thirds of the shutdown timeout", "err", err)
		server.Close() //nolint:errcheck // nothing is left to be done about it
	}
	stopWorking()
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	select {
	case err := <-ended:
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	case <-stopping.Done():
		return domain.Errorf(domain.CodeInternal, "not everything ended within the shutdown timeout (%v); what was cut off is done again at the next start", s.settings.ShutdownTimeout)
	}
}

// work waits for what the roles need and then runs them.
func (s *service) work(ctx context.Context) error {
	if err := s.eventually(ctx, "Kafka and its topics", func() error {
		return s.events.CheckTopics(ctx, s.settings.AllowUndurable)
	}); err != nil {
		return err
	}
	checkSchema := func() error {
		return s.eventually(ctx, "PostgreSQL", func() error { return s.store.CheckSchema(ctx) })
	}
	group, ctx := errgroup.WithContext(ctx)
	if slices.Equal(s.roles, []role{roleAPI}) {
		// Views are accepted without PostgreSQL, so an api alone does not wait for it.
		group.Go(checkSchema)
	} else if err := checkSchema(); err != nil {
		return err
	}
	if err := s.registry.WaitReady(ctx); err != nil {
		return err
	}
	for _, r := range s.roles {
		if err := s.start(ctx, group, r); err != nil {
			return err
		}
	}
	s.log.Info("serving", "roles", s.roles, "addr", s.listener.Addr().String())
	return group.Wait()
}

const (
	againFirst = 200 * time.Millisecond
	againMost  = 5 * time.Second
)

// eventually calls f until it no longer says that something is away.
func (s *service) eventually(ctx context.Context, what string, f func() error) error {
	for pause := againFirst; ; pause = min(2*pause, againMost) {
		err := f()
		if err == nil || domain.CodeOf(err) != domain.CodeUnavailable {
			return err
		}
		s.log.Warn("waiting", "dependency", what, "err", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// server is the HTTP side of the process: the api where it has that role, health and metrics in any case.
func (s *service) server() (*http.Server, error) {
	cfg := httpapi.Config{RequestTimeout: s.settings.HTTP.RequestTimeout}
	deps := httpapi.Deps{
		Log: s.events, Tenants: s.registry, ReadModels: s.store, Erasures: s.erasures, TopicID: s.topicID, Now: s.now, NewID: newID,
		Logger: s.log, MetricsHandler: s.metrics.Handler(), Checks: s.checks.all(), Stopping: s.waiting.Done(),
		Metrics: httpapi.Metrics{
			ViewsAccepted:    s.metrics.ViewsAccepted,
			ViewsRejected:    func(n int) { s.metrics.ViewsRejected(domain.CodeInvalid, n) },
			ViewsRateLimited: func(n int) { s.metrics.ViewsRejected(domain.CodeRateLimited, n) },

			Request: s.metrics.Request,
		},
	}
	if !slices.Contains(s.roles, roleAPI) {
		cfg.OptionalChecks = []string{} // a worker that cannot work is not ready
		return cfg.Server(httpapi.Health(cfg, deps)), nil
	}
	// An api that can accept views is ready, whatever else of this process has to wait.
	cfg.OptionalChecks = append(s.checkNames(), "postgres")
	handler, err := httpapi.New(cfg, deps)
	if err != nil {
		return nil, err
	}
	return cfg.Server(handler), nil
}

// topicID is what the log last said; an api that cannot ask cannot tell a token's age either.
func (s *service) topicID(topic domain.Topic) (domain.TopicID, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	parts, err := s.events.Partitions(ctx, topic)
	if err != nil || len(parts) == 0 {
		return domain.TopicID{}, false
	}
	return parts[0].TopicID, true
}
