package domain

import (
	"errors"
	"fmt"
)

// Code classifies an Error; one table in httpapi maps codes to HTTP statuses.
type Code string

// The codes that cross a boundary. An error without one is CodeInternal: logged, never sent.
const (
	CodeInvalid        Code = "invalid"         // the input is wrong; Field says where
	CodeUnauthorized   Code = "unauthorized"    // no key, or an unknown one
	CodeNotFound       Code = "not_found"       // no such thing for this tenant
	CodeConflict       Code = "conflict"        // it stands already, or is deleted
	CodeTooLarge       Code = "too_large"       // over a stated limit
	CodeRateLimited    Code = "rate_limited"    // more than the tenant may send now; the same request may work later
	CodeNotYetApplied  Code = "not_yet_applied" // the read models have not passed the token in time
	CodeUnavailable    Code = "unavailable"     // a dependency is away; the same request may work later
	CodeDataLoss       Code = "data_loss"       // the log no longer holds what is needed; a person must decide
	CodeMisconfigured  Code = "misconfigured"   // the installation's settings contradict what stands
	CodeInternal       Code = "internal"
	CodePositionBehind Code = "position_behind" // a position was moved by somebody else
)

// Error is the one error type that carries meaning across packages.
type Error struct {
	Code    Code
	Field   string // for CodeInvalid: the field that is wrong, as the caller names it
	Message string // says what to do; safe to show
	Err     error  // the cause, for logs; may be nil
}

func (e *Error) Error() string {
	s := e.Message
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Invalid makes a CodeInvalid error that names the field.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// Because gives the error its cause, which is logged and never sent.
func (e *Error) Because(err error) *Error {
	e.Err = err
	return e
}

// CodeOf is the code of err's chain, CodeInternal where it has none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// ErrUnknownEvent says that a record holds an event of a type this version does not know, or has no use for
// where it stands: an older process must not skip what a newer one wrote, so the reader stops.
var ErrUnknownEvent = Errorf(CodeMisconfigured, "an event of an unknown type: this process is older than the one that wrote it; upgrade it")
