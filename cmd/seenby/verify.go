package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/eventlog"
	"seenby/internal/postgres"
	"seenby/internal/verify"
	"seenby/projections"
	"seenby/projections/impressions"
	"seenby/projections/posts"
	"seenby/projections/uniqueviews"
)

type verifyCommand struct {
	operational
	Tenant string `help:"Only what belongs to this tenant."`
	Post   string `help:"Only this post of --tenant, with its rows and the verdicts behind them."`
	JSON   bool   `help:"Print the whole report as JSON." name:"json"`
}

const (
	// verifySnapshotMax bounds the one transaction that reads the tables: hundreds of millions of rows.
	verifySnapshotMax = time.Hour
	// verifyMemory is what Go may use before its collector works harder: with the program itself, the process stays
	// under the 256 MB that are promised for 10 million verdicts.
	verifyMemory = 160 << 20
)

// Run compares and reports; a difference is an error.
func (c verifyCommand) Run(env *environment) error {
	if c.Post != "" && c.Tenant == "" {
		return domain.Invalid("--post", "needs --tenant: post ids are a tenant's own")
	}
	if c.Tenant != "" {
		if err := domain.CheckTenantID(c.Tenant); err != nil {
			return err
		}
	}
	s, log, err := env.connect(c.DataDir, config.NeedDatabase)
	if err != nil {
		return err
	}
	defer log.Close()
	store, err := postgres.Open(env.ctx, postgres.Config{URL: s.Database.URL.Reveal(), ConnectionsMax: 1, TransactionMax: verifySnapshotMax})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.CheckSchema(env.ctx); err != nil {
		return err
	}
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	limit := func() { debug.SetMemoryLimit(min(before, max(verifyMemory, liveHeap()*5/4))) }
	limit()
	bar := newProgressBar(env.stderr, env.now)
	report, err := verify.Run(env.ctx, verify.Deps{
		Log: log, ReadModels: snapshots{store}, Operators: operators{log},
		Progress: func(p verify.Progress) {
			limit()
			bar.verify(p)
		},
	}, verify.Scope{Tenant: domain.TenantID(c.Tenant), Post: domain.PostID(c.Post)})
	bar.clear()
	if err != nil {
		return err
	}
	if c.JSON {
		err = env.printJSON(report)
	} else {
		env.printVerification(report)
	}
	if err == nil && !report.Clean {
		err = domain.Errorf(domain.CodeInternal, "%s", whatToDo(report))
	}
	return err
}

// liveHeap is what the last collection left. A run that holds more than verifyMemory must not spend its time on
// collecting.
func liveHeap() int64 {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return int64(live[0].Value.Uint64()) //nolint:gosec // less than any machine has
}

// snapshots are the read models of the database, for verify.
type snapshots struct{ store *postgres.Store }

// Read implements verify.ReadModels.
func (m snapshots) Read(ctx context.Context, s verify.Scope, to verify.Rows) error {
	return m.store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		live, err := projections.Live(ctx, q, []projections.Projection{impressions.Projection{}, uniqueviews.Projection{}, posts.Projection{}})
		if err != nil {
			return err
		}
		for _, m := range live {
			if err := projections.CheckFold(ctx, q, m); err != nil {
				return err
			}
		}
		state := verify.State{Parked: map[string][]verify.Place{}}
		if state.Positions, err = projections.Positions(ctx, q); err != nil {
			return err
		}
		keys := map[string]bool{}
		if err := projections.LiveParked(ctx, q, func(projection string, r projections.ParkedRecord) {
			switch {
			case r.Partition.Topic == domain.TopicVerdicts:
				state.Parked[projection] = append(state.Parked[projection], verify.Place{Partition: r.Partition, Offset: r.Offset})
			case projection == posts.Name:
				if r.Partition.Topic == domain.TopicPosts {
					state.Parked[projection] = append(state.Parked[projection], verify.Place{Partition: r.Partition, Offset: r.Offset})
				}
				if !keys[string(r.OrderKey)] {
					keys[string(r.OrderKey)] = true
					state.ParkedKeys = append(state.ParkedKeys, r.OrderKey)
				}
			}
		}); err != nil {
			return err
		}
		if err := to.State(state); err != nil {
			return err
		}
		of := domain.PostKey{Tenant: s.Tenant, Post: s.Post}
		if err := impressions.Rows(ctx, q, of, func(key domain.PostKey, shard int16, n impressions.Count) {
			to.Impressions(key, shard, n.Impressions, n.AnonymousImpressions, n.ImportedImpressions)
		}); err != nil {
			return err
		}
		if err := posts.BaselineRows(ctx, q, of, func(key domain.PostKey, b domain.Baseline) {
			to.Imported(key, b.Impressions, b.UniqueViewers, b.AsOf.UnixMicro())
		}); err != nil {
			return err
		}
		if err := uniqueviews.CountRows(ctx, q, of, to.ViewerCount); err != nil {
			return err
		}
		return uniqueviews.ViewerRows(ctx, q, of, func(key domain.PostKey, v uniqueviews.Viewer, shard int16) {
			to.Viewer(key, v.Person, verify.ViewerRow{First: v.FirstViewedAt.UnixMicro(), Last: v.LastViewedAt.UnixMicro(), Views: v.Views}, shard)
		})
	})
}

// operators reads what they decided from the topic tenants.
type operators struct{ log *eventlog.Log }

// Read implements verify.Operators.
func (o operators) Read(ctx context.Context) (verify.Decisions, error) {
	d := verify.Decisions{DuplicateWindows: map[domain.TenantID]map[int64]time.Duration{}, Discarded: map[string][]verify.Place{}}
	starts, err := o.log.Starts(ctx, domain.TopicTenants)
	if err != nil {
		return d, err
	}
	ends, err := o.log.Ends(ctx, domain.TopicTenants)
	if err != nil {
		return d, err
	}
	err = o.log.ReadRanges(ctx, starts, ends, func(records []domain.Record) error {
		for _, r := range records {
			if r.Err != nil {
				return domain.Errorf(domain.CodeMisconfigured, "%s cannot be read; a newer version may have written it", projections.At(r)).Because(r.Err)
			}
			switch e := r.Event.(type) {
			case domain.LimitsSet:
				if d.DuplicateWindows[e.Tenant] == nil {
					d.DuplicateWindows[e.Tenant] = map[int64]time.Duration{}
				}
				d.DuplicateWindows[e.Tenant][e.Limits.Revision] = e.Limits.DuplicateWindow
			case domain.DecisionRecorded:
				if e.Kind == domain.DecisionDiscard {
					for _, record := range e.About {
						d.Discarded[e.Projection] = append(d.Discarded[e.Projection], verify.Place{Partition: record.In(), Offset: record.NextOffset})
					}
				}
			}
		}
		return nil
	})
	return d, err
}
