package main

import (
	"cmp"
	"fmt"
	"text/tabwriter"
	"time"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/tenancy"
	"seenby/internal/webhook"
)

type relayEndpointsCommand struct {
	Create  endpointsCreateCommand  `cmd:"" help:"Create an endpoint, and print its id and its secret."`
	List    endpointsListCommand    `cmd:"" help:"List a tenant's endpoints."`
	Test    endpointsTestCommand    `cmd:"" help:"Call an endpoint with a message that tells nothing, and print request, signature and answer."`
	Disable endpointsDisableCommand `cmd:"" help:"Send an endpoint nothing any more."`
	Enable  endpointsEnableCommand  `cmd:"" help:"Send to a disabled endpoint again."`
	Rotate  endpointsRotateCommand  `cmd:"" help:"Give an endpoint a new secret and print it; for a day the one before signs too."`
	Secret  endpointsSecretCommand  `cmd:"" help:"Print the secrets that sign what an endpoint is sent now, newest first."`
}

// ofEndpoint is what commands about one endpoint have in common.
type ofEndpoint struct {
	ofTenant
	ID string `arg:"" help:"Id of the endpoint; 'relay endpoints list' shows it."`
}

type endpointsCreateCommand struct {
	ofTenant
	URL          string `arg:"" help:"Where the core system listens: an https or http URL."`
	AllowPrivate bool   `help:"The address may be private or loopback: a core system in your own network."`
	JSON         bool   `help:"Print JSON." name:"json"`
}

// Run creates the endpoint. Standard output holds its id and its secret, a line each, so that a script can take them.
func (c endpointsCreateCommand) Run(env *environment) error {
	if err := webhook.CheckURL(env.ctx, c.URL, c.AllowPrivate); err != nil {
		return err
	}
	var e domain.EndpointSet
	silent := false
	key, err := c.changeWithKey(env, func(in *domain.Installation) (events []domain.Event, err error) {
		silent = !in.Tenants[c.id()].Relay.Enabled
		e, events, err = tenancy.CreateEndpoint(in, env.rand, env.now(), c.id(), c.URL, c.AllowPrivate)
		return events, err
	})
	if err != nil {
		return err
	}
	secret := tenancy.WebhookSecret(key, e.EndpointID, e.SecretGeneration)
	if c.JSON {
		if err := env.printJSON(createdEndpoint{endpointOf(e), secret}); err != nil {
			return err
		}
	} else {
		env.printf("%s\n%s\n", e.EndpointID, secret)
	}
	fmt.Fprintf(env.stderr, "what endpoint %s is sent is signed with this secret (Standard Webhooks); `seenby relay endpoints secret %s %s` prints it again\n", e.EndpointID, c.Tenant, e.EndpointID)
	if silent {
		fmt.Fprintf(env.stderr, "nothing is sent before `seenby relay enable %s`\n", c.Tenant)
	}
	return nil
}

// changeWithKey carries out a command on the tenant that needs its key, and gives the key. Where the secret is not the
// installation's, or the tenant is not open, nothing is decided.
func (c ofTenant) changeWithKey(env *environment, decide func(*domain.Installation) ([]domain.Event, error)) (key domain.TenantKey, err error) {
	s, log, err := env.connect(c.DataDir, config.NeedSecret)
	if err != nil {
		return key, err
	}
	defer log.Close()
	secret, err := openSecret(s)
	if err != nil {
		return key, err
	}
	err = log.ChangeTenants(env.ctx, func(in *domain.Installation) ([]domain.Event, error) {
		handle, err := tenancy.OpenTenant(in, secret, c.id())
		if err != nil {
			return nil, err
		}
		key = handle.Key
		return decide(in)
	})
	return key, err
}

// shownEndpoint is an endpoint as JSON.
type shownEndpoint struct {
	ID           string     `json:"id"`
	URL          string     `json:"url"`
	Status       string     `json:"status"` // enabled or disabled
	AllowPrivate bool       `json:"allow_private"`
	CreatedAt    *time.Time `json:"created_at,omitempty"`
	RotatedAt    *time.Time `json:"rotated_at,omitempty"`
	DisabledAt   *time.Time `json:"disabled_at,omitempty"`
	Reason       string     `json:"disabled_reason,omitempty"`
}

type createdEndpoint struct {
	shownEndpoint
	Secret string `json:"secret"`
}

func endpointOf(e domain.EndpointSet) shownEndpoint {
	status := "enabled"
	if !e.Enabled() {
		status = "disabled"
	}
	return shownEndpoint{
		ID: e.EndpointID, URL: e.URL, Status: status, AllowPrivate: e.AllowPrivate,
		CreatedAt: known(e.CreatedAt), RotatedAt: known(e.RotatedAt), DisabledAt: known(e.DisabledAt), Reason: e.DisabledReason,
	}
}

// known is a time as it stands on the log; nil for none.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Microsecond)
	return &t
}

type endpointsListCommand struct {
	ofTenant
	JSON bool `help:"Print JSON." name:"json"`
}

// Run lists the endpoints by their ids.
func (c endpointsListCommand) Run(env *environment) error {
	in, err := env.installation(c.DataDir)
	if err != nil {
		return err
	}
	endpoints, err := tenancy.EndpointsOf(in, c.id())
	if err != nil {
		return err
	}
	shown := make([]shownEndpoint, len(endpoints))
	for i, e := range endpoints {
		shown[i] = endpointOf(e)
	}
	if c.JSON {
		return env.printJSON(struct {
			Endpoints []shownEndpoint `json:"endpoints"`
		}{shown})
	}
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENDPOINT\tSTATUS\tCREATED\tROTATED\tDISABLED\tREASON\tURL")
	for _, e := range shown {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.ID, e.Status, moment(e.CreatedAt), moment(e.RotatedAt), moment(e.DisabledAt), cmp.Or(e.Reason, "-"), e.URL)
	}
	return w.Flush()
}

type endpointsDisableCommand struct {
	ofEndpoint
	Reason string `help:"Why, for people: the list shows it."`
}

// Run disables the endpoint.
func (c endpointsDisableCommand) Run(env *environment) error {
	var e domain.EndpointSet
	changed, err := c.change(env, func(in *domain.Installation) (events []domain.Event, err error) {
		e, events, err = tenancy.DisableEndpoint(in, env.now(), c.id(), c.ID, c.Reason)
		return events, err
	})
	if err != nil {
		return err
	}
	if !changed {
		env.printf("endpoint %s is disabled already, since %s\n", c.ID, moment(known(e.DisabledAt)))
		return nil
	}
	env.printf("endpoint %s is disabled; relays follow within two seconds\n", c.ID)
	return nil
}

type endpointsEnableCommand struct{ ofEndpoint }

// Run enables the endpoint.
func (c endpointsEnableCommand) Run(env *environment) error {
	changed, err := c.change(env, func(in *domain.Installation) (events []domain.Event, err error) {
		_, events, err = tenancy.EnableEndpoint(in, c.id(), c.ID)
		return events, err
	})
	if err != nil {
		return err
	}
	if !changed {
		env.printf("endpoint %s is enabled already\n", c.ID)
		return nil
	}
	env.printf("endpoint %s is enabled; relays follow within two seconds\n", c.ID)
	return nil
}

// change carries out a command that needs no key, and tells whether it changed anything.
func (c ofEndpoint) change(env *environment, decide func(*domain.Installation) ([]domain.Event, error)) (changed bool, err error) {
	_, log, err := env.connect(c.DataDir)
	if err != nil {
		return false, err
	}
	defer log.Close()
	err = log.ChangeTenants(env.ctx, func(in *domain.Installation) ([]domain.Event, error) {
		events, err := decide(in)
		changed = len(events) > 0
		return events, err
	})
	return changed, err
}

type endpointsRotateCommand struct {
	ofEndpoint
	Force bool `help:"Rotate although the rotation before still lets two secrets sign: the older of them is dropped at once."`
}

// Run rotates the secret. Standard output holds nothing but the new one, so that a script can take it.
func (c endpointsRotateCommand) Run(env *environment) error {
	var e domain.EndpointSet
	key, err := c.changeWithKey(env, func(in *domain.Installation) (events []domain.Event, err error) {
		e, events, err = tenancy.RotateEndpoint(in, env.now(), c.id(), c.ID, c.Force)
		return events, err
	})
	if err != nil {
		return err
	}
	env.printf("%s\n", tenancy.WebhookSecret(key, e.EndpointID, e.SecretGeneration))
	fmt.Fprintf(env.stderr, "the secret before signs too until %s: give the receiver the new one by then\n", moment(known(tenancy.OverlapEnds(e))))
	return nil
}

type endpointsSecretCommand struct{ ofEndpoint }

// Run prints the secrets of the present, a line each.
func (c endpointsSecretCommand) Run(env *environment) error {
	s, log, err := env.connect(c.DataDir, config.NeedSecret)
	if err != nil {
		return err
	}
	defer log.Close()
	in, handle, err := openTenant(env.ctx, s, log, c.id())
	if err != nil {
		return err
	}
	e, err := tenancy.EndpointOf(in, c.id(), c.ID)
	if err != nil {
		return err
	}
	secrets := tenancy.EndpointSecrets(handle.Key, e, env.now())
	for _, text := range secrets {
		env.printf("%s\n", text)
	}
	if len(secrets) > 1 {
		fmt.Fprintf(env.stderr, "the second one, from before the rotation, signs until %s\n", moment(known(tenancy.OverlapEnds(e))))
	}
	return nil
}
