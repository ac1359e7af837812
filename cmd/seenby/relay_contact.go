package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/eventlog"
	"seenby/internal/postgres"
	"seenby/internal/relay"
	"seenby/internal/telemetry"
	"seenby/internal/tenancy"
	"seenby/internal/webhook"
	"seenby/projections"
)

// contact is what commands need that talk to a tenant's core system.
type contact struct {
	env        *environment
	tenant     tenancy.TenantHandle
	in         *domain.Installation
	log        *eventlog.Log
	store      *postgres.Store
	client     *webhook.Client
	partitions int32
}

// contact opens it. Close it.
func (c ofTenant) contact(env *environment) (*contact, error) {
	s, log, err := env.connect(c.DataDir, config.NeedDatabase, config.NeedSecret)
	if err != nil {
		return nil, err
	}
	to := &contact{env: env, log: log, client: newCaller(s)}
	if err := to.open(s, c.id()); err != nil {
		to.close()
		return nil, err
	}
	return to, nil
}

func (t *contact) open(s config.Settings, tenant domain.TenantID) (err error) {
	if t.store, err = openCurrentStore(t.env.ctx, s); err != nil {
		return err
	}
	if t.in, t.tenant, err = openTenant(t.env.ctx, s, t.log, tenant); err != nil {
		return err
	}
	t.partitions = t.in.Partitions[domain.TopicImpressions]
	return nil
}

func (t *contact) close() {
	t.client.Close()
	if t.store != nil {
		t.store.Close()
	}
	t.log.Close()
}

// userAgent is what endpoints see of the program.
func userAgent() string { return "seenby/" + telemetry.ReadBuild().Version }

// newCaller calls endpoints as the settings say.
func newCaller(s config.Settings) *webhook.Client {
	return webhook.New(webhook.Options{UserAgent: userAgent(), Timeout: s.Relay.CallTimeout})
}

func (t *contact) with() relay.Contact {
	return relay.Contact{Core: t.client, Store: t.store, PartitionOf: t.partitionOf, Now: t.env.now}
}

func (t *contact) partitionOf(post domain.PostKey) int32 {
	return eventlog.PartitionOf(post.Key(), t.partitions)
}

// endpoint is one as it is called now.
func (t *contact) endpoint(e domain.EndpointSet) webhook.Endpoint {
	return webhook.Endpoint{URL: e.URL, Secrets: tenancy.EndpointSecrets(t.tenant.Key, e, t.env.now()), AllowPrivate: e.AllowPrivate}
}

// enabled are the endpoints that are sent to. CodeConflict: there is none.
func (t *contact) enabled() ([]domain.EndpointSet, error) {
	all, err := tenancy.EndpointsOf(t.in, t.tenant.ID)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(e domain.EndpointSet) bool { return !e.Enabled() })
	if len(all) == 0 {
		return nil, domain.Errorf(domain.CodeConflict, "tenant %s has no enabled endpoint: make one with `seenby relay endpoints create %s URL`", t.tenant.ID, t.tenant.ID)
	}
	return all, nil
}

type relayEnableCommand struct {
	ofTenant
	ImportBaseline bool `help:"Where the core system has more than Seenby counted, import the rest as a baseline." name:"import-baseline"`
}

// namedMax is how many posts a command names; the counts are of all.
const namedMax = 10

// Run compares first: what the core system shows must never go down by being told.
func (c relayEnableCommand) Run(env *environment) error {
	t, err := c.contact(env)
	if err != nil {
		return err
	}
	defer t.close()
	endpoints, err := t.enabled()
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		if err := c.meet(t, e); err != nil {
			return err
		}
	}
	on := true
	_, changed, err := c.setRelay(env, &on, nil)
	if err != nil {
		return err
	}
	if !changed {
		env.printf("tenant %s: its core system is told already\n", c.Tenant)
		return nil
	}
	env.printf("tenant %s: its core system is told from now on, at first all that was counted\n", c.Tenant)
	return nil
}

// meet compares what an endpoint has with what it would be told.
func (c relayEnableCommand) meet(t *contact, e domain.EndpointSet) error {
	var exceeding, ahead []relay.Compared
	var posts, missing int64
	err := t.with().Pages(t.env.ctx, t.tenant.ID, t.endpoint(e), func(page []relay.Compared) error {
		posts += int64(len(page))
		for _, one := range page {
			if one.Exceeds() {
				missing += one.Core.Impressions - one.Counts.Impressions
				exceeding = append(exceeding, one)
			} else if one.Core.Revision > one.Told.Revision {
				ahead = append(ahead, one)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("endpoint %s: %w", e.EndpointID, err)
	}
	t.env.printf("endpoint %s has %s posts; of %s of them it has more than was counted here, %s impressions in all\n",
		e.EndpointID, grouped(posts), grouped(int64(len(exceeding))), grouped(missing))
	if len(exceeding) > 0 && !c.ImportBaseline {
		for _, one := range exceeding[:min(len(exceeding), namedMax)] {
			t.env.printf("  %s: the core has %s, counted here are %s\n", one.Post.Post, grouped(one.Core.Impressions), grouped(one.Counts.Impressions))
		}
		return domain.Errorf(domain.CodeConflict, "the core system would be told less than it shows: import what is missing with --import-baseline, or with `seenby import counts`, and enable again")
	}
	if err := t.importBaselines(exceeding); err != nil {
		return err
	}
	// Told under a revision that the core has already, they would be passed over.
	return t.with().Resend(t.env.ctx, slices.DeleteFunc(append(ahead, exceeding...), func(one relay.Compared) bool { return one.Core.Revision < one.Told.Revision }))
}

const (
	baselineBatch = 1000
	// baselineWait is how long what was imported may take until it stands on the topic impressions.
	baselineWait = time.Minute
	baselineStep = 200 * time.Millisecond
)

// importBaselines appends what is missing, and waits until it is what would be told.
func (t *contact) importBaselines(of []relay.Compared) error {
	for batch := range slices.Chunk(of, baselineBatch) {
		if _, err := t.log.Append(t.env.ctx, relay.Baselines(batch, t.env.now(), newID)...); err != nil {
			return err
		}
	}
	until := t.env.now().Add(baselineWait)
	for batch := range slices.Chunk(of, baselineBatch) {
		if err := t.awaitTold(batch, until); err != nil {
			return err
		}
	}
	if len(of) > 0 {
		t.env.printf("imported %s baselines\n", grouped(int64(len(of))))
	}
	return nil
}

// awaitTold waits until none of the posts stands lower on the topic impressions than the core has it.
func (t *contact) awaitTold(of []relay.Compared, until time.Time) error {
	for {
		waiting, err := t.notTold(of)
		if err != nil || waiting == 0 {
			return err
		}
		if t.env.now().After(until) {
			return domain.Errorf(domain.CodeUnavailable, "the baselines are imported, but %d posts are not told yet: does a process with the roles projector and relay run? Then enable again", waiting)
		}
		select {
		case <-t.env.ctx.Done():
			return context.Cause(t.env.ctx)
		case <-time.After(baselineStep):
		}
	}
}

// notTold is how many of the posts stand lower on the topic impressions than the core has them.
func (t *contact) notTold(of []relay.Compared) (waiting int, err error) {
	keys := make([]domain.PostKey, len(of))
	for i, one := range of {
		keys[i] = one.Post
	}
	err = t.store.Snapshot(t.env.ctx, func(ctx context.Context, q projections.Querier) error {
		told, err := relay.Told(ctx, q, keys)
		if err != nil {
			return err
		}
		for _, one := range of {
			if told[one.Post].Impressions < one.Core.Impressions {
				waiting++
			}
		}
		return nil
	})
	return waiting, err
}

type relayReconcileCommand struct {
	ofTenant
	DryRun bool `help:"Compare, and send nothing." name:"dry-run"`
}

// Run compares what the core system has with what it was told, and tells again what differs.
func (c relayReconcileCommand) Run(env *environment) error {
	t, err := c.contact(env)
	if err != nil {
		return err
	}
	defer t.close()
	endpoints, err := t.enabled()
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		named := 0
		r, err := t.with().Reconcile(env.ctx, t.tenant.ID, t.endpoint(e), !c.DryRun, func(one relay.Compared) {
			if named++; named <= namedMax {
				env.printf("  %s: the core has %s under revision %d, told were %s under revision %d\n", one.Post.Post,
					grouped(one.Core.Impressions), one.Core.Revision, grouped(one.Told.Impressions), one.Told.Revision)
			}
		})
		if err != nil {
			return fmt.Errorf("endpoint %s: %w", e.EndpointID, err)
		}
		env.printf("endpoint %s: of %s posts %s differ: %s lower, %s higher, %s under another revision, %s missing\n", e.EndpointID,
			grouped(r.Posts), grouped(r.Different()), grouped(r.Lower), grouped(r.Higher), grouped(r.Revision), grouped(r.Missing))
		if r.Different() > 0 && !c.DryRun {
			env.printf("they are told again, under higher revisions\n")
		}
	}
	if relaySet := t.in.Tenants[t.tenant.ID].Relay; !relaySet.Enabled && !c.DryRun {
		fmt.Fprintf(env.stderr, "nothing is sent before `seenby relay enable %s`\n", c.Tenant)
	}
	return nil
}

type endpointsTestCommand struct{ ofEndpoint }

// Run makes one call that tells nothing, and prints all of it.
func (c endpointsTestCommand) Run(env *environment) error {
	t, err := c.contact(env)
	if err != nil {
		return err
	}
	defer t.close()
	e, err := tenancy.EndpointOf(t.in, t.tenant.ID, c.ID)
	if err != nil {
		return err
	}
	if err := webhook.CheckURL(env.ctx, e.URL, e.AllowPrivate); err != nil {
		return err
	}
	now := env.now()
	body := webhook.TestBody(t.tenant.ID, now)
	answer := t.client.Send(env.ctx, t.endpoint(e), fmt.Sprintf("test_%d", now.UnixMicro()), body, now)
	env.printf("POST %s\n", e.URL)
	for _, name := range slices.Sorted(maps.Keys(answer.Request)) {
		env.printf("%s: %s\n", strings.ToLower(name), strings.Join(answer.Request[name], ", "))
	}
	env.printf("\n%s\n\n", body)
	if answer.Status == 0 {
		return domain.Errorf(domain.CodeUnavailable, "no answer after %v: %s", answer.Took.Round(time.Millisecond), answer.Detail)
	}
	env.printf("%d after %v: %s\n", answer.Status, answer.Took.Round(time.Millisecond), answer.Outcome)
	if answer.Detail != "" {
		env.printf("%s\n", answer.Detail)
	}
	if answer.Outcome != webhook.Delivered {
		return domain.Errorf(domain.CodeUnavailable, "the endpoint has not taken it")
	}
	return nil
}
