// Package testenv gives tests a Kafka and a PostgreSQL.
//
// Kafka and Postgres are its main functions. Each picks the first of three kinds that is there:
//
//  1. given: SEENBY_TEST_BROKERS (comma-separated) or SEENBY_TEST_DATABASE_URL (a role that may create
//     databases) names it;
//  2. containers: Docker answers, and the image is there or can be pulled (KAFKA_IMAGE, default
//     apache/kafka:4.3.1; POSTGRES_IMAGE, default postgres:18);
//  3. embedded: kfake in this process, and a PostgreSQL that internal/embedded runs.
//
// The choice is printed once per process. SEENBY_TEST_REQUIRE=containers forbids the third kind: a test that
// would fall back to it fails and says what to do. Nothing is skipped in silence.
//
// One server of a kind serves all tests of a process. Tests are kept apart by names: each KafkaEnv has its own
// prefix, each PostgresEnv its own database.
//
// A package that uses it has this in one of its test files, so that what was started is also stopped:
//
//	func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }
//
// Containers are removed by a child process when the standard input that it inherits from this one ends,
// which also happens where the tests are killed or run into their time limit. It replaces testcontainers' own
// reaper and its image.
package testenv

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"seenby/internal/embedded"
)

// Kind says where a server comes from.
type Kind string

// The kinds, in the order in which they are tried.
const (
	Given      Kind = "given"
	Containers Kind = "containers"
	Embedded   Kind = "embedded"
)

const (
	requireVariable = "SEENBY_TEST_REQUIRE"

	// startTimeout is ample for two cores that compile other packages meanwhile.
	startTimeout = 3 * time.Minute
	stopTimeout  = time.Minute
)

// errNotHere: the kind does not exist on this machine, so the next one may be tried.
var errNotHere = errors.New("not here")

// Main runs the tests of a package and stops every server that they started. It returns the exit code for
// os.Exit. It must be the first call of TestMain: the same binary is also run as a child that looks after
// containers or after the embedded PostgreSQL, and Main then does not return.
func Main(m *testing.M) int {
	embedded.SupervisorMain()
	runChild()
	mainCalled = true
	code := m.Run()
	if err := stopAll(); err != nil {
		fmt.Fprintf(os.Stderr, "testenv: %v\n", err)
		code = max(code, 1)
	}
	return code
}

// RequireKind is for a test that makes sense on some kinds only: it skips the test on any other one, and says
// so on standard error too; under SEENBY_TEST_REQUIRE=containers it fails the test instead, so that CI cannot
// lose one. To choose a kind rather than check it, pass the kind to Kafka or Postgres.
func RequireKind(t testing.TB, got Kind, want ...Kind) {
	t.Helper()
	if slices.Contains(want, got) {
		return
	}
	refuse(t, fmt.Errorf("needs %s, and this is %s", join(want, " or "), got))
}

func refuse(t testing.TB, err error) {
	t.Helper()
	required, reqErr := containersRequired()
	if required || reqErr != nil {
		t.Fatalf("testenv: %v", errors.Join(err, reqErr))
	}
	fmt.Fprintf(os.Stderr, "testenv: %s is skipped: %v\n", t.Name(), err)
	t.Skipf("testenv: %v", err)
}

// containersRequired reads SEENBY_TEST_REQUIRE.
func containersRequired() (bool, error) {
	switch v := os.Getenv(requireVariable); v {
	case "":
		return false, nil
	case string(Containers):
		return true, nil
	default:
		return false, fmt.Errorf("%s=%s: it can be %q or unset", requireVariable, v, Containers)
	}
}

// candidates are the kinds to try in order, and whether the caller itself settled on one.
func candidates(only []Kind) ([]Kind, bool, error) {
	if len(only) == 1 {
		return only, true, nil
	}
	required, err := containersRequired()
	if err != nil {
		return nil, false, err
	}
	kinds := only
	if len(kinds) == 0 {
		kinds = []Kind{Given, Containers, Embedded}
	}
	if required {
		kinds = slices.DeleteFunc(slices.Clone(kinds), func(k Kind) bool { return k == Embedded })
	}
	return kinds, false, nil
}

var mainCalled bool // set before any test runs, read only after

func mustHaveMain(t testing.TB) {
	t.Helper()
	if !mainCalled {
		t.Fatal("testenv: this package needs: func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }")
	}
}

// pool holds at most one running server of each kind.
type pool[S any] struct {
	name    string // "Kafka", "PostgreSQL"
	starter map[Kind]func(ctx context.Context) (S, string, error)

	mu      sync.Mutex
	servers map[Kind]*started[S]
}

type started[S any] struct {
	server S
	err    error
}

// get starts or returns the server of the first of kinds that is available. Concurrent callers wait for the one
// that starts it; a failure is remembered too.
func (p *pool[S]) get(kinds []Kind) (S, Kind, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.servers == nil {
		p.servers = map[Kind]*started[S]{}
	}
	var (
		none    S
		reasons []error
	)
	for _, kind := range kinds {
		s := p.servers[kind]
		if s == nil {
			ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
			server, what, err := p.starter[kind](ctx)
			cancel()
			s = &started[S]{server: server, err: err}
			p.servers[kind] = s
			if err == nil {
				fmt.Fprintf(os.Stderr, "testenv: %s: %s, %s%s\n", p.name, kind, what, because(reasons))
			}
		}
		if s.err == nil {
			return s.server, kind, nil
		}
		reason := fmt.Errorf("%s: %w", kind, s.err)
		if !errors.Is(s.err, errNotHere) {
			// It is there, and does not work: another kind would hide that.
			return none, "", fmt.Errorf("start %s: %w", p.name, reason)
		}
		if kind != Given || len(kinds) == 1 {
			reasons = append(reasons, reason)
		}
	}
	return none, "", fmt.Errorf("%s: %w%s", p.name, errNotHere, because(reasons))
}

func because(reasons []error) string {
	if len(reasons) == 0 {
		return ""
	}
	texts := make([]string, len(reasons))
	for i, r := range reasons {
		texts[i] = r.Error()
	}
	return " (" + strings.Join(texts, "; ") + ")"
}

// fail ends a test that got no server.
func fail(t testing.TB, err error, chosen bool) {
	t.Helper()
	if chosen && errors.Is(err, errNotHere) {
		refuse(t, err)
	}
	if required, _ := containersRequired(); required && !chosen {
		t.Fatalf("testenv: %v; %s=%s forbids the embedded one: start Docker and make the images available "+
			`(where none can be pulled: eval "$(images/build | tail -1)"), name a running one by %s and %s, or unset %s`,
			err, requireVariable, Containers, brokersVariable, databaseVariable, requireVariable)
	}
	t.Fatalf("testenv: %v", err)
}

var stops struct {
	mu    sync.Mutex
	funcs []func(ctx context.Context) error
}

// onStop registers what Main does after the tests, last registered first.
func onStop(f func(ctx context.Context) error) {
	stops.mu.Lock()
	defer stops.mu.Unlock()
	stops.funcs = append(stops.funcs, f)
}

func stopAll() error {
	stops.mu.Lock()
	defer stops.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var errs []error
	for i := len(stops.funcs) - 1; i >= 0; i-- {
		errs = append(errs, stops.funcs[i](ctx))
	}
	stops.funcs = nil
	return errors.Join(errs...)
}

// uniqueName is part of a test's name, for people, and random digits: only a-z, 0-9 and hyphens.
func uniqueName(t testing.TB) string {
	const lengthMax = 30 // leaves the rest of a topic's 249 bytes to the topic
	readable := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + ('a' - 'A')
		default:
			return '-'
		}
	}, t.Name())
	return strings.Trim(readable[:min(len(readable), lengthMax)], "-") + "-" + randomHex()
}

func randomHex() string {
	b := make([]byte, 6)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func join(kinds []Kind, sep string) string {
	texts := make([]string, len(kinds))
	for i, k := range kinds {
		texts[i] = string(k)
	}
	return strings.Join(texts, sep)
}
