package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"seenby/domain"
	"seenby/internal/strictjson"
)

// PostPatch is the body of an edit: a merge patch (RFC 7396) of at least one field.
type PostPatch struct {
	Body        *string    `json:"body,omitempty" maxLength:"65536" nullable:"true" doc:"The new text, at most 64 KiB of UTF-8; null removes it."`
	Audience    *string    `json:"audience,omitempty" example:"audience:friends" doc:"everyone, author, or audience: and a name."`
	PublishedAt *time.Time `json:"published_at,omitempty"`
}

func (s *server) patchPostOperation(api huma.API) huma.Operation {
	return huma.Operation{
		OperationID: "patch-post", Method: http.MethodPatch, Path: "/v1/posts/{id}", Summary: "Change some fields of a post",
		Description: "A merge patch (RFC 7396): what is not named stays. The author cannot change. Of many writes with If-Match on one version exactly one wins.",
		RequestBody: jsonBody[PostPatch](api),
		Responses:   answers(api, map[int]any{http.StatusOK: Post{}, http.StatusAccepted: PostAccepted{}}, postWriteHeaders),
		Errors:      []int{http.StatusBadRequest, http.StatusNotFound, http.StatusGone, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge},
	}
}

func (s *server) deletePostOperation(api huma.API) huma.Operation {
	return huma.Operation{
		OperationID: "delete-post", Method: http.MethodDelete, Path: "/v1/posts/{id}", Summary: "Delete a post for good",
		DefaultStatus: http.StatusNoContent,
		Description:   "Its texts are erased, its id is never used again (410 from then on), its counts stay.",
		Responses:     answers(api, map[int]any{http.StatusNoContent: nil, http.StatusAccepted: PostAccepted{}}, postWriteHeaders),
		Errors:        []int{http.StatusNotFound, http.StatusGone, http.StatusPreconditionFailed},
	}
}

func (s *server) patchPost(ctx context.Context, in *struct {
	Conditions
	ID      string `path:"id" minLength:"1" maxLength:"255"`
	RawBody []byte
}) (*postWritten, error) {
	if err := domain.CheckID("id", in.ID); err != nil {
		return nil, err
	}
	basedOn, err := in.basedOnStanding()
	if err != nil {
		return nil, err
	}
	event, text, err := parsePatch(in.RawBody)
	if err != nil {
		return nil, err
	}
	tenant := tenantOf(ctx)
	if err := s.standing(ctx, tenant.ID, domain.PostID(in.ID)); err != nil {
		return nil, err
	}
	event.PostRef = domain.PostKey{Tenant: tenant.ID, Post: domain.PostID(in.ID)}
	event.EventID, event.BasedOnVersion = domain.EventID(s.deps.NewID()), basedOn
	w := postWrite{conditional: basedOn != nil}
	if text != "" {
		*event.Body = domain.NewDigest(tenant.Key, text)
		w.before = []domain.Event{domain.PostBodyWritten{PostRef: event.PostRef, EventID: event.EventID, Text: text}}
	}
	w.event = event
	return s.write(ctx, tenant, w)
}

func (s *server) deletePost(ctx context.Context, in *struct {
	Conditions
	ID string `path:"id" minLength:"1" maxLength:"255"`
}) (*postWritten, error) {
	if err := domain.CheckID("id", in.ID); err != nil {
		return nil, err
	}
	basedOn, err := in.basedOnStanding()
	if err != nil {
		return nil, err
	}
	tenant := tenantOf(ctx)
	if err := s.standing(ctx, tenant.ID, domain.PostID(in.ID)); err != nil {
		return nil, err
	}
	return s.write(ctx, tenant, postWrite{conditional: basedOn != nil, event: domain.PostDeleted{
		PostRef: domain.PostKey{Tenant: tenant.ID, Post: domain.PostID(in.ID)}, EventID: domain.EventID(s.deps.NewID()), BasedOnVersion: basedOn,
	}})
}

// parsePatch reads a merge patch. Body is set, still without its digest, where the patch changes the text; an empty
// text is none.
func parsePatch(raw []byte) (event domain.PostEdited, text string, err error) {
	// Raw values tell what is null from what is not there.
	var in struct {
		Author      jsontext.Value `json:"author"`
		Body        jsontext.Value `json:"body"`
		Audience    jsontext.Value `json:"audience"`
		PublishedAt jsontext.Value `json:"published_at"`
	}
	if err := json.Unmarshal(raw, &in, json.RejectUnknownMembers(true)); err != nil {
		return event, "", jsonProblem(err)
	}
	switch {
	case in.Author != nil:
		return event, "", domain.Invalid("author", "cannot change: leave it out")
	case in.Body == nil && in.Audience == nil && in.PublishedAt == nil:
		return event, "", domain.Invalid("body", "is required, or audience, or published_at: an empty patch changes nothing")
	}
	if in.Body != nil {
		event.Body = new(domain.Digest)
		if in.Body.Kind() != 'n' {
			if text, err = stringOf("body", in.Body); err != nil {
				return event, "", err
			}
			if err := domain.CheckBody(text); err != nil {
				return event, "", err
			}
		}
	}
	if in.Audience != nil {
		name, err := stringOf("audience", in.Audience)
		if err != nil {
			return event, "", err
		}
		audience := domain.Audience(name)
		if err := audience.Check(); err != nil {
			return event, "", err
		}
		event.Audience = &audience
	}
	if in.PublishedAt != nil {
		at, err := stringOf("published_at", in.PublishedAt)
		if err != nil {
			return event, "", err
		}
		if event.PublishedAt, err = domain.ParseTime("published_at", at); err != nil {
			return event, "", err
		}
	}
	return event, text, nil
}

// stringOf is a field's text; only body can be null.
func stringOf(field string, v jsontext.Value) (string, error) {
	if v.Kind() != '"' {
		return "", domain.Invalid(field, "must not be a JSON %s", strictjson.KindName(v.Kind()))
	}
	var text string
	if err := json.Unmarshal(v, &text); err != nil {
		return "", domain.Invalid(field, "must be UTF-8")
	}
	return text, nil
}
