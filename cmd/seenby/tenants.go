package main

import (
	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/tenancy"
)

type tenantsCommand struct {
	Create tenantsCreateCommand `cmd:"" help:"Create a tenant: an app whose posts and viewers are apart from all others."`
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
	in, err := log.Installation(env.ctx)
	if err != nil {
		return err
	}
	events, err := tenancy.CreateTenant(in, env.rand, env.now(), secret, domain.TenantID(c.Tenant), c.Name)
	if c.IfMissing && domain.CodeOf(err) == domain.CodeConflict {
		env.printf("tenant %s is there\n", c.Tenant)
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := log.Append(env.ctx, events...); err != nil {
		return err
	}
	env.printf("tenant %s is created\n", c.Tenant)
	return nil
}
