package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"

	"seenby/domain"
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
		Description:   "Each item is a PUT of that post without If-Match, with the same checks; an equal post keeps its version. 202: every accepted post stands in the log, and is read with Seenby-Wait-For. A bad item does not cost the others; 422 only if none is acceptable. The body is at most 1 MiB: with long texts, send fewer posts at a time. 503: the posts may or may not be stored, and a repeat is safe.",
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
	batch := postsBatch{meeting: meeting{known: s.people, tenant: tenant}, newID: s.deps.NewID}
	rejected := []Rejected{}
	for i, item := range items {
		if err := batch.add(item); err != nil {
			rejected = append(rejected, reject(i, err))
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

// add checks everything before it asks for the author: a rejected post names nobody.
func (b *postsBatch) add(item string) error {
	id, in, err := parsePostsItem(item)
	if err != nil {
		return err
	}
	event, before := in.published(&b.meeting, id, b.newID())
	b.before, b.posts = append(b.before, before...), append(b.posts, event)
	return nil
}

// parsePosts cuts a body into its items. An error is one of the whole body; an item is not looked into.
func parsePosts(body string) ([]string, error) {
	c := scanner{s: body}
	if c.kind() != '{' {
		return nil, domain.Invalid("body", "must be a JSON object")
	}
	var posts string
	for c.open(); c.more('}'); {
		name := c.name()
		switch {
		case name != "posts":
			return nil, domain.Invalid(strings.ToValidUTF8(clip(name), "\uFFFD"), "is no field of this request")
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
	var items []string
	c = scanner{s: posts}
	for c.open(); c.more(']'); {
		if len(items) == postsMax {
			return nil, domain.Invalid("posts", "holds more than %d posts; send them in parts", postsMax)
		}
		items = append(items, c.value())
	}
	if len(items) == 0 {
		return nil, domain.Invalid("posts", "is empty")
	}
	return items, nil
}

// parsePostsItem reads one item as parsePost reads the body of a PUT.
func parsePostsItem(item string) (domain.PostID, postInput, error) {
	if item[0] != '{' {
		return "", postInput{}, domain.Invalid("post", "must be a JSON object")
	}
	var in struct {
		ID *string `json:"id"`
		postFields
	}
	if err := json.Unmarshal([]byte(item), &in, json.RejectUnknownMembers(true)); err != nil {
		var invalid *domain.Error
		if err = jsonProblem(err); !errors.As(err, &invalid) {
			// The syntax of the whole body was checked before, its UTF-8 was not.
			err = domain.Invalid("post", "must be UTF-8")
		}
		return "", postInput{}, err
	}
	if in.ID == nil {
		return "", postInput{}, domain.Invalid("id", "is required")
	}
	if err := domain.CheckID("id", *in.ID); err != nil {
		return "", postInput{}, err
	}
	post, err := in.check()
	return domain.PostID(*in.ID), post, err
}
