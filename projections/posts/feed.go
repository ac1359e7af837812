package posts

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"seenby/domain"
	"seenby/projections"
)

// FeedFilter chooses posts of a tenant; what is not set chooses all.
type FeedFilter struct {
	Tenant   domain.TenantID
	Author   *domain.PersonKey
	Audience domain.Audience // empty: any
}

// FeedCursor is the last row of a page.
type FeedCursor struct {
	PublishedAt time.Time
	Post        domain.PostID
}

// FeedPost is a row of a page.
type FeedPost struct {
	Key domain.PostKey
	View
}

// A statement per set of filters, so that each has its index. With both, the author's is used: one author's posts
// are few, an audience's may be many.
var (
	feedSQL         = feedStatement("posts.feed", "")
	feedAuthorSQL   = feedStatement("posts.feed_of_author", " AND p.author = @author")
	feedAudienceSQL = feedStatement("posts.feed_of_audience", " AND p.audience = @audience")
	feedBothSQL     = feedStatement("posts.feed_of_author_and_audience", " AND p.author = @author AND p.audience = @audience")
)

func feedStatement(name, filter string) string {
	return projections.SQL(name, `
SELECT `+postColumns+`, COALESCE(b.body, '')
FROM posts p
LEFT JOIN post_bodies b ON b.tenant = p.tenant AND b.post = p.post AND b.event_id = p.body_event_id
WHERE p.tenant = @tenant`+filter+` AND p.published_at IS NOT NULL
  AND (p.published_at, p.post) < (@published_at::timestamptz, @post)
ORDER BY p.published_at DESC, p.post DESC
LIMIT @limit`)
}

// feedStart stands before every row: later than any time that Check lets in.
var feedStart = FeedCursor{PublishedAt: time.Date(3001, 1, 1, 0, 0, 0, 0, time.UTC)}

// Feed gives a page of the posts that stand, by published_at, newest first, ties by id; after is the last row of the
// page before, nil for the first one. A post whose published_at is changed meanwhile may stand on two pages or on
// none; all others stand on exactly one, whatever is written.
func Feed(ctx context.Context, q projections.Querier, filter FeedFilter, after *FeedCursor, limit int) ([]FeedPost, error) {
	if after == nil {
		after = &feedStart
	}
	args := pgx.NamedArgs{"tenant": string(filter.Tenant), "published_at": after.PublishedAt, "post": string(after.Post), "limit": limit}
	sql := feedSQL
	switch {
	case filter.Author != nil && filter.Audience != "":
		sql = feedBothSQL
	case filter.Author != nil:
		sql = feedAuthorSQL
	case filter.Audience != "":
		sql = feedAudienceSQL
	}
	if filter.Author != nil {
		args["author"] = filter.Author[:]
	}
	if filter.Audience != "" {
		args["audience"] = string(filter.Audience)
	}
	rows, err := q.Query(ctx, sql, args)
	if err != nil {
		return nil, fmt.Errorf("read feed: %w", err)
	}
	var page []FeedPost
	var row postRow
	var text string
	if _, err := pgx.ForEachRow(rows, append(row.scan(), &text), func() error {
		page = append(page, FeedPost{Key: row.key, View: View{Post: row.post(), Text: text}})
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read feed: %w", err)
	}
	return page, nil
}
