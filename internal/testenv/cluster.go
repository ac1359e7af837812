package testenv

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// Brokers is how many brokers a KafkaCluster has: the least with which one may be away and acks=all still holds.
const Brokers = 3

// KafkaCluster is three brokers of Apache Kafka in KRaft mode, each also a controller, on loopback, for tests that
// break them. Topics get three replicas, of which two must be in sync.
type KafkaCluster struct {
	Machines []*Machine // Machines[i] is the broker with the id i+1
	Direct   []string   // their addresses, for the test itself
	// LaneTargets[l][i] is where broker i+1 listens for lane l.
	LaneTargets [][]string
	// BetweenTargets[i] is where broker i+1 listens for the others.
	BetweenTargets []string
}

// ClusterOptions say what a cluster is like beside what every one is.
type ClusterOptions struct {
	// Lanes are ways into the cluster that can be cut one by one: Lanes[l][i] is the address that broker i+1 tells
	// to clients that came over lane l, a proxy of the test's, which forwards to LaneTargets[l][i].
	Lanes [][]string
	// Between[i] is likewise the address that broker i+1 tells to the other brokers.
	Between []string
	// Settings are of the brokers, as in server.properties: "broker.session.timeout.ms".
	Settings map[string]string
}

// NewKafkaCluster starts a cluster for the test. It needs Docker on this machine, and Linux: where that is not there
// the test is skipped, aloud, or under SEENBY_TEST_REQUIRE fails.
func NewKafkaCluster(t testing.TB, options ClusterOptions) *KafkaCluster {
	t.Helper()
	mustHaveMain(t)
	c, err := newKafkaCluster(t, options)
	if err != nil {
		fail(t, err, true)
	}
	return c
}

func newKafkaCluster(t testing.TB, options ClusterOptions) (*KafkaCluster, error) {
	t.Helper()
	const own = 3 // listeners of every broker, beside the lanes
	lanes := len(options.Lanes)
	free, err := FreePorts(Brokers * (own + lanes))
	if err != nil {
		return nil, err
	}
	take := func() string {
		port := free[0]
		free = free[1:]
		return loopback(port)
	}
	c := &KafkaCluster{LaneTargets: make([][]string, lanes)}
	controllers, voters := make([]string, Brokers), make([]string, Brokers)
	for i := range Brokers {
		c.Direct = append(c.Direct, take())
		c.BetweenTargets = append(c.BetweenTargets, take())
		controllers[i] = take()
		voters[i] = fmt.Sprintf("%d@%s", i+1, controllers[i])
		for l := range lanes {
			c.LaneTargets[l] = append(c.LaneTargets[l], take())
		}
	}
	for i := range Brokers {
		listeners := []string{"DIRECT://" + c.Direct[i], "BETWEEN://" + c.BetweenTargets[i]}
		advertised := append([]string{}, listeners...)
		if options.Between != nil {
			advertised[1] = "BETWEEN://" + options.Between[i]
		}
		protocols := []string{"DIRECT:PLAINTEXT", "BETWEEN:PLAINTEXT", "CONTROLLER:PLAINTEXT"}
		for l := range lanes {
			listeners = append(listeners, fmt.Sprintf("LANE%d://%s", l, c.LaneTargets[l][i]))
			advertised = append(advertised, fmt.Sprintf("LANE%d://%s", l, options.Lanes[l][i]))
			protocols = append(protocols, fmt.Sprintf("LANE%d:PLAINTEXT", l))
		}
		env := map[string]string{
			"KAFKA_NODE_ID":                        fmt.Sprint(i + 1),
			"KAFKA_PROCESS_ROLES":                  "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":       strings.Join(voters, ","),
			"KAFKA_CONTROLLER_LISTENER_NAMES":      "CONTROLLER",
			"KAFKA_LISTENERS":                      strings.Join(append(listeners, "CONTROLLER://"+controllers[i]), ","),
			"KAFKA_ADVERTISED_LISTENERS":           strings.Join(advertised, ","),
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": strings.Join(protocols, ","),
			"KAFKA_INTER_BROKER_LISTENER_NAME":     "BETWEEN",
			"KAFKA_NUM_NETWORK_THREADS":            "1", // per listener, of which there are many

			"KAFKA_LOG_DIRS":                                         "/var/lib/kafka/data",
			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                        "false",
			"KAFKA_DEFAULT_REPLICATION_FACTOR":                       "3",
			"KAFKA_MIN_INSYNC_REPLICAS":                              "2",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":                 "3",
			"KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS":                     "6",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR":         "3",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":                    "2",
			"KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS":             "6",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "3",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR":            "2",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":                 "0",
			"KAFKA_HEAP_OPTS":                                        "-Xms256m -Xmx512m",
		}
		for name, value := range options.Settings {
			env["KAFKA_"+strings.ToUpper(strings.ReplaceAll(name, ".", "_"))] = value
		}
		m, err := startMachine(t, fmt.Sprintf("broker %d", i+1), containerSpec{
			image: imageName(kafkaImageVariable, kafkaImageDefault), env: maps.Clone(env),
		}, nil, func(ctx context.Context) error { return waitForKafka(ctx, c.Direct[i:i+1]) })
		if err != nil {
			return nil, err
		}
		c.Machines = append(c.Machines, m)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	var group errgroup.Group
	for _, m := range c.Machines {
		group.Go(func() error { return m.Wait(ctx) })
	}
	return c, group.Wait()
}
