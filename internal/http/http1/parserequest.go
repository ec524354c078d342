package http1

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// maxMethod is longer than any registered method.
const maxMethod = 32

// requestHead is a request's head as parseRequest found it.
type requestHead struct {
	head
	target message.Target
	proto  message.Proto
	absent bool // an absolute-form target without path: it is "/", or "*" for OPTIONS
}

// parseRequest reads one request head at the start of b into r, which is reset. It returns
// the head's length, 0 when more bytes are needed, or why the bytes are refused. R has a
// copy of the head, so that b is free.
func parseRequest(b []byte, lim *Limits, r *message.Request, h *requestHead) (int, *fault) {
	r.Reset()
	*h = requestHead{head: head{length: -1}}
	p, flt := h.startLine(b, lim, r)
	if p == 0 {
		return 0, flt
	}
	n, flt := h.fieldLines(b, p, &r.Fields, lim.Fields)
	if n == 0 {
		return 0, flt
	}
	if n > lim.HeadBytes {
		return 0, faultHeadLong
	}
	r.Proto = h.proto
	if flt := h.framing(h.proto); flt != nil {
		return 0, flt
	}
	if flt := h.checkHost(b, r.Method); flt != nil {
		return 0, flt
	}
	r.LoadHead(b[:n], &h.target)
	if h.absent {
		if r.Method == message.OPTIONS && !h.target.HasQuery {
			r.SetPath([]byte("*"))
		} else {
			r.SetPath([]byte("/"))
		}
	}
	h.body(r)
	return n, nil
}

// startLine reads the request line and returns where it ends; 0 when b ends before.
func (h *requestHead) startLine(b []byte, lim *Limits, r *message.Request) (int, *fault) {
	p := 0
	for p < len(b) && syntax.Is(b[p], syntax.Token) {
		p++
	}
	if p > maxMethod {
		return 0, faultMethodLong
	}
	if p == len(b) {
		return 0, nil
	}
	if b[p] != ' ' || p == 0 {
		return 0, startFault(b[p], faultMethod)
	}
	r.Method = message.KnownMethod(b[:p])
	h.target.Method = message.Part{Len: uint32(p)}
	p++
	from := p
	for p < len(b) && syntax.Is(b[p], syntax.Target) {
		p++
	}
	if p-from > lim.TargetBytes {
		return 0, faultTargetLong
	}
	if p == len(b) {
		return 0, nil
	}
	if p == from || b[p] != ' ' {
		return 0, startFault(b[p], faultLine)
	}
	end := p
	next, proto, flt := version(b, p+1)
	if next == 0 {
		return 0, flt
	}
	h.proto = proto
	if flt := h.form(b[from:end], from, r.Method); flt != nil {
		return 0, flt
	}
	return next, nil
}

func startFault(c byte, other *fault) *fault {
	switch {
	case c == '\n':
		return faultBareLF
	case c == '\r' || c == ' ' || c == '#':
		return other
	case c < 0x20 || c == 0x7f:
		return faultControl
	}
	return other
}

// version reads "HTTP/1.1" CR LF, or 1.0, and returns where the line ends.
func version(b []byte, p int) (int, message.Proto, *fault) {
	const v11, v10 = "HTTP/1.1\r\n", "HTTP/1.0\r\n"
	rest := b[p:]
	if len(rest) >= len(v11) {
		switch string(rest[:len(v11)]) {
		case v11:
			return p + len(v11), message.HTTP11, nil
		case v10:
			return p + len(v10), message.HTTP10, nil
		}
	}
	i := 0
	for i < len(rest) && i < len(v11) && rest[i] == v11[i] {
		i++
	}
	switch {
	case i == len(rest):
		return 0, 0, nil
	case i == 7 && rest[7] == '0': // HTTP/1.0 so far
		for i = 8; i < len(rest) && rest[i] == v10[i]; i++ {
		}
		if i == len(rest) {
			return 0, 0, nil
		}
	case (i == 5 || i == 7) && len(rest) < len(v11):
		return 0, 0, nil // another version perhaps
	case (i == 5 || i == 7) && syntax.Digit(rest[5]) && rest[6] == '.' && syntax.Digit(rest[7]) && rest[8] == '\r' && rest[9] == '\n':
		return 0, 0, faultVersion
	}
	if i >= 8 && rest[i] == '\n' {
		return 0, 0, faultBareLF
	}
	return 0, 0, faultLine
}

// form finds the parts of the target t, which begins at off (RFC 9112 section 3.2).
func (h *requestHead) form(t []byte, off int, m message.Method) *fault {
	at := func(from, to int) message.Part {
		return message.Part{Off: uint32(off + from), Len: uint32(to - from)}
	}
	path := 0
	switch {
	case m == message.CONNECT:
		n, port := syntax.Authority(t)
		if !n || !port {
			return faultTarget
		}
		h.target.Authority = at(0, len(t))
		return nil
	case t[0] == '/':
	case len(t) == 1 && t[0] == '*' && m == message.OPTIONS:
		h.target.Path = at(0, 1)
		return nil
	default:
		switch {
		case len(t) > 7 && message.EqualFold(t[:7], "http://"):
			path = 7
		case len(t) > 8 && message.EqualFold(t[:8], "https://"):
			path = 8
		default:
			return faultTarget
		}
		from := path
		for path < len(t) && t[path] != '/' && t[path] != '?' {
			path++
		}
		if ok, _ := syntax.Authority(t[from:path]); !ok {
			return faultTarget
		}
		h.target.Authority = at(from, path)
		h.absent = path == len(t) || t[path] == '?'
	}
	end := len(t)
	if q := bytes.IndexByte(t[path:], '?'); q >= 0 {
		end = path + q
		h.target.Query, h.target.HasQuery = at(end+1, len(t)), true
	}
	h.target.Path = at(path, end)
	return nil
}

// checkHost checks Host and makes it the authority when the target names none (RFC 9112
// section 3.2).
func (h *requestHead) checkHost(b []byte, m message.Method) *fault {
	switch {
	case h.hosts > 1:
		return faultHostMany
	case h.hosts == 0:
		if h.proto == message.HTTP11 {
			return faultHostNone
		}
		return nil
	}
	v := b[h.host.Off : h.host.Off+h.host.Len]
	if ok, _ := syntax.Authority(v); !ok {
		return faultHost
	}
	a := h.target.Authority
	if a.Len == 0 {
		h.target.Authority = h.host
	} else if !syntax.EqualFold(b[a.Off:a.Off+a.Len], v) {
		return faultHostDiffer
	}
	return nil
}

// body sets what the head says of the body, and drops an Upgrade that does not count: that
// of HTTP/1.0, one that Connection does not name, and one with a body before it (RFC 9110
// section 7.8).
func (h *requestHead) body(r *message.Request) {
	r.ContentLength = max(h.length, 0)
	if h.chunked {
		r.ContentLength = -1
	}
	if r.ContentLength == 0 || h.proto == message.HTTP10 {
		h.expect = false
	}
	if r.Has(message.Upgrade) && (h.proto == message.HTTP10 || h.connection&connUpgrade == 0 || r.ContentLength != 0) {
		r.Del(message.Upgrade)
	}
}
