package main

import (
	"context"
	"log/slog"
	"os"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/eventlog"
	"seenby/internal/postgres"
	"seenby/internal/tenancy"
)

// connect reads the settings and opens Kafka, for commands that need no more. Close the log.
func (env *environment) connect(dataDir string, needs ...config.Need) (config.Settings, *eventlog.Log, error) {
	s, err := env.settings(dataDir, append(needs, config.NeedKafka)...)
	if err != nil {
		return s, nil, err
	}
	log, err := openLog(s, nil)
	return s, log, err
}

// openLog opens Kafka as the settings say. It does not touch the network.
func openLog(s config.Settings, log *slog.Logger) (*eventlog.Log, error) {
	cfg := eventlog.Config{
		Brokers: s.Kafka.Brokers, Prefix: s.Kafka.Prefix, Logger: log,
		SASL: eventlog.SASL{Mechanism: s.Kafka.SASL.Mechanism, User: s.Kafka.SASL.User, Password: s.Kafka.SASL.Password.Reveal()},
	}
	var err error
	if cfg.TLS, err = s.Kafka.TLS.Config(os.ReadFile); err != nil {
		return nil, err
	}
	return eventlog.Open(cfg)
}

// openStore opens PostgreSQL as the settings say. It does not touch the network.
func openStore(ctx context.Context, s config.Settings) (*postgres.Store, error) {
	return postgres.Open(ctx, postgres.Config{
		URL:            s.Database.URL.Reveal(),
		ConnectionsMax: int32(s.Database.ConnectionsMax), //nolint:gosec // bounded by the settings' table
	})
}

func openSecret(s config.Settings) (*tenancy.Secret, error) {
	return tenancy.NewSecret(s.Secret.Reveal())
}

// openCurrentStore opens PostgreSQL for a command, and refuses a schema that is not this program's.
func openCurrentStore(ctx context.Context, s config.Settings) (*postgres.Store, error) {
	store, err := openStore(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := store.CheckSchema(ctx); err != nil {
		store.Close()
		return nil, err
	}
	return store, nil
}

// openTenant gives what stands on the topic tenants, and what a command needs to act for an open tenant.
func openTenant(ctx context.Context, s config.Settings, log *eventlog.Log, tenant domain.TenantID) (*domain.Installation, tenancy.TenantHandle, error) {
	secret, err := openSecret(s)
	if err != nil {
		return nil, tenancy.TenantHandle{}, err
	}
	in, err := log.Installation(ctx)
	if err != nil {
		return nil, tenancy.TenantHandle{}, err
	}
	handle, err := tenancy.OpenTenant(in, secret, tenant)
	return in, handle, err
}
