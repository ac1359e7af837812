package testenv

import (
	"context"
	"fmt"
	"strconv"
	"testing"
)

// SmallDisk is a directory in the container of a PostgresMachine, on a file system of SmallDiskBytes, which the server
// may use as a tablespace. It is empty after each start of the machine.
const (
	SmallDisk      = "/small"
	SmallDiskBytes = 256 << 20
)

// PostgresMachine is a PostgreSQL of its own, for tests that break it. Unlike the shared one it keeps what it has
// committed.
type PostgresMachine struct {
	*Machine
	DSN string // a URL of an empty database, of a superuser
}

// NewPostgresMachine starts a PostgreSQL for the test. What it needs is as for NewKafkaCluster.
func NewPostgresMachine(t testing.TB) *PostgresMachine {
	t.Helper()
	mustHaveMain(t)
	m, err := newPostgresMachine(t)
	if err != nil {
		fail(t, err, true)
	}
	return m
}

func newPostgresMachine(t testing.TB) (*PostgresMachine, error) {
	t.Helper()
	const password = "seenby"
	free, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	dsn := fmt.Sprintf("postgres://postgres:%s@%s/postgres?sslmode=disable", password, loopback(free[0]))
	ready := func(ctx context.Context) error { return (&server{dsn: dsn}).exec(ctx, "SELECT 1") }
	m, err := startMachine(t, "PostgreSQL", containerSpec{
		image: imageName(postgresImageVariable, postgresImageDefault),
		env:   map[string]string{"POSTGRES_PASSWORD": password},
		args: []string{
			"postgres", "-p", strconv.Itoa(free[0]), "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300",
		},
		// 999 is postgres, in the official image and in ours.
	}, map[string]string{SmallDisk: fmt.Sprintf("size=%d,uid=999,gid=999,mode=0700", SmallDiskBytes)}, ready)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	return &PostgresMachine{Machine: m, DSN: dsn}, m.Wait(ctx)
}
