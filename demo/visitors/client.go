package visitors

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits on what one answer may have.
const (
	maxHeadBytes = 128 << 10
	maxPageBytes = 1 << 20
	maxFileBytes = 16 << 20
)

// errTooLarge says that an answer went over a limit.
var errTooLarge = errors.New("the answer is too large")

// wire is one connection of a visitor. Only one request is on it at a time. Requests are
// written by hand, because the order of a browser's fields is part of what it looks like.
type wire struct {
	net.Conn
	left   int64 // how much may still be read
	read   int64 // read since the request
	buffer *bufio.Reader
	used   time.Time // end of the last answer; zero before the first request
}

func (w *wire) Read(b []byte) (int, error) {
	if w.left <= 0 {
		return 0, errTooLarge
	}
	n, err := w.Conn.Read(b[:min(int64(len(b)), w.left)])
	w.left -= int64(n)
	w.read += int64(n)
	return n, err
}

// pools is memory that visitors share.
type pools struct {
	readers sync.Pool // *bufio.Reader
	pages   sync.Pool // *bytes.Buffer
	unzips  sync.Pool // *gzip.Reader
}

// client opens connections and speaks HTTP/1.1 on them. It is shared by all visitors.
type client struct {
	network, address string
	origin           origin
	tls              *tls.Config // nil for plain HTTP
	timeout          time.Duration
	dial             func(ctx context.Context, source netip.Addr, network, address string) (net.Conn, error)
	decoders         map[string]func(io.Reader) (io.Reader, error)
	pools            pools
}

func dialFrom(ctx context.Context, source netip.Addr, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	if source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
	}
	return d.DialContext(ctx, network, address)
}

// open makes a new connection from source.
func (c *client) open(ctx context.Context, source netip.Addr) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, err := c.dial(ctx, source, c.network, c.address)
	if err != nil {
		return nil, err
	}
	if c.tls != nil {
		secure := tls.Client(conn, c.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		conn = secure
	}
	w := &wire{Conn: conn}
	if r, ok := c.pools.readers.Get().(*bufio.Reader); ok {
		r.Reset(w)
		w.buffer = r
	} else {
		w.buffer = bufio.NewReaderSize(w, 8<<10)
	}
	return w, nil
}

func (c *client) close(w *wire) {
	if w == nil {
		return
	}
	_ = w.Close()
	w.buffer.Reset(nil)
	c.pools.readers.Put(w.buffer)
}

// Browsers look whether an idle connection is still open before they use it again.
const (
	idleBeforeProbe = 200 * time.Millisecond
	probeTime       = 200 * time.Microsecond
)

// stale reports whether the server closed w, or said something unasked, since the last
// answer.
func (w *wire) stale() bool {
	if w.used.IsZero() || time.Since(w.used) < idleBeforeProbe {
		return false
	}
	if w.SetReadDeadline(time.Now().Add(probeTime)) != nil {
		return true
	}
	w.left = maxHeadBytes
	_, err := w.buffer.Peek(1)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// reply is an answer. Its body is in the buffer that the caller gave, if any.
type reply struct {
	status int
	header http.Header
	bytes  int64
}

// exchange sends head and body on w and reads the answer, the page into page (decoded) when
// page is not nil. keep says that the connection can be used again. When it fails before
// any byte of an answer arrived, w.read is 0.
func (c *client) exchange(ctx context.Context, w *wire, method string, message []byte, page *bytes.Buffer) (out reply, keep bool, err error) {
	w.left, w.read = maxHeadBytes, 0
	if err := w.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return out, false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = w.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// A server may answer and close before it has read everything, so an error of writing
	// counts only when there is no answer.
	_, writeErr := w.Write(message)
	response, err := c.readHead(w, method)
	if err != nil {
		return out, false, errors.Join(writeErr, err)
	}
	defer response.Body.Close()
	out.status, out.header = response.StatusCode, response.Header
	w.left += maxFileBytes
	if page != nil {
		out.bytes, err = c.readPage(response, page)
	} else {
		out.bytes, err = io.Copy(io.Discard, response.Body)
	}
	if err != nil {
		return out, false, fmt.Errorf("read body: %w", err)
	}
	w.used = time.Now()
	return out, writeErr == nil && !response.Close && w.buffer.Buffered() == 0, nil
}

// readHead reads the head of the final answer, past interim ones (RFC 9110 section 15.2).
func (c *client) readHead(w *wire, method string) (*http.Response, error) {
	for range 8 {
		response, err := http.ReadResponse(w.buffer, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		if response.StatusCode >= 200 {
			return response, nil
		}
		if response.StatusCode == http.StatusSwitchingProtocols {
			return nil, errors.New("malformed: 101 without having asked for it")
		}
	}
	return nil, errors.New("malformed: too many interim answers")
}

func (c *client) readPage(response *http.Response, page *bytes.Buffer) (int64, error) {
	var body io.Reader = response.Body
	switch coding := strings.ToLower(response.Header.Get("Content-Encoding")); coding {
	case "", "identity":
	case "gzip":
		z, err := c.gunzip(body)
		if err != nil {
			return 0, err
		}
		defer c.pools.unzips.Put(z)
		body = z
	case "deflate":
		z, err := zlib.NewReader(body) // RFC 9110 section 8.4.1.2: deflate is the zlib format
		if err != nil {
			return 0, err
		}
		body = z
	default:
		decode, ok := c.decoders[coding]
		if !ok {
			return 0, fmt.Errorf("malformed: content coding %q was not asked for", coding)
		}
		var err error
		if body, err = decode(body); err != nil {
			return 0, err
		}
	}
	n, err := page.ReadFrom(io.LimitReader(body, maxPageBytes+1))
	if err != nil {
		return n, err
	}
	if n > maxPageBytes {
		return n, errTooLarge
	}
	// A decoder may stop before the end of the message; the connection needs all of it.
	_, err = io.Copy(io.Discard, response.Body)
	return n, err
}

func (c *client) gunzip(from io.Reader) (*gzip.Reader, error) {
	if z, ok := c.pools.unzips.Get().(*gzip.Reader); ok {
		return z, z.Reset(from)
	}
	return gzip.NewReader(from)
}

// troubles are the kinds of failure that a report counts.
const (
	troubleRefused   = "connection refused"
	troubleReset     = "connection broken"
	troubleTimeout   = "timeout"
	troubleTruncated = "truncated answer"
	troubleTLS       = "TLS handshake"
	troubleLarge     = "too large"
	troubleOther     = "malformed answer or other"
	troubleLeft      = "run ended"
)

// trouble names the kind of an error.
func trouble(ctx context.Context, err error) string {
	var timeout net.Error
	var record tls.RecordHeaderError
	var verify *tls.CertificateVerificationError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return troubleLeft
	case errors.As(err, &timeout) && timeout.Timeout():
		return troubleTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return troubleRefused
	case strings.HasPrefix(err.Error(), "read body") && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)):
		return troubleTruncated
	case errors.Is(err, errTooLarge):
		return troubleLarge
	case errors.As(err, &record), errors.As(err, &verify):
		return troubleTLS
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return troubleReset
	default:
		return troubleOther
	}
}
