package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"seenby/domain"
	"seenby/internal/adminapi"
	"seenby/internal/config"
	"seenby/internal/tenancy"
)

type tenantsCommand struct {
	Create tenantsCreateCommand `cmd:"" help:"Create a tenant: an app whose posts and viewers are apart from all others."`
	Set    tenantsSetCommand    `cmd:"" help:"Change limits of a tenant; running processes follow within two seconds."`
	Show   tenantsShowCommand   `cmd:"" help:"Show a tenant with its limits."`
	List   tenantsListCommand   `cmd:"" help:"List all tenants."`
	Close  tenantsCloseCommand  `cmd:"" help:"Close a tenant for ever, destroy its key, and say what remains."`
}

type tenantsCreateCommand struct {
	operational
	Tenant    string `arg:"" help:"Id: 1 to 63 of a-z, 0-9 and -. It can never be used again for another tenant."`
	Name      string `help:"Name, for people. Default: the id."`
	IfMissing bool   `help:"Succeed where the tenant is there already."`
}

// Run creates the tenant.
func (c tenantsCreateCommand) Run(env *environment) error {
	s, log, err := env.connect(c.DataDir, config.NeedSecret)
	if err != nil {
		return err
	}
	defer log.Close()
	secret, err := openSecret(s)
	if err != nil {
		return err
	}
	there := false
	err = log.ChangeTenants(env.ctx, func(in *domain.Installation) ([]domain.Event, error) {
		if t := in.Tenants[domain.TenantID(c.Tenant)]; c.IfMissing && t != nil && t.Closed {
			return nil, domain.Errorf(domain.CodeNotFound, "tenant %s is closed; ids are never used again", c.Tenant)
		}
		events, err := tenancy.CreateTenant(in, env.rand, env.now(), secret, domain.TenantID(c.Tenant), c.Name)
		if c.IfMissing && domain.CodeOf(err) == domain.CodeConflict {
			there = true // said here: a command that was overtaken is a conflict, too, and has created nothing
			return nil, nil
		}
		return events, err
	})
	if err != nil {
		return err
	}
	if there {
		env.printf("tenant %s is there\n", c.Tenant)
		return nil
	}
	env.printf("tenant %s is created\n", c.Tenant)
	return nil
}

type tenantsSetCommand struct {
	operational
	Tenant string   `arg:"" help:"Id of the tenant."`
	Limits []string `arg:"" help:"Limits to change, such as post_cap_views=20 stale=12h own_views=refuse; 'tenants show' lists all." placeholder:"NAME=VALUE"`
}

// Run sets the limits.
func (c tenantsSetCommand) Run(env *environment) error {
	changes := make([]tenancy.Limit, len(c.Limits))
	for i, text := range c.Limits {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return domain.Invalid("limits", "%q must be name=value, such as post_cap_views=20", text)
		}
		changes[i] = tenancy.Limit{Name: name, Value: value}
	}
	_, log, err := env.connect(c.DataDir)
	if err != nil {
		return err
	}
	defer log.Close()
	var limits domain.Limits
	var events []domain.Event
	err = log.ChangeTenants(env.ctx, func(in *domain.Installation) (_ []domain.Event, err error) {
		limits, events, err = tenancy.SetLimits(in, env.now(), domain.TenantID(c.Tenant), changes)
		return events, err
	})
	if err != nil {
		return err
	}
	if len(events) == 0 {
		env.printf("tenant %s has these limits already, at revision %d\n", c.Tenant, limits.Revision)
		return nil
	}
	env.printf("tenant %s: limits are at revision %d\n", c.Tenant, limits.Revision)
	return nil
}

// asJSON is what commands that show something have in common; the JSON is that of the admin API.
type asJSON struct {
	JSON bool `help:"Print JSON, as the admin API answers."`
}

func (env *environment) printJSON(v any) error {
	enc := json.NewEncoder(env.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// installation reads what stands on the topic tenants.
func (env *environment) installation(dataDir string) (*domain.Installation, error) {
	_, log, err := env.connect(dataDir)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return log.Installation(env.ctx)
}

type tenantsShowCommand struct {
	operational
	asJSON
	Tenant string `arg:"" help:"Id of the tenant."`
}

// Run shows the tenant.
func (c tenantsShowCommand) Run(env *environment) error {
	in, err := env.installation(c.DataDir)
	if err != nil {
		return err
	}
	t, err := tenancy.TenantOf(in, domain.TenantID(c.Tenant))
	if err != nil {
		return err
	}
	shown := adminapi.TenantOf(domain.TenantID(c.Tenant), t)
	if c.JSON {
		return env.printJSON(shown)
	}
	env.printf("tenant %s (%s) is %s\n", shown.ID, shown.Name, status(shown))
	env.printf("%d API keys are accepted; limits at revision %d:\n", shown.Keys, shown.Limits.Revision)
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	for _, l := range tenancy.LimitsOf(t.Limits) {
		fmt.Fprintf(w, "  %s\t%s\n", l.Name, l.Value)
	}
	return w.Flush()
}

func status(t adminapi.Tenant) string {
	switch {
	case t.ClosedAt != nil:
		return "closed since " + moment(t.ClosedAt)
	case t.CreatedAt != nil:
		return "open since " + moment(t.CreatedAt)
	}
	return t.Status
}

func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}

type tenantsListCommand struct {
	operational
	asJSON
}

// Run lists the tenants.
func (c tenantsListCommand) Run(env *environment) error {
	in, err := env.installation(c.DataDir)
	if err != nil {
		return err
	}
	shown := adminapi.TenantsOf(in)
	if c.JSON {
		return env.printJSON(shown)
	}
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TENANT\tSTATUS\tKEYS\tREVISION\tNAME")
	for _, t := range shown.Tenants {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", t.ID, status(t), t.Keys, t.Limits.Revision, t.Name)
	}
	return w.Flush()
}

type tenantsCloseCommand struct {
	operational
	Tenant string `arg:"" help:"Id of the tenant."`
	Yes    bool   `help:"Really close it: there is no way back."`
}

// Run closes the tenant, and forgets its names and texts. All of it can be repeated.
func (c tenantsCloseCommand) Run(env *environment) error {
	if !c.Yes {
		return domain.Invalid("--yes", "is needed: closing %s destroys its key, its API keys, its names and its texts, and there is no way back", c.Tenant)
	}
	_, log, err := env.connect(c.DataDir)
	if err != nil {
		return err
	}
	defer log.Close()
	id := domain.TenantID(c.Tenant)
	err = log.ChangeTenants(env.ctx, func(in *domain.Installation) ([]domain.Event, error) {
		return tenancy.CloseTenant(in, env.now(), id)
	})
	if err != nil {
		return err
	}
	env.printf("tenant %s is closed: its key is destroyed and its API keys are revoked\n", id)
	names, texts, err := log.ForgetTenant(env.ctx, id)
	if err != nil {
		return fmt.Errorf("forget its names and texts; close it again to go on: %w", err)
	}
	env.printf("forgotten: %d names, %d texts. %s\n\nWhat remains:\n", names, texts, adminapi.RepeatClose)
	for _, r := range tenancy.Remainders() {
		env.printf("  %s\n    %s\n    until: %s\n", r.Where, r.What, r.Until)
	}
	return nil
}
