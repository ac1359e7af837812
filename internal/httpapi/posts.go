package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"seenby/domain"
	"seenby/internal/tenancy"
)

// PostAccepted is the answer to a post write that stands in the log while its outcome could not be read back.
type PostAccepted struct {
	_      struct{} `json:"-" additionalProperties:"true"`
	ID     string   `json:"id"`
	Status string   `json:"status" enum:"accepted"`
	Detail string   `json:"detail"`
}

type postWritten struct {
	Status      int
	ContentType string `header:"Content-Type" hidden:"true"`
	Position    string `header:"Seenby-Position" doc:"Covers all that the write appended; send it as Seenby-Wait-For."`
	ETag        string `header:"ETag" doc:"The version that this write made, or found equal; absent on 202."`
	Location    string `header:"Location" doc:"The post's path, where it was created."`
	Body        []byte
}

var postWriteHeaders = map[string]string{
	headerPosition: "Covers all that the write appended; send it as Seenby-Wait-For.",
	"ETag":         "The version that this write made, or found equal; absent on 202. The body is the post as it stands now: its version is higher where somebody has written since.",
	"Location":     "The post's path, where it was created.",
}

func (s *server) putPostOperation(api huma.API) huma.Operation {
	return huma.Operation{
		OperationID: "put-post", Method: http.MethodPut, Path: "/v1/posts/{id}", Summary: "Create or replace a post",
		Description: "Repeatable: an equal post keeps its version. The log decides between writers; without If-Match the last one wins. 202: the write stands in the log, its outcome could not be read back in time.",
		RequestBody: jsonBody[PostInput](api),
		Responses:   answers(api, map[int]any{http.StatusOK: Post{}, http.StatusCreated: Post{}, http.StatusAccepted: PostAccepted{}}, postWriteHeaders),
		Errors:      []int{http.StatusBadRequest, http.StatusGone, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge},
	}
}

func (s *server) newPostOperation(api huma.API) huma.Operation {
	return huma.Operation{
		OperationID: "new-post", Method: http.MethodPost, Path: "/v1/posts", Summary: "Create a post under an id made here",
		DefaultStatus: http.StatusCreated,
		Description:   "A repeat creates another post: use PUT where repeats must be safe.",
		RequestBody:   jsonBody[PostInput](api),
		Responses:     answers(api, map[int]any{http.StatusCreated: Post{}, http.StatusAccepted: PostAccepted{}}, postWriteHeaders),
		Errors:        []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge},
	}
}

func (s *server) putPost(ctx context.Context, in *struct {
	Conditions
	ID          string `path:"id" minLength:"1" maxLength:"255"`
	IfNoneMatch string `header:"If-None-Match" doc:"*: write only if there is no such post, else 412."`
	RawBody     []byte
}) (*postWritten, error) {
	if err := domain.CheckID("id", in.ID); err != nil {
		return nil, err
	}
	basedOn, err := in.basedOn()
	if err != nil {
		return nil, err
	}
	post, err := parsePost(in.RawBody)
	if err != nil {
		return nil, err
	}
	id := domain.PostID(in.ID)
	if err := s.standing(ctx, tenantOf(ctx).ID, id); err != nil {
		return nil, err
	}
	return s.writePost(ctx, id, post, basedOn)
}

func (s *server) newPost(ctx context.Context, in *struct{ RawBody []byte }) (*postWritten, error) {
	post, err := parsePost(in.RawBody)
	if err != nil {
		return nil, err
	}
	return s.writePost(ctx, domain.PostID(uuid.UUID(s.deps.NewID()).String()), post, nil)
}

// postWrite is one event of a post, and what has to stand in the log before it.
type postWrite struct {
	event       domain.PostEvent
	conditional bool           // by If-Match or If-None-Match
	before      []domain.Event // the author's name and the text
	met         meeting        // whom before names
}

// writePost appends a PostPublished and waits for its outcome.
func (s *server) writePost(ctx context.Context, id domain.PostID, in postInput, basedOn *int64) (*postWritten, error) {
	tenant := tenantOf(ctx)
	w := postWrite{conditional: basedOn != nil, met: meeting{known: s.people, tenant: tenant}}
	var event domain.PostPublished
	event, w.before = in.published(&w.met, id, s.deps.NewID())
	event.BasedOnVersion = basedOn
	w.event = event
	return s.write(ctx, tenant, w)
}

// published is the event of a post, and what has to stand in the log before it.
func (in postInput) published(met *meeting, id domain.PostID, eventID domain.EventID) (event domain.PostPublished, before []domain.Event) {
	event = domain.PostPublished{
		PostRef: domain.PostKey{Tenant: met.tenant.ID, Post: id}, EventID: eventID,
		Audience: in.audience, PublishedAt: in.publishedAt,
	}
	author, named := met.person(in.author)
	event.Author = author
	if named != nil {
		before = append(before, *named)
	}
	if in.body != "" {
		event.Body = domain.NewDigest(met.tenant.Key, in.body)
		before = append(before, domain.PostBodyWritten{PostRef: event.PostRef, EventID: eventID, Text: in.body})
	}
	return event, before
}

// write appends a post event and waits for its outcome.
func (s *server) write(ctx context.Context, tenant tenancy.TenantHandle, w postWrite) (*postWritten, error) {
	positions, err := s.appendPosts(ctx, &w.met, w.before, []domain.Event{w.event})
	if err != nil {
		return nil, err
	}
	token := tenancy.SealPositions(tenant.Key, positions)
	out, err := s.outcome(ctx, w, positions)
	if err != nil {
		p := s.problemOf(ctx, err)
		if p.Status >= http.StatusInternalServerError {
			// It stands in the log: whatever failed, failed in reading it back.
			out, err = accepted(w.event.PostKey().Post)
			if err != nil {
				return nil, err
			}
			out.Position = token
			return out, nil
		}
		return nil, p.with(headerPosition, token)
	}
	out.Position = token
	return out, nil
}

// appendPosts appends texts and names before the events that name them, in two appends however many they are: breaking
// off in between then leaves a text that nothing names, and never a post whose text is missing. Events of one post keep
// their order: they go to one partition.
func (s *server) appendPosts(ctx context.Context, met *meeting, before, posts []domain.Event) ([]domain.Position, error) {
	ctx, cancel := s.appending(ctx)
	defer cancel()
	positions, err := s.append(ctx, before)
	if err != nil {
		return nil, err
	}
	met.acknowledged()
	last, err := s.append(ctx, posts)
	return append(positions, last...), err
}

// outcome waits until the post's event is folded and answers by what became of it.
func (s *server) outcome(ctx context.Context, w postWrite, positions []domain.Position) (*postWritten, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ApplyTimeout)
	defer cancel()
	err := s.waits.until(ctx, readsOfPost.passed(positions))
	if errors.Is(err, errTopicMadeAnew) {
		// The read models still stand in the topic that was before. The write stands in the log all the same.
		return nil, domain.Errorf(domain.CodeNotYetApplied, "The read models do not follow the present topic yet.").Because(err)
	}
	if err != nil {
		return nil, err
	}
	key := w.event.PostKey()
	var became domain.Outcome
	var post *postOutput
	err = s.models.read(ctx, func(ctx context.Context, r reader) error {
		var found bool
		var err error
		became, found, err = r.outcome(ctx, key, w.event.ID())
		switch {
		case err != nil:
			return err
		case !found:
			return domain.Errorf(domain.CodeNotYetApplied, "the outcome of event %s is not known; it may be a dead letter", uuid.UUID(w.event.ID()))
		case became.Void(), became.Kind == domain.OutcomeDeleted:
			return nil
		}
		post, err = readPost(ctx, r, key) // errGone where it was deleted since
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case became.Void():
		return nil, refusal(became.Kind, w.conditional)
	case became.Kind == domain.OutcomeDeleted:
		return &postWritten{Status: http.StatusNoContent}, nil
	}
	out, err := written(http.StatusOK, post.Body)
	if err != nil {
		return nil, err
	}
	// The post is answered as it stands now. Where somebody has written since, the ETag is still that of this write:
	// who sends it as If-Match must not overwrite what they may not have looked at.
	out.ETag = etag(became.Version)
	if became.Kind == domain.OutcomeCreated {
		out.Status, out.Location = http.StatusCreated, postPath(key.Post)
	}
	return out, nil
}

// refusal is the answer to a write whose event is void.
func refusal(kind domain.OutcomeKind, conditional bool) error {
	switch {
	case kind == domain.OutcomeVoidGone:
		return errGone
	case kind == domain.OutcomeVoidMissing && !conditional:
		return errNoPost
	}
	return newProblem(codePrecondition, "", "Another version of the post stands, or none. Read it and decide again.")
}

var errGone = domain.Errorf(codeGone, "The post was deleted; its id is never used again.")

func accepted(id domain.PostID) (*postWritten, error) {
	out, err := written(http.StatusAccepted, PostAccepted{
		ID: string(id), Status: "accepted",
		Detail: "The write stands in the log and will be applied. Its outcome could not be read back in time: read the post with Seenby-Wait-For.",
	})
	if err != nil {
		return nil, err
	}
	out.Location = postPath(id)
	return out, nil
}

// written is an answer whose form depends on the outcome, which huma cannot choose: its bytes are made here.
func written(status int, answer any) (*postWritten, error) {
	body, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return &postWritten{Status: status, ContentType: "application/json", Body: append(body, '\n')}, nil
}

func postPath(id domain.PostID) string { return "/v1/posts/" + url.PathEscape(string(id)) }
