package webhook

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"seenby/domain"
)

// The types of bodies. A receiver acknowledges one that it does not know.
const (
	TypeCounts    = "impressions.changed"
	TypeMilestone = "impressions.milestone"
	TypeTest      = "seenby.test"
)

// CountsBody tells absolute counts of posts of one tenant. A receiver keeps the highest revision of each post.
func CountsBody(tenant domain.TenantID, at time.Time, changes []domain.ImpressionsChanged) []byte {
	type post struct {
		Post          domain.PostID `json:"post"`
		Impressions   int64         `json:"impressions"`
		UniqueViewers int64         `json:"unique_viewers"`
		Revision      int64         `json:"revision"`
		AsOf          string        `json:"as_of,omitempty"`
	}
	posts := make([]post, len(changes))
	for i, c := range changes {
		posts[i] = post{Post: c.PostRef.Post, Impressions: c.Impressions, UniqueViewers: c.UniqueViewers, Revision: c.Revision}
		if !c.AsOf.IsZero() {
			posts[i].AsOf = timeText(c.AsOf)
		}
	}
	return body(TypeCounts, at, struct {
		Tenant domain.TenantID `json:"tenant"`
		Posts  []post          `json:"posts"`
	}{tenant, posts})
}

// MilestoneBody tells that a post has passed a threshold, with the count that did.
func MilestoneBody(at time.Time, c domain.ImpressionsChanged, threshold int64) []byte {
	return body(TypeMilestone, at, struct {
		Tenant      domain.TenantID `json:"tenant"`
		Post        domain.PostID   `json:"post"`
		Milestone   int64           `json:"milestone"`
		Impressions int64           `json:"impressions"`
		Revision    int64           `json:"revision"`
	}{c.PostRef.Tenant, c.PostRef.Post, threshold, c.Impressions, c.Revision})
}

// TestBody tells nothing: it shows that calls arrive and that the signature is right.
func TestBody(tenant domain.TenantID, at time.Time) []byte {
	return body(TypeTest, at, struct {
		Tenant domain.TenantID `json:"tenant"`
	}{tenant})
}

// MilestoneID is the webhook-id of a milestone: the same whoever sends it and however often, so that a receiver can tell. It is a
// digest, because a post's id need not fit into a header.
func MilestoneID(tenant domain.TenantID, post domain.PostID, threshold int64) string {
	sum := sha256.Sum256([]byte(string(tenant) + "\x00" + string(post) + "\x00" + strconv.FormatInt(threshold, 10)))
	return "milestone_" + base64.RawURLEncoding.EncodeToString(sum[:16])
}

func body(kind string, at time.Time, data any) []byte {
	b, err := json.Marshal(struct {
		Type      string `json:"type"`
		Timestamp string `json:"timestamp"`
		Data      any    `json:"data"`
	}{kind, timeText(at), data})
	if err != nil {
		panic(err) // strings and whole numbers always have a JSON form
	}
	return b
}

// timeText is RFC 3339 in UTC, as exact as times are kept here.
func timeText(t time.Time) string { return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano) }
