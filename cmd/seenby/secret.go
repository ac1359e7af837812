package main

import (
	"os"
	"strings"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/tenancy"
)

type secretCommand struct {
	Rotate secretRotateCommand `cmd:"" help:"Seal the tenants' keys under a new secret. Repeatable."`
}

type secretRotateCommand struct {
	operational
	NewSecretFile string `help:"File that holds the new secret, at least 32 bytes (openssl rand -hex 32)." required:"" placeholder:"FILE" type:"path"`
}

// Run rotates: SEENBY_SECRET is the present secret.
func (c secretRotateCommand) Run(env *environment) error {
	// Read before Kafka is asked, and its content is repeated nowhere.
	text, err := os.ReadFile(c.NewSecretFile)
	if err != nil {
		return domain.Invalid("--new-secret-file", "cannot be read: %v", err)
	}
	next, err := tenancy.NewSecret(string(text))
	if err != nil {
		return domain.Invalid("--new-secret-file", "%s", strings.ReplaceAll(err.Error(), "SEENBY_SECRET", "the secret in it"))
	}
	s, log, err := env.connect(c.DataDir, config.NeedSecret)
	if err != nil {
		return err
	}
	defer log.Close()
	secret, err := openSecret(s)
	if err != nil {
		return err
	}
	var before string
	var events []domain.Event
	err = log.ChangeTenants(env.ctx, func(in *domain.Installation) (_ []domain.Event, err error) {
		before = in.Fingerprint
		events, err = tenancy.RotateSecret(in, env.rand, secret, next)
		return events, err
	})
	if err != nil {
		return err
	}
	if len(events) == 0 {
		env.printf("the tenants' keys are sealed under this secret already (fingerprint %s)\n", next.Fingerprint())
		return nil
	}
	env.printf(`the secret is rotated: fingerprint %s before, %s now; tenant keys sealed anew: %d
Give the new one to every process (SEENBY_SECRET) and restart them one by one: those that run go on until then, but do
not serve tenants that are created from now on. The old one is refused at the next start. Keep it, and keep it secret,
until Kafka has compacted the topic tenants (two days) and for as long as there are backups from before.
`, before, next.Fingerprint(), len(events)-1)
	return nil
}
