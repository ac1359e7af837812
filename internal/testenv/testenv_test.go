package testenv_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// each runs f on the kind that this machine's tests use and on the embedded one.
func each(t *testing.T, f func(t *testing.T, only ...testenv.Kind)) {
	t.Run("picked", func(t *testing.T) { f(t) })
	t.Run("embedded", func(t *testing.T) { f(t, testenv.Embedded) })
}

func TestKafkaTransactionRoundTrip(t *testing.T) {
	each(t, func(t *testing.T, only ...testenv.Kind) {
		env := testenv.Kafka(t, only...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		topic := env.Topic("views")
		producer := env.Client(t, kgo.TransactionalID(env.Prefix+"producer"), kgo.DefaultProduceTopic(topic))
		if _, err := kadm.NewClient(producer).CreateTopic(ctx, 1, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := producer.ProduceSync(ctx, kgo.StringRecord("hello")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := producer.EndTransaction(ctx, kgo.TryCommit); err != nil {
			t.Fatal(err)
		}

		consumer := env.Client(t, kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		records := fetches.Records()
		if len(records) != 1 || string(records[0].Value) != "hello" {
			t.Fatalf("read %d records, want the one that was written: %v", len(records), records)
		}
	})
}

func TestKafkaPrefixesDiffer(t *testing.T) {
	a, b := testenv.Kafka(t, testenv.Embedded), testenv.Kafka(t, testenv.Embedded)
	if a.Prefix == b.Prefix || !strings.HasPrefix(a.Prefix, "testkafkaprefixesdiffer-") || !strings.HasSuffix(a.Prefix, "-") {
		t.Errorf("prefixes %q and %q", a.Prefix, b.Prefix)
	}
}

func TestPostgresDatabasesAreSeparate(t *testing.T) {
	each(t, func(t *testing.T, only ...testenv.Kind) {
		migrations := 0
		migrate := func(ctx context.Context, dsn string) error {
			migrations++
			conn, err := pgx.Connect(ctx, dsn)
			if err != nil {
				return err
			}
			if _, err := conn.Exec(ctx, "CREATE TABLE post (id text PRIMARY KEY)"); err != nil {
				return err
			}
			return conn.Close(ctx)
		}
		a := testenv.PostgresWith(t, t.Name(), migrate, only...).Conn(t)
		b := testenv.PostgresWith(t, t.Name(), migrate, only...).Conn(t)
		if migrations != 1 {
			t.Errorf("migrated %d times, want one template", migrations)
		}
		if _, err := a.Exec(t.Context(), "INSERT INTO post VALUES ('p')"); err != nil {
			t.Fatal(err)
		}
		if n := count(t, a, "post"); n != 1 {
			t.Errorf("%d rows where one was written", n)
		}
		if n := count(t, b, "post"); n != 0 {
			t.Errorf("%d rows in the other test's database", n)
		}
	})
}

func TestEmptyPostgres(t *testing.T) {
	each(t, func(t *testing.T, only ...testenv.Kind) {
		env := testenv.EmptyPostgres(t, only...)
		conn := env.Conn(t)
		var version string
		if err := conn.QueryRow(t.Context(), "SELECT version()").Scan(&version); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(version, "PostgreSQL ") {
			t.Errorf("version() is %q", version)
		}
		if n := count(t, conn, "pg_catalog.pg_tables WHERE schemaname = 'public'"); n != 0 {
			t.Errorf("%d tables in an empty database", n)
		}
	})
}

func count(t *testing.T, conn *pgx.Conn, from string) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM "+from).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestInner is what the tests below run in a process of its own.
func TestInner(t *testing.T) {
	switch os.Getenv("TESTENV_INNER") {
	case "":
		t.Log("run by TestRequire and TestKilledRunLeavesNoContainer only")
	case "pick":
		t.Log("kind:", testenv.Kafka(t).Kind)
	case "only containers":
		testenv.Kafka(t, testenv.Containers)
	case "hang":
		fmt.Println("broker:", testenv.Kafka(t).Brokers[0])
		select {}
	}
}

func inner(ctx context.Context, do string, environment ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestInner$", "-test.v")
	cmd.Env = append(append(os.Environ(), "TESTENV_INNER="+do), environment...)
	return cmd
}

func TestRequire(t *testing.T) {
	const required = "SEENBY_TEST_REQUIRE=containers"
	for _, test := range []struct {
		name, do    string
		environment []string
		passes      bool
		prints      []string
	}{
		{"falls back, and says so", "pick", nil, true,
			[]string{"testenv: Kafka: embedded, kfake", "containers: not here", "kind: embedded"}},
		{"refuses to fall back", "pick", []string{required}, false,
			[]string{"containers: not here", required + " forbids", "images/build"}},
		{"a mistyped requirement allows nothing", "pick", []string{"SEENBY_TEST_REQUIRE=container"}, false,
			[]string{`it can be "containers" or unset`}},
		{"a given server that is away is not replaced", "pick", []string{"SEENBY_TEST_BROKERS=127.0.0.1:1"}, false,
			[]string{"given: no answer in time"}},
		{"a kind that is not here is skipped aloud", "only containers", nil, true,
			[]string{"testenv: TestInner is skipped", "containers: not here"}},
		{"and fails where containers are required", "only containers", []string{required}, false,
			[]string{"containers: not here"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// No image can come from a port that nobody listens on, so there are no containers even beside Docker.
			environment := append([]string{"SEENBY_TEST_BROKERS=", "SEENBY_TEST_REQUIRE=", "KAFKA_IMAGE=127.0.0.1:1/kafka:0"},
				test.environment...)
			out, err := inner(t.Context(), test.do, environment...).CombinedOutput()
			if passed := err == nil; passed != test.passes {
				t.Errorf("passed: %v, want %v", passed, test.passes)
			}
			for _, text := range test.prints {
				if !bytes.Contains(out, []byte(text)) {
					t.Errorf("does not print %q", text)
				}
			}
			if t.Failed() {
				t.Logf("it printed:\n%s", out)
			}
		})
	}
}

func TestKilledRunLeavesNoContainer(t *testing.T) {
	testenv.RequireKind(t, testenv.Kafka(t).Kind, testenv.Containers)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := inner(ctx, "hang")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var broker string
	for lines := bufio.NewScanner(out); broker == "" && lines.Scan(); {
		_, broker, _ = strings.Cut(lines.Text(), "broker: ")
	}
	if broker == "" {
		t.Fatalf("the inner run ended early: %v", cmd.Wait())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() //nolint:errcheck // it was killed
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for ctx.Err() == nil {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", broker)
		if err != nil {
			return
		}
		conn.Close()
		<-poll.C
	}
	t.Errorf("a broker still listens on %s", broker)
}
