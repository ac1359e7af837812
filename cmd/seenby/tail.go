package main

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/topics"
)

type tailCommand struct {
	operational
	Topic  string `arg:"" help:"posts, audiences, views, verdicts, people, bodies, tenants or impressions."`
	Tenant string `help:"Only events of this tenant."`
	Post   string `help:"Only events of this post."`
	Reason string `help:"Only verdicts of this reason; 'counted' for those without one."`
	From   string `help:"Where to start: 'start', 'end', how long ago (10m), or a time (RFC 3339)." default:"end"`
	Once   bool   `help:"Stop at what is the end now."`
	JSON   bool   `help:"One JSON object a line." name:"json"`
}

// tailEventsMax is how many events are printed between two looks at the clock.
const tailEventsMax = 1000

// Run prints until it is interrupted, or once.
func (c tailCommand) Run(env *environment) error {
	topic, err := c.check()
	if err != nil {
		return err
	}
	_, log, err := env.connect(c.DataDir)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := c.from(env, log, topic)
	if err != nil {
		return err
	}
	ends, err := log.Ends(env.ctx, topic)
	if err != nil {
		return err
	}
	reader, err := log.NewReader()
	if err != nil {
		return err
	}
	defer reader.Close()
	if err := reader.Seek(env.ctx, from); err != nil {
		return err
	}
	for !c.Once || !reader.Passed(ends) {
		b, err := reader.Poll(env.ctx, tailEventsMax)
		if env.ctx.Err() != nil && !c.Once {
			return nil // that is how following ends
		}
		if err != nil {
			return err
		}
		for _, r := range b.Records {
			if c.wants(r) {
				c.print(env, r)
			}
		}
	}
	return nil
}

func (c tailCommand) check() (domain.Topic, error) {
	names := make([]string, len(topics.All))
	for i, spec := range topics.All {
		names[i] = string(spec.Name)
	}
	if !slices.Contains(names, c.Topic) {
		return "", domain.Invalid("TOPIC", "there is no topic %q; there are %s", c.Topic, strings.Join(names, ", "))
	}
	if c.Reason != "" {
		if c.Topic != string(domain.TopicVerdicts) {
			return "", domain.Invalid("--reason", "only the events of topic verdicts have one")
		}
		known := []string{reasonCounted}
		for _, r := range domain.Reasons {
			known = append(known, string(r))
		}
		if !slices.Contains(known, c.Reason) {
			return "", domain.Invalid("--reason", "there is no reason %q; there are %s", c.Reason, strings.Join(known, ", "))
		}
	}
	return domain.Topic(c.Topic), nil
}

// reasonCounted is how the command line calls ReasonNone.
const reasonCounted = "counted"

func (c tailCommand) from(env *environment, log *eventlog.Log, topic domain.Topic) ([]domain.Position, error) {
	switch c.From {
	case "start":
		return log.Starts(env.ctx, topic)
	case "end":
		return log.Ends(env.ctx, topic)
	}
	if ago, err := time.ParseDuration(c.From); err == nil && ago >= 0 {
		return log.After(env.ctx, topic, env.now().Add(-ago))
	}
	at, err := time.Parse(time.RFC3339, c.From)
	if err != nil {
		return nil, domain.Invalid("--from", "must be start, end, a duration like 10m, or a time like %s", env.now().UTC().Format(time.RFC3339))
	}
	return log.After(env.ctx, topic, at)
}

func (c tailCommand) wants(r domain.Record) bool {
	tenant, _, _ := domain.SplitTenant(r.Key)
	if c.Tenant != "" && string(tenant) != c.Tenant {
		return false
	}
	if c.Post != "" && string(postOf(r)) != c.Post {
		return false
	}
	if v, ok := r.Event.(*domain.Verdict); ok && c.Reason != "" {
		return string(v.Reason) == c.Reason || v.Counted() && c.Reason == reasonCounted
	}
	return c.Reason == ""
}

func postOf(r domain.Record) domain.PostID {
	switch e := r.Event.(type) {
	case domain.PostEvent:
		return e.PostKey().Post
	case domain.ViewReported:
		return e.Post
	case *domain.Verdict:
		return e.Post
	case domain.PostBodyWritten:
		return e.PostRef.Post
	case domain.PostBodyErased:
		return e.PostRef.Post
	case domain.ImpressionsChanged:
		return e.PostRef.Post
	}
	return ""
}

// printed is an event as tail shows it.
type printed struct {
	Topic     domain.Topic    `json:"topic"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Time      time.Time       `json:"time"`
	Type      string          `json:"type"`
	Tenant    domain.TenantID `json:"tenant,omitempty"`
	Event     any             `json:"event,omitempty"`
	Error     string          `json:"error,omitempty"` // why it cannot be read
}

func (c tailCommand) print(env *environment, r domain.Record) {
	tenant, _, _ := domain.SplitTenant(r.Key)
	p := printed{Topic: r.Partition.Topic, Partition: r.Partition.Partition, Offset: r.Offset, Time: r.Time, Tenant: tenant}
	if r.Err != nil {
		p.Type, p.Error = "unreadable", r.Err.Error()
	} else {
		p.Type, p.Event = r.Event.EventType(), fields(r.Event)
	}
	if c.JSON {
		line, err := json.Marshal(p)
		if err != nil {
			line = []byte(err.Error())
		}
		env.printf("%s\n", line)
		return
	}
	detail := []byte(p.Error)
	if p.Error == "" {
		detail, _ = json.Marshal(p.Event) // of a map of marshalled fields
	}
	env.printf("%s %s/%d@%d %s %s %s\n", p.Time.Format("2006-01-02T15:04:05.000Z"), p.Topic, p.Partition, p.Offset, p.Type, tenant, detail)
}

// fields are those of an event that say something, by their names in the log's own spelling.
func fields(e domain.Event) map[string]any {
	out := structFields(reflect.Indirect(reflect.ValueOf(e)))
	// Sealed and hashed keys tell people nothing and are better not in their terminals.
	delete(out, "wrapped_key")
	delete(out, "sha256")
	return out
}

func structFields(v reflect.Value) map[string]any {
	out := map[string]any{}
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			out[snakeCase(v.Type().Field(i).Name)] = printable(f)
		}
	}
	return out
}

// printable is a field as it marshals well: ids, keys and times know how, durations as people write them.
func printable(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case encoding.TextMarshaler:
		return x
	case time.Duration:
		return x.String()
	}
	switch v.Kind() { //nolint:exhaustive // the others are plain
	case reflect.Pointer:
		return printable(v.Elem())
	case reflect.Struct:
		return structFields(v)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct {
			all := make([]any, v.Len())
			for i := range all {
				all[i] = printable(v.Index(i))
			}
			return all
		}
	}
	return v.Interface()
}

func snakeCase(name string) string {
	var b strings.Builder
	for i, r := range name {
		if upper := r >= 'A' && r <= 'Z'; upper {
			next := i+1 < len(name) && name[i+1] >= 'a' && name[i+1] <= 'z'
			if i > 0 && (next || name[i-1] >= 'a' && name[i-1] <= 'z') {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}
