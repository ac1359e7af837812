package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"seenby/internal/eventlog"
	"seenby/internal/projector"
	"seenby/projections"
)

// projectors keep a projection's read models current: each version that is followed and has this program's fold has
// workers here. A version comes when a rebuild is about to make it live, and goes when an operator drops it.
type projectors struct {
	*service
	projection projections.Projection

	mu      sync.Mutex
	running map[int]*following
	live    int  // the live version
	foreign bool // it has another program's fold
}

// following is a version that is kept current, by members of its group, which share its partitions as those of other
// processes do.
type following struct {
	workers []*projector.Projector
	sources []*eventlog.Source
	stop    context.CancelFunc
	group   *errgroup.Group
}

// versionsEvery is how soon a version is followed that a rebuild hands over; the rebuild moves it meanwhile.
const versionsEvery = time.Second

func (s *service) startProjector(ctx context.Context, group *errgroup.Group, p projections.Projection) error {
	ps := &projectors{service: s, projection: p, running: map[int]*following{}}
	if err := s.eventually(ctx, "PostgreSQL", func() error { return ps.reconcile(ctx) }); err != nil {
		return err
	}
	s.checks.set(projectorCheck(p), func(context.Context) error { return ps.check() })
	group.Go(func() error { ps.run(ctx); return nil })
	group.Go(func() error { s.watchLag(ctx, p.Name(), ps.ofLive); return nil })
	return nil
}

// run follows what rebuilds decide until ctx ends.
func (ps *projectors) run(ctx context.Context) {
	ticker := time.NewTicker(versionsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			for _, f := range ps.running {
				f.end()
			}
			return
		case <-ticker.C:
		}
		if err := ps.reconcile(ctx); err != nil && ctx.Err() == nil {
			// PostgreSQL is away, which the workers say too; they go on with the versions that they have.
			ps.log.DebugContext(ctx, "the versions of read models are not known", "projection", ps.projection.Name(), "err", err)
		}
	}
}

// reconcile starts and stops versions as the database has them.
func (ps *projectors) reconcile(ctx context.Context) error {
	versions, err := ps.store.Versions(ctx)
	if err != nil {
		return err
	}
	wanted := map[int]bool{}
	for _, v := range versions {
		if v.Projection != ps.projection.Name() {
			continue
		}
		ours := v.FoldVersion == ps.projection.FoldVersion()
		wanted[v.Version] = v.Followed && ours
		if v.Live {
			ps.sawLive(ctx, v, !ours)
		}
	}
	for version, f := range ps.running {
		if !wanted[version] {
			f.end()
			ps.set(version, nil)
			ps.log.InfoContext(ctx, "no longer following", "projection", ps.projection.Name(), "version", version)
		}
	}
	for _, version := range slices.Sorted(maps.Keys(wanted)) {
		if wanted[version] && ps.running[version] == nil {
			f, err := ps.follow(ctx, projections.ReadModel{Projection: ps.projection, Version: version})
			if err != nil {
				return err
			}
			ps.set(version, f)
		}
	}
	return nil
}

func (ps *projectors) sawLive(ctx context.Context, v projections.VersionRow, foreign bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if foreign && (!ps.foreign || ps.live != v.Version) {
		ps.log.WarnContext(ctx, "the live version has another program's fold and is left to it; make one of this fold with seenby rebuild",
			"projection", v.Projection, "version", v.Version, "fold_version", v.FoldVersion)
	}
	ps.live, ps.foreign = v.Version, foreign
}

func (ps *projectors) set(version int, f *following) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if f == nil {
		delete(ps.running, version)
	} else {
		ps.running[version] = f
	}
}

// follow starts a version's workers.
func (ps *projectors) follow(ctx context.Context, m projections.ReadModel) (*following, error) {
	working, stop := context.WithCancel(ctx)
	f := &following{stop: stop, group: &errgroup.Group{}}
	for range ps.settings.Projector.Workers {
		var source *eventlog.Source
		if err := ps.eventually(ctx, "the group of the projectors", func() (err error) {
			// A group per version: while one is built or kept beside the live one, both read everything.
			source, err = ps.events.JoinSource(ctx, fmt.Sprintf("projector-%s-v%d", m.Name(), m.Version), m.Topics()...)
			return err
		}); err != nil {
			f.end()
			return nil, err
		}
		worker := projector.New(m, source, ps.store, projector.Config{BatchEventsMax: ps.settings.Projector.BatchEventsMax}, ps.log, ps.now, projector.Hooks{
			Committed: func(b projector.BatchStats) { ps.metrics.ProjectionBatch(m.Name(), b.Read, b.Parked, b.Took) },
			Retrying:  func(error) { ps.metrics.ProjectionRetry(m.Name()) },
		})
		f.group.Go(func() error {
			defer source.Close()
			ps.ended(working, "a projector", worker.Run(working))
			return nil
		})
		f.workers, f.sources = append(f.workers, worker), append(f.sources, source)
	}
	return f, nil
}

func (f *following) end() {
	f.stop()
	_ = f.group.Wait() // the workers have said what there was to say
}

// ofLive are the workers of the live version, where this program follows it.
func (ps *projectors) ofLive() []*projector.Projector {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if f := ps.running[ps.live]; f != nil {
		return f.workers
	}
	return nil
}

func (ps *projectors) check() error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, version := range slices.Sorted(maps.Keys(ps.running)) {
		f := ps.running[version]
		for i, w := range f.workers {
			if err := cmp.Or(w.Status().Err, f.sources[i].Err()); err != nil {
				return err
			}
		}
	}
	return nil
}
