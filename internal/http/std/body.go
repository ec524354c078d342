package std

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// chunk is how much of a body is lent at a time.
const chunk = 32 << 10

// body is a request body: message.Body on r.Body, with the errors of our own core. Its memory
// is kept with the call's.
type body struct {
	src     io.ReadCloser
	base    <-chan struct{} // the end of the context that the request came with
	rc      *http.ResponseController
	r       *http.Request
	trailer *message.Fields
	wait    time.Duration
	left    int64 // that may still come; -1 is no limit
	buf     []byte
	peeked  int // bytes in buf that peek has read
	err     error
}

func (b *body) begin(ctx context.Context, cfg Config, out *writer, trailer *message.Fields) {
	b.src, b.base, b.rc, b.r, b.trailer = out.r.Body, ctx.Done(), out.rc, out.r, trailer
	b.wait, b.left, b.peeked, b.err = cfg.Timeouts.Body, -1, 0, nil
	if cfg.Limits.BodyBytes > 0 {
		b.left = cfg.Limits.BodyBytes
	}
	if b.buf == nil {
		b.buf = make([]byte, chunk)
	}
}

// Next implements message.Body.
func (b *body) Next(ctx context.Context) ([]byte, error) {
	n := b.peeked
	b.peeked = 0
	if n == 0 {
		if b.err != nil {
			return nil, b.err
		}
		n = b.read(ctx)
	}
	if b.left >= 0 {
		if b.left -= int64(n); b.left < 0 {
			b.err = message.ErrBodyTooLarge
			return nil, b.err
		}
	}
	return b.buf[:n], b.err
}

// read fills buf. A read that brings neither bytes nor an error is tried again.
func (b *body) read(ctx context.Context) int {
	if err := ctx.Err(); err != nil {
		b.err = err
		return 0
	}
	if ctx.Done() != b.base && ctx.Done() != nil {
		// The caller gives up before the connection does: wake the read.
		var kick sync.WaitGroup
		kick.Add(1)
		stop := context.AfterFunc(ctx, func() {
			defer kick.Done()
			_ = b.rc.SetReadDeadline(time.Unix(1, 0))
		})
		defer func() {
			if !stop() {
				// One that has begun must end here: later the stream is gone and b is another request's.
				kick.Wait()
				_ = b.rc.SetReadDeadline(time.Time{})
			}
		}()
	}
	if b.wait > 0 {
		_ = b.rc.SetReadDeadline(time.Now().Add(b.wait))
	}
	n, err := 0, error(nil)
	for range 100 {
		if n, err = b.src.Read(b.buf); n > 0 || err != nil {
			break
		}
		err = io.ErrNoProgress
	}
	if b.wait > 0 {
		// Net/http uses the connection between reads, and HTTP/2 ends a stream at the deadline
		// even when nobody reads it.
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	b.err = b.classify(ctx, err)
	return n
}

// peek reads once and says whether there is a body.
func (b *body) peek(ctx context.Context) bool {
	b.peeked = b.read(ctx)
	return b.peeked > 0 || !errors.Is(b.err, io.EOF)
}

// classify turns an error of net/http into one of a message.Body.
func (b *body) classify(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return b.whole()
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return message.ErrBodySlow
	case errors.Is(err, http.ErrBodyReadAfterClose):
		return message.ErrBodyClosed
	case errors.Is(err, io.ErrUnexpectedEOF):
		return message.ErrBodyTruncated
	case strings.Contains(err.Error(), "chunk"): // net/http has no sentinel for these
		return message.ErrBodyMalformed
	}
	return err
}

// whole copies the trailer, which net/http has read by now.
func (b *body) whole() error {
	for name, values := range b.r.Trailer {
		if !validToken(name) {
			return message.ErrBodyTrailer
		}
		if notInTrailer(message.KnownID([]byte(name))) {
			continue
		}
		for _, v := range values {
			if !validValue(v) {
				return message.ErrBodyTrailer
			}
			b.trailer.AddLine([]byte(name), []byte(v))
		}
	}
	return io.EOF
}

// notInTrailer says whether a field has no business in a trailer: framing, routing,
// authentication and request modifiers (RFC 9110 section 6.5.1). Such a line is dropped.
func notInTrailer(id message.ID) bool {
	switch id {
	case message.TransferEncoding, message.ContentLength, message.Host, message.Connection, message.KeepAlive,
		message.ProxyConnection, message.TE, message.Trailer, message.Upgrade, message.Expect, message.MaxForwards,
		message.Authorization, message.ProxyAuthorization, message.Cookie, message.SetCookie, message.WWWAuthenticate,
		message.ProxyAuthenticate, message.ContentEncoding, message.ContentType, message.ContentRange, message.Range,
		message.CacheControl, message.IfMatch, message.IfNoneMatch, message.IfModifiedSince, message.IfUnmodifiedSince,
		message.IfRange, message.XForwardedFor, message.XForwardedHost, message.XForwardedProto, message.XRealIP, message.Forwarded:
		return true
	}
	return false
}

// Close implements message.Body. Net/http closes the body itself after the answer.
func (b *body) Close(cause error) {
	if b.peeked = 0; cause != nil && b.err == nil {
		b.err = message.ErrBodyClosed
	}
}

// end gives up what belongs to the request.
func (b *body) end() {
	b.src, b.base, b.rc, b.r, b.trailer, b.peeked = nil, nil, nil, nil, nil, 0
	b.err = message.ErrBodyClosed
}
