package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/webhook"
)

// core is a core system's counts, a page after the other.
type core [][]webhook.Value

func (c core) Values(_ context.Context, _ webhook.Endpoint, cursor string, _ time.Time) (webhook.Page, error) {
	n, _ := strconv.Atoi(cursor)
	if n >= len(c) {
		return webhook.Page{}, errAway
	}
	page := webhook.Page{Values: c[n]}
	if n+1 < len(c) {
		page.Next = strconv.Itoa(n + 1)
	}
	return page, nil
}

func (w *world) contact(c core) Contact {
	return Contact{Core: c, Store: w.store, PartitionOf: partitionOf, Now: w.clock}
}

// Pages are compared with what was counted, imported and told; what the core has more of is reached exactly by a baseline.
func TestContactPages(t *testing.T) {
	w := newWorld(t)
	w.view("a0", 4)
	w.view("b1", 2)
	o := w.relay(0, 1)
	o.later()
	w.view("b1", 1)
	w.exec(`INSERT INTO posts_v1.posts (tenant, post, version, deleted, author, audience, baseline_impressions, baseline_unique_viewers, baseline_as_of) VALUES ('shop', 'b1', 0, false, $1, '', 10, 6, now())`, make([]byte, 16))
	c := w.contact(core{{{Post: "a0", Impressions: 4, Revision: 1}, {Post: "b1", Impressions: 50, Revision: 7}}, {}, {{Post: "none1", Impressions: 9}}})
	var all []Compared
	if err := c.Pages(t.Context(), shop, webhook.Endpoint{}, func(page []Compared) error {
		all = append(all, page...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(all) != 3 {
		t.Fatalf("compared are %+v", all)
	}
	a, b, none := all[0], all[1], all[2]
	if a.Exceeds() || a.Differs() || a.Counts.Impressions != 4 || a.Told.Revision != 1 || a.Post != key("a0") {
		t.Errorf("a0: %+v", a)
	}
	if !b.Exceeds() || !b.Differs() || b.Counts.Impressions != 13 || b.Counts.UniqueViewers != 9 || b.Counts.Imported != 10 || b.Baseline.Impressions != 10 || b.Told.Impressions != 2 {
		t.Errorf("b1: %+v", b)
	}
	if !none.Exceeds() || none.Counts.Impressions != 0 || none.Told.Revision != 0 {
		t.Errorf("none1: %+v", none)
	}
	id := byte(0)
	for i, e := range Baselines([]Compared{b, none}, w.clock(), func() [16]byte { id++; return [16]byte{id} }) {
		have, want := e.(domain.CountsImported), []domain.CountsImported{
			{PostRef: key("b1"), EventID: domain.EventID{1}, Impressions: 47, UniqueViewers: 6, AsOf: w.clock()},
			{PostRef: key("none1"), EventID: domain.EventID{2}, Impressions: 9, AsOf: w.clock()},
		}[i]
		if have != want {
			t.Errorf("imported is %+v, not %+v", have, want)
		}
	}
	// As the projection posts would have it, the count is the core's.
	w.exec("UPDATE posts_v1.posts SET baseline_impressions = 47 WHERE post = 'b1'")
	if err := c.Pages(t.Context(), shop, webhook.Endpoint{}, func(page []Compared) error {
		for _, one := range page {
			if one.Post == key("b1") && (one.Counts.Impressions != 50 || one.Exceeds()) {
				t.Errorf("with its baseline: %+v", one)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	if err := c.Pages(t.Context(), shop, webhook.Endpoint{}, func([]Compared) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("each's error: %v", err)
	}
	if err := w.contact(core{}).Pages(t.Context(), shop, webhook.Endpoint{}, func([]Compared) error { return nil }); !errors.Is(err, errAway) {
		t.Errorf("the core's error: %v", err)
	}
}

// What differs is counted by how, and told again above what the core has; by a dry run nothing is.
func TestReconcile(t *testing.T) {
	w := newWorld(t)
	o := w.relay(0, 1)
	for _, post := range []string{"same0", "lower0", "higher1", "revision1", "missing0", "missing1"} {
		w.view(post, 2)
	}
	o.later()
	w.view("untold0", 1)
	w.tenants.change(func() { w.tenants.relays["other"] = domain.RelaySet{Tenant: "other", Enabled: true} })
	w.exec(`INSERT INTO relay_counts VALUES ('other', 'x0', 0, 1, 1, 0, 1, 0, 'epoch', 999)`)
	c := w.contact(core{
		{{Post: "same0", Impressions: 2, Revision: 1}, {Post: "lower0", Impressions: 1, Revision: 1}, {Post: "higher1", Impressions: 3, Revision: 9}},
		{{Post: "revision1", Impressions: 2, Revision: 5}, {Post: "untold0", Impressions: 77}},
	})
	for _, resend := range []bool{false, true} {
		var named []string
		r, err := c.Reconcile(t.Context(), shop, webhook.Endpoint{}, resend, func(one Compared) { named = append(named, string(one.Post.Post)) })
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(named)
		if want := (Reconciled{Posts: 7, Lower: 1, Higher: 1, Revision: 1, Missing: 2}); r != want || r.Different() != 5 {
			t.Errorf("reconciled is %+v, not %+v", r, want)
		}
		if want := []string{"higher1", "lower0", "missing0", "missing1", "revision1"}; !slices.Equal(named, want) {
			t.Errorf("named are %v", named)
		}
		if n := w.number("SELECT count(*) FROM relay_resends"); (n == 5) != resend || n > 5 {
			t.Errorf("%d are told again, and it is %v that they should", n, resend)
		}
	}
	for post, above := range map[string]int64{"lower0": 1, "higher1": 9, "revision1": 5, "missing0": 1} {
		if n := w.number("SELECT above FROM relay_resends WHERE tenant = 'shop' AND post = $1", post); n != above {
			t.Errorf("%s is told above %d", post, n)
		}
	}
}

// More told posts than a page holds are all looked for at the core.
func TestReconcilePages(t *testing.T) {
	w := newWorld(t)
	w.exec(`INSERT INTO relay_counts SELECT 'shop', 'p' || lpad(n::text, 5, '0'), 0, 1, 1, 0, 1, 0, 'epoch', n FROM generate_series(1, $1) n`, 2*sweepMax+1)
	w.exec(`INSERT INTO relay_counts VALUES ('shoq', 'x0', 0, 1, 1, 0, 1, 0, 'epoch', 999)`)
	r, err := w.contact(core{{}}).Reconcile(t.Context(), shop, webhook.Endpoint{}, true, func(Compared) {})
	if err != nil || r.Missing != 2*sweepMax+1 {
		t.Errorf("%+v: %v", r, err)
	}
	if n := w.number("SELECT count(*) FROM relay_resends"); n != 2*sweepMax+1 {
		t.Errorf("%d are told again", n)
	}
}

// A core whose pages move while they are read may name a post twice.
func TestResendTwice(t *testing.T) {
	w := newWorld(t)
	c := w.contact(nil)
	of := []Compared{
		{Post: key("a0"), Core: webhook.Value{Revision: 2}}, {Post: key("b1"), Core: webhook.Value{Revision: 1}}, {Post: key("a0"), Core: webhook.Value{Revision: 3}},
	}
	if err := c.Resend(t.Context(), of); err != nil {
		t.Fatal(err)
	}
	if n := w.number("SELECT above FROM relay_resends WHERE post = 'a0'"); n != 3 {
		t.Errorf("it is told above %d", n)
	}
	if err := c.Resend(t.Context(), nil); err != nil {
		t.Error(fmt.Errorf("of nothing: %w", err))
	}
}
