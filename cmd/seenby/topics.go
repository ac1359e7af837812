package main

import (
	"fmt"
	"text/tabwriter"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/topics"
)

type topicsCommand struct {
	Plan  topicsPlanCommand  `cmd:"" help:"Print what 'apply' would do; exits 1 where it would refuse."`
	Apply topicsApplyCommand `cmd:"" help:"Create the topics that are missing and set configs that differ. Repeatable."`
}

type topicsFlags struct {
	operational
	Partitions        int32 `help:"Partitions of each topic; chosen once, since more would move keys. Default 48." placeholder:"N"`
	Replication       int16 `help:"Replicas of each partition. Default 3, or 1 with --allow-undurable." placeholder:"N"`
	MinInsyncReplicas int   `help:"Replicas that must have a record before it counts as written. Default 2, or 1 with --allow-undurable." placeholder:"N"`
}

func (f topicsFlags) wanted(allowUndurable bool) (eventlog.TopicsWanted, error) {
	want := eventlog.TopicsWanted{Partitions: f.Partitions, Replication: f.Replication, MinInsyncReplicas: f.MinInsyncReplicas}
	if want.Partitions == 0 {
		want.Partitions = topics.PartitionsProd
	}
	if want.Replication == 0 {
		want.Replication = topics.ReplicationMin
		if allowUndurable {
			want.Replication = 1
		}
	}
	if want.MinInsyncReplicas == 0 {
		want.MinInsyncReplicas = min(topics.MinInsyncReplicasMin, int(want.Replication))
	}
	switch {
	case want.Partitions < 1 || want.Partitions > topics.PartitionsMax:
		return want, domain.Invalid("--partitions", "must be 1 to %d", topics.PartitionsMax)
	case want.Replication < 1:
		return want, domain.Invalid("--replication", "must be at least 1")
	case want.MinInsyncReplicas < 1 || want.MinInsyncReplicas > int(want.Replication):
		return want, domain.Invalid("--min-insync-replicas", "must be 1 to the replication, %d", want.Replication)
	case !allowUndurable && (want.Replication < topics.ReplicationMin || want.MinInsyncReplicas < topics.MinInsyncReplicasMin):
		return want, domain.Invalid("--replication", "under %d, or --min-insync-replicas under %d, a lost broker can lose acknowledged views; give --allow-undurable if that is meant", topics.ReplicationMin, topics.MinInsyncReplicasMin)
	}
	return want, nil
}

func (f topicsFlags) connect(env *environment) (*eventlog.Log, eventlog.TopicsWanted, error) {
	s, log, err := env.connect(f.DataDir)
	if err != nil {
		return nil, eventlog.TopicsWanted{}, err
	}
	want, err := f.wanted(s.AllowUndurable)
	if err != nil {
		log.Close()
		return nil, want, err
	}
	return log, want, nil
}

type topicsPlanCommand struct{ topicsFlags }

// Run prints the plan.
func (c topicsPlanCommand) Run(env *environment) error {
	log, want, err := c.connect(env)
	if err != nil {
		return err
	}
	defer log.Close()
	steps, err := log.PlanTopics(env.ctx, want)
	if err != nil {
		return err
	}
	env.printSteps(steps)
	for _, step := range steps {
		if step.Action == eventlog.TopicConflict {
			return domain.Errorf(domain.CodeMisconfigured, "topic %s cannot be brought into shape", step.Topic)
		}
	}
	return nil
}

type topicsApplyCommand struct{ topicsFlags }

// Run carries the plan out.
func (c topicsApplyCommand) Run(env *environment) error {
	log, want, err := c.connect(env)
	if err != nil {
		return err
	}
	defer log.Close()
	steps, err := log.ApplyTopics(env.ctx, want)
	env.printSteps(steps)
	return err
}

func (env *environment) printSteps(steps []eventlog.TopicStep) {
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	for _, s := range steps {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Action, s.Topic, s.Detail)
	}
	w.Flush() //nolint:errcheck // see printf
}
