package std

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// writer sends one answer.
type writer struct {
	h     *connHandler
	w     http.ResponseWriter
	r     *http.Request
	rc    *http.ResponseController
	close bool // end the connection after the answer
	// spoilt says that a handler failed, which may still hold the request's memory.
	spoilt bool

	status     int // as sent
	head, body int64
}

func newWriter(h *connHandler, w http.ResponseWriter, r *http.Request) *writer {
	return &writer{h: h, w: w, r: r, rc: http.NewResponseController(w)}
}

var (
	errShort   = errors.New("the body ended before its Content-Length")
	errLong    = errors.New("the body is longer than its Content-Length")
	errNoHead  = errors.New("the answer has no final status")
	errTunnel  = errors.New("this request cannot become a tunnel")
	errHandler = errors.New("the handler panicked while its answer was sent")
)

// send writes resp. After an error the stream, or the connection, must be aborted.
func (o *writer) send(ctx context.Context, resp *message.Response) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errHandler
			o.h.a.cfg.Logger.Error("an answer panicked", "panic", p)
		}
		if resp.Body != nil {
			resp.Body.Close(err)
		}
	}()
	if resp.Upgrade != nil {
		return o.tunnel(ctx, resp)
	}
	if resp.Status < 200 || resp.Status > 999 {
		return fmt.Errorf("%w: %d", errNoHead, resp.Status)
	}
	o.writeHead(resp)
	if message.NoBody(message.KnownMethod([]byte(o.r.Method)), resp.Status) {
		if o.r.ProtoMajor == 3 && o.r.Method == http.MethodHead && resp.ContentLength < 0 {
			// Else quic-go would tell a length of 0, which GET would not have.
			return o.flush()
		}
		return o.finish()
	}
	if resp.Body == nil {
		if err := o.write(resp.Bytes); err != nil {
			return err
		}
	} else if err := o.copyBody(ctx, resp); err != nil {
		return err
	}
	if resp.ContentLength >= 0 && o.body != resp.ContentLength {
		return errShort
	}
	o.writeTrailer(resp.Trailer)
	return o.finish()
}

// finish flushes on HTTP/1. On the others the return of the handler does, together with the
// end of the stream, and the deadline stays on for that.
func (o *writer) finish() error {
	o.deadline()
	if o.r.ProtoMajor > 1 {
		return nil
	}
	return o.rc.Flush()
}

// copyBody writes the body as it comes, and flushes at each of its points. The head does not
// wait for a body that has nothing at hand.
func (o *writer) copyBody(ctx context.Context, resp *message.Response) error {
	if p, ok := resp.Body.(message.Prompt); ok && !p.Ready() {
		if err := o.flush(); err != nil {
			return err
		}
	}
	for {
		b, err := resp.Body.Next(ctx)
		if resp.ContentLength >= 0 && o.body+int64(len(b)) > resp.ContentLength {
			return errLong
		}
		if werr := o.write(b); werr != nil {
			return werr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := o.flush(); err != nil {
			return err
		}
	}
}

// writeHead hands the head over. Framing is written anew and what is for one hop is left out.
func (o *writer) writeHead(resp *message.Response) {
	header := o.w.Header()
	o.copyFields(header, &resp.Fields)
	if header.Get("Content-Type") == "" {
		header["Content-Type"] = nil // no guess
	}
	noBody := message.NoBody(message.KnownMethod([]byte(o.r.Method)), resp.Status)
	// A 304 may have a Content-Length (RFC 9110 section 8.6), but clients of HTTP/2 wait for that body.
	head := o.r.Method == http.MethodHead && resp.Status != http.StatusNoContent && resp.Status != http.StatusNotModified
	if resp.ContentLength > 0 && resp.Status != http.StatusNotModified || resp.ContentLength == 0 && (!noBody || head) {
		header.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	if o.close && o.r.ProtoMajor < 3 {
		header.Set("Connection", "close") // in HTTP/2 net/http makes this a GOAWAY
	}
	o.status = resp.Status
	o.head += headSize(&resp.Fields)
	o.w.WriteHeader(resp.Status)
}

func (o *writer) copyFields(header http.Header, f *message.Fields) {
	for i := range f.Len() {
		id, name, value := f.At(i)
		if id == message.Connection && o.r.ProtoMajor == 1 && hasToken(value, "close") {
			o.close = true
		}
		if id.PerHop() || f.Has(message.Connection) && named(f, name) {
			continue
		}
		header.Add(string(name), string(value))
	}
}

// headSize is what the fields would take as lines of HTTP/1.
func headSize(f *message.Fields) int64 { return int64(f.Size() + 4*f.Len()) }

func (o *writer) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	o.deadline()
	n, err := o.w.Write(b)
	o.body += int64(n)
	o.undeadline()
	return err
}

func (o *writer) flush() error {
	o.deadline()
	err := o.rc.Flush()
	o.undeadline()
	return err
}

func (o *writer) deadline() {
	if d := o.h.a.cfg.Timeouts.Write; d > 0 {
		_ = o.rc.SetWriteDeadline(time.Now().Add(d))
	}
}

// undeadline takes the deadline off: HTTP/2 ends a stream at it even when nothing is written.
func (o *writer) undeadline() {
	if o.h.a.cfg.Timeouts.Write > 0 && o.r.ProtoMajor > 1 {
		_ = o.rc.SetWriteDeadline(time.Time{})
	}
}

// writeTrailer sends the trailer, on HTTP/1 to clients that asked for it (RFC 9110 section
// 6.5.1).
func (o *writer) writeTrailer(f *message.Fields) {
	if f == nil || o.r.ProtoMajor == 1 && !wantsTrailers(o.r) {
		return
	}
	header := o.w.Header()
	for i := range f.Len() {
		if id, name, value := f.At(i); !notInTrailer(id) {
			header.Add(http.TrailerPrefix+string(name), string(value))
		}
	}
	o.head += headSize(f)
}

func wantsTrailers(r *http.Request) bool {
	for _, v := range r.Header["Te"] {
		if hasToken([]byte(v), "trailers") {
			return true
		}
	}
	return false
}

// end tells the Ender, once.
func (o *writer) end(resp *message.Response, err error) {
	if e := resp.Ender; e != nil {
		resp.Ender = nil
		e.End(message.Outcome{Status: o.status, Head: o.head, Body: o.body, Err: err})
	}
}

// named says whether a Connection line of f names the field, and it is none that we know.
func named(f *message.Fields, name []byte) bool {
	if message.KnownID(name) != message.Other {
		return false
	}
	for i := f.Next(message.Connection, 0); i >= 0; i = f.Next(message.Connection, i+1) {
		if _, _, v := f.At(i); hasToken(v, string(name)) {
			return true
		}
	}
	return false
}

// hasToken says whether a comma-separated list has the token, in any case.
func hasToken(list []byte, token string) bool {
	for len(list) > 0 {
		item := list
		if i := indexComma(list); i >= 0 {
			item, list = list[:i], list[i+1:]
		} else {
			list = nil
		}
		for len(item) > 0 && (item[0] == ' ' || item[0] == '\t') {
			item = item[1:]
		}
		for len(item) > 0 && (item[len(item)-1] == ' ' || item[len(item)-1] == '\t') {
			item = item[:len(item)-1]
		}
		if message.EqualFold(item, token) {
			return true
		}
	}
	return false
}

func indexComma(b []byte) int {
	for i, c := range b {
		if c == ',' {
			return i
		}
	}
	return -1
}

// control implements message.Control.
type control struct {
	w     http.ResponseWriter
	proto message.Proto
}

// Inform implements message.Control. HTTP/1.0 knows no interim answers.
func (c *control) Inform(status int, f *message.Fields) {
	if c.w == nil || c.proto == message.HTTP10 || status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
		return
	}
	header := c.w.Header()
	if f != nil {
		for i := range f.Len() {
			if id, name, value := f.At(i); !id.PerHop() {
				header.Add(string(name), string(value))
			}
		}
	}
	c.w.WriteHeader(status)
	clear(header)
}

// MayBlock implements message.Control: each request has a goroutine already.
func (c *control) MayBlock() {}
