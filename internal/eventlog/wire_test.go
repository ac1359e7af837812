package eventlog_test

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"

	"seenby/domain"
	"seenby/internal/eventlog"
	"seenby/topics/eventspb"
)

var update = flag.Bool("update", false, "write golden files that do not exist yet; existing ones are never changed")

const goldenDir = "../../topics/testdata/golden"

var (
	tenant = domain.TenantID("demo")
	person = domain.PersonRef{Tenant: tenant, Person: domain.PersonKey{1, 2, 3, 0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}}
	post   = domain.PostKey{Tenant: tenant, Post: "grüße/1"}
	id16   = [16]byte{0xaa, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}
	at     = time.Date(2026, 11, 23, 12, 30, 45, 678901000, time.UTC)
	where  = []domain.Position{{Topic: domain.TopicPosts, TopicID: id16, Partition: 11, NextOffset: 1 << 40}}
	seven  = int64(7)
	dwell  = int64(1500)
	ratio  = 0.75
	closed = domain.AudienceAuthor
	digest = domain.Digest(id16)
)

var context1 = &domain.ViewContext{App: "ios", Surface: "feed", DwellMS: &dwell, VisibleRatio: &ratio}

// examples has at least one event of every type, with every field set.
var examples = map[string]domain.Event{
	"PostPublished.v1":           domain.PostPublished{PostRef: post, EventID: id16, Author: person.Person, Audience: "everyone", PublishedAt: at, Body: digest, BasedOnVersion: &seven},
	"PostPublished.least.v1":     domain.PostPublished{PostRef: post, EventID: id16, Author: person.Person, Audience: "everyone"},
	"PostEdited.v1":              domain.PostEdited{PostRef: post, EventID: id16, Audience: &closed, PublishedAt: at, Body: &digest, BasedOnVersion: &seven},
	"PostEdited.bodyless.v1":     domain.PostEdited{PostRef: post, EventID: id16, Body: &domain.Digest{}},
	"PostDeleted.v1":             domain.PostDeleted{PostRef: post, EventID: id16, BasedOnVersion: &seven},
	"CountsImported.v1":          domain.CountsImported{PostRef: post, EventID: id16, Impressions: 120000, UniqueViewers: 345, AsOf: at},
	"AudienceMemberAdded.v1":     domain.AudienceMemberAdded{Tenant: tenant, Audience: "friends", Person: person.Person, EventID: id16},
	"AudienceMemberRemoved.v1":   domain.AudienceMemberRemoved{Tenant: tenant, Audience: "friends", Person: person.Person, EventID: id16},
	"ViewReported.v1":            domain.ViewReported{Viewer: person, ViewID: id16, Post: post.Post, ViewedAt: at, SentAt: at.Add(time.Minute), Anonymous: true, Imported: true, Context: context1},
	"ViewReported.least.v1":      domain.ViewReported{Viewer: person, ViewID: id16, Post: post.Post},
	"ViewReported.again.v1":      domain.ViewReported{Viewer: person, ViewID: id16, Post: post.Post, Readmitted: &domain.Readmission{Offset: 7, Received: at, ViewedAt: at.Add(-time.Hour), WaitedFor: where}},
	"ViewCounted.v1":             &domain.Verdict{Viewer: person, ViewID: id16, ViewOffset: 99, Post: post.Post, Author: id16, PostVersion: 3, AudienceKind: "everyone", LimitsRevision: 2, ClaimedAt: at, ViewedAt: at.Add(-time.Second), Received: at.Add(time.Second), Anonymous: true, OwnView: true, Imported: true, Context: context1, Readmits: &seven, QuotaFullAt: at.Add(time.Minute)},
	"ViewRefused.v1":             &domain.Verdict{Viewer: person, ViewID: id16, ViewOffset: 99, Post: post.Post, LimitsRevision: 2, ViewedAt: at, Received: at, Reason: domain.ReasonUndecided, WaitsFor: where, DeadLetters: true},
	"ViewRefused.malformed.v1":   &domain.Verdict{Viewer: person, ViewOffset: 100, LimitsRevision: 1, ViewedAt: at, Received: at, Reason: domain.ReasonMalformed, Detail: "post: is required"},
	"ViewRetracted.v1":           domain.ViewRetracted{Viewer: person, ViewID: id16, ViewOffset: 99, Post: post.Post, Reason: "fraud"},
	"PersonNamed.v1":             domain.PersonNamed{Ref: person, ID: "anna@example"},
	"PersonErased.v1":            domain.PersonErased{Ref: person, ErasedAt: at},
	"PersonForgotten.v1":         domain.PersonForgotten{Ref: person},
	"PostBodyWritten.v1":         domain.PostBodyWritten{PostRef: post, EventID: id16, Text: "Hello\nthere"},
	"PostBodyErased.v1":          domain.PostBodyErased{PostRef: post, EventID: id16},
	"TenantCreated.v1":           domain.TenantCreated{Tenant: tenant, Name: "Demo", WrappedKey: []byte{1, 2, 3}, SecretFingerprint: "0123456789abcdef", CreatedAt: at},
	"TenantClosed.v1":            domain.TenantClosed{Tenant: tenant, ClosedAt: at},
	"LimitsSet.v1":               domain.LimitsSet{Tenant: tenant, Limits: domain.Limits{Revision: 3, DuplicateWindow: 25 * time.Hour, Stale: 24 * time.Hour, Future: 10 * time.Minute, Quota: domain.Quota{ViewsPerMinute: 600, BurstViews: 2000}, PostCap: domain.PostCap{Views: 60, Window: time.Hour}, RefuseOwnViews: true, IntakeViewsPerSecond: 1000}, SetAt: at},
	"LimitsSet.v2":               domain.LimitsSet{Tenant: tenant, Limits: domain.Limits{Revision: 3, DuplicateWindow: 25 * time.Hour, Stale: 24 * time.Hour, Future: 10 * time.Minute, Quota: domain.Quota{ViewsPerMinute: 600, BurstViews: 2000}, PostCap: domain.PostCap{Views: 60, Window: time.Hour}, RefuseOwnViews: true, CountUnknownPosts: true, IntakeViewsPerSecond: 2500}, SetAt: at},
	"KeyIssued.v1":               domain.KeyIssued{Tenant: tenant, KeyID: "k1", Prefix: "seenby_k1", SHA256: [32]byte{9, 8, 7}, Label: "server", IssuedAt: at},
	"KeyRevoked.v1":              domain.KeyRevoked{Tenant: tenant, KeyID: "k1", Prefix: "seenby_k1", RevokedAt: at},
	"DecisionRecorded.v1":        domain.DecisionRecorded{Tenant: tenant, DecisionID: "d1", Kind: "discard", By: "ann", Reason: "test data", DecidedAt: at, About: where},
	"DecisionRecorded.v2":        domain.DecisionRecorded{Tenant: tenant, DecisionID: "d1", Kind: "discard", By: "ann", Reason: "test data", DecidedAt: at, About: where, Projection: "posts"},
	"ImportRecorded.v1":          domain.ImportRecorded{Tenant: tenant, ImportID: "views/2025", Run: id16, Lines: 1000, Imported: 990, Rejected: 10, LinesSHA256: [32]byte{9, 8, 7}, Since: where, BegunAt: at, RecordedAt: at.Add(time.Minute), FinishedAt: at.Add(time.Hour)},
	"ImportRecorded.least.v1":    domain.ImportRecorded{Tenant: tenant, ImportID: "posts/x", Run: id16, BegunAt: at, RecordedAt: at},
	"PartitionsRecorded.v1":      domain.PartitionsRecorded{Topic: domain.TopicViews, Partitions: 12},
	"SecretRecorded.v1":          domain.SecretRecorded{Fingerprint: "0123456789abcdef"},
	"EndpointSet.v1":             domain.EndpointSet{Tenant: tenant, EndpointID: "ep_7", URL: "https://core.example/seenby", SecretGeneration: 2, RotatedAt: at, AllowPrivate: true, CreatedAt: at, DisabledAt: at.Add(time.Hour), DisabledReason: "answers 410"},
	"EndpointSet.least.v1":       domain.EndpointSet{Tenant: tenant, EndpointID: "ep_7", URL: "https://core.example/seenby", SecretGeneration: 1, CreatedAt: at},
	"RelaySet.v1":                domain.RelaySet{Tenant: tenant, Enabled: true, Milestones: []int64{100, 1000}, SetAt: at},
	"ImpressionsChanged.full.v1": domain.ImpressionsChanged{PostRef: post, Impressions: 120001, UniqueViewers: 346, Imported: 120000, Revision: 12, AsOf: at, HighestMilestone: 100000, Milestones: []int64{1000, 100000}},
	"ImpressionsChanged.v1":      domain.ImpressionsChanged{PostRef: post, Impressions: 120001, UniqueViewers: 346, Revision: 12, AsOf: at, HighestMilestone: 100000},
	"ViewCounted.epoch.v1":       &domain.Verdict{Viewer: person, ViewID: id16, ViewOffset: 5, ViewEpoch: 3, Post: "p", Author: id16, PostVersion: 1, AudienceKind: "everyone", LimitsRevision: 1, ViewedAt: at, Received: at},
	"ViewCounted.unquotaed.v1":   &domain.Verdict{Viewer: person, ViewID: id16, ViewOffset: 0, Post: "p", Author: id16, PostVersion: 1, AudienceKind: "everyone", LimitsRevision: 1, ViewedAt: at, Received: at},
	"ViewRefused.too_short.v1":   &domain.Verdict{Viewer: person, ViewID: id16, ViewOffset: 1, Post: "p", LimitsRevision: 1, ViewedAt: at, Received: at, Reason: domain.ReasonTooShort},
	"PostPublished.audience.v1":  domain.PostPublished{PostRef: post, EventID: id16, Author: person.Person, Audience: "audience:friends"},
}

// superseded examples still decode; what they hold is written with more fields now, as a newer example shows.
var superseded = map[string]bool{"LimitsSet.v1": true}

// TestGoldenBytes holds every event to the bytes that older versions wrote: they must decode for ever, to
// the same event. A new event or field gets a new file; a file is never changed.
func TestGoldenBytes(t *testing.T) {
	for name, event := range examples {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(goldenDir, name+".hex")
			key, value, err := eventlog.Encode(event)
			if err != nil {
				t.Fatal(err)
			}
			golden, err := os.ReadFile(path)
			if os.IsNotExist(err) && *update {
				golden = []byte(goldenText(key, value))
				if err := os.WriteFile(path, golden, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if err != nil {
				t.Fatalf("no golden bytes (go test -update writes new ones): %v", err)
			}
			goldenKey, goldenValue := parseGolden(t, string(golden))
			decoded, err := eventlog.Decode(eventlog.TopicOf(event), goldenKey, goldenValue)
			if err != nil {
				t.Fatalf("golden bytes no longer decode: %v", err)
			}
			if diff := cmp.Diff(event, decoded); diff != "" {
				t.Errorf("golden bytes decode to another event (-want +got):\n%s", diff)
			}
			if got := goldenText(key, value); got != string(golden) && !superseded[name] {
				t.Errorf("the event is written in other bytes than before:\n%s\nwant\n%s", got, golden)
			}
		})
	}
	files, err := filepath.Glob(filepath.Join(goldenDir, "*.hex"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".hex"); examples[name] == nil {
			t.Errorf("%s has no example any more: golden files are kept for ever", f)
		}
	}
}

// TestEveryKindHasGoldenBytes walks the envelope, so that a new event without an example is noticed.
func TestEveryKindHasGoldenBytes(t *testing.T) {
	var m eventspb.Event
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		name := string(fields.Get(i).Message().Name())
		if examples[name+".v1"] == nil {
			t.Errorf("event %s has no example", name)
		}
		assertEveryFieldSet(t, name, fields.Get(i))
	}
}

// assertEveryFieldSet makes sure that the full example of an event leaves no field out, so that a field which
// the codec forgets is noticed.
func assertEveryFieldSet(t *testing.T, name string, kind protoreflect.FieldDescriptor) {
	t.Helper()
	variants := map[protoreflect.Name]bool{}
	for example, event := range examples {
		if !strings.HasPrefix(example, name+".") {
			continue
		}
		m := unmarshal(t, event)
		set := m.ProtoReflect().Get(kind).Message()
		set.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			variants[f.Name()] = true
			return true
		})
	}
	all := kind.Message().Fields()
	for i := range all.Len() {
		if !variants[all.Get(i).Name()] {
			t.Errorf("no example of %s sets %s", name, all.Get(i).Name())
		}
	}
}

func goldenText(key, value []byte) string {
	if value == nil {
		return "key   " + hex.EncodeToString(key) + "\nvalue tombstone\n"
	}
	return "key   " + hex.EncodeToString(key) + "\nvalue " + hex.EncodeToString(value) + "\n"
}

func parseGolden(t *testing.T, text string) (key, value []byte) {
	t.Helper()
	lines := strings.Split(text, "\n")
	key, err := hex.DecodeString(strings.TrimPrefix(lines[0], "key   "))
	if err != nil {
		t.Fatal(err)
	}
	if lines[1] == "value tombstone" {
		return key, nil
	}
	value, err = hex.DecodeString(strings.TrimPrefix(lines[1], "value "))
	if err != nil {
		t.Fatal(err)
	}
	return key, value
}
