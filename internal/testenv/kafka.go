package testenv

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	brokersVariable    = "SEENBY_TEST_BROKERS"
	kafkaImageVariable = "KAFKA_IMAGE"
	kafkaImageDefault  = "apache/kafka:4.3.1"
)

// KafkaEnv is a running Kafka and a test's own room in it.
type KafkaEnv struct {
	Kind    Kind
	Brokers []string // host:port
	// Prefix is unique to the test; every topic, group and transactional id of the test starts with it. It ends
	// in a hyphen.
	Prefix string
}

// Kafka returns a Kafka for the test. Without only it picks the kind as the package comment says, with several
// kinds it picks among them. One kind is an order: it is taken whatever SEENBY_TEST_REQUIRE says, and where it is
// not available the test is skipped, aloud, or under SEENBY_TEST_REQUIRE fails.
func Kafka(t testing.TB, only ...Kind) *KafkaEnv {
	t.Helper()
	mustHaveMain(t)
	kinds, chosen, err := candidates(only)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	brokers, kind, err := kafkas.get(kinds)
	if err != nil {
		fail(t, err, chosen)
	}
	return &KafkaEnv{Kind: kind, Brokers: brokers, Prefix: uniqueName(t) + "-"}
}

// Topic is the full name of the test's own topic called name.
func (e *KafkaEnv) Topic(name string) string { return e.Prefix + name }

// Client opens a client with these options and closes it when the test ends.
func (e *KafkaEnv) Client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(e.Brokers...)}, opts...)...)
	if err != nil {
		t.Fatalf("testenv: open Kafka client: %v", err)
	}
	t.Cleanup(client.Close)
	return client
}

var kafkas = pool[[]string]{
	name: "Kafka",
	starter: map[Kind]func(context.Context) ([]string, string, error){
		Given:      givenKafka,
		Containers: containerKafka,
		Embedded:   embeddedKafka,
	},
}

func givenKafka(ctx context.Context) ([]string, string, error) {
	value := os.Getenv(brokersVariable)
	if value == "" {
		return nil, "", fmt.Errorf("%w: %s is not set", errNotHere, brokersVariable)
	}
	brokers := strings.Split(value, ",")
	ctx, cancel := context.WithTimeout(ctx, givenTimeout)
	defer cancel()
	return brokers, value, waitForKafka(ctx, brokers)
}

func embeddedKafka(context.Context) ([]string, string, error) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(groupMinSessionTimeout))
	if err != nil {
		return nil, "", fmt.Errorf("start kfake: %w", err)
	}
	onStop(func(context.Context) error { cluster.Close(); return nil })
	return cluster.ListenAddrs(), "kfake in memory", nil
}

// groupMinSessionTimeout lets tests of failover use sessions shorter than the broker's usual 6 s.
const groupMinSessionTimeout = time.Second

// kafkaStart waits for the address under which the host reaches the broker, which is known only when the
// container runs, and becomes the broker. "read" succeeds only on a complete line.
const (
	kafkaAddressFile = "/tmp/seenby-address"
	kafkaStart       = `until read -r address 2>/dev/null <` + kafkaAddressFile + `; do sleep 0.1; done
export KAFKA_ADVERTISED_LISTENERS="HOST://$address,BROKER://localhost:9093"
exec /etc/kafka/docker/run`
)

func containerKafka(ctx context.Context) ([]string, string, error) {
	c, err := startContainer(ctx, containerSpec{
		image: imageName(kafkaImageVariable, kafkaImageDefault),
		port:  "9092/tcp",
		entry: []string{"/bin/sh", "-c", kafkaStart},
		env: map[string]string{
			"KAFKA_NODE_ID":                        "1",
			"KAFKA_PROCESS_ROLES":                  "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":       "1@localhost:9094",
			"KAFKA_CONTROLLER_LISTENER_NAMES":      "CONTROLLER",
			"KAFKA_LISTENERS":                      "HOST://:9092,BROKER://localhost:9093,CONTROLLER://localhost:9094",
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "HOST:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
			// The broker also calls itself, to write transaction markers, and cannot by the host's address.
			"KAFKA_INTER_BROKER_LISTENER_NAME": "BROKER",

			"KAFKA_LOG_DIRS":                                         "/var/lib/kafka/data",
			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                        "false",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":                 "1",
			"KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS":                     "4",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR":         "1",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":                    "1",
			"KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS":             "4",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR":            "1",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":                 "0",
			"KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS":                     fmt.Sprint(groupMinSessionTimeout.Milliseconds()),
			// How often the broker looks for transactions that timed out; 10 s by default, which tests would wait.
			"KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS": "1000",
			"KAFKA_HEAP_OPTS": "-Xms256m -Xmx512m",
		},
	})
	if err != nil {
		return nil, "", err
	}
	if err := c.CopyToContainer(ctx, []byte(c.address+"\n"), kafkaAddressFile, 0o644); err != nil {
		return nil, "", fmt.Errorf("tell the broker its address: %w", err)
	}
	brokers := []string{c.address}
	if err := waitForKafka(ctx, brokers); err != nil {
		return nil, "", c.withLogs(err)
	}
	return brokers, c.spec.image + " at " + c.address, nil
}

// waitForKafka returns when a broker answers.
func waitForKafka(ctx context.Context, brokers []string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return fmt.Errorf("open Kafka client: %w", err)
	}
	defer client.Close()
	return waitFor(ctx, client.Ping)
}
