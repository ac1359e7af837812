package httpapi

import (
	"context"
	"encoding/binary"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"seenby/domain"
	"seenby/projections/posts"
)

// Feed is one page of posts.
type Feed struct {
	_          struct{} `json:"-" additionalProperties:"true"`
	Posts      []Post   `json:"posts" nullable:"false" doc:"By published_at, newest first, ties by id; deleted ones are left out."`
	NextCursor string   `json:"next_cursor,omitempty" doc:"Absent on the last page."`
}

type feedOutput struct{ Body Feed }

func (s *server) feedOperation() huma.Operation {
	return huma.Operation{
		OperationID: "get-feed", Method: http.MethodGet, Path: "/v1/posts", Summary: "List posts, newest first",
		Description: "Filters can be combined. Audiences are shown, not enforced: an api key may read every post. A post whose published_at changes meanwhile may stand on two pages or on none; every other stands on one.",
		Errors:      []int{http.StatusGatewayTimeout},
	}
}

func (s *server) getFeed(ctx context.Context, in *struct {
	WaitParams
	Author   string `query:"author" doc:"The app's own id: posts of this author only; none once the author was erased."`
	Audience string `query:"audience" example:"audience:friends" doc:"everyone, author, or audience: and a name: posts of this audience only."`
	Limit    string `query:"limit" example:"50" doc:"1 to 200; default 50."`
	Cursor   string `query:"cursor" doc:"next_cursor of the page before, with the same filters."`
}) (*feedOutput, error) {
	tenant := tenantOf(ctx)
	filter := posts.FeedFilter{Tenant: tenant.ID, Audience: domain.Audience(in.Audience)}
	if in.Author != "" {
		if err := domain.CheckID("author", in.Author); err != nil {
			return nil, err
		}
		author := domain.NewPersonKey(tenant.Key, domain.PersonKnown, in.Author)
		filter.Author = &author
	}
	if in.Audience != "" {
		if err := filter.Audience.Check(); err != nil {
			return nil, err
		}
	}
	limit, err := parseLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	list := listOf("feed", in.Author, in.Audience)
	after, err := openFeedCursor(tenant.Key, list, in.Cursor)
	if err != nil {
		return nil, err
	}
	out := &feedOutput{}
	err = s.answer(ctx, tenant, in.WaitParams, readsOfPost, func(ctx context.Context, r reader) error {
		if filter.Author != nil {
			// Whoever still knows the id of an erased person must not find their posts by it: nobody is called so.
			erased, err := r.erased(ctx, domain.PersonRef{Tenant: tenant.ID, Person: *filter.Author})
			if err != nil || erased {
				out.Body.Posts = []Post{}
				return err
			}
		}
		// One more than the page tells whether there is another.
		rows, err := r.feed(ctx, filter, after, limit+1)
		if err != nil {
			return err
		}
		if len(rows) > limit {
			rows = rows[:limit]
			last := rows[limit-1]
			at := binary.BigEndian.AppendUint64(nil, uint64(last.PublishedAt.UnixMicro())) //nolint:gosec // reversed by openFeedCursor
			out.Body.NextCursor = sealList(tenant.Key, list, append(at, last.Key.Post...))
		}
		out.Body.Posts, err = answerPosts(ctx, r, tenant.ID, rows)
		return err
	})
	return out, err
}

// openFeedCursor gives nil for an empty cursor: the first page.
func openFeedCursor(key domain.TenantKey, list []byte, cursor string) (*posts.FeedCursor, error) {
	at, err := openList(key, list, cursor)
	if err != nil || at == nil {
		return nil, err
	}
	if len(at) <= 8 {
		return nil, errCursor
	}
	published := time.UnixMicro(int64(binary.BigEndian.Uint64(at))).UTC() //nolint:gosec // as sealed
	return &posts.FeedCursor{PublishedAt: published, Post: domain.PostID(at[8:])}, nil
}
