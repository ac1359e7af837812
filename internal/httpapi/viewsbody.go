package httpapi

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"seenby/domain"
	"seenby/internal/strictjson"
)

// ViewsInput is the body of POST /v1/views.
type ViewsInput struct {
	_      struct{}    `json:"-" additionalProperties:"true"`
	SentAt *time.Time  `json:"sent_at,omitempty" doc:"The sender's clock when it sends: corrects the viewed_at of a clock that runs ahead."`
	Views  []ViewInput `json:"views" minItems:"1" maxItems:"1000" nullable:"false"`
}

// ViewInput is one view; one of id and viewed_at is required, and exactly one of viewer and anonymous.
type ViewInput struct {
	_        struct{}          `json:"-" additionalProperties:"true"`
	ID       *string           `json:"id,omitempty" format:"uuid" doc:"A UUID made by the client: a repeat of it counts once. Default: derived from viewer, post and viewed_at."`
	Post     string            `json:"post" minLength:"1" maxLength:"255"`
	Viewer   string            `json:"viewer,omitempty" minLength:"1" maxLength:"255" doc:"The app's own id of the person."`
	ViewedAt *time.Time        `json:"viewed_at,omitempty" doc:"Default: when it is received."`
	Context  *ViewInputContext `json:"context,omitempty"`

	Anonymous string `json:"anonymous,omitempty" minLength:"1" maxLength:"255" doc:"A session of somebody who is not known: counted in impressions and anonymous_impressions, never in unique viewers, never listed; sees what everyone sees."`
}

// ViewInputContext is kept with the view for later rules.
type ViewInputContext struct {
	_            struct{} `json:"-" additionalProperties:"true"`
	App          *string  `json:"app,omitempty" maxLength:"64"`
	Surface      *string  `json:"surface,omitempty" maxLength:"64"`
	DwellMS      *int64   `json:"dwell_ms,omitempty" minimum:"0" maximum:"86400000"`
	VisibleRatio *float64 `json:"visible_ratio,omitempty" minimum:"0" maximum:"1"`
}

// viewsBody is what a body of views says. Its strings are parts of the body.
type viewsBody struct {
	sentAt  time.Time
	items   []viewItem
	ignored []string
}

// viewItem is one view as it was sent, and the first thing that is wrong with it.
type viewItem struct {
	id, post          string
	viewer, anonymous string
	viewedAt          string
	context           *domain.ViewContext
	err               error
}

// parseViews reads a body of views. An error is one of the whole body; what is wrong with one view stands in it.
func parseViews(body string, into *viewsBody) error {
	c := scanner{s: body}
	if c.kind() != '{' {
		return domain.Invalid("body", "must be a JSON object")
	}
	var sentAt, views string
	for c.open(); c.more('}'); {
		switch name := c.name(); name {
		case "sent_at":
			sentAt = c.value()
		case "views":
			views = c.value()
		default:
			c.value()
			into.ignore("", name)
		}
	}
	if sentAt != "" && sentAt != "null" {
		text, err := textOf("sent_at", sentAt)
		if err != nil {
			return err
		}
		if into.sentAt, err = domain.ParseTime("sent_at", text); err != nil {
			return err
		}
	}
	switch {
	case views == "" || views == "null":
		return domain.Invalid("views", "is required")
	case views[0] != '[':
		return domain.Invalid("views", "must be an array")
	}
	c = scanner{s: views}
	for c.open(); c.more(']'); {
		if len(into.items) == viewsMax {
			return domain.Invalid("views", "holds more than %d views; send them in parts", viewsMax)
		}
		into.items = append(into.items, viewItem{})
		into.parseItem(&into.items[len(into.items)-1], c.value())
	}
	if len(into.items) == 0 {
		return domain.Invalid("views", "is empty")
	}
	return nil
}

// The members of a view, as bits, so that one that stands twice is noticed.
const (
	memberID = 1 << iota
	memberPost
	memberViewer
	memberAnonymous
	memberViewedAt
	memberContext
)

func (b *viewsBody) parseItem(v *viewItem, text string) {
	if text[0] != '{' {
		v.fail(domain.Invalid("view", "must be a JSON object"))
		return
	}
	c := scanner{s: text}
	seen := 0
	for c.open(); c.more('}'); {
		name := c.name()
		var member int
		var into *string
		switch name {
		case "id":
			member, into = memberID, &v.id
		case "post":
			member, into = memberPost, &v.post
		case "viewer":
			member, into = memberViewer, &v.viewer
		case "anonymous":
			member, into = memberAnonymous, &v.anonymous
		case "viewed_at":
			member, into = memberViewedAt, &v.viewedAt
		case "context":
			member = memberContext
		default:
			c.value()
			b.ignore("", name)
			continue
		}
		raw := c.value()
		if seen&member != 0 {
			v.fail(domain.Invalid(name, "stands twice"))
		}
		seen |= member
		switch {
		case raw == "null":
		case member == memberContext:
			b.parseContext(v, raw)
		default:
			text, err := textOf(name, raw)
			if err == nil && text == "" {
				err = domain.Invalid(name, "must not be empty")
			}
			v.fail(err)
			*into = text
		}
	}
}

func (b *viewsBody) parseContext(v *viewItem, text string) {
	if text[0] != '{' {
		v.fail(domain.Invalid("context", "must be a JSON object"))
		return
	}
	v.context = &domain.ViewContext{}
	c := scanner{s: text}
	for c.open(); c.more('}'); {
		name, raw := c.name(), c.value()
		if raw == "null" {
			continue
		}
		var err error
		switch name {
		case "app":
			v.context.App, err = textOf("context.app", raw)
		case "surface":
			v.context.Surface, err = textOf("context.surface", raw)
		case "dwell_ms":
			var n int64
			if n, err = strconv.ParseInt(raw, 10, 64); err != nil {
				err = domain.Invalid("context.dwell_ms", "must be a whole number")
			}
			v.context.DwellMS = &n
		case "visible_ratio":
			var f float64
			if f, err = strconv.ParseFloat(raw, 64); err != nil || math.IsNaN(f) {
				err = domain.Invalid("context.visible_ratio", "must be a number")
			}
			v.context.VisibleRatio = &f
		default:
			b.ignore("context.", name)
		}
		v.fail(err)
	}
}

// fail keeps the first thing that is wrong.
func (v *viewItem) fail(err error) {
	if v.err == nil {
		v.err = err
	}
}

func (b *viewsBody) ignore(prefix, name string) {
	name = prefix + strings.ToValidUTF8(strictjson.Clip(name), "\uFFFD")
	if len(b.ignored) < ignoredMax && !slices.Contains(b.ignored, name) {
		b.ignored = append(b.ignored, name)
	}
}

// textOf is a JSON value that must be a string.
func textOf(field, raw string) (string, error) {
	if raw[0] != '"' {
		return "", domain.Invalid(field, "must be a string")
	}
	text, ok := unquote(raw)
	if !ok {
		return "", domain.Invalid(field, "must be UTF-8")
	}
	return text, nil
}
