package tenancy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"seenby/domain"
)

var day = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

func TestImports(t *testing.T) {
	in := &domain.Installation{}
	in.Apply(domain.TenantCreated{Tenant: "shop", WrappedKey: []byte{1}, CreatedAt: day})
	in.Apply(domain.TenantCreated{Tenant: "other", WrappedKey: []byte{1}, CreatedAt: day})
	at := func(next int64) []domain.Position {
		return []domain.Position{{Topic: domain.TopicViews, NextOffset: next}}
	}
	begin := func(tenant domain.TenantID, run byte, since []domain.Position, minute int) domain.ImportRecorded {
		t.Helper()
		r, events, err := BeginImport(in, day.Add(time.Duration(minute)*time.Minute), tenant, "views/x", domain.RunID{run}, since)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			in.Apply(e)
		}
		return r
	}
	record := func(r domain.ImportRecorded) error {
		events, err := RecordImport(in, r)
		for _, e := range events {
			in.Apply(e)
		}
		return err
	}
	first := begin("shop", 1, at(5), 1)
	if diff := cmp.Diff(domain.ImportRecorded{Tenant: "shop", ImportID: "views/x", Run: domain.RunID{1}, Since: at(5), BegunAt: day.Add(time.Minute), RecordedAt: day.Add(time.Minute)}, first); diff != "" {
		t.Error(diff)
	}
	if r := begin("other", 9, at(6), 1); r.Lines != 0 || in.Tenants["shop"].Imports["views/x"].Run != (domain.RunID{1}) {
		t.Error("two tenants share an import")
	}
	first.Lines, first.Imported, first.Since = 10, 9, at(7)
	if err := record(first); err != nil {
		t.Fatal(err)
	}
	// Another process takes it over, and leaves open what the first may have appended.
	second := begin("shop", 2, at(20), 2)
	if second.Lines != 10 || second.Imported != 9 || cmp.Diff(at(7), second.Since) != "" || !second.BegunAt.Equal(first.BegunAt) {
		t.Errorf("%+v", second)
	}
	if err := record(first); domain.CodeOf(err) != domain.CodeConflict {
		t.Errorf("the first goes on: %v", err)
	}
	second.Lines, second.Since, second.FinishedAt = 12, nil, day.Add(3*time.Minute)
	if err := record(second); err != nil {
		t.Fatal(err)
	}
	again, events, err := BeginImport(in, day, "shop", "views/x", domain.RunID{3}, at(30))
	if err != nil || len(events) > 0 || !again.Finished() || again.Lines != 12 || again.Run != (domain.RunID{2}) {
		t.Errorf("%+v %v %v", again, events, err)
	}
	in.Apply(domain.TenantClosed{Tenant: "shop"})
	for _, tenant := range []domain.TenantID{"shop", "none"} {
		if _, _, err := BeginImport(in, day, tenant, "views/y", domain.RunID{1}, nil); domain.CodeOf(err) != domain.CodeNotFound {
			t.Errorf("%s: %v", tenant, err)
		}
		if err := record(domain.ImportRecorded{Tenant: tenant}); domain.CodeOf(err) != domain.CodeNotFound {
			t.Errorf("%s: %v", tenant, err)
		}
	}
}
