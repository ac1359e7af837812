package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/eventlog"
	"seenby/internal/postgres"
	"seenby/internal/rebuild"
	"seenby/projections"
)

type rebuildCommand struct {
	operational
	Projection string `arg:"" optional:"" name:"projection" help:"What to rebuild: posts, impressions, uniqueviews, people, timeseries."`
	All        bool   `help:"Rebuild all projections, one after the other."`

	Memory            string        `help:"What the process may hold in memory; more is sorted in temporary files." default:"512MB"`
	TempDir           string        `help:"Where those are; the system's directory by default." placeholder:"DIR" type:"path" name:"temp-dir"`
	LagMax            time.Duration `help:"Wait while the live read models are further behind than this and moving; 0: never." default:"2s" name:"lag-max"`
	AcceptDifferences string        `help:"Swap though the versions differ; your name, for the history." placeholder:"WHO" xor:"what" name:"accept-differences"`

	List     bool `help:"List the versions that stand and the rebuilds there were." xor:"what"`
	Pause    bool `help:"Pause the projection's unfinished rebuild." xor:"what"`
	Resume   bool `help:"Let a paused rebuild go on in its own process." xor:"what"`
	Cancel   bool `help:"Give the unfinished rebuild up and drop what it made." xor:"what"`
	Rollback bool `help:"Make the version live again that was live before the last swap." xor:"what"`
	DropOld  bool `help:"Drop the versions that are kept beside the live one." xor:"what" name:"drop-old"`
	DryRun   bool `help:"Say what a rebuild would read, need and take, and whether it would be refused; change nothing." xor:"what" name:"dry-run"`
	JSON     bool `help:"Print the list or the dry run as JSON." name:"json"`
}

// rebuildTransactionMax bounds a transaction that fills, indexes or compares a whole table.
const rebuildTransactionMax = 24 * time.Hour

// Run does what the flags say; without one, it rebuilds.
func (c rebuildCommand) Run(env *environment) error {
	chosen, err := c.projections()
	if err != nil {
		return err
	}
	deps, done, err := env.rebuildDeps(c.DataDir)
	if err != nil {
		return err
	}
	defer done()
	if c.List {
		return env.listRebuilds(deps, c.JSON)
	}
	var failed []string
	for _, p := range chosen {
		err := c.one(env, deps, p)
		if err != nil && (len(chosen) == 1 || env.ctx.Err() != nil) {
			return err
		}
		if err != nil { // the others need not wait for it
			fmt.Fprintf(env.stderr, "seenby: %s: %v\n", p.Name(), err)
			failed = append(failed, p.Name())
		}
	}
	if len(failed) > 0 {
		return domain.Errorf(domain.CodeConflict, "%d of %d could not be done: %s. Why stands above; name each alone to do it again", len(failed), len(chosen), strings.Join(failed, ", "))
	}
	return nil
}

// projections are those that the command line names.
func (c rebuildCommand) projections() ([]projections.Projection, error) {
	switch {
	case c.List && (c.Projection != "" || c.All):
		return nil, domain.Invalid("--list", "lists all; name no projection")
	case c.List:
		return nil, nil
	case c.All && c.Projection != "":
		return nil, domain.Invalid("--all", "name a projection or all of them, not both")
	case c.All:
		return allProjections, nil
	case c.Projection == "":
		return nil, domain.Invalid("PROJECTION", "is required; there are %s. Or ask for --all or --list", strings.Join(projectionNames(), ", "))
	}
	return parseProjections([]string{c.Projection})
}

func projectionNames() []string {
	names := make([]string, len(allProjections))
	for i, p := range allProjections {
		names[i] = p.Name()
	}
	return names
}

func (c rebuildCommand) one(env *environment, deps rebuild.Deps, p projections.Projection) error {
	printer := newRebuildPrinter(env)
	deps.Progress = printer.progress
	defer printer.end()
	switch {
	case c.Pause, c.Resume:
		wanted, says := rebuild.WantedPause, "is told to pause"
		if c.Resume {
			wanted, says = rebuild.WantedRun, "is told to go on"
		}
		if err := rebuild.Want(env.ctx, deps, p.Name(), wanted); err != nil {
			return err
		}
		env.printf("The rebuild of %s %s. Where its process has ended, run `seenby rebuild %s`.\n", p.Name(), says, p.Name())
	case c.Cancel:
		if err := rebuild.Cancel(env.ctx, deps, p); err != nil {
			return err
		}
		env.printf("The rebuild of %s is given up and what it made is dropped. Readers noticed nothing.\n", p.Name())
	case c.DropOld:
		dropped, err := rebuild.DropOld(env.ctx, deps, p)
		if err != nil {
			return err
		}
		if len(dropped) == 0 {
			env.printf("No version of %s is kept beside the live one.\n", p.Name())
		}
		for _, version := range dropped {
			env.printf("Version %d of %s is dropped.\n", version, p.Name())
		}
	case c.Rollback:
		result, err := rebuild.Rollback(env.ctx, deps, p)
		printer.end()
		if err != nil {
			return err
		}
		env.printf("Version %d of %s is live again; version %d is kept. Locked for %v.\n", result.Version, p.Name(), result.Previous, result.Locked.Round(time.Millisecond))
	default:
		memory, err := c.memory()
		if err != nil {
			return err
		}
		opts := rebuild.Options{MemoryBytes: memory - rebuildHeap, TempDir: c.TempDir, LagMax: c.LagMax, AcceptDifferences: c.AcceptDifferences}
		if c.DryRun {
			return env.planRebuild(deps, p, opts, c.JSON)
		}
		defer boundHeap()()
		result, err := rebuild.Run(env.ctx, deps, p, opts)
		printer.end()
		if err != nil {
			return err
		}
		env.printRebuilt(&result)
	}
	return nil
}

const (
	// rebuildHeap is for all but the bulk load: what is fetched and decoded, and the program itself.
	rebuildHeap = 192 << 20
	// rebuildProgram is the part of it that the collector does not see: code, and what it is late to give back.
	rebuildProgram = 48 << 20
	// rebuildGCPercent lets garbage fill what the heap may take: little of it lives, and collecting it costs reading.
	rebuildGCPercent = 800
	// rebuildMemoryMin leaves enough to sort more than crumbs.
	rebuildMemoryMin = rebuildHeap + 64<<20
)

// boundHeap keeps the collector within rebuildHeap: what a bulk load holds is outside of it. The function sets it back.
func boundHeap() func() {
	percent, limit := debug.SetGCPercent(rebuildGCPercent), debug.SetMemoryLimit(rebuildHeap-rebuildProgram)
	return func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) }
}

func (c rebuildCommand) memory() (int64, error) {
	n, err := units.RAMInBytes(c.Memory)
	if err != nil || n < rebuildMemoryMin {
		return 0, domain.Invalid("--memory", "%q must be a size such as 512MB, and at least %dMB", c.Memory, rebuildMemoryMin>>20)
	}
	return n, nil
}

// rebuildDeps opens what a rebuild needs. Close it.
func (env *environment) rebuildDeps(dataDir string) (rebuild.Deps, func(), error) {
	s, log, err := env.connect(dataDir, config.NeedDatabase)
	if err != nil {
		return rebuild.Deps{}, nil, err
	}
	logger, err := env.logger(s)
	if err != nil {
		log.Close()
		return rebuild.Deps{}, nil, err
	}
	store, err := postgres.Open(env.ctx, postgres.Config{
		URL: s.Database.URL.Reveal(), TransactionMax: rebuildTransactionMax, IdleInTransactionMax: rebuildTransactionMax,
	})
	if err != nil {
		log.Close()
		return rebuild.Deps{}, nil, err
	}
	done := func() { store.Close(); log.Close() }
	if err := store.CheckSchema(env.ctx); err != nil {
		done()
		return rebuild.Deps{}, nil, err
	}
	return rebuild.Deps{Log: rebuildLog{log}, Store: store, Now: env.now, Logger: logger}, done, nil
}

// rebuildLog is Kafka for rebuilds.
type rebuildLog struct{ *eventlog.Log }

// ReadRanges implements rebuild.Log.
func (l rebuildLog) ReadRanges(ctx context.Context, from, to []domain.Position, apply func([]domain.Record) error) error {
	return l.ReadLongRanges(ctx, from, to, apply)
}

func (env *environment) listRebuilds(deps rebuild.Deps, asJSON bool) error {
	l, err := rebuild.List(env.ctx, deps)
	if err != nil {
		return err
	}
	if asJSON {
		return env.printJSON(l)
	}
	versions := table{left: []bool{true, false, false, true}}
	versions.add("PROJECTION", "VERSION", "FOLD", "STATE")
	for _, v := range l.Versions {
		i := slices.IndexFunc(l.Rebuilds, func(r rebuild.Row) bool {
			return r.Outcome == "" && r.Projection == v.Projection && r.Version == v.Version
		})
		state := "kept for a rollback"
		switch {
		case v.Live:
			state = "live"
		case i >= 0:
			state = "being made"
		case !v.Followed:
			state = "being dropped: run --drop-old again"
		}
		versions.add(v.Projection, grouped(int64(v.Version)), grouped(int64(v.FoldVersion)), state)
	}
	versions.print(env.stdout)
	env.printHistory(l.Rebuilds)
	return nil
}
