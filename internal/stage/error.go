package stage

import (
	"context"
	"errors"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// ErrFull is the cause of an Error that says that all tiers of a pool are full: nothing failed, and
// nothing was sent.
var ErrFull = errors.New("every tier of the pool is full")

// Side says whose fault an error is.
type Side uint8

// The sides.
const (
	SideClient Side = iota // the visitor's request
	SideEdge               // ours
	SideOrigin             // the origin's
	SideTenant             // a rule or limit that the tenant set
)

// String returns the side as a log shows it.
func (s Side) String() string { return [...]string{"client", "edge", "origin", "tenant"}[s] }

// Error is why there is no answer. One place turns it into a page, a Proxy-Status (RFC 9209)
// and a counter. An Error that is the same each time is made once and returned many times.
type Error struct {
	// Code is a token for machines: one of RFC 9209 section 2.3 where it fits
	// (connection_timeout, http_request_denied …), else our own.
	Code string
	Side Side
	// Status is the status code of the page.
	Status int
	// Retry says that the request may be tried again, at another origin.
	Retry bool
	// RetryAfter, when not 0, is told to the visitor.
	RetryAfter time.Duration
	// Fields are put on the page beside its own; nil when there are none. They may be lent by
	// the exchange, so they are good until its end.
	Fields *message.Fields
	// Close ends the connection after the page.
	Close bool
	// Tarpit is for how long the page is held back, while there is room for those who wait: whoever asks again and again
	// so asks less often, and costs less.
	Tarpit time.Duration
	// Err is the cause, for logs and explanations; visitors do not see it.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Code + ": " + e.Err.Error()
	}
	return e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// AsError finds the Error in err. The end of a request's body, and that of a client, are the
// client's doing whichever stage came upon them; any other error is the edge's own and internal.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var body *message.BodyError
	switch {
	case errors.As(err, &body):
		return &Error{Code: "http_request_error", Side: SideClient, Status: body.Status, Close: true, Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Code: "client_gone", Side: SideClient, Status: 499, Close: true, Err: err}
	}
	return &Error{Code: "proxy_internal_error", Side: SideEdge, Status: 500, Err: err}
}
