package httpapi

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"seenby/domain"
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
		if err := checkBody(out.body); err != nil {
			return out, err
		}
	}
	if in.PublishedAt != nil {
		var err error
		if out.publishedAt, err = parseTime("published_at", *in.PublishedAt); err != nil {
			return out, err
		}
	}
	return out, nil
}

func checkBody(text string) error {
	switch {
	case len(text) > domain.BodyBytesMax:
		return domain.Invalid("body", "is %d bytes long; at most %d are allowed", len(text), domain.BodyBytesMax)
	case !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0:
		return domain.Invalid("body", "must be UTF-8 without NUL")
	}
	return nil
}

// strictTime is RFC 3339 to the letter: Go also reads a comma for the point, hours of one digit, and zones that
// are a day away.
var strictTime = regexp.MustCompile(`^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// parseTime reads a given time; the zero time would read as "not given" further on.
func parseTime(field, text string) (time.Time, error) {
	var t time.Time
	if err := t.UnmarshalText([]byte(text)); err != nil || !strictTime.MatchString(text) {
		return t, domain.Invalid(field, "must be a time of RFC 3339, e.g. 2026-11-23T12:00:00Z")
	}
	t = t.UTC().Truncate(time.Microsecond) // what the log and the read models keep
	if t.IsZero() {
		return t, domain.Invalid(field, "must lie between the years 1970 and 3000")
	}
	return t, domain.CheckTime(field, t)
}

// jsonProblem says where a body is wrong, without the values in it.
func jsonProblem(err error) error {
	var semantic *json.SemanticError
	var syntax *jsontext.SyntacticError
	switch {
	case errors.As(err, &semantic):
		field := fieldOf(semantic.JSONPointer)
		if errors.Is(err, json.ErrUnknownName) {
			return domain.Invalid(clip(field), "is no field of this request")
		}
		if semantic.JSONPointer == "" {
			return domain.Invalid("body", "must be a JSON object")
		}
		return domain.Invalid(field, "must not be a JSON %s", kindName(semantic.JSONKind))
	case errors.As(err, &syntax):
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return domain.Invalid(clip(fieldOf(syntax.JSONPointer)), "stands twice")
		}
		return newProblem(codeMalformed, "body", "The body is not valid JSON, at byte "+strconv.FormatInt(syntax.ByteOffset, 10)+".")
	}
	return newProblem(codeMalformed, "body", "The body is not valid JSON.")
}

func fieldOf(p jsontext.Pointer) string {
	var parts []string
	for token := range p.Tokens() {
		parts = append(parts, token)
	}
	return strings.Join(parts, ".")
}

func kindName(k jsontext.Kind) string {
	switch k {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string of this form"
	case '0':
		return "number"
	case 't', 'f':
		return "boolean"
	}
	return "value of this kind"
}

// clip bounds a name that came from outside, at a rune.
func clip(name string) string {
	if len(name) <= ignoredBytesMax {
		return name
	}
	n := ignoredBytesMax
	for n > 0 && !utf8.RuneStart(name[n]) {
		n--
	}
	return name[:n]
}
