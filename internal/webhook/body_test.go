package webhook

import (
	"testing"
	"time"

	"seenby/domain"
)

// The bodies are a contract with receivers: nothing in them is renamed or takes another form.
func TestBodies(t *testing.T) {
	at := time.Date(2026, 11, 23, 13, 0, 0, 123456789, time.FixedZone("", 3600))
	change := domain.ImpressionsChanged{
		PostRef: domain.PostKey{Tenant: "shop", Post: `p"1`}, Impressions: 1003, UniqueViewers: 346, Imported: 5, Revision: 12,
		AsOf: at.Add(-time.Second).Truncate(time.Second), HighestMilestone: 1000, Milestones: []int64{1000},
	}
	plain := domain.ImpressionsChanged{PostRef: domain.PostKey{Tenant: "shop", Post: "p2"}, Revision: 1}
	for _, tt := range []struct{ got, want string }{
		{string(CountsBody("shop", at, []domain.ImpressionsChanged{change, plain})), `{"type":"impressions.changed","timestamp":"2026-11-23T12:00:00.123456Z",` +
			`"data":{"tenant":"shop","posts":[{"post":"p\"1","impressions":1003,"unique_viewers":346,"revision":12,"as_of":"2026-11-23T11:59:59Z"},` +
			`{"post":"p2","impressions":0,"unique_viewers":0,"revision":1}]}}`},
		{string(CountsBody("shop", at, nil)), `{"type":"impressions.changed","timestamp":"2026-11-23T12:00:00.123456Z","data":{"tenant":"shop","posts":[]}}`},
		{string(MilestoneBody(at, change, 1000)), `{"type":"impressions.milestone","timestamp":"2026-11-23T12:00:00.123456Z",` +
			`"data":{"tenant":"shop","post":"p\"1","milestone":1000,"impressions":1003,"revision":12}}`},
		{string(TestBody("shop", at)), `{"type":"seenby.test","timestamp":"2026-11-23T12:00:00.123456Z","data":{"tenant":"shop"}}`},
		{MilestoneID("shop", "p1", 1000), "milestone_R7tGCeU16MhSVZTPTxtUXQ"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s\nnot\n%s", tt.got, tt.want)
		}
	}
}

func TestMilestoneIDsDiffer(t *testing.T) {
	met := map[string]bool{}
	for _, m := range []struct {
		tenant    domain.TenantID
		post      domain.PostID
		threshold int64
	}{{"shop", "p1", 1000}, {"shop", "p1", 100}, {"shop", "p11", 1000}, {"shop", "p", 11000}, {"shop", "p 1", 1}, {"sho", "pp1", 1000}, {"shop", "\u00e9", 1}} {
		id := MilestoneID(m.tenant, m.post, m.threshold)
		if met[id] || len(id) != 32 {
			t.Errorf("%v: %s", m, id)
		}
		met[id] = true
	}
}
