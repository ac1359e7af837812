package main

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"seenby/domain"
	"seenby/internal/config"
	"seenby/internal/embedded"
	"seenby/internal/eventlog"
	"seenby/internal/postgres"
	"seenby/internal/tenancy"
	"seenby/topics"
)

type devCommand struct {
	DataDir string `help:"Where everything is kept." default:".seenby" placeholder:"DIR" type:"path" env:"SEENBY_DATA_DIR"`
}

// What dev makes for a first try.
const (
	demoTenant = domain.TenantID("demo")
	demoName   = "Demo"
)

// devKeyFile holds the demo tenant's API key; the other files are the settings' (config.DataDirBrokers ...).
const devKeyFile = "dev.key"

// Run starts the embedded parts, sets up what is not there yet, and serves every role.
func (c devCommand) Run(env *environment) error {
	started := env.now()
	lock, err := embedded.LockDir(c.DataDir)
	if err != nil {
		return err
	}
	defer lock.Unlock() //nolint:errcheck // the end of the process unlocks it too

	d := dev{env: env, dir: c.DataDir}
	if err := d.writeSecret(); err != nil {
		return err
	}
	settings, err := env.settings(c.DataDir, config.NeedSecret)
	if err != nil {
		return err
	}
	if given(settings, "kafka.brokers") {
		return domain.Errorf(domain.CodeMisconfigured, "dev runs its own broker; with a Kafka of your own, run `seenby serve`")
	}
	if given(settings, "database.url") {
		d.databaseURL = settings.Database.URL.Reveal()
	}
	if d.log, err = env.logger(settings); err != nil {
		return err
	}
	defer d.close()
	if d.listener, err = listen(env.ctx, settings.HTTP.Addr, "--http-addr"); err != nil {
		return err // before a database is downloaded
	}
	defer d.listener.Close() //nolint:errcheck // where the service has run, it has closed it
	if err := d.startParts(); err != nil {
		return err
	}
	// Once more: what was just written into the data directory is part of the settings now.
	if settings, err = env.settings(c.DataDir, serveNeeds...); err != nil {
		return err
	}
	settings.AllowUndurable = true
	if err := d.setUp(settings); err != nil {
		return err
	}
	return d.serve(settings, started)
}

// dev is one run of the command.
type dev struct {
	env      *environment
	dir      string
	log      *slog.Logger
	listener net.Listener
	kafka    *embedded.Kafka
	postgres *embedded.Postgres // nil where the user named a database

	databaseURL string
	key         string
}

// postgresStopTimeout is for writing out what PostgreSQL holds in memory.
const postgresStopTimeout = 20 * time.Second

func (d *dev) close() {
	if d.kafka != nil {
		if err := d.kafka.Close(); err != nil {
			d.log.Warn("the embedded broker did not stop cleanly", "err", err)
		}
	}
	if d.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), postgresStopTimeout)
		defer cancel()
		if err := d.postgres.Close(ctx); err != nil {
			d.log.Warn("the embedded database did not stop cleanly", "err", err)
		}
	}
}

// startParts starts broker and database, side by side, and writes down where they are.
func (d *dev) startParts() error {
	var parts errgroup.Group
	parts.Go(func() (err error) {
		d.kafka, err = embedded.StartKafka(d.env.ctx, embedded.KafkaOptions{DataDir: filepath.Join(d.dir, "kafka"), Logger: d.log})
		return err
	})
	if d.databaseURL == "" {
		parts.Go(func() (err error) {
			d.postgres, err = embedded.StartPostgres(d.env.ctx, embedded.PostgresOptions{
				DataDir: filepath.Join(d.dir, "postgres"), Logger: d.log,
				Progress: func(text string) { d.env.printf("%s\n", text) },
			})
			return err
		})
	}
	if err := parts.Wait(); err != nil {
		return err
	}
	if d.postgres != nil {
		d.databaseURL = d.postgres.URL()
	}
	if err := d.write(config.DataDirBrokers, strings.Join(d.kafka.Brokers(), ",")); err != nil {
		return err
	}
	return d.write(config.DataDirDatabaseURL, d.databaseURL)
}

// setUp makes schema, topics, tenant and key where they are missing.
func (d *dev) setUp(settings config.Settings) error {
	ctx := d.env.ctx
	if err := postgres.Migrate(ctx, d.databaseURL); err != nil {
		return err
	}
	log, err := openLog(settings, d.log)
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := log.ApplyTopics(ctx, eventlog.TopicsWanted{Partitions: topics.PartitionsDev, Replication: 1, MinInsyncReplicas: 1}); err != nil {
		return err
	}
	secret, err := openSecret(settings)
	if err != nil {
		return err
	}
	return log.ChangeTenants(ctx, func(in *domain.Installation) ([]domain.Event, error) { return d.setUpTenant(in, secret) })
}

func (d *dev) setUpTenant(in *domain.Installation, secret *tenancy.Secret) ([]domain.Event, error) {
	events, err := tenancy.CreateTenant(in, d.env.rand, d.env.now(), secret, demoTenant, demoName)
	if err != nil && domain.CodeOf(err) != domain.CodeConflict {
		return nil, err
	}
	for _, e := range events {
		in.Apply(e)
	}
	if d.key, err = d.readKey(in); err != nil {
		return nil, err
	}
	if d.key == "" {
		plain, issued, err := tenancy.IssueKey(in, d.env.rand, d.env.now(), demoTenant, "dev")
		if err != nil {
			return nil, err
		}
		// Written before it is appended: a crash between the two leaves a key that does not work, which the next
		// start notices, and never a working key that nobody knows.
		if err := d.write(devKeyFile, plain); err != nil {
			return nil, err
		}
		d.key = plain
		events = append(events, issued)
	}
	return events, nil
}

// readKey gives the key of dev.key where it still works.
func (d *dev) readKey(in *domain.Installation) (string, error) {
	text, err := os.ReadFile(filepath.Join(d.dir, devKeyFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(text))
	if _, ok := in.KeysByHash[tenancy.HashKey(key)]; !ok {
		return "", nil
	}
	return key, nil
}

// serve runs every role, and greets once all of them are ready.
func (d *dev) serve(settings config.Settings, started time.Time) error {
	s, err := newService(d.env.ctx, settings, d.log, d.env.now)
	if err != nil {
		return err
	}
	defer s.close()
	s.roles, s.projections, s.listener = allRoles, allProjections, d.listener
	if err := s.listenAdmin(d.env.ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(d.env.ctx)
	defer cancel()
	go func() {
		if s.waitReady(ctx) {
			d.greet(s.listener.Addr().String(), d.env.now().Sub(started))
		}
	}()
	if d.postgres != nil {
		go func() {
			select {
			case <-ctx.Done():
			case <-d.postgres.Done():
				cancel()
			}
		}()
	}
	err = s.run(ctx)
	if d.postgres != nil && d.env.ctx.Err() == nil {
		err = errors.Join(d.postgres.Err(), err)
	}
	return err
}

// secretBytes is the length of the secret that dev makes, before it is written in hexadecimal.
const secretBytes = 32

func (d *dev) writeSecret() error {
	if _, err := os.Stat(filepath.Join(d.dir, config.DataDirSecret)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	secret := make([]byte, secretBytes)
	if _, err := io.ReadFull(d.env.rand, secret); err != nil {
		return err
	}
	return d.write(config.DataDirSecret, hex.EncodeToString(secret))
}

// given tells a setting that the user gave from a default, or from what an earlier dev left behind.
func given(s config.Settings, name string) bool {
	for _, v := range s.Values() {
		if v.Name == name {
			return v.Text != "" && v.Origin.Kind != config.OriginDefault && v.Origin.Kind != config.OriginDataDir
		}
	}
	return false
}

// write makes a file of the data directory, whole or not at all.
func (d *dev) write(name, text string) error {
	path := filepath.Join(d.dir, name)
	temporary := path + ".new"
	if err := os.WriteFile(temporary, []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
