package eventlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"seenby/domain"
	"seenby/topics"
)

// TopicsWanted is what an installation's topics must have beyond their specs.
type TopicsWanted struct {
	Partitions        int32
	Replication       int16
	MinInsyncReplicas int
}

// TopicStep is one line of a plan.
type TopicStep struct {
	Topic  string // as it is called in the cluster
	Action TopicAction
	Detail string

	spec    topics.Spec
	configs map[string]string // to set
}

// TopicAction says what a step does.
type TopicAction string

// What a step does. A conflict can only be resolved by a person.
const (
	TopicOK       TopicAction = "ok"
	TopicCreate   TopicAction = "create"
	TopicConfig   TopicAction = "set"
	TopicConflict TopicAction = "conflict"
)

// PlanTopics compares the cluster with the specs. It changes nothing.
func (l *Log) PlanTopics(ctx context.Context, want TopicsWanted) ([]TopicStep, error) {
	details, configs, err := l.describeTopics(ctx)
	if err != nil {
		return nil, err
	}
	steps := make([]TopicStep, len(topics.All))
	for i, spec := range topics.All {
		name := l.cfg.TopicName(spec.Name)
		steps[i] = planTopic(name, spec, want, details[name], configs[name])
	}
	return steps, nil
}

// describeTopics gives what the cluster has of our topics; one that is missing has no configs.
func (l *Log) describeTopics(ctx context.Context) (kadm.TopicDetails, map[string]map[string]string, error) {
	names := make([]string, len(topics.All))
	for i, spec := range topics.All {
		names[i] = l.cfg.TopicName(spec.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	details, err := l.admin.ListTopics(ctx, names...)
	if err != nil {
		return nil, nil, unavailable("list topics", err)
	}
	var there []string
	for name, d := range details {
		switch {
		case d.Err == nil:
			there = append(there, name)
		case !errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			return nil, nil, unavailable("describe topic "+name, d.Err)
		}
	}
	configs := map[string]map[string]string{}
	if len(there) == 0 {
		return details, configs, nil
	}
	described, err := l.admin.DescribeTopicConfigs(ctx, there...)
	if err != nil {
		return nil, nil, unavailable("describe topics", err)
	}
	for _, r := range described {
		if r.Err != nil {
			return nil, nil, unavailable("describe topic "+r.Name, r.Err)
		}
		configs[r.Name] = map[string]string{}
		for _, c := range r.Configs {
			configs[r.Name][c.Key] = c.MaybeValue()
		}
	}
	return details, configs, nil
}

func planTopic(name string, spec topics.Spec, want TopicsWanted, d kadm.TopicDetail, have map[string]string) TopicStep {
	step := TopicStep{Topic: name, spec: spec, configs: maps.Clone(spec.Configs)}
	step.configs[minInsyncReplicas] = strconv.Itoa(want.MinInsyncReplicas)
	if have == nil {
		step.Action = TopicCreate
		step.Detail = fmt.Sprintf("%d partitions, replication %d, %s", want.Partitions, want.Replication, sortedConfigs(step.configs))
		return step
	}
	if n := len(d.Partitions); n != int(want.Partitions) {
		step.Action = TopicConflict
		step.Detail = fmt.Sprintf("it has %d partitions and %d are wanted; keys would move: give --partitions %d, or use another prefix", n, want.Partitions, n)
		return step
	}
	var details []string
	step.Action, step.configs = TopicOK, differing(step.configs, have)
	if len(step.configs) > 0 {
		step.Action, details = TopicConfig, append(details, sortedConfigs(step.configs))
	}
	if r := d.Partitions.NumReplicas(); r != int(want.Replication) {
		details = append(details, fmt.Sprintf("replication is %d; move it to %d with Kafka's own reassignment tool", r, want.Replication))
	}
	step.Detail = strings.Join(details, "; ")
	return step
}

const minInsyncReplicas = "min.insync.replicas"

// differing is what of want a topic does not have.
func differing(want, have map[string]string) map[string]string {
	wrong := maps.Clone(want)
	maps.DeleteFunc(wrong, func(k, v string) bool { return have[k] == v })
	return wrong
}

func sortedConfigs(m map[string]string) string {
	parts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, " ")
}

// ApplyTopics carries a plan out and records the partition count on the topic tenants. With a conflict in the
// plan it changes nothing.
func (l *Log) ApplyTopics(ctx context.Context, want TopicsWanted) ([]TopicStep, error) {
	steps, err := l.PlanTopics(ctx, want)
	if err != nil {
		return nil, err
	}
	for _, s := range steps {
		if s.Action == TopicConflict {
			return steps, domain.Errorf(domain.CodeMisconfigured, "topic %s: %s", s.Topic, s.Detail)
		}
	}
	for _, s := range steps {
		if err := l.applyTopic(ctx, s, want); err != nil {
			return steps, err
		}
	}
	if err := l.waitForTopics(ctx); err != nil {
		return steps, err
	}
	return steps, l.recordPartitions(ctx, want.Partitions)
}

// topicsVisibleTimeout bounds the time from a topic's creation until every broker, and this client, knows it.
const topicsVisibleTimeout = 20 * time.Second

func (l *Log) waitForTopics(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, topicsVisibleTimeout, unavailable("wait for the new topics", context.DeadlineExceeded))
	defer cancel()
	for _, spec := range topics.All {
		err := retry(ctx, func() error {
			_, err := l.topic(ctx, spec.Name)
			if domain.CodeOf(err) == domain.CodeMisconfigured {
				return unavailable("look up a new topic", err)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) applyTopic(ctx context.Context, s TopicStep, want TopicsWanted) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	switch s.Action {
	case TopicCreate:
		configs := map[string]*string{}
		for k, v := range s.configs {
			configs[k] = &v
		}
		r, err := l.admin.CreateTopic(ctx, want.Partitions, want.Replication, configs, s.Topic)
		if err == nil {
			err = r.Err
		}
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return domain.Errorf(domain.CodeUnavailable, "create topic %s: %v", s.Topic, errors.Join(err, errors.New(r.ErrMessage)))
		}
	case TopicConfig:
		var alter []kadm.AlterConfig
		for k, v := range s.configs {
			alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: &v})
		}
		rs, err := l.admin.AlterTopicConfigs(ctx, alter, s.Topic)
		if err != nil {
			return unavailable("set configs of topic "+s.Topic, err)
		}
		for _, r := range rs {
			if r.Err != nil {
				return domain.Errorf(domain.CodeUnavailable, "set configs of topic %s: %v %s", s.Topic, r.Err, r.ErrMessage)
			}
		}
	}
	return nil
}

// recordPartitions appends the counts that are not on the topic tenants yet.
func (l *Log) recordPartitions(ctx context.Context, partitions int32) error {
	in, err := l.Installation(ctx)
	if err != nil {
		return err
	}
	var events []domain.Event
	for _, spec := range topics.All {
		switch have, ok := in.Partitions[spec.Name]; {
		case !ok:
			events = append(events, domain.PartitionsRecorded{Topic: spec.Name, Partitions: partitions})
		case have != partitions:
			return domain.Errorf(domain.CodeMisconfigured, "topic %s was made with %d partitions, as recorded on %s; %d would move keys", l.cfg.TopicName(spec.Name), have, l.cfg.TopicName(domain.TopicTenants), partitions)
		}
	}
	_, err = l.Append(ctx, events...)
	return err
}

// installationTimeout bounds reading the topic tenants, which is small, where nobody follows it for good.
const installationTimeout = 30 * time.Second

// Installation folds the topic tenants from its start to its present end.
func (l *Log) Installation(ctx context.Context) (*domain.Installation, error) {
	var in domain.Installation
	done := errors.New("caught up")
	ctx, stop := context.WithTimeoutCause(ctx, installationTimeout, unavailable("read topic "+l.cfg.TopicName(domain.TopicTenants), context.DeadlineExceeded))
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := l.Follow(ctx, domain.TopicTenants, func(b domain.Batch) error {
		for _, r := range b.Records {
			if r.Err != nil {
				return r.Err
			}
			if !in.Apply(r.Event) {
				return domain.ErrUnknownEvent
			}
		}
		return nil
	}, func() { cancel(done) })
	if !errors.Is(err, done) {
		return nil, err
	}
	return &in, nil
}

// CheckTopics refuses topics that a service must not start on: missing ones, another policy, another
// partition count than the recorded one, and, unless undurable is allowed, too little replication.
func (l *Log) CheckTopics(ctx context.Context, allowUndurable bool) error {
	// Asked first, because the count is recorded on a topic that may itself be missing.
	if _, err := l.topic(ctx, domain.TopicTenants); err != nil {
		return err
	}
	in, err := l.Installation(ctx)
	if err != nil {
		return err
	}
	details, configs, err := l.describeTopics(ctx)
	if err != nil {
		return err
	}
	var problems []string
	for _, spec := range topics.All {
		name := l.cfg.TopicName(spec.Name)
		d, have := details[name], configs[name]
		if have == nil {
			problems = append(problems, name+" is missing")
			continue
		}
		if n := len(d.Partitions); n != int(in.Partitions[spec.Name]) {
			problems = append(problems, fmt.Sprintf("%s has %d partitions and %d are recorded", name, n, in.Partitions[spec.Name]))
		}
		if wrong := differing(spec.Configs, have); len(wrong) > 0 {
			problems = append(problems, name+" needs "+sortedConfigs(wrong))
		}
		if allowUndurable {
			continue
		}
		if r := d.Partitions.NumReplicas(); r < topics.ReplicationMin {
			problems = append(problems, fmt.Sprintf("%s has replication %d, under %d (--allow-undurable to go on)", name, r, topics.ReplicationMin))
		}
		if m, _ := strconv.Atoi(have[minInsyncReplicas]); m < topics.MinInsyncReplicasMin {
			problems = append(problems, fmt.Sprintf("%s has %s=%d, under %d (--allow-undurable to go on)", name, minInsyncReplicas, m, topics.MinInsyncReplicasMin))
		}
	}
	if len(problems) > 0 {
		return domain.Errorf(domain.CodeMisconfigured, "the topics are not as they must be (see `seenby topics plan`): %s", strings.Join(problems, "; "))
	}
	return nil
}
