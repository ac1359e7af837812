package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"seenby/domain"
)

// Codes of this interface only.
const (
	codeMalformed    domain.Code = "malformed"           // not JSON at all
	codeGone         domain.Code = "gone"                // the id belonged to a post that was deleted
	codePrecondition domain.Code = "precondition_failed" // another version stood
	codeMethod       domain.Code = "method_not_allowed"
	codeTimeout      domain.Code = "request_timeout" // the body did not arrive in time
)

// statuses is the one table from codes to HTTP. A code that is not here is internal.
var statuses = map[domain.Code]int{
	codeMalformed:             http.StatusBadRequest,
	domain.CodeUnauthorized:   http.StatusUnauthorized,
	domain.CodeNotFound:       http.StatusNotFound,
	codeMethod:                http.StatusMethodNotAllowed,
	codeTimeout:               http.StatusRequestTimeout,
	domain.CodeConflict:       http.StatusConflict,
	codeGone:                  http.StatusGone,
	codePrecondition:          http.StatusPreconditionFailed,
	domain.CodeTooLarge:       http.StatusRequestEntityTooLarge,
	domain.CodeInvalid:        http.StatusUnprocessableEntity,
	domain.CodeRateLimited:    http.StatusTooManyRequests,
	domain.CodeInternal:       http.StatusInternalServerError,
	domain.CodeUnavailable:    http.StatusServiceUnavailable,
	domain.CodeNotYetApplied:  http.StatusGatewayTimeout,
	domain.CodeMisconfigured:  http.StatusInternalServerError,
	domain.CodeDataLoss:       http.StatusInternalServerError,
	domain.CodePositionBehind: http.StatusInternalServerError,
}

// Problem is the body of every error (RFC 9457). Its type is about:blank, so the title is the status; code is
// what programs look at.
type Problem struct {
	_         struct{}   `json:"-" additionalProperties:"true"`
	Title     string     `json:"title" doc:"The HTTP status in words."`
	Status    int        `json:"status"`
	Code      string     `json:"code" example:"invalid" doc:"What programs look at."`
	Field     string     `json:"field,omitempty" doc:"The field, parameter or header that is wrong."`
	Detail    string     `json:"detail" doc:"What to do, for people."`
	Rejected  []Rejected `json:"rejected,omitempty" doc:"Batches only: what is wrong with each item."`
	Ignored   []string   `json:"ignored,omitempty" doc:"Views only: names of unknown fields."`
	RequestID string     `json:"request_id,omitempty" doc:"Internal errors only: names the entry in the server's log."`

	header http.Header
}

// Rejected says why one item of a request was not accepted.
type Rejected struct {
	_       struct{} `json:"-" additionalProperties:"true"`
	Index   int      `json:"index" doc:"Its place among the items, from 0."`
	Code    string   `json:"code" example:"invalid"`
	Message string   `json:"message" example:"post: is required" doc:"Names the field."`
}

// Error makes a Problem an error.
func (p *Problem) Error() string { return p.Detail }

// GetStatus is the HTTP status, for huma.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders are sent with the problem, by huma.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType is RFC 9457's, whatever the client accepts.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func (p *Problem) with(name, value string) *Problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(name, value)
	return p
}

func newProblem(code domain.Code, field, detail string) *Problem {
	status, known := statuses[code]
	if !known {
		code, status = domain.CodeInternal, http.StatusInternalServerError
	}
	p := &Problem{Title: http.StatusText(status), Status: status, Code: string(code), Field: field, Detail: detail}
	switch status {
	case http.StatusServiceUnavailable:
		return p.with("Retry-After", retryAfter)
	case http.StatusUnauthorized:
		return p.with("WWW-Authenticate", `Bearer realm="seenby"`)
	}
	return p
}

// problemOf makes any error a problem; what is internal is logged here, under a request id, and not told.
func (s *server) problemOf(ctx context.Context, err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var e *domain.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		// The client hung up: nothing is wrong here, and nobody reads the answer.
		return newProblem(domain.CodeUnavailable, "", "The request was broken off.")
	case errors.As(err, &e) && statuses[e.Code] != 0 && statuses[e.Code] != http.StatusInternalServerError:
		if e.Code == domain.CodeUnavailable {
			s.deps.Logger.WarnContext(ctx, "a dependency is away", "err", err)
		}
		return newProblem(e.Code, e.Field, e.Message)
	case away(err):
		s.deps.Logger.WarnContext(ctx, "a dependency is away", "err", err)
		return newProblem(domain.CodeUnavailable, "", "A dependency is away or did not answer in time. Try again.")
	}
	p = newProblem(domain.CodeInternal, "", "Something went wrong here. The server's log says more under the request id.")
	p.RequestID = uuid.UUID(s.deps.NewID()).String()
	s.deps.Logger.ErrorContext(ctx, "request failed", "request_id", p.RequestID, "err", err)
	return p
}

// away tells the errors of a dependency that went away in the middle of an answer, which its adapter did not name:
// lost connections, deadlines, and the SQLSTATE classes of connections, resources and shutdowns.
func away(err error) bool {
	var network net.Error
	var sql interface{ SQLState() string }
	switch {
	case errors.As(err, &sql):
		s := sql.SQLState()
		return strings.HasPrefix(s, "08") || strings.HasPrefix(s, "53") || strings.HasPrefix(s, "57")
	case errors.As(err, &network):
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// writeProblem answers outside huma: unknown routes, middleware.
func writeProblem(w http.ResponseWriter, p *Problem) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(p) // the client is gone; there is nobody to tell
}

// Huma makes its own errors (a body that is too large or does not arrive) through package variables, which is the
// only way it has; ours replace them so that every error has one form and no value is sent back.
func init() {
	huma.NewError = func(status int, msg string, _ ...error) huma.StatusError { return humaProblem(status, msg) }
	huma.NewErrorWithContext = func(_ huma.Context, status int, msg string, _ ...error) huma.StatusError {
		return humaProblem(status, msg)
	}
}

func humaProblem(status int, msg string) *Problem {
	switch status {
	case http.StatusRequestEntityTooLarge:
		return newProblem(domain.CodeTooLarge, "body", "The body must be at most 1 MiB.")
	case http.StatusRequestTimeout:
		return newProblem(codeTimeout, "body", "The body did not arrive in time.")
	case http.StatusBadRequest:
		return newProblem(codeMalformed, "body", msg)
	case http.StatusUnprocessableEntity:
		return newProblem(domain.CodeInvalid, "", msg)
	case http.StatusInternalServerError:
		// All others pass through problemOf; huma itself has this one only for a body that broke off.
		return newProblem(codeMalformed, "body", "The body could not be read.")
	}
	return newProblem(domain.CodeInternal, "", msg)
}
