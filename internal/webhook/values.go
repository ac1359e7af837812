package webhook

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"seenby/domain"
	"seenby/internal/strictjson"
)

// Value is what a core system has of a post.
type Value struct {
	Post        domain.PostID
	Impressions int64
	Revision    int64 // that it was told last; 0: never told
}

// Page is a part of what a core system has.
type Page struct {
	Values []Value // no post twice
	Next   string  // the cursor of the next page; "": this is the last one
}

const (
	cursorParameter = "cursor"
	pageBytesMax    = 1 << 20
	cursorBytesMax  = 1000 // it has to fit into a URL
)

// Values asks an endpoint what it has, from a cursor on; "" is the beginning. An error is CodeInvalid where the answer is not
// what it should be, and CodeUnavailable where there is none or it has another status than 200.
func (c *Client) Values(ctx context.Context, e Endpoint, cursor string, now time.Time) (Page, error) {
	asked := ctx
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	req, err := c.request(ctx, e, http.MethodGet, cursor, "values_"+strconv.FormatInt(now.UnixMicro(), 10), nil, now)
	if err != nil {
		return Page{}, err
	}
	resp, err := c.roundTrip(e, req)
	if err != nil {
		return Page{}, c.unanswered(asked, e, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, pageBytesMax+1))
	switch {
	case resp.StatusCode != http.StatusOK:
		return Page{}, domain.Errorf(domain.CodeUnavailable, "the endpoint answered %d to GET, not 200 with its counts: %s", resp.StatusCode, e.redact(string(raw)))
	case err != nil:
		return Page{}, c.unanswered(asked, e, err)
	case len(raw) > pageBytesMax:
		return Page{}, domain.Errorf(domain.CodeInvalid, "the endpoint's answer is over %d bytes: it must give fewer posts to a page, and next_cursor", pageBytesMax)
	}
	page, err := e.decodePage(raw)
	if err != nil {
		return Page{}, err
	}
	if page.Next != "" && page.Next == cursor {
		return Page{}, domain.Invalid("next_cursor", "is the cursor that was asked for: the pages would never end")
	}
	return page, nil
}

func (c *Client) unanswered(asked context.Context, e Endpoint, err error) error {
	if asked.Err() != nil {
		return asked.Err() // the caller's own end says nothing of the endpoint
	}
	return domain.Errorf(domain.CodeUnavailable, "the endpoint gave no answer to GET: %s", e.redact(c.reason(err)))
}

// addCursor leaves a query that stands in the URL as it is.
func addCursor(u *url.URL, cursor string) {
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += cursorParameter + "=" + url.QueryEscape(cursor)
}

// decodePage reads an answer strictly: with a misspelt next_cursor the rest would be lost, and with a misspelt revision an
// old count would count as never told.
func (e Endpoint) decodePage(raw []byte) (Page, error) {
	var in struct {
		Posts *[]struct {
			Post        string `json:"post"`
			Impressions *int64 `json:"impressions"`
			Revision    int64  `json:"revision"`
		} `json:"posts"`
		Next string `json:"next_cursor"`
	}
	if err := json.Unmarshal(raw, &in, json.RejectUnknownMembers(true)); err != nil {
		return Page{}, e.pageProblem(err, raw)
	}
	if in.Posts == nil {
		return Page{}, domain.Invalid("posts", "is required; a core system without posts answers []")
	}
	if len(in.Next) > cursorBytesMax {
		return Page{}, domain.Invalid("next_cursor", "is %d bytes long; at most %d are allowed", len(in.Next), cursorBytesMax)
	}
	page := Page{Values: make([]Value, 0, len(*in.Posts)), Next: in.Next}
	met := make(map[string]bool, len(*in.Posts))
	for i, p := range *in.Posts {
		field := func(name string) string { return "posts." + strconv.Itoa(i) + "." + name }
		if err := domain.CheckID(field("post"), p.Post); err != nil {
			return Page{}, err
		}
		switch {
		case met[p.Post]:
			return Page{}, domain.Invalid(field("post"), "stands twice: %s", p.Post)
		case p.Impressions == nil:
			return Page{}, domain.Invalid(field("impressions"), "is required")
		case *p.Impressions < 0:
			return Page{}, domain.Invalid(field("impressions"), "is %d; it must not be negative", *p.Impressions)
		case p.Revision < 0:
			return Page{}, domain.Invalid(field("revision"), "is %d; it must not be negative", p.Revision)
		}
		met[p.Post] = true
		page.Values = append(page.Values, Value{Post: domain.PostID(p.Post), Impressions: *p.Impressions, Revision: p.Revision})
	}
	return page, nil
}

func (e Endpoint) pageProblem(err error, raw []byte) error {
	invalid, at := strictjson.Problem(err, "answer")
	var semantic *json.SemanticError
	switch {
	case invalid == nil && len(raw) == 0:
		return domain.Errorf(domain.CodeInvalid, "the endpoint's answer is empty; it must be JSON")
	case invalid == nil:
		return domain.Errorf(domain.CodeInvalid, "the endpoint's answer is not JSON, at byte %d: %s", at, e.redact(string(raw)))
	case invalid.Field == "":
		return domain.Errorf(domain.CodeInvalid, "the endpoint's answer %s", invalid.Message)
	case errors.As(err, &semantic) && semantic.JSONKind == '0' && semantic.GoType == reflect.TypeFor[int64]():
		return domain.Invalid(invalid.Field, "must be a whole number from 0 to %d", int64(math.MaxInt64))
	}
	return invalid
}
