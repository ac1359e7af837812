package gate

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// The decoder of a restore reads what eventlog reads.
func TestDecoderAgrees(t *testing.T) {
	var d decoder
	rapid.Check(t, func(t *rapid.T) {
		v := &domain.Verdict{
			Viewer:     domain.PersonRef{Tenant: tenant, Person: domain.PersonKey(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "person"))},
			ViewID:     viewID(rapid.IntRange(1, 1<<20).Draw(t, "id")),
			ViewOffset: rapid.Int64Min(0).Draw(t, "offset"),
			ViewEpoch:  domain.LeaderEpoch(rapid.Int32Min(0).Draw(t, "epoch")),
			Post:       domain.PostID(rapid.StringMatching(`[a-zé€]{1,40}`).Draw(t, "post")),
			Author:     person(3), PostVersion: 4, AudienceKind: "everyone", Anonymous: true, Imported: rapid.Bool().Draw(t, "imported"),
			ClaimedAt: noon, ViewedAt: noon, Received: noon,
			Context: &domain.ViewContext{App: "web"},
			Reason:  rapid.SampledFrom(append([]domain.Reason{domain.ReasonNone, domain.ReasonNone}, domain.Reasons...)).Draw(t, "reason"),
		}
		if v.Counted() && rapid.Bool().Draw(t, "quota") {
			v.QuotaFullAt = time.UnixMicro(rapid.Int64Range(1, 1<<52).Draw(t, "full")).UTC()
		}
		if v.Reason == domain.ReasonUndecided {
			v.WaitsFor = []domain.Position{{Topic: domain.TopicPosts, NextOffset: 8}}
		}
		key, value, err := eventlog.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.decode(&kgo.Record{Key: key, Value: value})
		if err != nil {
			t.Fatal(err)
		}
		if got.ViewOffset != v.ViewOffset || got.ViewEpoch != v.ViewEpoch || got.Counted() != v.Counted() {
			t.Fatalf("%+v of %+v", got, v)
		}
		if v.Counted() && (got.Viewer != v.Viewer || got.ViewID != v.ViewID || got.Post != v.Post || got.Imported != v.Imported || !got.QuotaFullAt.Equal(v.QuotaFullAt)) {
			t.Fatalf("%+v of %+v", got, v)
		}
		// A record cut anywhere is an error, never a panic and never a shorter verdict.
		if cut := rapid.IntRange(0, len(value)-1).Draw(t, "cut"); cut > 0 {
			if got, err := d.decode(&kgo.Record{Key: key, Value: value[:cut]}); err == nil {
				t.Fatalf("%d of %d bytes decode: %+v", cut, len(value), got)
			}
		}
	})
}

func FuzzDecoder(f *testing.F) {
	key, value, err := eventlog.Encode(&domain.Verdict{Viewer: domain.PersonRef{Tenant: tenant}, ViewID: viewID(1), Post: "p", ViewedAt: noon, Received: noon})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(key, value)
	f.Fuzz(func(t *testing.T, key, value []byte) {
		var d decoder
		v, err := d.decode(&kgo.Record{Key: key, Value: value})
		e, errFull := eventlog.Decode(domain.TopicVerdicts, key, value)
		full, ok := e.(*domain.Verdict)
		if err != nil || errFull != nil || !ok {
			return
		}
		if v.Counted() != full.Counted() || v.ViewOffset != full.ViewOffset || v.Counted() && (v.ViewID != full.ViewID || v.Post != full.Post || v.Imported != full.Imported || v.Viewer != full.Viewer) {
			t.Fatalf("%+v of %+v", v, full)
		}
	})
}
