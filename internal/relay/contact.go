package relay

import (
	"context"
	"hash/maphash"
	"slices"
	"time"

	"seenby/domain"
	"seenby/internal/webhook"
	"seenby/projections"
)

// Core is asked what a core system has.
type Core interface {
	Values(ctx context.Context, e webhook.Endpoint, cursor string, now time.Time) (webhook.Page, error)
}

// Contact compares what a tenant's core system has with what Seenby counts and has told.
type Contact struct {
	Core        Core
	Store       Store
	PartitionOf func(post domain.PostKey) int32
	Now         func() time.Time
}

// pagesMax bounds the pages of one endpoint: 500 million posts at 500 a page.
const pagesMax = 1_000_000

// Compared is a post as the core system has it, and as Seenby has it.
type Compared struct {
	Post     domain.PostKey
	Core     webhook.Value             // the zero value: the core has nothing of the post
	Counts   domain.PostCounts         // of the live read models
	Baseline domain.Baseline           // of Counts, what was imported as counts
	Told     domain.ImpressionsChanged // the zero value: nothing was told
}

// Exceeds tells whether the core has more than Seenby would tell it.
func (c Compared) Exceeds() bool { return c.Core.Impressions > c.Counts.Impressions }

// Differs tells whether the core has something else than it was told. A revision that the core has and Seenby never made
// would hide everything that is told below it.
func (c Compared) Differs() bool {
	return c.Core.Impressions != c.Told.Impressions || c.Core.Revision != c.Told.Revision
}

// Pages reads all that a core system has, and hands it out compared, a page at a time.
func (c Contact) Pages(ctx context.Context, tenant domain.TenantID, e webhook.Endpoint, each func([]Compared) error) error {
	cursor := ""
	for range pagesMax {
		page, err := c.Core.Values(ctx, e, cursor, c.Now())
		if err != nil {
			return err
		}
		compared, err := c.compare(ctx, tenant, page.Values)
		if err != nil {
			return err
		}
		if err := each(compared); err != nil {
			return err
		}
		if cursor = page.Next; cursor == "" {
			return nil
		}
	}
	return domain.Errorf(domain.CodeInvalid, "the endpoint has given %d pages and there is another: do its cursors go round?", pagesMax)
}

func (c Contact) compare(ctx context.Context, tenant domain.TenantID, values []webhook.Value) ([]Compared, error) {
	if len(values) == 0 {
		return nil, nil
	}
	keys := make([]domain.PostKey, len(values))
	for i, v := range values {
		keys[i] = domain.PostKey{Tenant: tenant, Post: v.Post}
	}
	compared := make([]Compared, len(values))
	err := c.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) error {
		counts, baselines, err := readCounts(ctx, q, keys)
		if err != nil {
			return err
		}
		told, err := Told(ctx, q, keys)
		if err != nil {
			return err
		}
		for i, key := range keys {
			compared[i] = Compared{Post: key, Core: values[i], Counts: counts[key], Baseline: baselines[key], Told: told[key]}
		}
		return nil
	})
	return compared, err
}

// Resend asks for the counts of posts to be told again, above what the core has of them. A post may be among them twice:
// pages may move while they are read.
func (c Contact) Resend(ctx context.Context, of []Compared) error {
	wishes := make([]wish, len(of))
	for i, one := range of {
		wishes[i] = wish{one.Post, c.PartitionOf(one.Post), max(one.Core.Revision, one.Told.Revision)}
	}
	return c.Store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error { return resend(ctx, tx, wishes) })
}

// Reconciled says what a core system had.
type Reconciled struct {
	Posts    int64 // that it has, or was told
	Lower    int64 // fewer impressions than it was told
	Higher   int64 // more
	Revision int64 // as many, under another revision
	Missing  int64 // of which it has nothing
}

// Different is the number of posts that are told again.
func (r Reconciled) Different() int64 { return r.Lower + r.Higher + r.Revision + r.Missing }

// Reconcile compares all posts of a tenant with what its core system has, and asks for those that differ to be told again.
// What is on its way just now differs too, and is told twice, which does no harm. resend false: it only compares. each is
// given every post that differs.
func (c Contact) Reconcile(ctx context.Context, tenant domain.TenantID, e webhook.Endpoint, resend bool, each func(Compared)) (r Reconciled, err error) {
	seed := maphash.MakeSeed()
	has := map[uint64]struct{}{} // a hash of an id: two that share one, of 2^64, would have to meet
	differing := func(page []Compared) error {
		for _, one := range page {
			each(one)
		}
		if !resend {
			return nil
		}
		return c.Resend(ctx, page)
	}
	if err := c.Pages(ctx, tenant, e, func(page []Compared) error {
		var other []Compared
		for _, one := range page {
			r.Posts++
			has[maphash.String(seed, string(one.Post.Post))] = struct{}{}
			if one.Told.Revision == 0 && one.Core.Revision == 0 {
				continue // neither was told anything of it
			}
			switch {
			case !one.Differs():
				continue
			case one.Core.Impressions < one.Told.Impressions:
				r.Lower++
			case one.Core.Impressions > one.Told.Impressions:
				r.Higher++
			default:
				r.Revision++
			}
			other = append(other, one)
		}
		return differing(other)
	}); err != nil {
		return r, err
	}
	return r, c.toldPages(ctx, tenant, func(told []domain.ImpressionsChanged) error {
		var missing []Compared
		for _, t := range told {
			if _, ok := has[maphash.String(seed, string(t.PostRef.Post))]; !ok {
				r.Posts++
				r.Missing++
				missing = append(missing, Compared{Post: t.PostRef, Told: t})
			}
		}
		return differing(missing)
	})
}

// toldPages hands out what was told of a tenant's posts.
func (c Contact) toldPages(ctx context.Context, tenant domain.TenantID, each func([]domain.ImpressionsChanged) error) error {
	after := domain.PostKey{Tenant: tenant}
	for {
		var keys []domain.PostKey
		told := map[domain.PostKey]domain.ImpressionsChanged{}
		if err := c.Store.Snapshot(ctx, func(ctx context.Context, q projections.Querier) (err error) {
			if keys, err = toldPosts(ctx, q, after, sweepMax); err != nil {
				return err
			}
			keys = slices.DeleteFunc(keys, func(k domain.PostKey) bool { return k.Tenant != tenant })
			told, err = Told(ctx, q, keys)
			return err
		}); err != nil || len(keys) == 0 {
			return err
		}
		page := make([]domain.ImpressionsChanged, len(keys))
		for i, key := range keys {
			page[i] = told[key]
		}
		if err := each(page); err != nil {
			return err
		}
		after = keys[len(keys)-1]
	}
}

// Baselines are the imported counts by which Seenby reaches what the core has of posts; ids makes their events' ids.
func Baselines(of []Compared, at time.Time, newID func() [16]byte) []domain.Event {
	events := make([]domain.Event, len(of))
	for i, one := range of {
		counted := one.Counts.Impressions - one.Baseline.Impressions
		events[i] = domain.CountsImported{
			PostRef: one.Post, EventID: newID(), Impressions: one.Core.Impressions - counted, UniqueViewers: one.Baseline.UniqueViewers, AsOf: at,
		}
	}
	return events
}
