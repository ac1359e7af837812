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
	live    projections.VersionRow
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
	group.Go(func() error { ps.watchLag(ctx); return nil })
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
	if err == nil && slices.ContainsFunc(versions, ps.older) {
		versions, err = ps.claim(ctx, versions)
	}
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
			ps.sawLive(ctx, v)
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

// older tells whether a version is this projection's live one, with an older fold.
func (ps *projectors) older(v projections.VersionRow) bool {
	return v.Live && v.Projection == ps.projection.Name() && v.FoldVersion < ps.projection.FoldVersion()
}

// claim takes over a live version that is still empty.
func (ps *projectors) claim(ctx context.Context, versions []projections.VersionRow) ([]projections.VersionRow, error) {
	claimed := false
	if err := ps.store.InTx(ctx, func(ctx context.Context, tx projections.Tx) (err error) {
		claimed, err = projections.Claim(ctx, tx, ps.projection)
		return err
	}); err != nil || !claimed {
		return versions, err
	}
	return ps.store.Versions(ctx)
}

// sawLive says, once, where another program keeps what readers see.
func (ps *projectors) sawLive(ctx context.Context, v projections.VersionRow) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if v.Version != ps.live.Version {
		switch ours := ps.projection.FoldVersion(); {
		case v.FoldVersion < ours:
			ps.log.WarnContext(ctx, "the live version has an older program's fold, which must run until one of this fold is live: make it with seenby rebuild",
				"projection", v.Projection, "version", v.Version, "fold_version", v.FoldVersion)
		case v.FoldVersion > ours:
			ps.log.InfoContext(ctx, "the live version has a newer program's fold and is left to it; this program keeps those of its own until they are dropped",
				"projection", v.Projection, "version", v.Version, "fold_version", v.FoldVersion)
		}
	}
	ps.live = v
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

// workers are those of the live version and of all versions here; foreign: another program keeps the live one.
func (ps *projectors) workers() (ofLive, all []*projector.Projector, foreign bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for version, f := range ps.running {
		all = append(all, f.workers...)
		if version == ps.live.Version {
			ofLive = f.workers
		}
	}
	return ofLive, all, ps.live.FoldVersion != ps.projection.FoldVersion()
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
