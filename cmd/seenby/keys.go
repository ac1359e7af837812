package main

import (
	"fmt"

	"seenby/domain"
	"seenby/internal/tenancy"
)

type keysCommand struct {
	Create keysCreateCommand `cmd:"" help:"Create an API key and print it: the only time that it is seen."`
}

type keysCreateCommand struct {
	operational
	Tenant string `arg:"" help:"Id of the tenant."`
	Label  string `help:"What the key is for, for people."`
	IfNone bool   `help:"Create no key where the tenant has one."`
}

// Run creates the key. Standard output holds nothing but the key, so that a script can take it.
func (c keysCreateCommand) Run(env *environment) error {
	_, log, err := env.connect(c.DataDir)
	if err != nil {
		return err
	}
	defer log.Close()
	in, err := log.Installation(env.ctx)
	if err != nil {
		return err
	}
	if t := in.Tenants[domain.TenantID(c.Tenant)]; c.IfNone && t != nil && usableKeys(t) > 0 {
		fmt.Fprintf(env.stderr, "tenant %s has a key already; without --if-none another one is made\n", c.Tenant)
		return nil
	}
	plain, event, err := tenancy.IssueKey(in, env.rand, env.now(), domain.TenantID(c.Tenant), c.Label)
	if err != nil {
		return err
	}
	if _, err := log.Append(env.ctx, event); err != nil {
		return err
	}
	env.printf("%s\n", plain)
	return nil
}

func usableKeys(t *domain.Tenant) int {
	n := 0
	for _, k := range t.Keys {
		if !k.Revoked {
			n++
		}
	}
	return n
}
