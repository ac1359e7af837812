package main

import (
	"fmt"
	"text/tabwriter"

	"seenby/domain"
	"seenby/internal/adminapi"
	"seenby/internal/tenancy"
)

type keysCommand struct {
	Create keysCreateCommand `cmd:"" help:"Create an API key and print it: the only time that it is seen."`
	List   keysListCommand   `cmd:"" help:"List a tenant's API keys."`
	Revoke keysRevokeCommand `cmd:"" help:"Revoke an API key: every api refuses it within two seconds."`
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
	var plain string
	has := false
	err = log.ChangeTenants(env.ctx, func(in *domain.Installation) ([]domain.Event, error) {
		if t := in.Tenants[domain.TenantID(c.Tenant)]; c.IfNone && t != nil && usableKeys(t) > 0 {
			has = true
			return nil, nil
		}
		var event domain.KeyIssued
		var err error
		plain, event, err = tenancy.IssueKey(in, env.rand, env.now(), domain.TenantID(c.Tenant), c.Label)
		return []domain.Event{event}, err
	})
	if err != nil {
		return err
	}
	if has {
		fmt.Fprintf(env.stderr, "tenant %s has a key already; without --if-none another one is made\n", c.Tenant)
		return nil
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

type keysListCommand struct {
	operational
	asJSON
	Tenant string `arg:"" help:"Id of the tenant."`
}

// Run lists the keys, oldest first.
func (c keysListCommand) Run(env *environment) error {
	in, err := env.installation(c.DataDir)
	if err != nil {
		return err
	}
	t, err := tenancy.TenantOf(in, domain.TenantID(c.Tenant))
	if err != nil {
		return err
	}
	keys := adminapi.KeysOf(t)
	if c.JSON {
		return env.printJSON(adminapi.Keys{Keys: keys})
	}
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tSTATUS\tISSUED\tREVOKED\tLABEL")
	for _, k := range keys {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.ID, k.Status, moment(k.IssuedAt), moment(k.RevokedAt), k.Label)
	}
	return w.Flush()
}

type keysRevokeCommand struct {
	operational
	Tenant string `arg:"" help:"Id of the tenant."`
	Key    string `arg:"" help:"Id of the key, or how it begins: seenby_<id>. 'keys list' shows both."`
}

// Run revokes the key.
func (c keysRevokeCommand) Run(env *environment) error {
	_, log, err := env.connect(c.DataDir)
	if err != nil {
		return err
	}
	defer log.Close()
	var id string
	err = log.ChangeTenants(env.ctx, func(in *domain.Installation) (events []domain.Event, err error) {
		id, events, err = tenancy.RevokeKey(in, env.now(), domain.TenantID(c.Tenant), c.Key)
		return events, err
	})
	if err != nil {
		return err
	}
	env.printf("key %s of tenant %s is revoked; every api refuses it within two seconds\n", id, c.Tenant)
	return nil
}
