package eventlog_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/internal/testenv"
)

// Two commands at once: the one that was overtaken says so, and nothing of it stands.
func TestChangeTenants(t *testing.T) {
	for name, kinds := range map[string][]testenv.Kind{"servers": nil, "embedded": {testenv.Embedded}} {
		t.Run(name, func(t *testing.T) {
			env := testenv.Kafka(t, kinds...)
			open := func() *eventlog.Log {
				log, err := eventlog.Open(eventlog.Config{Brokers: env.Brokers, Prefix: env.Prefix})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(log.Close)
				return log
			}
			one, two := open(), open()
			if _, err := one.ApplyTopics(t.Context(), wanted); err != nil {
				t.Fatal(err)
			}
			limits := func(revision, views int64) domain.LimitsSet {
				l := domain.DefaultLimits()
				l.Revision, l.PostCap.Views = revision, views
				return domain.LimitsSet{Tenant: "acme", Limits: l, SetAt: time.UnixMilli(1).UTC()}
			}
			change := func(log *eventlog.Log, events ...domain.Event) error {
				return log.ChangeTenants(t.Context(), func(*domain.Installation) ([]domain.Event, error) { return events, nil })
			}
			stands := func() *domain.Tenant {
				in, err := one.Installation(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return in.Tenants["acme"]
			}
			if err := change(one, domain.TenantCreated{Tenant: "acme", Name: "Acme", CreatedAt: time.UnixMilli(1)}, limits(1, 60)); err != nil {
				t.Fatal(err)
			}
			err := one.ChangeTenants(t.Context(), func(in *domain.Installation) ([]domain.Event, error) {
				if in.Tenants["acme"].Limits.Revision != 1 {
					t.Errorf("it is decided on %+v", in.Tenants["acme"])
				}
				if err := change(two, limits(2, 20)); err != nil {
					t.Error(err)
				}
				return []domain.Event{limits(2, 10), domain.TenantCreated{Tenant: "acme", Name: "Other", CreatedAt: time.UnixMilli(2)}}, nil
			})
			if domain.CodeOf(err) != domain.CodeConflict {
				t.Errorf("overtaken: %v", err)
			}
			if got := stands(); got.Limits != limits(2, 20).Limits || got.Created.Name != "Acme" {
				t.Errorf("the conflict left %+v", got)
			}
			if err := change(one, limits(3, 30)); err != nil {
				t.Errorf("the next one: %v", err)
			}
			mine := errors.New("mine")
			for name, decide := range map[string]func(*domain.Installation) ([]domain.Event, error){
				"an error":        func(*domain.Installation) ([]domain.Event, error) { return []domain.Event{limits(9, 9)}, mine },
				"nothing":         func(*domain.Installation) ([]domain.Event, error) { return nil, nil },
				"another topic's": func(*domain.Installation) ([]domain.Event, error) { return []domain.Event{limits(9, 9), view(1)}, nil },
			} {
				if err := one.ChangeTenants(t.Context(), decide); (err == nil) != (name == "nothing") {
					t.Errorf("%s: %v", name, err)
				}
			}
			if got := stands(); got.Limits != limits(3, 30).Limits {
				t.Errorf("at last %+v", got)
			}
		})
	}
}

func TestForgetTenant(t *testing.T) {
	log, _ := open(t)
	ref := func(tenant domain.TenantID, n byte) domain.PersonRef {
		return domain.PersonRef{Tenant: tenant, Person: domain.PersonKey{n}}
	}
	post := func(tenant domain.TenantID) domain.PostKey { return domain.PostKey{Tenant: tenant, Post: "p"} }
	if _, err := log.Append(t.Context(),
		domain.PersonNamed{Ref: ref("acme", 1), ID: "anna"}, domain.PersonNamed{Ref: ref("acme", 2), ID: "ben"},
		domain.PersonNamed{Ref: ref("other", 1), ID: "cleo"}, domain.PersonErased{Ref: ref("acme", 3), ErasedAt: time.UnixMilli(1)},
		domain.PostBodyWritten{PostRef: post("acme"), EventID: domain.EventID{1}, Text: "Hello"},
		domain.PostBodyWritten{PostRef: post("other"), EventID: domain.EventID{2}, Text: "Hello"},
	); err != nil {
		t.Fatal(err)
	}
	// Two of a kind that nobody can read.
	cfg := log.Config()
	client, err := kgo.NewClient(cfg.ClientOpts()...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for topic, key := range map[domain.Topic][]byte{domain.TopicPeople: ref("acme", 4).Key(), domain.TopicBodies: post("acme").BodyKey(domain.EventID{3})} {
		r := &kgo.Record{Topic: cfg.TopicName(topic), Partition: eventlog.PartitionOf(key, wanted.Partitions), Key: key, Value: []byte("{\"id\":\"dora\"}")}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if names, texts, err := log.ForgetTenant(t.Context(), "acme"); err != nil || names != 3 || texts != 2 {
		t.Errorf("%d names, %d texts, %v", names, texts, err)
	}
	var tombstones []domain.Event
	for _, topic := range []domain.Topic{domain.TopicPeople, domain.TopicBodies} {
		starts, err := log.Starts(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		ends, err := log.Ends(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		reader, err := log.NewReader()
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		if err := reader.Seek(t.Context(), starts); err != nil {
			t.Fatal(err)
		}
		for _, r := range readTo(t, reader, ends) {
			switch r.Event.(type) {
			case domain.PersonForgotten, domain.PostBodyErased:
				tombstones = append(tombstones, r.Event)
			}
		}
	}
	want := map[domain.Event]bool{
		domain.PersonForgotten{Ref: ref("acme", 1)}: true, domain.PersonForgotten{Ref: ref("acme", 2)}: true,
		domain.PersonForgotten{Ref: ref("acme", 4)}:                              true,
		domain.PostBodyErased{PostRef: post("acme"), EventID: domain.EventID{1}}: true,
		domain.PostBodyErased{PostRef: post("acme"), EventID: domain.EventID{3}}: true,
	}
	got := map[domain.Event]bool{}
	for _, e := range tombstones {
		got[e] = true
	}
	if diff := cmp.Diff(want, got); diff != "" || len(tombstones) != len(want) {
		t.Errorf("tombstones: %s", diff)
	}
}
