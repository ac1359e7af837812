package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"seenby/domain"
	"seenby/internal/tenancy"
	"seenby/projections/posts"
	"seenby/projections/uniqueviews"
)

// WaitParams are the headers of every GET; exported because huma looks at exported fields only.
type WaitParams struct {
	WaitFor string `header:"Seenby-Wait-For" doc:"Tokens of Seenby-Position, separated by commas: answer once the read models have passed them."`
	Prefer  string `header:"Prefer" example:"wait=10" doc:"wait=N: for how many seconds to wait, 0 to 30; default 5."`
}

// Resolve joins repeated headers, which huma would drop but the first.
func (p *WaitParams) Resolve(ctx huma.Context) []error {
	r, _ := humachi.Unwrap(ctx)
	if all := r.Header.Values(headerWaitFor); len(all) > 1 {
		p.WaitFor = strings.Join(all, ",")
	}
	if all := r.Header.Values(headerPrefer); len(all) > 1 {
		p.Prefer = strings.Join(all, ",")
	}
	return nil
}

type postOutput struct {
	ETag string `header:"ETag" doc:"The post's version."`
	Body Post
}

type countsOutput struct{ Body Counts }

type viewersOutput struct{ Body Viewers }

func (s *server) getPostOperation() huma.Operation {
	return huma.Operation{
		OperationID: "get-post", Method: http.MethodGet, Path: "/v1/posts/{id}", Summary: "Read a post and its counts",
		Errors: []int{http.StatusNotFound, http.StatusGone, http.StatusGatewayTimeout},
	}
}

func (s *server) getPost(ctx context.Context, in *struct {
	WaitParams
	ID string `path:"id" minLength:"1" maxLength:"255"`
}) (*postOutput, error) {
	tenant := tenantOf(ctx)
	if err := domain.CheckID("id", in.ID); err != nil {
		return nil, err
	}
	key := domain.PostKey{Tenant: tenant.ID, Post: domain.PostID(in.ID)}
	var out *postOutput
	err := s.answer(ctx, tenant, in.WaitParams, readsOfPost, func(ctx context.Context, r reader) (err error) {
		out, err = readPost(ctx, r, key)
		return err
	})
	return out, err
}

// errNoPost is the one answer for a post that never was, or is another tenant's.
var errNoPost = domain.Errorf(domain.CodeNotFound, "There is no such post.")

func readPost(ctx context.Context, r reader, key domain.PostKey) (*postOutput, error) {
	post, err := findPost(ctx, r, key)
	if err != nil {
		return nil, err
	}
	answers, err := answerPosts(ctx, r, key.Tenant, []posts.FeedPost{{Key: key, View: post}})
	if err != nil {
		return nil, err
	}
	return &postOutput{ETag: etag(post.Version), Body: answers[0]}, nil
}

// findPost is the post as it stands, errNoPost or errGone.
func findPost(ctx context.Context, r reader, key domain.PostKey) (posts.View, error) {
	found, err := r.posts(ctx, []domain.PostKey{key})
	if err != nil {
		return posts.View{}, err
	}
	post, ok := found[key]
	switch {
	case !ok || post.Version == 0:
		return posts.View{}, errNoPost
	case post.Deleted:
		return posts.View{}, errGone
	}
	return post, nil
}

// answerPosts adds counts and names to posts of a tenant, all at once.
func answerPosts(ctx context.Context, r reader, tenant domain.TenantID, of []posts.FeedPost) ([]Post, error) {
	keys, authors := make([]domain.PostKey, len(of)), make([]domain.PersonKey, len(of))
	for i, p := range of {
		keys[i], authors[i] = p.Key, p.Author
	}
	impressions, err := r.impressions(ctx, keys)
	if err != nil {
		return nil, err
	}
	unique, err := r.uniqueViewers(ctx, keys)
	if err != nil {
		return nil, err
	}
	names, err := r.names(ctx, tenant, authors)
	if err != nil {
		return nil, err
	}
	asOf, err := readAsOf(ctx, r, projectionImpressions, projectionUniqueViews)
	if err != nil {
		return nil, err
	}
	answers := make([]Post, len(of))
	for i, p := range of {
		counted, viewers := impressions[p.Key], unique[p.Key]
		answers[i] = Post{
			ID: string(p.Key.Post), Author: nameOf(names, p.Author), Audience: string(p.Audience), Body: p.Text,
			PublishedAt: p.PublishedAt.UTC(), CreatedAt: p.CreatedAt.UTC(), UpdatedAt: p.UpdatedAt.UTC(),
			Version: p.Version, Impressions: counted.Impressions + p.Baseline.Impressions, AnonymousImpressions: counted.AnonymousImpressions,
			UniqueViewers: viewers + p.Baseline.UniqueViewers, AsOf: asOf, CountParts: partsOf(counted.Impressions, viewers, p.Baseline),
		}
	}
	return answers, nil
}

// answer waits as the request asks, and then reads everything in one snapshot.
func (s *server) answer(ctx context.Context, tenant tenancy.TenantHandle, in WaitParams, route reads, read func(context.Context, reader) error) error {
	if err := s.await(ctx, tenant, in, route); err != nil {
		return err
	}
	ctx, cancel := s.patience(ctx)
	defer cancel()
	return s.models.read(ctx, read)
}

func readAsOf(ctx context.Context, r reader, names ...string) (*time.Time, error) {
	at, err := r.asOf(ctx, names...)
	if err != nil || at.IsZero() {
		return nil, err
	}
	at = at.UTC()
	return &at, nil
}

func nameOf(names map[domain.PersonKey]string, person domain.PersonKey) *string {
	if name, ok := names[person]; ok {
		return &name
	}
	return nil
}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

func (s *server) countsOperation() huma.Operation {
	return huma.Operation{
		OperationID: "get-counts", Method: http.MethodGet, Path: "/v1/counts", Summary: "Read the counts of up to 100 posts",
		Description: "A post that nobody saw, does not exist or belongs to another tenant has zero counts.",
		Errors:      []int{http.StatusGatewayTimeout},
	}
}

func (s *server) getCounts(ctx context.Context, in *struct {
	WaitParams
	Posts []string `query:"post,explode" required:"true" minItems:"1" maxItems:"100" nullable:"false" doc:"Ids of posts: post=a&post=b."`
}) (*countsOutput, error) {
	tenant := tenantOf(ctx)
	if len(in.Posts) == 0 {
		return nil, domain.Invalid("post", "is required: ?post=a&post=b")
	}
	if len(in.Posts) > countsPostsMax {
		return nil, domain.Invalid("post", "stands %d times; at most %d are allowed", len(in.Posts), countsPostsMax)
	}
	keys := make([]domain.PostKey, 0, len(in.Posts))
	asked := make(map[string]bool, len(in.Posts))
	for _, id := range in.Posts {
		if err := domain.CheckID("post", id); err != nil {
			return nil, err
		}
		if !asked[id] {
			asked[id] = true
			keys = append(keys, domain.PostKey{Tenant: tenant.ID, Post: domain.PostID(id)})
		}
	}
	out := &countsOutput{Body: Counts{Counts: make([]PostCount, len(keys))}}
	err := s.answer(ctx, tenant, in.WaitParams, readsOfCounts, func(ctx context.Context, r reader) error {
		impressions, err := r.impressions(ctx, keys)
		if err != nil {
			return err
		}
		unique, err := r.uniqueViewers(ctx, keys)
		if err != nil {
			return err
		}
		imported, err := r.baselines(ctx, keys)
		if err != nil {
			return err
		}
		for i, key := range keys {
			counted, viewers, base := impressions[key], unique[key], imported[key]
			out.Body.Counts[i] = PostCount{
				Post: string(key.Post), Impressions: counted.Impressions + base.Impressions, AnonymousImpressions: counted.AnonymousImpressions,
				UniqueViewers: viewers + base.UniqueViewers, CountParts: partsOf(counted.Impressions, viewers, base),
			}
		}
		out.Body.AsOf, err = readAsOf(ctx, r, projectionImpressions, projectionUniqueViews)
		return err
	})
	return out, err
}

func (s *server) viewersOperation() huma.Operation {
	return huma.Operation{
		OperationID: "get-viewers", Method: http.MethodGet, Path: "/v1/posts/{id}/viewers", Summary: "List who saw a post",
		Description: "By first_viewed_at, newest first. A viewer whose first view moves to an earlier time meanwhile may stand on two pages.",
		Errors:      []int{http.StatusNotFound, http.StatusGone, http.StatusGatewayTimeout},
	}
}

func (s *server) getViewers(ctx context.Context, in *struct {
	WaitParams
	ID     string `path:"id" minLength:"1" maxLength:"255"`
	Limit  string `query:"limit" example:"50" doc:"1 to 200; default 50."`
	Cursor string `query:"cursor" doc:"next_cursor of the page before."`
}) (*viewersOutput, error) {
	tenant := tenantOf(ctx)
	if err := domain.CheckID("id", in.ID); err != nil {
		return nil, err
	}
	limit, err := parseLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	key := domain.PostKey{Tenant: tenant.ID, Post: domain.PostID(in.ID)}
	after, err := openCursor(tenant.Key, key.Post, in.Cursor)
	if err != nil {
		return nil, err
	}
	out := &viewersOutput{}
	err = s.answer(ctx, tenant, in.WaitParams, readsOfViewers, func(ctx context.Context, r reader) (err error) {
		if _, err := findPost(ctx, r, key); err != nil {
			return err
		}
		out.Body, err = readViewers(ctx, r, tenant, key, after, limit)
		return err
	})
	return out, err
}

func readViewers(ctx context.Context, r reader, tenant tenancy.TenantHandle, key domain.PostKey, after *uniqueviews.ViewersCursor, limit int) (Viewers, error) {
	// One more than the page tells whether there is another.
	rows, err := r.viewers(ctx, key, after, limit+1)
	if err != nil {
		return Viewers{}, err
	}
	page := Viewers{}
	if len(rows) > limit {
		rows = rows[:limit]
		last := rows[limit-1]
		page.NextCursor = sealCursor(tenant.Key, key.Post, uniqueviews.ViewersCursor{FirstViewedAt: last.FirstViewedAt, Person: last.Person})
	}
	persons := make([]domain.PersonKey, len(rows))
	for i, v := range rows {
		persons[i] = v.Person
	}
	names, err := r.names(ctx, tenant.ID, persons)
	if err != nil {
		return Viewers{}, err
	}
	page.Viewers = make([]PostViewer, len(rows))
	for i, v := range rows {
		page.Viewers[i] = PostViewer{Viewer: nameOf(names, v.Person), FirstViewedAt: v.FirstViewedAt.UTC(), LastViewedAt: v.LastViewedAt.UTC(), Views: v.Views}
	}
	page.AsOf, err = readAsOf(ctx, r, projectionUniqueViews)
	return page, err
}

func parseLimit(text string) (int, error) {
	if text == "" {
		return viewersLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > viewersLimitMax {
		return 0, domain.Invalid("limit", "must be a whole number, 1 to %d", viewersLimitMax)
	}
	return n, nil
}
