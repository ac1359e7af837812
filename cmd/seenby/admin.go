package main

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"

	"golang.org/x/sync/errgroup"

	"seenby/internal/adminapi"
)

// listenAdmin takes the admin API's address, where the settings give one.
func (s *service) listenAdmin(ctx context.Context) (err error) {
	if s.settings.Admin.Addr != "" {
		s.admin, err = listen(ctx, s.settings.Admin.Addr, "--admin-addr")
	}
	return err
}

// serveAdmin serves the admin API, if this process has one, until stop is called; stop lets requests end as long as
// its context does.
func (s *service) serveAdmin(group *errgroup.Group) (stop func(context.Context), err error) {
	if s.admin == nil {
		return func(context.Context) {}, nil
	}
	server, err := adminapi.New(adminapi.Deps{
		Log: s.events, Secret: s.secret, Key: s.settings.Admin.Key.Reveal(), Now: s.now, Rand: rand.Reader, NewID: newID,
		Logger: s.log, Request: s.metrics.Request,
	})
	if err != nil {
		return nil, err
	}
	stopped := make(chan struct{})
	group.Go(func() error {
		if err := server.Serve(s.admin); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		<-stopped
		return nil
	})
	s.log.Info("serving the admin API", "addr", s.admin.Addr().String())
	return func(ctx context.Context) {
		defer close(stopped)
		if err := server.Shutdown(ctx); err != nil {
			s.log.Warn("admin requests were cut off; what they asked can be asked again", "err", err)
			server.Close() //nolint:errcheck // nothing is left to be done about it
		}
	}, nil
}
