package main

import (
	"strconv"
	"strings"

	"seenby/domain"
	"seenby/internal/tenancy"
)

type relayCommand struct {
	Endpoints  relayEndpointsCommand  `cmd:"" help:"Manage where a tenant's core system is told counts."`
	Enable     relayEnableCommand     `cmd:"" help:"Compare with what the core system has, and tell it from then on."`
	Disable    relayDisableCommand    `cmd:"" help:"Tell a tenant's core system nothing any more."`
	Status     relayStatusCommand     `cmd:"" help:"Print what a core system is told, and how its endpoints take it."`
	Milestones relayMilestonesCommand `cmd:"" help:"Print or set the counts of a post that a core system is called for."`
	Reconcile  relayReconcileCommand  `cmd:"" help:"Compare all posts with what the core system has, and tell again what differs."`
	Parked     relayParkedCommand     `cmd:"" help:"List what endpoints have refused."`
	Redrive    relayRedriveCommand    `cmd:"" help:"Send again what endpoints have refused."`
}

// ofTenant is what commands about a tenant's relay have in common.
type ofTenant struct {
	operational
	Tenant string `arg:"" help:"Id of the tenant."`
}

func (c ofTenant) id() domain.TenantID { return domain.TenantID(c.Tenant) }

type relayMilestonesCommand struct {
	ofTenant
	Milestones string `arg:"" optional:"" help:"Impressions, such as 100,1000,10000, at most 20; or 'none'. Without it they are printed."`
}

// noMilestones is how the command line calls an empty list.
const noMilestones = "none"

// Run prints the milestones that stand, as they can be given again, or sets them.
func (c relayMilestonesCommand) Run(env *environment) error {
	if c.Milestones == "" {
		in, err := env.installation(c.DataDir)
		if err != nil {
			return err
		}
		relay, err := tenancy.RelayOf(in, c.id())
		if err != nil {
			return err
		}
		env.printf("%s\n", milestonesText(relay.Milestones))
		return nil
	}
	milestones, err := parseMilestones(c.Milestones)
	if err != nil {
		return err
	}
	relay, changed, err := c.setRelay(env, nil, milestones)
	if err != nil {
		return err
	}
	if !changed {
		env.printf("tenant %s has these milestones already: %s\n", c.Tenant, milestonesText(relay.Milestones))
		return nil
	}
	env.printf("tenant %s: milestones are %s\n", c.Tenant, milestonesText(relay.Milestones))
	return nil
}

// parseMilestones reads a list; one of none is empty, and never nil.
func parseMilestones(text string) ([]int64, error) {
	milestones := []int64{}
	if text == noMilestones {
		return milestones, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseInt(strings.TrimSpace(part), 10, 64)
		if err != nil {
			return nil, domain.Invalid("milestones", "%q is no whole number; give them as 100,1000,10000, or none", part)
		}
		milestones = append(milestones, n)
	}
	return milestones, nil
}

func milestonesText(milestones []int64) string {
	if len(milestones) == 0 {
		return noMilestones
	}
	texts := make([]string, len(milestones))
	for i, m := range milestones {
		texts[i] = strconv.FormatInt(m, 10)
	}
	return strings.Join(texts, ",")
}

type relayDisableCommand struct{ ofTenant }

// Run turns the relay of the tenant off.
func (c relayDisableCommand) Run(env *environment) error {
	off := false
	_, changed, err := c.setRelay(env, &off, nil)
	if err != nil {
		return err
	}
	if !changed {
		env.printf("tenant %s: its core system is told nothing already\n", c.Tenant)
		return nil
	}
	env.printf("tenant %s: its core system is told nothing any more; relays follow within two seconds\n", c.Tenant)
	return nil
}

// setRelay changes what is not nil of what the tenant's core system is told, and gives what stands then.
func (c ofTenant) setRelay(env *environment, enabled *bool, milestones []int64) (relay domain.RelaySet, changed bool, err error) {
	_, log, err := env.connect(c.DataDir)
	if err != nil {
		return relay, false, err
	}
	defer log.Close()
	err = log.ChangeTenants(env.ctx, func(in *domain.Installation) (events []domain.Event, err error) {
		relay, events, err = tenancy.SetRelay(in, env.now(), c.id(), enabled, milestones)
		changed = len(events) > 0
		return events, err
	})
	return relay, changed, err
}
