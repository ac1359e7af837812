package eventlog

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"seenby/domain"
)

func drawVerdict(t *rapid.T) *domain.Verdict {
	id16 := func(label string) (id [16]byte) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label))
		return id
	}
	at := func(label string) time.Time {
		return time.UnixMicro(rapid.Int64Range(-1<<50, 1<<52).Draw(t, label)).UTC()
	}
	v := &domain.Verdict{
		Viewer: domain.PersonRef{Tenant: domain.TenantID(rapid.StringMatching(`[a-z]{1,10}`).Draw(t, "tenant")), Person: id16("person")},
		ViewID: id16("id"), ViewOffset: rapid.Int64Min(0).Draw(t, "offset"), ViewEpoch: domain.LeaderEpoch(rapid.Int32Min(0).Draw(t, "epoch")),
		Post: domain.PostID(rapid.StringN(0, 40, 255).Draw(t, "post")), PostVersion: rapid.Int64Min(0).Draw(t, "version"),
		AudienceKind:   rapid.SampledFrom([]string{"", "everyone", "audience", "author", "of a later version"}).Draw(t, "kind"),
		LimitsRevision: rapid.Int64Min(0).Draw(t, "revision"), ViewedAt: at("viewed"), Received: at("received"),
		Anonymous: rapid.Bool().Draw(t, "anonymous"), OwnView: rapid.Bool().Draw(t, "own"), Imported: rapid.Bool().Draw(t, "imported"),
		Reason: rapid.SampledFrom(append([]domain.Reason{domain.ReasonNone}, domain.Reasons...)).Draw(t, "reason"),
	}
	if rapid.Bool().Draw(t, "known") {
		v.Author = id16("author")
	}
	if rapid.Bool().Draw(t, "claims") {
		v.ClaimedAt = at("claimed")
	}
	if rapid.IntRange(0, 9).Draw(t, "rare") == 0 {
		v.Context = &domain.ViewContext{App: "web"}
	}
	if rapid.IntRange(0, 9).Draw(t, "again") == 0 {
		v.Readmits = &v.ViewOffset
	}
	switch v.Reason {
	case domain.ReasonNone:
		v.QuotaFullAt = time.UnixMicro(rapid.Int64Range(1, 1<<52).Draw(t, "full")).UTC()
	case domain.ReasonUndecided:
		v.WaitsFor = []domain.Position{{Topic: domain.TopicPosts, NextOffset: 8}}
	case domain.ReasonMalformed:
		v.Detail = "why"
	}
	return v
}

// What the quick way reads is what the generated code reads, of sound records and of any other bytes.
func TestPlainVerdictsAgree(t *testing.T) {
	plain := 0
	rapid.Check(t, func(t *rapid.T) {
		key, value, err := Encode(drawVerdict(t))
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "break") {
			value = bytes.Clone(value)
			switch at := rapid.IntRange(0, len(value)-1).Draw(t, "at"); rapid.IntRange(0, 3).Draw(t, "how") {
			case 0:
				value[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			case 1:
				value = value[:at]
			case 2:
				value = append(value, value...)
			default:
				value = append(value[:at:at], value[at+1:]...)
			}
		}
		got, ok := plainVerdict(key, value)
		if !ok {
			return
		}
		plain++
		want, err := decodeAny(domain.TopicVerdicts, key, value)
		if err != nil {
			t.Fatalf("the generated code says: %v", err)
		}
		if diff := cmp.Diff(want, domain.Event(got)); diff != "" {
			t.Fatal(diff)
		}
	})
	if plain == 0 {
		t.Error("no verdict was plain")
	}
}

// The verdicts that a log is full of go the quick way.
func TestOrdinaryVerdictsArePlain(t *testing.T) {
	at := time.UnixMicro(1_700_000_000_000_000).UTC()
	for _, v := range []*domain.Verdict{
		{ViewID: domain.ViewID{1}, Post: "p", Author: domain.PersonKey{1}, PostVersion: 1, AudienceKind: "everyone", LimitsRevision: 1, ViewEpoch: 1, ClaimedAt: at, ViewedAt: at, Received: at, QuotaFullAt: at},
		{ViewID: domain.ViewID{1}, ViewOffset: 9, Post: "p", Anonymous: true, ViewedAt: at, Received: at},
		{ViewID: domain.ViewID{1}, ViewOffset: 9, Post: "p", ViewedAt: at, Received: at, Reason: domain.ReasonDuplicate},
	} {
		v.Viewer = domain.PersonRef{Tenant: "demo", Person: domain.PersonKey{7}}
		key, value, err := Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := plainVerdict(key, value); !ok || !cmp.Equal(got, v) {
			t.Errorf("%+v is read as %+v, %v", v, got, ok)
		}
	}
}
