package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/postgres"
	"seenby/internal/relay"
	"seenby/internal/tenancy"
	"seenby/projections"
)

type relayStatusCommand struct {
	ofTenant
	JSON bool `help:"Print JSON." name:"json"`
}

// endpointStatus is how the calls of an endpoint go, as JSON.
type endpointStatus struct {
	shownEndpoint
	WaitingPosts      int64      `json:"waiting_posts"`
	WaitingMilestones int64      `json:"waiting_milestones"`
	Parked            int64      `json:"parked"`
	FailingSince      *time.Time `json:"failing_since,omitempty"`
	Attempts          int        `json:"attempts"`
	NextAttemptAt     *time.Time `json:"next_attempt_at,omitempty"`
	LastError         string     `json:"last_error,omitempty"`
	LastSuccessAt     *time.Time `json:"last_success_at,omitempty"`
}

// Run prints what the core system is told and how its endpoints take it.
func (c relayStatusCommand) Run(env *environment) error {
	in, err := env.installation(c.DataDir)
	if err != nil {
		return err
	}
	set, err := tenancy.RelayOf(in, c.id())
	if err != nil {
		return err
	}
	endpoints, err := tenancy.EndpointsOf(in, c.id())
	if err != nil {
		return err
	}
	store, err := env.relayStore(c.DataDir)
	if err != nil {
		return err
	}
	defer store.Close()
	out := struct {
		Enabled    bool             `json:"enabled"`
		Milestones []int64          `json:"milestones"`
		Endpoints  []endpointStatus `json:"endpoints"`
	}{set.Enabled, append([]int64{}, set.Milestones...), make([]endpointStatus, len(endpoints))}
	if err := store.Snapshot(env.ctx, func(ctx context.Context, q projections.Querier) error {
		for i, e := range endpoints {
			s, err := relay.Status(ctx, q, c.id(), e.EndpointID)
			if err != nil {
				return err
			}
			out.Endpoints[i] = endpointStatus{
				endpointOf(e), s.Waiting, s.Milestones, s.Parked, s.FailingSince, s.Attempts, s.NextAttemptAt, s.LastError, s.LastSuccessAt,
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if c.JSON {
		return env.printJSON(out)
	}
	told := "is told nothing; `seenby relay enable` begins"
	if set.Enabled {
		told = "is told"
	}
	env.printf("The core system of tenant %s %s. Milestones: %s.\n", c.Tenant, told, milestonesText(set.Milestones))
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENDPOINT\tSTATUS\tWAITING\tMILESTONES\tPARKED\tLAST SUCCESS\tFAILING SINCE\tATTEMPTS\tNEXT ATTEMPT")
	for _, e := range out.Endpoints {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", e.ID, e.Status, grouped(e.WaitingPosts), grouped(e.WaitingMilestones), grouped(e.Parked),
			moment(e.LastSuccessAt), moment(e.FailingSince), e.Attempts, moment(e.NextAttemptAt))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, e := range out.Endpoints {
		if e.LastError != "" {
			env.printf("%s: the last call that failed: %s\n", e.ID, e.LastError)
		}
		if e.Reason != "" {
			env.printf("%s: disabled: %s\n", e.ID, e.Reason)
		}
	}
	return nil
}

// relayStore opens PostgreSQL for commands on the relay's tables. Close it.
func (env *environment) relayStore(dataDir string) (*postgres.Store, error) {
	s, err := env.settings(dataDir, config.NeedDatabase)
	if err != nil {
		return nil, err
	}
	return openCurrentStore(env.ctx, s)
}

// parkedSelection chooses parked items by what they have in common.
type parkedSelection struct {
	Endpoint string `help:"Only of this endpoint." placeholder:"ID"`
	Post     string `help:"Only of this post." placeholder:"ID"`
}

func (s parkedSelection) read(ctx context.Context, q projections.Querier, tenant domain.TenantID, limit int) ([]relay.ParkedItem, error) {
	return relay.Parked(ctx, q, tenant, s.Endpoint, domain.PostID(s.Post), limit)
}

type relayParkedCommand struct {
	ofTenant
	parkedSelection
	Limit int  `help:"How many are listed." default:"100"`
	JSON  bool `help:"Print JSON." name:"json"`
}

// parkedJSON is what an endpoint has refused, as JSON.
type parkedJSON struct {
	Endpoint    string    `json:"endpoint"`
	Post        string    `json:"post"`
	Milestone   int64     `json:"milestone,omitempty"`
	Impressions int64     `json:"impressions"`
	Revision    int64     `json:"revision"`
	Reason      string    `json:"reason"`
	ParkedAt    time.Time `json:"parked_at"`
}

// Run lists what endpoints have refused.
func (c relayParkedCommand) Run(env *environment) error {
	if c.Limit < 1 || c.Limit > listMax {
		return domain.Invalid("--limit", "must be 1 to %d", listMax)
	}
	store, err := env.relayStore(c.DataDir)
	if err != nil {
		return err
	}
	defer store.Close()
	var items []relay.ParkedItem
	if err := store.Snapshot(env.ctx, func(ctx context.Context, q projections.Querier) (err error) {
		items, err = c.read(ctx, q, c.id(), c.Limit)
		return err
	}); err != nil {
		return err
	}
	if c.JSON {
		out := make([]parkedJSON, len(items))
		for i, p := range items {
			out[i] = parkedJSON{p.Endpoint, string(p.Post), p.Milestone, p.Impressions, p.Revision, p.Reason, p.ParkedAt.UTC()}
		}
		return env.printJSON(struct {
			Parked []parkedJSON `json:"parked"`
		}{out})
	}
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENDPOINT\tPOST\tMILESTONE\tIMPRESSIONS\tREVISION\tPARKED\tREASON")
	for _, p := range items {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", p.Endpoint, p.Post, grouped(p.Milestone), grouped(p.Impressions), p.Revision, p.ParkedAt.UTC().Format(time.RFC3339), p.Reason)
	}
	return w.Flush()
}

type relayRedriveCommand struct {
	ofTenant
	parkedSelection
}

// Run has parked items sent again.
func (c relayRedriveCommand) Run(env *environment) error {
	store, err := env.relayStore(c.DataDir)
	if err != nil {
		return err
	}
	defer store.Close()
	redriven := 0
	for {
		n := 0
		if err := store.InTx(env.ctx, func(ctx context.Context, tx projections.Tx) error {
			items, err := c.read(ctx, tx, c.id(), redriveMax)
			if err != nil {
				return err
			}
			n = len(items)
			return relay.Redrive(ctx, tx, c.id(), items)
		}); err != nil {
			return err
		}
		if redriven += n; n < redriveMax {
			break
		}
	}
	env.printf("%s are sent again; what is refused once more is parked again\n", grouped(int64(redriven)))
	return nil
}

// redriveMax bounds one transaction.
const redriveMax = 1000
