package httpapi

import (
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"seenby/domain"
)

// Conditions are the headers that make a write of a post conditional; exported because huma looks at exported fields
// only.
type Conditions struct {
	IfMatch string `header:"If-Match" doc:"An ETag: write only if this version stands, else 412."`

	// All lines of the headers, as they came.
	ifMatch, ifNoneMatch []string
}

// Resolve takes what huma drops: a header that is there and empty, which is a client's mistake and must not make its
// write an unconditional one, and repeats.
func (c *Conditions) Resolve(ctx huma.Context) []error {
	r, _ := humachi.Unwrap(ctx)
	c.ifMatch, c.ifNoneMatch = r.Header.Values(headerIfMatch), r.Header.Values(headerIfNoneMatch)
	return nil
}

const (
	headerIfMatch     = "If-Match"
	headerIfNoneMatch = "If-None-Match"
)

// basedOn is the version that a write is based on: nil for none, 0 for "there must be no post".
func (c *Conditions) basedOn() (*int64, error) {
	switch {
	case len(c.ifMatch) > 0 && len(c.ifNoneMatch) > 0:
		return nil, domain.Invalid(headerIfNoneMatch, "cannot stand beside If-Match")
	case len(c.ifNoneMatch) == 1 && c.ifNoneMatch[0] == "*":
		return new(int64), nil
	case len(c.ifNoneMatch) > 0:
		return nil, domain.Invalid(headerIfNoneMatch, "must be *")
	case len(c.ifMatch) == 0:
		return nil, nil
	}
	digits, opened := strings.CutPrefix(strings.Join(c.ifMatch, ", "), `"`)
	digits, closed := strings.CutSuffix(digits, `"`)
	version, err := strconv.ParseInt(digits, 10, 64)
	if !opened || !closed || err != nil || version < 1 || strconv.FormatInt(version, 10) != digits {
		return nil, domain.Invalid(headerIfMatch, `must be one ETag of this post, e.g. "3"`)
	}
	return &version, nil
}

// basedOnStanding is basedOn for a write that makes no post, and so needs one that stands.
func (c *Conditions) basedOnStanding() (*int64, error) {
	if len(c.ifNoneMatch) > 0 {
		return nil, domain.Invalid(headerIfNoneMatch, "is for PUT: this request makes no post")
	}
	return c.basedOn()
}
