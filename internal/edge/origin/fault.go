package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/relais-edge/relais/internal/http/http1"
	"github.com/relais-edge/relais/internal/http/http2"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

var (
	errNoTarget = &stage.Error{
		Code: "proxy_internal_error", Side: stage.SideEdge, Status: 500,
		Err: errors.New("no origin was chosen for the request"),
	}
	errUnasked    = errors.New("the origin answered 304 to a request without If-None-Match or If-Modified-Since")
	errUnfinished = errors.New("the answer was given up before its end")
	// errProhibited is wrapped with the address.
	errProhibited = errors.New("the address is not public; a pool whose connection says public: true must list it in connection.allow")
	errMetadata   = errors.New("a cloud tells its machines their secrets at the address; a pool that wants it must list it in connection.allow")
	errLimit      = errors.New("all connections to the origin are in use, and the wait for one was too long")
	errQueue      = errors.New("all connections to the origin are in use, and too many requests wait for one")
)

// fault makes an error of the origin's side; another origin may do better.
func fault(code string, status int, cause error) *stage.Error {
	return &stage.Error{Code: code, Side: stage.SideOrigin, Status: status, Retry: true, Err: cause}
}

// later tells the visitor to come again: the origin is well, and had too much to do.
func later(e *stage.Error) *stage.Error {
	e.RetryAfter = time.Second
	return e
}

// gone is the error of a request whose visitor went away. Nobody sees it but the log.
func gone(cause error) *stage.Error {
	return &stage.Error{Code: "client_gone", Side: stage.SideClient, Status: 499, Close: true, Err: cause}
}

// handshakeError marks what failed after the connection stood.
type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }

// connectFault says in the terms of RFC 9209 section 2.3 why there is no connection.
func connectFault(ctx context.Context, err error) *stage.Error {
	var dns *net.DNSError
	var tlsPart handshakeError
	switch {
	case ctx.Err() != nil:
		return gone(context.Cause(ctx))
	case errors.Is(err, errLimit), errors.Is(err, errQueue):
		return later(fault("connection_limit_reached", 503, err))
	case errors.Is(err, errProhibited), errors.Is(err, errMetadata):
		return fault("destination_ip_prohibited", 502, err)
	case errors.As(err, &dns) && dns.IsTimeout:
		return fault("dns_timeout", 504, err)
	case errors.As(err, &dns):
		return fault("dns_error", 502, err)
	case isTimeout(err):
		return fault("connection_timeout", 504, err)
	case errors.As(err, &tlsPart):
		return tlsFault(err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fault("connection_refused", 502, err)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return fault("destination_ip_unroutable", 502, err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.ENOBUFS):
		e := fault("proxy_internal_error", 503, err)
		e.Side = stage.SideEdge
		return e
	}
	return fault("connection_terminated", 502, err)
}

func tlsFault(err error) *stage.Error {
	var verify *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	switch {
	case errors.As(err, &verify), errors.As(err, &authority), errors.As(err, &host), errors.As(err, &invalid):
		return fault("tls_certificate_error", 502, err)
	case errors.As(err, &alert):
		return fault("tls_alert_received", 502, err)
	case isClosed(err):
		return fault("connection_terminated", 502, err)
	}
	return fault("tls_protocol_error", 502, err)
}

// asError finds the http1.Error that RoundTrip always returns.
func asError(err error) *http1.Error {
	var e *http1.Error
	if errors.As(err, &e) {
		return e
	}
	return &http1.Error{Phase: http1.PhaseHead, Sent: true, Err: err}
}

// exchangeFault says why an exchange on a connection failed before its answer's head.
func exchangeFault(ctx context.Context, e *http1.Error) *stage.Error {
	var clientBody *message.BodyError
	switch {
	case ctx.Err() != nil:
		return gone(context.Cause(ctx))
	case errors.As(e.Err, &clientBody):
		return &stage.Error{Code: "http_request_error", Side: stage.SideClient, Status: clientBody.Status, Close: true, Err: e}
	case errors.Is(e.Err, http1.ErrBodyLength):
		return &stage.Error{Code: "http_request_error", Side: stage.SideClient, Status: 400, Close: true, Err: e}
	case errors.Is(e.Err, http1.ErrRequest):
		return &stage.Error{Code: "proxy_internal_error", Side: stage.SideEdge, Status: 500, Err: e}
	case e.Timeout && e.Phase == http1.PhaseWrite:
		return fault("connection_write_timeout", 504, e)
	case e.Timeout:
		return fault("http_response_timeout", 504, e)
	case errors.Is(e.Err, http2.ErrRefused):
		return later(fault("connection_limit_reached", 503, e))
	case isClosed(e.Err), errors.Is(e.Err, http1.ErrClosed), errors.Is(e.Err, http2.ErrGoAway):
		return fault("connection_terminated", 502, e)
	case errors.Is(e.Err, http1.ErrWebSocket), errors.Is(e.Err, http1.ErrSwitched):
		failed := fault("http_upgrade_failed", 502, e)
		failed.Retry = false // it has answered, and another one runs the same program
		return failed
	}
	return fault("http_protocol_error", 502, e)
}

// broke says why the body of an answer ended before its end.
func (b *body) broke(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	e := asError(err)
	code, status := "http_protocol_error", 502
	switch {
	case e.Timeout:
		code, status = "http_response_timeout", 504
	case isClosed(err):
		code = "http_response_incomplete"
	}
	b.stats.failed(code)
	b.x.Lap()
	b.x.Mark(name, code)
	return fault(code, status, err)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// isClosed says whether the origin ended the connection.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, net.ErrClosed)
}
