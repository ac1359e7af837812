package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"

	"seenby/domain"
	"seenby/internal/tenancy"
)

// ViewsAccepted is the answer of POST /v1/views.
type ViewsAccepted struct {
	_        struct{}   `json:"-" additionalProperties:"true"`
	Accepted int        `json:"accepted" doc:"Views that stand in the log; whether they count, the gate decides."`
	Rejected []Rejected `json:"rejected" nullable:"false"`
	Ignored  []string   `json:"ignored,omitempty" doc:"Names of unknown fields, each once, at most 20."`
}

type viewsReported struct {
	Status      int
	ContentType string `header:"Content-Type" hidden:"true"`
	Position    string `header:"Seenby-Position" doc:"Covers all that the write appended; send it as Seenby-Wait-For."`
	RateLimit   string `header:"RateLimit" doc:"r: views that may be sent now; t: seconds until all of the quota may be sent again."`
	Policy      string `header:"RateLimit-Policy" doc:"q: the most views at once; w: seconds in which as many come back."`
	Body        []byte
}

func (s *server) viewsOperation(api huma.API) huma.Operation {
	return huma.Operation{
		OperationID: "report-views", Method: http.MethodPost, Path: "/v1/views", Summary: "Report views",
		DefaultStatus: http.StatusAccepted,
		Description:   "202: every accepted view is stored durably. One of id and viewed_at is required per view, and exactly one of viewer and anonymous. A bad view does not cost the others; 422 only if none is acceptable. 429: more views than the tenant's rate for this process; none is stored. 503: the views may or may not be stored, and a repeat with the same ids is safe.",
		RequestBody:   jsonBody[ViewsInput](api),
		Responses:     answers(api, map[int]any{http.StatusAccepted: ViewsAccepted{}}, map[string]string{headerPosition: postWriteHeaders[headerPosition]}),
		Errors:        []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests},
	}
}

// bodies are reused: a parsed body of a thousand views takes about 100 KiB.
var bodies = sync.Pool{New: func() any { return &viewsBody{} }}

func (b *viewsBody) release() {
	clear(b.items)
	*b = viewsBody{items: b.items[:0]}
	bodies.Put(b)
}

func (s *server) reportViews(ctx context.Context, in *struct{ RawBody []byte }) (*viewsReported, error) {
	tenant := tenantOf(ctx)
	if err := validJSON(in.RawBody); err != nil {
		return nil, err
	}
	body := bodies.Get().(*viewsBody) //nolint:forcetypeassert // the pool holds nothing else
	defer body.release()
	// One copy of the body carries all strings of all views; huma takes its buffer back.
	if err := parseViews(string(in.RawBody), body); err != nil {
		return nil, err
	}
	taken, err := s.takeIn(ctx, len(body.items))
	if err != nil {
		return nil, err
	}
	met := meeting{known: s.people, tenant: tenant}
	events, rejected := body.events(&met)
	accepted := len(body.items) - len(rejected)
	if s.deps.Metrics.ViewsRejected != nil && len(rejected) > 0 {
		s.deps.Metrics.ViewsRejected(len(rejected))
	}
	if accepted == 0 {
		p := newProblem(domain.CodeInvalid, "views", "None of the views is acceptable; rejected says why.")
		p.Rejected, p.Ignored = rejected, body.ignored
		return nil, p
	}
	appending, cancel := s.appending(ctx)
	defer cancel()
	positions, err := s.append(appending, events)
	if err != nil {
		return nil, err
	}
	met.acknowledged()
	if s.deps.Metrics.ViewsAccepted != nil {
		s.deps.Metrics.ViewsAccepted(accepted)
	}
	return &viewsReported{
		Status: http.StatusAccepted, ContentType: "application/json",
		Position: tenancy.SealPositions(tenant.Key, positions), RateLimit: taken.rateLimit(), Policy: taken.policy(),
		Body: answerViews(accepted, rejected, body.ignored),
	}, nil
}

// events makes an event of every view that is acceptable, and one for every person who is met for the first time.
func (b *viewsBody) events(met *meeting) (events []domain.Event, rejected []Rejected) {
	events = make([]domain.Event, 0, len(b.items)+len(b.items)/8)
	for i := range b.items {
		view, named, err := b.items[i].event(b.sentAt, met)
		if err != nil {
			rejected = append(rejected, reject(i, err))
			continue
		}
		if named != nil {
			events = append(events, *named)
		}
		events = append(events, view)
	}
	return events, rejected
}

// event checks everything before it asks for the person: a rejected view names nobody.
func (v *viewItem) event(sentAt time.Time, met *meeting) (view domain.ViewReported, named *domain.PersonNamed, err error) {
	if v.err != nil {
		return view, nil, v.err
	}
	switch {
	case v.anonymous == "" && v.viewer == "":
		return view, nil, domain.Invalid("viewer", "is required, or anonymous")
	case v.anonymous == "":
		err = domain.CheckID("viewer", v.viewer)
	case v.viewer == "":
		err = domain.CheckID("anonymous", v.anonymous)
	default:
		err = domain.Invalid("anonymous", "cannot stand beside viewer")
	}
	if err != nil {
		return view, nil, err
	}
	view = domain.ViewReported{Post: domain.PostID(v.post), SentAt: sentAt, Context: v.context, Anonymous: v.anonymous != ""}
	if v.viewedAt != "" {
		if view.ViewedAt, err = domain.ParseTime("viewed_at", v.viewedAt); err != nil {
			return view, nil, err
		}
	}
	if v.id != "" {
		if view.ViewID, err = domain.ParseViewID(v.id); err != nil {
			return view, nil, err
		}
	} else {
		if view.ViewedAt.IsZero() {
			return view, nil, domain.Invalid("id", "is required, or viewed_at")
		}
		view.ViewID = domain.ViewID{1} // stands in for the derived one, which needs the person
	}
	if err := view.Check(); err != nil {
		return view, nil, err
	}
	view.Viewer.Tenant = met.tenant.ID
	if view.Anonymous {
		// A session is nobody: it gets no name, and none is remembered.
		view.Viewer.Person = domain.NewPersonKey(met.tenant.Key, domain.PersonAnonymous, v.anonymous)
	} else {
		view.Viewer.Person, named = met.person(v.viewer)
	}
	if v.id == "" {
		view.ViewID = domain.DeriveViewID(view.Viewer.Person, view.Post, view.ViewedAt)
	}
	return view, named, nil
}

func reject(index int, err error) Rejected {
	r := Rejected{Index: index, Code: string(domain.CodeInvalid), Message: "cannot be accepted"}
	var e *domain.Error
	if errors.As(err, &e) {
		r.Code, r.Message = string(e.Code), e.Field+": "+e.Message
	}
	return r
}

// answerViews writes the answer by hand: it is the same few bytes for almost every request.
func answerViews(accepted int, rejected []Rejected, ignored []string) []byte {
	b := make([]byte, 0, 64+96*len(rejected)+32*len(ignored))
	b = append(b, `{"accepted":`...)
	b = strconv.AppendInt(b, int64(accepted), 10)
	b = append(b, `,"rejected":[`...)
	for i, r := range rejected {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"index":`...)
		b = strconv.AppendInt(b, int64(r.Index), 10)
		b = append(b, `,"code":`...)
		b = quote(b, r.Code)
		b = append(b, `,"message":`...)
		b = quote(b, r.Message)
		b = append(b, '}')
	}
	b = append(b, ']')
	for i, name := range ignored {
		if i == 0 {
			b = append(b, `,"ignored":[`...)
		} else {
			b = append(b, ',')
		}
		b = quote(b, name)
	}
	if len(ignored) > 0 {
		b = append(b, ']')
	}
	return append(b, "}\n"...)
}

// quote appends a JSON string; what is no UTF-8 was replaced before.
func quote(b []byte, s string) []byte {
	q, err := jsontext.AppendQuote(b, s)
	if err != nil {
		return append(b, `""`...)
	}
	return q
}
