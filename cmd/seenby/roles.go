package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/gate"
	"seenby/internal/keeper"
	"seenby/internal/relay"
	"seenby/internal/tenancy"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/people"
	"seenby/projections/posts"
	"seenby/projections/timeseries"
	"seenby/projections/uniqueviews"
)

// role is a part of the work that a process takes on. More processes with a role share it by consumer groups.
type role string

const (
	roleAPI       role = "api"
	roleGate      role = "gate"
	roleProjector role = "projector"
	roleKeeper    role = "keeper"
	roleRelay     role = "relay"
)

var allRoles = []role{roleAPI, roleGate, roleProjector, roleKeeper, roleRelay}

// allProjections are the read models. Adding one is a folder below projections, a migration, and a line here.
var allProjections = []projections.Projection{
	posts.Projection{}, impressions.Projection{}, uniqueviews.Projection{}, people.Projection{},
	timeseries.Projection{},
}

func parseRoles(names []string) ([]role, error) {
	var roles []role
	for _, name := range names {
		if r := role(name); !slices.Contains(allRoles, r) {
			return nil, domain.Invalid("--roles", "there is no role %q; there are %v", name, allRoles)
		} else if !slices.Contains(roles, r) {
			roles = append(roles, r)
		}
	}
	if len(roles) == 0 {
		return nil, domain.Invalid("--roles", "names none; there are %v", allRoles)
	}
	return roles, nil
}

func parseProjections(names []string) ([]projections.Projection, error) {
	if len(names) == 0 || slices.Equal(names, []string{""}) {
		return allProjections, nil
	}
	var out []projections.Projection
	for _, name := range names {
		i := slices.IndexFunc(allProjections, func(p projections.Projection) bool { return p.Name() == name })
		if i < 0 {
			return nil, domain.Invalid("PROJECTION", "there is no projection %q; there are %s", name, strings.Join(projectionNames(), ", "))
		}
		out = append(out, allProjections[i])
	}
	return out, nil
}

// checkNames are the checks that the roles of the process will have.
func (s *service) checkNames() []string {
	var names []string
	for _, r := range s.roles {
		switch r {
		case roleAPI: // has none beyond what it needs
		case roleProjector:
			for _, p := range s.projections {
				names = append(names, projectorCheck(p))
			}
		default:
			names = append(names, string(r))
		}
	}
	return names
}

func projectorCheck(p projections.Projection) string { return "projector " + p.Name() }

func (s *service) start(ctx context.Context, group *errgroup.Group, r role) error {
	switch r {
	case roleAPI: // its server runs already
		return nil
	case roleGate:
		return s.startGate(ctx, group)
	case roleProjector:
		for _, p := range s.projections {
			if err := s.startProjector(ctx, group, p); err != nil {
				return err
			}
		}
		group.Go(func() error { s.watchDeadLetters(ctx); return nil })
		return nil
	case roleKeeper:
		return s.startKeeper(ctx, group)
	case roleRelay:
		return s.startRelay(ctx, group)
	}
	return domain.Errorf(domain.CodeInternal, "role %s has no start", r)
}

func (s *service) startGate(ctx context.Context, group *errgroup.Group) error {
	var members *eventlog.Group
	err := s.eventually(ctx, "the group of the gates", func() (err error) {
		members, err = s.events.JoinGroup(ctx, "gate", domain.TopicViews)
		return err
	})
	if err != nil {
		return err
	}
	g, err := gate.New(
		gate.Config{Kafka: s.events.Config(), BatchViewsMax: s.settings.Gate.BatchViewsMax, GatherFor: s.settings.Gate.GatherFor},
		gate.Deps{
			Assigner: members, Ends: s.events, Posts: s.store, Tenants: s.registry, Logger: s.log,
			Hooks: gate.Hooks{
				Verdicts: s.metrics.Verdicts, Committed: s.metrics.GateBatch, Restored: s.metrics.GateRestored,
				Failed: s.metrics.GateFailed,
			},
		})
	if err != nil {
		members.Close()
		return err
	}
	s.checks.set(string(roleGate), func(context.Context) error { return cmp.Or(g.Ready(), members.Err()) })
	group.Go(func() error {
		defer members.Close()
		s.ended(ctx, "the gate", g.Run(ctx))
		return nil
	})
	group.Go(func() error { s.watchStableOffsets(ctx); return nil })
	group.Go(func() error { s.watchGate(ctx, g); return nil })
	return nil
}

func (s *service) startKeeper(ctx context.Context, group *errgroup.Group) error {
	var source *eventlog.Source
	err := s.eventually(ctx, "the group of the keepers", func() (err error) {
		source, err = s.events.JoinSource(ctx, "keeper", domain.TopicVerdicts)
		return err
	})
	if err != nil {
		return err
	}
	k, err := keeper.New(keeper.Config{}, keeper.Deps{
		Source: source, Appender: s.events, Readmodel: s.store, Logger: s.log,
		Hooks: keeper.Hooks{Pending: s.metrics.KeeperPending, Readmitted: s.metrics.KeeperReadmitted, Erased: s.metrics.KeeperErased},
	})
	if err != nil {
		source.Close()
		return err
	}
	s.checks.set(string(roleKeeper), func(context.Context) error { return cmp.Or(k.Ready(), source.Err()) })
	group.Go(func() error {
		defer source.Close()
		s.ended(ctx, "the keeper", k.Run(ctx))
		return nil
	})
	return nil
}

func (s *service) startRelay(ctx context.Context, group *errgroup.Group) error {
	var members *eventlog.Group
	var partitions int32
	err := s.eventually(ctx, "the group of the relays", func() error {
		parts, err := s.events.Partitions(ctx, domain.TopicImpressions)
		if err != nil {
			return err
		}
		partitions = int32(len(parts)) //nolint:gosec // a partition count
		members, err = s.events.JoinGroup(ctx, "relay", domain.TopicImpressions)
		return err
	})
	if err != nil {
		return err
	}
	caller := newCaller(s.settings)
	r := relay.New(relay.Deps{
		Assigner: members, Log: s.events, Store: s.store, Tenants: s.registry, Caller: caller, Now: s.now, Logger: s.log,
		NewSource: func() (relay.Source, error) { return s.events.NewReader() },
		OpenWriter: func(ctx context.Context, part domain.Partition) (relay.Writer, error) {
			return s.events.OpenWriter(ctx, string(roleRelay), part)
		},
		PartitionOf: func(post domain.PostKey) int32 { return eventlog.PartitionOf(post.Key(), partitions) },
		Secrets:     s.endpointSecrets, Disable: s.disableEndpoint,
		Hooks: relay.Hooks{
			Waiting: s.metrics.RelayWaiting, Told: s.metrics.RelayTold, Called: s.metrics.RelayCalled,
			Milestone: s.metrics.RelayMilestone, Parked: s.metrics.RelayParked, Disabled: s.metrics.RelayDisabled,
		},
	})
	s.checks.set(string(roleRelay), func(context.Context) error { return cmp.Or(r.Ready(), members.Err()) })
	group.Go(func() error {
		defer caller.Close()
		defer members.Close()
		s.ended(ctx, "the relay", r.Run(ctx))
		return nil
	})
	return nil
}

// endpointSecrets are what signs the calls of an endpoint at a time.
func (s *service) endpointSecrets(e domain.EndpointSet, now time.Time) ([]string, error) {
	key, ok := s.registry.Key(e.Tenant)
	if !ok {
		return nil, domain.Errorf(domain.CodeUnavailable, "the key of tenant %s is not known here: it was closed, or this process has an older secret", e.Tenant)
	}
	return tenancy.EndpointSecrets(key, e, now), nil
}

// disableEndpoint gives an endpoint up, as an operator would.
func (s *service) disableEndpoint(ctx context.Context, tenant domain.TenantID, endpoint, reason string) error {
	return s.events.ChangeTenants(ctx, func(in *domain.Installation) ([]domain.Event, error) {
		_, events, err := tenancy.DisableEndpoint(in, s.now(), tenant, endpoint, reason)
		return events, err
	})
}

// ended says so where a role has stopped for a reason that waiting does not cure. The others of the process go on:
// an api that can accept views must not fall with a projector that a poisoned topic has stopped. /readyz keeps the
// reason.
func (s *service) ended(ctx context.Context, role string, err error) {
	if ctx.Err() == nil {
		s.log.Error("a role has stopped for good; remove the cause, then restart this process", "role", role, "err", err)
	}
}

func newID() [16]byte { return uuid.Must(uuid.NewV7()) }
