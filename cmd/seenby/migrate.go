package main

import (
	"seenby/internal/config"
	"seenby/internal/postgres"
)

type migrateCommand struct{ operational }

// Run brings the database to the newest schema.
func (c migrateCommand) Run(env *environment) error {
	s, err := env.settings(c.DataDir, config.NeedDatabase)
	if err != nil {
		return err
	}
	if err := postgres.Migrate(env.ctx, s.Database.URL.Reveal()); err != nil {
		return err
	}
	needed, err := postgres.SchemaVersionNeeded()
	if err != nil {
		return err
	}
	env.printf("the database's schema is at version %d\n", needed)
	return nil
}
