package adminapi

import (
	"cmp"
	"slices"
	"time"

	"seenby/domain"
	"seenby/internal/tenancy"
)

// Tenant is a tenant as it is answered, and as `seenby tenants show --json` prints it.
type Tenant struct {
	_         struct{}   `json:"-" additionalProperties:"true"`
	ID        string     `json:"id"`
	Name      string     `json:"name" doc:"For people; empty once the tenant is closed."`
	Status    string     `json:"status" enum:"open,closed"`
	CreatedAt *time.Time `json:"created_at,omitempty" doc:"Absent once the tenant is closed."`
	ClosedAt  *time.Time `json:"closed_at,omitempty"`
	Keys      int        `json:"keys" minimum:"0" doc:"API keys that are accepted."`
	Limits    Limits     `json:"limits"`
}

// Limits are a tenant's settings at one revision. Durations are written as 25h0m0s.
type Limits struct {
	_                    struct{}   `json:"-" additionalProperties:"true"`
	Revision             int64      `json:"revision" minimum:"1" doc:"Raised by every change; each verdict names the one that it was judged by."`
	SetAt                *time.Time `json:"set_at,omitempty"`
	DuplicateWindow      string     `json:"duplicate_window" example:"25h0m0s" doc:"How long a counted id is remembered."`
	Stale                string     `json:"stale" example:"24h0m0s" doc:"A view older than this is refused."`
	Future               string     `json:"future" example:"10m0s" doc:"A view further ahead than this is refused."`
	QuotaViewsPerMinute  int64      `json:"quota_views_per_minute" doc:"Of one viewer, in the long run."`
	QuotaBurstViews      int64      `json:"quota_burst_views" doc:"Of one viewer, at once."`
	PostCapViews         int64      `json:"post_cap_views" doc:"Counted views of one post by one viewer within post_cap_window."`
	PostCapWindow        string     `json:"post_cap_window" example:"1h0m0s"`
	OwnViews             string     `json:"own_views" enum:"count,refuse" doc:"What becomes of an author's views of their own post."`
	UnknownPosts         string     `json:"unknown_posts" enum:"refuse,count" doc:"What becomes of views of a post that was never published."`
	IntakeViewsPerSecond int64      `json:"intake_views_per_second" doc:"What one api process takes; twice that at once."`
}

// Key is an API key as it is listed.
type Key struct {
	_         struct{}   `json:"-" additionalProperties:"true"`
	ID        string     `json:"id"`
	Prefix    string     `json:"prefix" example:"seenby_4f7k2m9p" doc:"How the key begins."`
	Label     string     `json:"label" doc:"What the key is for; empty a while after it was revoked."`
	Status    string     `json:"status" enum:"active,revoked"`
	IssuedAt  *time.Time `json:"issued_at,omitempty" doc:"Absent a while after the key was revoked."`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

// IssuedKey is a new API key: the only answer that holds its text.
type IssuedKey struct {
	Key
	Text string `json:"key" doc:"The key itself. It is stored as a hash only and is never shown again."`
}

// Closed says what was destroyed with a tenant, and what stays.
type Closed struct {
	_               struct{}            `json:"-" additionalProperties:"true"`
	Tenant          Tenant              `json:"tenant"`
	NamesForgotten  int                 `json:"names_forgotten" doc:"Ids of people that were given a tombstone on the topic people."`
	TextsForgotten  int                 `json:"texts_forgotten" doc:"Texts of posts that were given a tombstone on the topic bodies."`
	Remains         []tenancy.Remainder `json:"remains" nullable:"false" doc:"What stays where, and until when."`
	RepeatIfInDoubt string              `json:"repeat" doc:"Why the call is to be repeated once."`
}

// RepeatClose says why closing is repeated once.
const RepeatClose = "Repeat this in a minute: a request that was under way may have added a name or a text meanwhile."

// TenantOf makes the answer about a tenant.
func TenantOf(id domain.TenantID, t *domain.Tenant) Tenant {
	out := Tenant{ID: string(id), Name: t.Created.Name, Status: "open", CreatedAt: given(t.Created.CreatedAt), Limits: limitsOf(t)}
	if t.Closed {
		out.Status, out.Name, out.CreatedAt, out.ClosedAt = "closed", "", nil, given(t.ClosedAt)
	}
	for _, k := range t.Keys {
		if !k.Revoked && !t.Closed {
			out.Keys++
		}
	}
	return out
}

func limitsOf(t *domain.Tenant) Limits {
	text := map[string]string{}
	for _, l := range tenancy.LimitsOf(t.Limits) {
		text[l.Name] = l.Value
	}
	return Limits{
		Revision: t.Limits.Revision, SetAt: given(t.LimitsSetAt),
		DuplicateWindow: text["duplicate_window"], Stale: text["stale"], Future: text["future"],
		QuotaViewsPerMinute: t.Limits.Quota.ViewsPerMinute, QuotaBurstViews: t.Limits.Quota.BurstViews,
		PostCapViews: t.Limits.PostCap.Views, PostCapWindow: text["post_cap_window"],
		OwnViews: text["own_views"], UnknownPosts: text["unknown_posts"], IntakeViewsPerSecond: t.Limits.IntakeViewsPerSecond,
	}
}

// KeyOf makes the answer about an API key.
func KeyOf(id string, k domain.APIKey) Key {
	out := Key{ID: id, Prefix: k.Prefix, Label: k.Label, Status: "active", IssuedAt: given(k.IssuedAt)}
	if k.Revoked {
		out.Status, out.RevokedAt = "revoked", given(k.RevokedAt)
	}
	return out
}

// KeysOf lists a tenant's API keys, oldest first; those whose time is gone before all others.
func KeysOf(t *domain.Tenant) []Key {
	keys := make([]Key, 0, len(t.Keys))
	for id, k := range t.Keys {
		keys = append(keys, KeyOf(id, k))
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(t.Keys[a.ID].IssuedAt.Compare(t.Keys[b.ID].IssuedAt), cmp.Compare(a.ID, b.ID))
	})
	return keys
}

func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Microsecond) // what the log keeps
	return &t
}
