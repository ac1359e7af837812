package main

import (
	"context"
	"fmt"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/keeper"
	"seenby/internal/tenancy"
)

type readmitCommand struct {
	operational
	Reason string    `required:"" enum:"viewer_quota" help:"What the views were refused for: viewer_quota."`
	Tenant string    `required:"" help:"Whose they are." placeholder:"TENANT"`
	Post   string    `help:"Those of one post alone." placeholder:"ID"`
	Since  time.Time `help:"Those received at or after this time alone, as 2026-01-31T00:00:00Z." placeholder:"TIME"`
	Until  time.Time `help:"Those received before this time alone; now by default." placeholder:"TIME"`
	DryRun bool      `help:"Say how many there are and append none." name:"dry-run"`
}

// Run appends refused views again and says what became of them.
func (c readmitCommand) Run(env *environment) error {
	which := keeper.Refused{Reason: domain.ReasonViewerQuota, Tenant: domain.TenantID(c.Tenant), Post: domain.PostID(c.Post), Since: c.Since, Until: c.Until}
	if now := env.now(); which.Until.IsZero() || which.Until.After(now) {
		which.Until = now
	}
	if !which.Since.Before(which.Until) {
		return domain.Invalid("--since", "must be before --until, and lie in the past")
	}
	_, log, err := env.connect(c.DataDir)
	if err != nil {
		return err
	}
	defer log.Close()
	in, err := log.Installation(env.ctx)
	if err != nil {
		return err
	}
	if _, err := tenancy.TenantOf(in, which.Tenant); err != nil {
		return err
	}
	from, ends, err := verdictsSince(env.ctx, log, which.Since)
	if err != nil {
		return err
	}
	if c.DryRun {
		refused, open, err := keeper.CountRefused(which, len(ends), func(p int, apply func([]domain.Record) error) error {
			return log.ReadRanges(env.ctx, from[p:p+1], ends[p:p+1], apply)
		})
		if err != nil {
			return err
		}
		env.printf("Nothing was appended. %s views were refused as %s; %s would be appended again, %s were before, or count.\n",
			grouped(refused), c.Reason, grouped(open), grouped(refused-open))
		return nil
	}
	reader, err := log.NewReader()
	if err != nil {
		return err
	}
	defer reader.Close()
	bar := newProgressBar(env.stderr, env.now)
	result, err := keeper.Readmit(env.ctx, keeper.Config{}, keeper.Deps{Source: allVerdicts{reader, log, from}, Appender: log}, which, func(r keeper.RefusedResult) {
		if bar.w != nil {
			bar.print(fmt.Sprintf("%s refused views met, %s judged again", grouped(r.Refused), grouped(r.Appended())))
		}
	})
	bar.clear()
	c.print(env, &result)
	return err
}

func (c readmitCommand) print(env *environment, r *keeper.RefusedResult) {
	t := table{left: []bool{true, true, false}}
	t.add("BEFORE", c.Reason, grouped(r.Refused))
	t.add("", "counted or appended again before", grouped(r.Refused-r.Appended()))
	if n := r.Ended[domain.ReasonNone]; n > 0 {
		t.add("AFTER", "counted", grouped(n))
	}
	for _, reason := range domain.Reasons {
		if n := r.Ended[reason]; n > 0 && reason != domain.ReasonNone {
			t.add("AFTER", string(reason), grouped(n))
		}
	}
	t.print(env.stdout)
	if n := r.Ended[domain.ReasonUndecided]; n > 0 {
		env.printf("The undecided ones wait for the read model of posts; a keeper brings them to their end.\n")
	}
}

// verdictsSince are where verdicts begin that were given at or after a time, and where they end, in the order of partitions.
func verdictsSince(ctx context.Context, log *eventlog.Log, since time.Time) (from, ends []domain.Position, err error) {
	if since.IsZero() {
		from, err = log.Starts(ctx, domain.TopicVerdicts)
	} else {
		from, err = log.After(ctx, domain.TopicVerdicts, since)
	}
	if err == nil {
		ends, err = log.Ends(ctx, domain.TopicVerdicts)
	}
	return from, ends, err
}

// allVerdicts assigns all partitions of verdicts, each from a place on, to one who keeps no hints.
type allVerdicts struct {
	*eventlog.Reader
	log  *eventlog.Log
	from []domain.Position
}

// Assignment implements keeper.Source.
func (a allVerdicts) Assignment() ([]domain.Partition, <-chan struct{}) {
	parts := make([]domain.Partition, len(a.from))
	for i, p := range a.from {
		parts[i] = p.In()
	}
	return parts, make(chan struct{}) // it never changes
}

// Commit implements keeper.Source.
func (allVerdicts) Commit(context.Context, []domain.Position) error { return nil }

// Committed implements keeper.Source.
func (a allVerdicts) Committed(context.Context) ([]domain.Position, error) { return a.from, nil }

// Ends implements keeper.Source.
func (a allVerdicts) Ends(ctx context.Context, topic domain.Topic) ([]domain.Position, error) {
	return a.log.Ends(ctx, topic)
}
