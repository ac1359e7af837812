package testenv

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	databaseVariable      = "SEENBY_TEST_DATABASE_URL"
	postgresImageVariable = "POSTGRES_IMAGE"
	postgresImageDefault  = "postgres:18"

	// databasePrefix makes what a killed run left in a given server easy to find and drop.
	databasePrefix = "seenby_test_"
)

// PostgresEnv is a running PostgreSQL and a test's own database in it.
type PostgresEnv struct {
	Kind Kind
	DSN  string // a URL, of a role that owns the database
}

// Migrate brings the empty database at dsn to the schema that tests start from, and has closed its connections
// when it returns.
type Migrate func(ctx context.Context, dsn string) error

// PostgresWith returns a database of the test's own, cloned from a template that migrate made once in this
// process, and dropped when the test ends. only is as for Kafka. The function's identity is name: the same name
// always means the same template.
func PostgresWith(t testing.TB, name string, migrate Migrate, only ...Kind) *PostgresEnv {
	t.Helper()
	server, kind := postgresServer(t, only)
	ctx := t.Context()
	template, err := server.template(ctx, name, migrate)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return &PostgresEnv{Kind: kind, DSN: server.database(t, template)}
}

// EmptyPostgres returns an empty database of the test's own, dropped when the test ends. only is as for Kafka.
func EmptyPostgres(t testing.TB, only ...Kind) *PostgresEnv {
	t.Helper()
	server, kind := postgresServer(t, only)
	return &PostgresEnv{Kind: kind, DSN: server.database(t, "template0")}
}

// Conn opens a connection and closes it when the test ends.
func (e *PostgresEnv) Conn(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), e.DSN)
	if err != nil {
		t.Fatalf("testenv: connect to PostgreSQL: %v", err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // the database is dropped next
	return conn
}

func postgresServer(t testing.TB, only []Kind) (*server, Kind) {
	t.Helper()
	mustHaveMain(t)
	kinds, chosen, err := candidates(only)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	s, kind, err := postgreses.get(kinds)
	if err != nil {
		fail(t, err, chosen)
	}
	return s, kind
}

// server is a PostgreSQL and the templates made in it.
type server struct {
	dsn string // of a role that may create databases

	mu        sync.Mutex
	templates map[string]templateResult
}

type templateResult struct {
	database string
	err      error
}

func (s *server) template(ctx context.Context, name string, migrate Migrate) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.templates[name]; ok {
		return r.database, r.err
	}
	database := databasePrefix + "template_" + randomHex()
	err := s.exec(ctx, "CREATE DATABASE "+database+" TEMPLATE template0")
	if err == nil {
		onStop(func(ctx context.Context) error {
			return s.exec(ctx, "DROP DATABASE IF EXISTS "+database+" WITH (FORCE)")
		})
		err = migrate(ctx, s.dsnOf(database))
	}
	if err != nil {
		err = fmt.Errorf("make template %q: %w", name, err)
	}
	s.templates[name] = templateResult{database, err}
	return database, err
}

// database clones template for the test.
func (s *server) database(t testing.TB, template string) string {
	t.Helper()
	name := databasePrefix + randomHex()
	// A backend of the template's last user may still be on its way out; the server itself waits only 5 s.
	for {
		err := s.exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+template)
		if err == nil {
			break
		}
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "55006" /* object_in_use */ || t.Context().Err() != nil {
			t.Fatalf("testenv: create database: %v", err)
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := s.exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Logf("testenv: drop database: %v", err)
		}
	})
	return s.dsnOf(name)
}

func (s *server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is pending
	_, err = conn.Exec(ctx, sql)
	return err
}

func (s *server) dsnOf(database string) string {
	u, err := url.Parse(s.dsn)
	if err != nil {
		panic(err) // newServer has parsed it
	}
	u.Path = "/" + database
	return u.String()
}

// newServer returns the server at dsn when it answers.
func newServer(ctx context.Context, dsn string) (*server, error) {
	if u, err := url.Parse(dsn); err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return nil, errors.New("the database must be given as a URL: postgres://user:password@host/database")
	}
	s := &server{dsn: dsn, templates: map[string]templateResult{}}
	return s, waitFor(ctx, func(ctx context.Context) error { return s.exec(ctx, "SELECT 1") })
}

var postgreses = pool[*server]{
	name: "PostgreSQL",
	starter: map[Kind]func(context.Context) (*server, string, error){
		Given:      givenPostgres,
		Containers: containerPostgres,
		Embedded:   embeddedPostgres,
	},
}

func givenPostgres(ctx context.Context) (*server, string, error) {
	dsn := os.Getenv(databaseVariable)
	if dsn == "" {
		return nil, "", fmt.Errorf("%w: %s is not set", errNotHere, databaseVariable)
	}
	ctx, cancel := context.WithTimeout(ctx, givenTimeout)
	defer cancel()
	s, err := newServer(ctx, dsn)
	return s, databaseVariable, err
}

// givenTimeout is for servers that are said to run already.
const givenTimeout = 10 * time.Second

func containerPostgres(ctx context.Context) (*server, string, error) {
	const password = "seenby"
	c, err := startContainer(ctx, containerSpec{
		image: imageName(postgresImageVariable, postgresImageDefault),
		port:  "5432/tcp",
		env:   map[string]string{"POSTGRES_PASSWORD": password},
		args: []string{
			"postgres", "-c", "max_connections=200",
			// What a crash would lose is thrown away anyway.
			"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off",
		},
	})
	if err != nil {
		return nil, "", err
	}
	s, err := newServer(ctx, "postgres://postgres:"+password+"@"+c.address+"/postgres?sslmode=disable")
	if err != nil {
		return nil, "", c.withLogs(err)
	}
	return s, c.spec.image + " at " + c.address, nil
}
