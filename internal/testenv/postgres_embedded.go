package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"

	"seenby/internal/embedded"
)

func embeddedPostgres(ctx context.Context) (*server, string, error) {
	dir, err := os.MkdirTemp("", "seenby-testenv-")
	if err != nil {
		return nil, "", fmt.Errorf("make a directory for PostgreSQL: %w", err)
	}
	postgres, err := embedded.StartPostgres(ctx, embedded.PostgresOptions{
		DataDir:  dir,
		Progress: func(line string) { fmt.Fprintln(os.Stderr, "testenv: PostgreSQL:", line) },
	})
	if err != nil {
		return nil, "", errors.Join(err, os.RemoveAll(dir))
	}
	onStop(func(ctx context.Context) error { return errors.Join(postgres.Close(ctx), os.RemoveAll(dir)) })
	s, err := newServer(ctx, postgres.URL())
	return s, "run by a child process in " + dir, err
}
