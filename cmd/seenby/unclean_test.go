package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/testenv"
)

// TestUncleanElection: a broker that was behind leads, and the log grows past where a projector stood. The offset is
// there again, and the projector, started anew, must not go on from it: what it has folded is not what stands below.
func TestUncleanElection(t *testing.T) {
	// A dead broker is taken for dead within a second or so, not nine.
	cluster := testenv.NewKafkaCluster(t, testenv.ClusterOptions{Settings: map[string]string{"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "500"}})
	pg := testenv.EmptyPostgres(t)
	in := &installation{t: t, brokers: cluster.Direct, database: pg.DSN, environ: []string{
		"SEENBY_BROKERS=" + strings.Join(cluster.Direct, ","), "SEENBY_DATABASE_URL=" + pg.DSN, "SEENBY_SECRET=0123456789abcdef0123456789abcdef",
	}}
	in.command("topics", "apply", "--partitions", "1", "--replication", "2", "--min-insync-replicas", "1", "--allow-undurable")
	in.command("migrate")

	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Direct...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin, topic := kadm.NewClient(client), string(domain.TopicVerdicts)
	yes := "true"
	if _, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "unclean.leader.election.enable", Value: &yes}}, topic); err != nil {
		t.Fatal(err)
	}
	partition := func() kadm.PartitionDetail {
		t.Helper()
		details, err := admin.ListTopics(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		return details[topic].Partitions[0]
	}
	begun := partition()
	leader := begun.Leader
	follower := begun.Replicas[slices.IndexFunc(begun.Replicas, func(r int32) bool { return r != leader })]

	next := int64(0)
	write := func(n int) {
		t.Helper()
		records := make([]*kgo.Record, n)
		for i := range records {
			v := &domain.Verdict{
				Viewer: domain.PersonRef{Tenant: demoTenant}, ViewID: domain.ViewID(uuid.New()), Post: "p", ViewOffset: next + int64(i),
				ViewedAt: time.Now(), Received: time.Now(),
			}
			if records[i], err = (eventlog.Config{}).NewRecord(v, 0, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, time.Minute, "Kafka to take verdicts", func() error { return client.ProduceSync(t.Context(), records...).FirstErr() })
		next += int64(n)
	}
	conn, err := pgx.Connect(t.Context(), in.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	folded := func() (at, impressions int64) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), `SELECT COALESCE((SELECT next_offset FROM positions WHERE projection = 'impressions'), 0),
			(SELECT COALESCE(sum(impressions), 0)::bigint FROM impressions)`).Scan(&at, &impressions); err != nil {
			t.Fatal(err)
		}
		return at, impressions
	}
	projector := func() *process {
		addr := freeAddr(t)
		return launch(t, addr, "", in.environ, "serve", "--roles", "projector", "--projections", "impressions", "--allow-undurable", "--http-addr", addr)
	}
	kill := func(broker int32) {
		t.Helper()
		if err := cluster.Machines[broker-1].Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	write(100)
	kill(follower)
	eventually(t, time.Minute, "the leader to go on alone", func() error {
		if isr := partition().ISR; len(isr) != 1 {
			return fmt.Errorf("in sync: %v", isr)
		}
		return nil
	})
	write(50) // which the follower has never seen
	p := projector()
	eventually(t, time.Minute, "the projector to fold all", func() error {
		if at, n := folded(); n != 150 {
			return fmt.Errorf("%d at %d", n, at)
		}
		return nil
	})
	p.stop()
	before, _ := folded()

	start := func(broker int32) {
		t.Helper()
		if err := cluster.Machines[broker-1].Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	kill(leader)
	start(follower)
	eventually(t, time.Minute, "the broker that was behind to lead", func() error {
		if now := partition().Leader; now != follower {
			return fmt.Errorf("broker %d leads", now)
		}
		return nil
	})
	start(leader) // which leads other topics, and drops what the new leader does not have
	next = 100    // as a gate would go on from what stands
	write(100)    // so that the log is longer than before

	p = projector()
	eventually(t, time.Minute, "the projector to stop and say so", func() error {
		if out := p.out.String(); !strings.Contains(out, "stopped for good") || !strings.Contains(out, "lost records") || !strings.Contains(out, "restore the topic") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if at, n := folded(); at != before || n != 150 {
		t.Errorf("it went on: %d impressions at %d", n, at)
	}
}
