package main

import (
	"context"
	"net"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/telemetry"
)

type serveCommand struct {
	operational
	Roles       []string `help:"What this process does: api, gate, projector, keeper, relay." default:"api,gate,projector,keeper,relay"`
	Projections []string `help:"Which read models its projector keeps. Default: all." placeholder:"NAME"`
}

var serveNeeds = []config.Need{config.NeedKafka, config.NeedDatabase, config.NeedSecret}

// Run serves until it is told to stop.
func (c serveCommand) Run(env *environment) error {
	roles, err := parseRoles(c.Roles)
	if err != nil {
		return err
	}
	wanted, err := parseProjections(c.Projections)
	if err != nil {
		return err
	}
	settings, err := env.settings(c.DataDir, serveNeeds...)
	if err != nil {
		return err
	}
	log, err := env.logger(settings)
	if err != nil {
		return err
	}
	if err := telemetry.LimitMemory(log); err != nil {
		log.Warn("the container's memory limit is not known", "err", err)
	}
	s, err := newService(env.ctx, settings, log, env.now)
	if err != nil {
		return err
	}
	defer s.close()
	s.roles, s.projections = roles, wanted
	if s.listener, err = listen(env.ctx, settings.HTTP.Addr, "--http-addr"); err != nil {
		return err
	}
	if err := s.listenAdmin(env.ctx); err != nil {
		return err
	}
	return s.run(env.ctx)
}

func listen(ctx context.Context, addr, flag string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, domain.Errorf(domain.CodeMisconfigured, "cannot listen on %s (%s): %v", addr, flag, err)
	}
	return l, nil
}
