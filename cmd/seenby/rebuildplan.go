package main

import (
	"time"

	"github.com/docker/go-units"

	"seenby/domain"
	"seenby/internal/rebuild"
	"seenby/projections"
)

// planRebuild says what a rebuild would do. That it would be refused is an error.
func (env *environment) planRebuild(deps rebuild.Deps, p projections.Projection, opts rebuild.Options, asJSON bool) error {
	plan, err := rebuild.Look(env.ctx, deps, p, opts)
	if err != nil {
		return err
	}
	if asJSON {
		err = env.printJSON(plan)
	} else {
		env.printPlan(&plan)
	}
	if err == nil && len(plan.Refused) > 0 {
		err = domain.Errorf(domain.CodeConflict, "a rebuild of %s would be refused now; why stands above", plan.Projection)
	}
	return err
}

func (env *environment) printPlan(p *rebuild.Plan) {
	if p.GoesOnAt == "" {
		env.printf("A rebuild of %s would make version %d beside version %d, which is live:\n", p.Projection, p.Version, p.Live)
	} else {
		env.printf("A rebuild of %s would go on with version %d at its phase %q; version %d is live:\n", p.Projection, p.Version, p.GoesOnAt, p.Live)
	}
	env.printf("  events   %s to read\n", grouped(p.Events))
	env.printf("  disk     %s more in PostgreSQL: %s of tables, %s of indexes; %s\n",
		bytesText(p.TableBytes+p.IndexBytes), bytesText(p.TableBytes), bytesText(p.IndexBytes), basis(p.SizeFrom, p.Sampled))
	env.printf("           as much again for a while, for its log (WAL) and for sorting; what is free there cannot be seen from here\n")
	if p.TempBytes > 0 {
		env.printf("           up to %s of temporary files here (--temp-dir)\n", bytesText(p.TempBytes))
	}
	takes := "not known"
	if p.TimeFrom != rebuild.BasisNothing {
		takes = "about " + p.Takes.Round(time.Second).String()
	}
	env.printf("  time     %s; %s\n", takes, basis(p.TimeFrom, p.Sampled))
	if p.OtherFold != 0 {
		env.printf("  fold     the live version has fold version %d: rows that the rule changes will differ, and --accept-differences be needed\n", p.OtherFold)
	}
	for _, why := range p.Refused {
		env.printf("  refused  %s\n", why)
	}
	env.printf("Nothing was changed.\n")
}

func bytesText(n int64) string { return units.HumanSize(float64(n)) }

func basis(b rebuild.Basis, sampled int64) string {
	switch b {
	case rebuild.BasisLive:
		return "as the live version has"
	case rebuild.BasisHistory:
		return "as the last rebuild took for each event"
	case rebuild.BasisSample:
		return "at most, by a sample of the first " + grouped(sampled) + " events"
	case rebuild.BasisNothing:
	}
	return "there is nothing to judge by"
}
