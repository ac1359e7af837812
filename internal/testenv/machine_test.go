package testenv_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/internal/testenv"
)

// A cluster of brokers keeps what was acknowledged, and its addresses, through the death of one.
func TestKafkaClusterSurvives(t *testing.T) {
	cluster := testenv.NewKafkaCluster(t, testenv.ClusterOptions{})
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Direct...), kgo.DefaultProduceTopic("kept"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(ctx, 3, -1, nil, "kept"); err != nil {
		t.Fatal(err)
	}
	write := func() {
		t.Helper()
		if err := client.ProduceSync(ctx, kgo.StringRecord("x"), kgo.StringRecord("y"), kgo.StringRecord("z")).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	write()
	if err := cluster.Machines[1].Kill(ctx); err != nil {
		t.Fatal(err)
	}
	write()
	if err := cluster.Machines[1].Start(ctx); err != nil {
		t.Fatal(err)
	}
	write()
	ends, err := admin.ListEndOffsets(ctx, "kept")
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	if n != 9 {
		t.Errorf("%d records of 9", n)
	}
}

// What was committed survives an immediate stop, and the small disk is there and small.
func TestPostgresMachineSurvives(t *testing.T) {
	pg := testenv.NewPostgresMachine(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	do := func(sql string) {
		t.Helper()
		conn, err := pgx.Connect(ctx, pg.DSN)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	do("CREATE TABLE kept (n int)")
	if err := pg.Signal(ctx, "QUIT"); err != nil {
		t.Fatal(err)
	}
	if err := pg.Start(ctx); err != nil {
		t.Fatal(err)
	}
	do("INSERT INTO kept VALUES (1)")
	do("CREATE TABLESPACE small LOCATION '" + testenv.SmallDisk + "'")
}
