package httpapi

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"seenby/domain"
	"seenby/internal/strictjson"
)

// PostInput is the body of a post write.
type PostInput struct {
	Author      string     `json:"author" minLength:"1" maxLength:"255" doc:"The app's own id of the author."`
	Body        *string    `json:"body,omitempty" maxLength:"65536" doc:"The text, at most 64 KiB of UTF-8."`
	Audience    *string    `json:"audience,omitempty" example:"audience:friends" doc:"Who may see it: everyone (the default), author, or audience: and a name. The author always may."`
	PublishedAt *time.Time `json:"published_at,omitempty" doc:"Default: what stands, or the time of the creation."`
}

// postInput is a PostInput that was checked.
type postInput struct {
	author      string
	body        string
	audience    domain.Audience
	publishedAt time.Time
}

// postFields is a PostInput as it was sent.
type postFields struct {
	Author      *string `json:"author"`
	Body        *string `json:"body"`
	Audience    *string `json:"audience"`
	PublishedAt *string `json:"published_at"`
}

// parsePost reads the body of a post write; unknown and repeated fields are refused, each error names its field.
func parsePost(raw []byte) (postInput, error) {
	var in postFields
	if err := json.Unmarshal(raw, &in, json.RejectUnknownMembers(true)); err != nil {
		return postInput{}, jsonProblem(err)
	}
	return in.check()
}

func (in postFields) check() (postInput, error) {
	out := postInput{audience: domain.AudienceEveryone}
	if in.Author == nil {
		return out, domain.Invalid("author", "is required")
	}
	out.author = *in.Author
	if err := domain.CheckID("author", out.author); err != nil {
		return out, err
	}
	if in.Audience != nil {
		out.audience = domain.Audience(*in.Audience)
		if err := out.audience.Check(); err != nil {
			return out, err
		}
	}
	if in.Body != nil {
		out.body = *in.Body
		if err := domain.CheckBody(out.body); err != nil {
			return out, err
		}
	}
	if in.PublishedAt != nil {
		var err error
		if out.publishedAt, err = domain.ParseTime("published_at", *in.PublishedAt); err != nil {
			return out, err
		}
	}
	return out, nil
}

// jsonProblem says where a body is wrong, without the values in it.
func jsonProblem(err error) error {
	invalid, at := strictjson.Problem(err, "request")
	switch {
	case invalid == nil:
		return newProblem(codeMalformed, "body", "The body is not valid JSON, at byte "+strconv.FormatInt(at, 10)+".")
	case invalid.Field == "":
		return domain.Invalid("body", "must be a JSON object")
	}
	return invalid
}
