package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"

	"seenby/domain"
	"seenby/internal/strictjson"
	"seenby/internal/tenancy"
)

// PostsInput is the body of POST /v1/posts:batch.
type PostsInput struct {
	Posts []PostsItem `json:"posts" minItems:"1" maxItems:"500" nullable:"false" doc:"An id that stands twice is written twice, in this order."`
}

// PostsItem is one post of a batch.
type PostsItem struct {
	ID string `json:"id" minLength:"1" maxLength:"255" doc:"The app's own id of the post."`
	PostInput
}

// PostsAccepted is the answer of POST /v1/posts:batch.
type PostsAccepted struct {
	_        struct{}   `json:"-" additionalProperties:"true"`
	Accepted int        `json:"accepted" doc:"Posts whose events stand in the log, which decides what becomes of them: a deleted id stays deleted."`
	Rejected []Rejected `json:"rejected" nullable:"false"`
}

func (s *server) postsBatchOperation(api huma.API) huma.Operation {
	return huma.Operation{
		OperationID: "put-posts", Method: http.MethodPost, Path: "/v1/posts:batch", Summary: "Create or replace up to 500 posts",
		DefaultStatus: http.StatusAccepted,
		Description:   "Each item is a PUT of that post without If-Match, with the same checks; an equal post keeps its version. 202: every accepted post stands in the log, and is read with Seenby-Wait-For. A bad item does not cost the others, nor does one whose post was deleted (code gone); 422 only if none is acceptable. The body is at most 1 MiB: with long texts, send fewer posts at a time. 503: the posts may or may not be stored, and a repeat is safe.",
		RequestBody:   jsonBody[PostsInput](api),
		Responses:     answers(api, map[int]any{http.StatusAccepted: PostsAccepted{}}, map[string]string{headerPosition: postWriteHeaders[headerPosition]}),
		Errors:        []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge},
	}
}

type postsWritten struct {
	Status      int
	ContentType string `header:"Content-Type" hidden:"true"`
	Position    string `header:"Seenby-Position" doc:"Covers all that the write appended; send it as Seenby-Wait-For."`
	Body        []byte
}

func (s *server) putPosts(ctx context.Context, in *struct{ RawBody []byte }) (*postsWritten, error) {
	tenant := tenantOf(ctx)
	if err := validJSON(in.RawBody); err != nil {
		return nil, err
	}
	items, err := parsePosts(string(in.RawBody))
	if err != nil {
		return nil, err
	}
	ids := make([]domain.PostID, 0, len(items))
	for _, item := range items {
		if item.err == nil {
			ids = append(ids, item.id)
		}
	}
	gone := s.gone(ctx, tenant.ID, ids)
	batch := postsBatch{meeting: meeting{known: s.people, tenant: tenant}, newID: s.deps.NewID}
	rejected := []Rejected{}
	for i, item := range items {
		switch {
		case item.err != nil:
			rejected = append(rejected, reject(i, item.err))
		case gone[item.id]:
			rejected = append(rejected, reject(i, errItemGone))
		default:
			batch.add(item)
		}
	}
	if len(batch.posts) == 0 {
		p := newProblem(domain.CodeInvalid, "posts", "None of the posts is acceptable; rejected says why.")
		p.Rejected = rejected
		return nil, p
	}
	positions, err := s.appendPosts(ctx, &batch.meeting, batch.before, batch.posts)
	if err != nil {
		return nil, err
	}
	out, err := written(http.StatusAccepted, PostsAccepted{Accepted: len(batch.posts), Rejected: rejected})
	if err != nil {
		return nil, err
	}
	return &postsWritten{Status: out.Status, ContentType: out.ContentType, Position: tenancy.SealPositions(tenant.Key, positions), Body: out.Body}, nil
}

// postsBatch is what a batch appends.
type postsBatch struct {
	meeting meeting
	newID   func() [16]byte
	before  []domain.Event // texts, and names of authors
	posts   []domain.Event
}

// add is for posts that are not rejected: those name nobody.
func (b *postsBatch) add(item postsItem) {
	event, before := item.in.published(&b.meeting, item.id, b.newID())
	b.before, b.posts = append(b.before, before...), append(b.posts, event)
}

var errItemGone = &domain.Error{Code: codeGone, Field: "id", Message: "is of a post that was deleted; it is never used again"}

// postsItem is a post as it was sent, and what is wrong with it.
type postsItem struct {
	id  domain.PostID
	in  postInput
	err error
}

// parsePosts reads a body of posts. An error is one of the whole body; what is wrong with one post stands in it.
func parsePosts(body string) ([]postsItem, error) {
	c := scanner{s: body}
	if c.kind() != '{' {
		return nil, domain.Invalid("body", "must be a JSON object")
	}
	var posts string
	for c.open(); c.more('}'); {
		name := c.name()
		switch {
		case name != "posts":
			return nil, domain.Invalid(strings.ToValidUTF8(strictjson.Clip(name), "\uFFFD"), "is no field of this request")
		case posts != "":
			return nil, domain.Invalid("posts", "stands twice")
		}
		posts = c.value()
	}
	switch {
	case posts == "" || posts == "null":
		return nil, domain.Invalid("posts", "is required")
	case posts[0] != '[':
		return nil, domain.Invalid("posts", "must be an array")
	}
	var items []postsItem
	c = scanner{s: posts}
	for c.open(); c.more(']'); {
		if len(items) == postsMax {
			return nil, domain.Invalid("posts", "holds more than %d posts; send them in parts", postsMax)
		}
		items = append(items, parsePostsItem(c.value()))
	}
	if len(items) == 0 {
		return nil, domain.Invalid("posts", "is empty")
	}
	return items, nil
}

// parsePostsItem reads one item as parsePost reads the body of a PUT.
func parsePostsItem(text string) (item postsItem) {
	if text[0] != '{' {
		item.err = domain.Invalid("post", "must be a JSON object")
		return item
	}
	var in struct {
		ID *string `json:"id"`
		postFields
	}
	if err := json.Unmarshal([]byte(text), &in, json.RejectUnknownMembers(true)); err != nil {
		var invalid *domain.Error
		if item.err = jsonProblem(err); !errors.As(item.err, &invalid) {
			// The syntax of the whole body was checked before, its UTF-8 was not.
			item.err = domain.Invalid("post", "must be UTF-8")
		}
		return item
	}
	if in.ID == nil {
		item.err = domain.Invalid("id", "is required")
		return item
	}
	if item.err = domain.CheckID("id", *in.ID); item.err == nil {
		item.id = domain.PostID(*in.ID)
		item.in, item.err = in.check()
	}
	return item
}
