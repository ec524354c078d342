package http3

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/qpack"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// maxMethod is longer than any registered method.
const maxMethod = 32

// The pseudo-header fields that were seen.
const (
	sawMethod = 1 << iota
	sawScheme
	sawAuthority
	sawPath
	sawProtocol
)

// head is what the field section of a request says of its framing.
type head struct {
	seen      uint8
	regular   bool // a field that is no pseudo-header has come
	https     bool // the scheme
	websocket bool // :protocol
	expect    bool
	lines     int
	hosts     int
	cookies   int
	length    int64 // -1 when there is no Content-Length
}

// section reads field sections; it is kept with an exchange.
type section struct {
	reader qpack.Reader
	line   qpack.Line
	join   []byte
}

// parseHead reads a request's field section into r, which is reset. R has copies, so that
// block is free after.
func (s *section) parseHead(block []byte, lim *Limits, r *message.Request, h *head) *fault {
	r.Reset()
	r.Proto, r.Secure = message.HTTP3, true
	*h = head{length: -1}
	if s.reader.Reset(block) != nil {
		return faultOf(errQPACK)
	}
	l := &s.line
	for {
		more, err := s.reader.Next(l)
		if err != nil {
			return faultOf(errQPACK)
		}
		if !more {
			break
		}
		if r.Size()+len(l.Name)+len(l.Value) > lim.HeadBytes {
			return faultHeadLong
		}
		var flt *fault
		if l.ID >= hpack.Unknown {
			flt = h.pseudo(l, r)
		} else {
			flt = h.field(l, lim, r)
		}
		if flt != nil {
			return flt
		}
	}
	if flt := h.check(r, lim); flt != nil {
		return flt
	}
	if h.cookies > 1 {
		s.joinCookies(r)
	}
	r.ContentLength = h.length
	return nil
}

// pseudo takes a pseudo-header field (RFC 9114 section 4.3).
func (h *head) pseudo(l *qpack.Line, r *message.Request) *fault {
	var bit uint8
	switch l.ID {
	case hpack.Method:
		bit = sawMethod
		r.SetMethod(l.Value)
	case hpack.Scheme:
		bit = sawScheme
		h.https = message.EqualFold(l.Value, "https")
	case hpack.Authority:
		bit = sawAuthority
		r.SetAuthority(l.Value)
	case hpack.Path:
		bit = sawPath
		path := l.Value
		if q := bytes.IndexByte(path, '?'); q >= 0 {
			r.SetQuery(path[q+1:])
			path = path[:q]
		}
		r.SetPath(path)
	case hpack.Protocol:
		bit = sawProtocol
		h.websocket = message.EqualFold(l.Value, "websocket")
	default: // unknown, or :status
		return faultPseudo
	}
	if h.regular || h.seen&bit != 0 {
		return faultPseudo
	}
	h.seen |= bit
	return nil
}

// field takes a field line (RFC 9114 section 4.2).
func (h *head) field(l *qpack.Line, lim *Limits, r *message.Request) *fault {
	h.regular = true
	if h.lines++; h.lines > lim.Fields {
		return faultFields
	}
	if l.Fixed {
		if l.ID == message.ContentLength || l.ID == message.Cookie {
			if flt := h.known(l); flt != nil {
				return flt
			}
		}
	} else if flt := h.literal(l); flt != nil {
		return flt
	}
	if l.ID != message.Other {
		r.Add(l.ID, l.Value)
	} else {
		r.AddLine(l.Name, l.Value)
	}
	return nil
}

func (h *head) literal(l *qpack.Line) *fault {
	if !syntax.IsValue(l.Value) {
		return faultValue
	}
	if l.ID != message.Other {
		return h.known(l)
	}
	if !syntax.IsLowerName(l.Name) {
		return faultUpper
	}
	if message.Collides(l.Name) {
		return faultCollision
	}
	return nil
}

// known takes notice of the fields that matter to the connection.
func (h *head) known(l *qpack.Line) *fault {
	switch l.ID {
	case message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding, message.Upgrade:
		return faultConnection
	case message.TE:
		if !message.EqualFold(l.Value, "trailers") {
			return faultConnection
		}
	case message.Host:
		h.hosts++
	case message.Cookie:
		h.cookies++
	case message.ContentLength:
		n, ok := syntax.Decimal(l.Value)
		if !ok || h.length >= 0 {
			return faultLength
		}
		h.length = n
	case message.Expect:
		if h.expect || !message.EqualFold(l.Value, "100-continue") {
			return faultExpect
		}
		h.expect = true
	}
	return nil
}

// check sees that the pseudo-header fields are there that the method wants, and what they say.
func (h *head) check(r *message.Request, lim *Limits) *fault {
	name := r.MethodName()
	switch {
	case h.seen&sawMethod == 0:
		return faultPseudo
	case len(name) > maxMethod:
		return faultMethodLong
	case !syntax.IsToken(name):
		return faultMethod
	}
	if flt := h.checkHost(r); flt != nil {
		return flt
	}
	if r.Method == message.CONNECT {
		return h.checkConnect(r, lim)
	}
	if h.seen&(sawScheme|sawPath|sawProtocol) != sawScheme|sawPath {
		return faultPseudo
	}
	return h.checkTarget(r, lim)
}

// checkTarget checks scheme and path.
func (h *head) checkTarget(r *message.Request, lim *Limits) *fault {
	path, query := r.Path(), r.Query()
	switch {
	case len(path)+len(query) >= lim.TargetBytes:
		return faultTargetLong
	case !syntax.All(path, syntax.Target) || !syntax.All(query, syntax.Target):
		return faultTarget
	case len(path) == 1 && path[0] == '*' && r.Method == message.OPTIONS && !r.HasQuery():
	case len(path) == 0 || path[0] != '/':
		return faultPathForm
	}
	if !h.https {
		return faultScheme
	}
	return nil
}

// checkConnect checks a CONNECT (RFC 9114 section 4.4), or an extended one (RFC 9220).
func (h *head) checkConnect(r *message.Request, lim *Limits) *fault {
	if h.seen&sawProtocol == 0 {
		_, port := syntax.Authority(r.Authority())
		if h.seen&(sawScheme|sawPath) != 0 || h.seen&sawAuthority == 0 || !port {
			return faultConnect
		}
		return nil
	}
	if h.seen&(sawScheme|sawPath|sawAuthority) != sawScheme|sawPath|sawAuthority {
		return faultPseudo
	}
	if flt := h.checkTarget(r, lim); flt != nil {
		return flt
	}
	if !h.websocket {
		return faultProtocol
	}
	return nil
}

// checkHost checks :authority and Host, and makes Host the authority when it stands alone.
func (h *head) checkHost(r *message.Request) *fault {
	host := r.Get(message.Host)
	switch {
	case h.hosts > 1:
		return faultHostDiffer
	case h.seen&sawAuthority == 0 && h.hosts == 0:
		return faultHostNone
	case h.seen&sawAuthority == 0:
		r.SetAuthority(host)
	case h.hosts == 1 && !syntax.EqualFold(host, r.Authority()):
		return faultHostDiffer
	}
	a := r.Authority()
	if len(a) == 0 {
		return faultHostNone
	}
	if ok, _ := syntax.Authority(a); !ok {
		return faultHost
	}
	return nil
}

// joinCookies makes one line of the crumbs in which a client may send Cookie (RFC 9114
// section 4.2.1).
func (s *section) joinCookies(r *message.Request) {
	s.join = s.join[:0]
	for i := r.Next(message.Cookie, 0); i >= 0; i = r.Next(message.Cookie, i+1) {
		_, _, v := r.At(i)
		if len(s.join) > 0 {
			s.join = append(s.join, "; "...)
		}
		s.join = append(s.join, v...)
	}
	r.Set(message.Cookie, s.join)
}

// Bounds of a trailer section.
const (
	maxTrailer       = 8 << 10
	maxTrailerFields = 64
)

// parseTrailer reads a trailer section into f. Of the known names only those stay that are of
// use after a body (RFC 9110 section 6.5.1). False means that it is malformed.
func (s *section) parseTrailer(block []byte, f *message.Fields) (bool, *connError) {
	f.Reset()
	if s.reader.Reset(block) != nil {
		return false, errQPACK
	}
	l := &s.line
	for n := 0; ; n++ {
		more, err := s.reader.Next(l)
		switch {
		case err != nil:
			return false, errQPACK
		case !more:
			return true, nil
		case n == maxTrailerFields || f.Size()+len(l.Name)+len(l.Value) > maxTrailer || l.ID >= hpack.Unknown:
			return false, nil
		case !syntax.IsLowerName(l.Name) || !syntax.IsValue(l.Value):
			return false, nil
		}
		switch l.ID {
		case message.Other, message.ETag, message.ServerTiming, message.EndpointLoadMetrics, message.CacheStatus, message.Link:
			f.AddLine(l.Name, l.Value)
		}
	}
}
