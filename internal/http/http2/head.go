package http2

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// refusal is why a request is not served. A malformed one is a stream error (RFC 9113 section
// 8.1.1); others get a page.
type refusal struct {
	status       int
	malformed    bool
	code, detail string
}

// Error implements error.
func (r *refusal) Error() string { return r.code + ": " + r.detail }

// Why requests are refused. RFC 9113 unless another is named.
var (
	refuseName       = &refusal{400, true, "bad_field_name", "a field name is not a token in lower case (section 8.2.1)"}
	refuseValue      = &refusal{400, true, "control_byte", "a field value has a control byte, or space around it (section 8.2.1)"}
	refusePseudo     = &refusal{400, true, "bad_pseudo_field", "an unknown, repeated, late or missing pseudo-header field (section 8.3)"}
	refuseConnection = &refusal{400, true, "connection_field", "a connection-specific field (section 8.2.2)"}
	refuseLength     = &refusal{400, true, "bad_content_length", "Content-Length is not one decimal number (section 8.1.1)"}
	refuseLengthNot  = &refusal{400, true, "content_length_differs", "Content-Length is not the length of the body (section 8.1.1)"}
	refuseHostDiffer = &refusal{400, true, "host_differs", ":authority and Host differ (section 8.3.1)"}
	refuseHostNone   = &refusal{400, true, "no_host", "the request names no host (section 8.3.1)"}
	refusePath       = &refusal{400, true, "bad_target", ":path is empty, or has a byte that must be percent-encoded (section 8.3.1)"}
	refuseConnect    = &refusal{400, true, "bad_connect", "CONNECT takes a host, a port, and neither scheme nor path (section 8.5)"}
	refuseTrailer    = &refusal{400, true, "bad_trailer", "a trailer section that is none (section 8.1)"}
	refuseHost       = &refusal{400, false, "bad_host", "the host is not an authority (RFC 3986 section 3.2)"}
	refuseScheme     = &refusal{400, false, "bad_scheme", ":scheme is neither http nor https"}
	refuseTarget     = &refusal{400, false, "bad_target", "the path does not begin with / and is not * of OPTIONS (section 8.3.1)"}
	refuseMethod     = &refusal{400, true, "bad_method", "the method is not a token (RFC 9110 section 9.1)"}
	refuseMethodLong = &refusal{501, false, "method_too_long", "the method is longer than any known one (RFC 9110 section 9.1)"}
	refuseProtocol   = &refusal{501, false, "unknown_protocol", "extended CONNECT with a :protocol other than websocket (RFC 8441 section 4)"}
	refuseTargetLong = &refusal{414, false, "target_too_long", "the request target is over the limit"}
	refuseHeadLong   = &refusal{431, false, "head_too_long", "the head is over the limit"}
	refuseFields     = &refusal{431, false, "too_many_fields", "the head has too many field lines"}
	refuseCollision  = &refusal{400, false, "field_name_collision", "a name that some origins read as a framing, host or forwarding field"}
	refuseExpect     = &refusal{417, false, "expectation_failed", "an expectation other than 100-continue (RFC 9110 section 10.1.1)"}
	refuseBodyLong   = &refusal{413, false, "body_too_large", "the body is over the limit"}
	refusePanic      = &refusal{500, false, "panic", "the handler panicked"}
	refuseWebSocket  = &refusal{502, false, "websocket_not_accepted", "the origin's Sec-WebSocket-Accept does not belong to the key (RFC 6455 section 4.2.2)"}
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

// headReader makes a request of the fields that HPACK decodes. It is a hpack.Sink.
type headReader struct {
	r       *message.Request
	trailer *message.Fields // not nil: what comes is a trailer section
	lim     *Limits
	bad     *refusal // the first; what comes after it is passed over

	seen      uint8
	late      bool // a regular field has come
	size      int
	lines     int
	length    int64 // -1 when there is no Content-Length
	expect    bool
	websocket bool
	star      bool
	host      []byte // kept memory
	cookie    []byte // kept memory
	cookies   int
}

func (h *headReader) begin(r *message.Request, lim *Limits) {
	*h = headReader{r: r, lim: lim, length: -1, host: h.host[:0], cookie: h.cookie[:0]}
	r.Reset()
}

func (h *headReader) beginTrailer(f *message.Fields, lim *Limits) {
	*h = headReader{trailer: f, lim: lim, length: -1, host: h.host[:0], cookie: h.cookie[:0]}
	f.Reset()
}

// Field implements hpack.Sink. An error stops what is handed over, not the decoding.
func (h *headReader) Field(id message.ID, name, value []byte, _ bool) error {
	if h.trailer != nil {
		h.bad = h.trailerField(id, name, value)
	} else {
		h.bad = h.field(id, name, value)
	}
	if h.bad != nil {
		return h.bad
	}
	return nil
}

func (h *headReader) field(id message.ID, name, value []byte) *refusal {
	if h.size += len(name) + len(value) + 4; h.size > h.lim.HeadBytes {
		return refuseHeadLong
	}
	if hpack.IsPseudo(id) {
		return h.pseudo(id, value)
	}
	h.late = true
	if h.lines++; h.lines > h.lim.Fields {
		return refuseFields
	}
	if !syntax.IsValue(value) {
		return refuseValue
	}
	if id == message.Other {
		if !syntax.IsLowerName(name) {
			return refuseName
		}
		if message.Collides(name) {
			return refuseCollision
		}
		h.r.AddLine(name, value)
		return nil
	}
	return h.known(id, value)
}

// known takes a field that is known by name.
func (h *headReader) known(id message.ID, value []byte) *refusal {
	switch id {
	case message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding, message.Upgrade:
		return refuseConnection
	case message.TE:
		if !message.EqualFold(value, "trailers") {
			return refuseConnection
		}
	case message.Host:
		if h.seen&sawAuthority != 0 && !syntax.EqualFold(value, h.r.Authority()) || len(h.host) > 0 {
			return refuseHostDiffer
		}
		h.host = append(h.host[:0], value...)
		return nil // it is the authority
	case message.ContentLength:
		n, ok := syntax.Decimal(value)
		if !ok || h.length >= 0 {
			return refuseLength
		}
		h.length = n
	case message.Expect:
		if h.expect || !message.EqualFold(value, "100-continue") {
			return refuseExpect
		}
		h.expect = true
	case message.Cookie: // crumbs make one line (section 8.2.3)
		if h.cookies++; h.cookies > 1 {
			h.cookie = append(h.cookie, "; "...)
		}
		h.cookie = append(h.cookie, value...)
		return nil
	}
	h.r.Add(id, value)
	return nil
}

func (h *headReader) pseudo(id message.ID, value []byte) *refusal {
	var bit uint8
	switch id {
	case hpack.Method:
		bit = sawMethod
	case hpack.Scheme:
		bit = sawScheme
	case hpack.Authority:
		bit = sawAuthority
	case hpack.Path:
		bit = sawPath
	case hpack.Protocol:
		bit = sawProtocol
	}
	if bit == 0 || h.late || h.seen&bit != 0 {
		return refusePseudo
	}
	h.seen |= bit
	switch bit {
	case sawMethod:
		if len(value) > maxMethod {
			return refuseMethodLong
		}
		if !syntax.IsToken(value) {
			return refuseMethod
		}
		h.r.SetMethod(value)
	case sawScheme:
		if !message.EqualFold(value, "https") && !message.EqualFold(value, "http") {
			return refuseScheme
		}
	case sawAuthority:
		if !syntax.IsValue(value) {
			return refuseValue
		}
		h.r.SetAuthority(value)
	case sawPath:
		return h.target(value)
	case sawProtocol:
		h.websocket = message.EqualFold(value, "websocket")
	}
	return nil
}

// target keeps a path; its form depends on the method, which may come later.
func (h *headReader) target(value []byte) *refusal {
	if len(value) > h.lim.TargetBytes {
		return refuseTargetLong
	}
	if len(value) == 0 || !syntax.All(value, syntax.Target) {
		return refusePath
	}
	if value[0] != '/' {
		if len(value) != 1 || value[0] != '*' {
			return refuseTarget
		}
		h.star = true
	}
	if q := bytes.IndexByte(value, '?'); q >= 0 {
		h.r.SetPath(value[:q])
		h.r.SetQuery(value[q+1:])
	} else {
		h.r.SetPath(value)
	}
	return nil
}

// end checks what the fields say together. Whole says that no body follows.
func (h *headReader) end(whole bool) *refusal {
	r := h.r
	if h.cookies > 0 {
		r.Add(message.Cookie, h.cookie)
	}
	if h.seen&sawMethod == 0 {
		return refusePseudo
	}
	if len(r.Authority()) == 0 {
		r.SetAuthority(h.host)
	} else if len(h.host) > 0 && !syntax.EqualFold(h.host, r.Authority()) {
		return refuseHostDiffer
	}
	if len(r.Authority()) == 0 {
		return refuseHostNone
	}
	valid, port := syntax.Authority(r.Authority())
	switch {
	case r.Method == message.CONNECT && h.seen&sawProtocol == 0:
		if !valid || !port || h.seen&(sawScheme|sawPath) != 0 {
			return refuseConnect
		}
	case h.seen&(sawScheme|sawPath) != sawScheme|sawPath, h.seen&sawProtocol != 0 && r.Method != message.CONNECT:
		return refusePseudo
	case !valid:
		return refuseHost
	case h.star && r.Method != message.OPTIONS:
		return refuseTarget
	case h.seen&sawProtocol != 0 && !h.websocket:
		return refuseProtocol
	}
	return h.content(whole)
}

// content sets what the head says of the body.
func (h *headReader) content(whole bool) *refusal {
	h.r.Proto = message.HTTP2
	h.r.ContentLength = h.length
	if whole {
		if h.length > 0 {
			return refuseLengthNot
		}
		h.r.ContentLength = 0
	}
	return nil
}

const (
	maxTrailer       = 8 << 10
	maxTrailerFields = 64
)

func (h *headReader) trailerField(id message.ID, name, value []byte) *refusal {
	h.lines++
	if h.size += len(name) + len(value) + 4; h.size > maxTrailer || h.lines > maxTrailerFields || hpack.IsPseudo(id) || !syntax.IsValue(value) {
		return refuseTrailer
	}
	switch id {
	case message.Other:
		if !syntax.IsLowerName(name) || message.Collides(name) {
			return refuseTrailer
		}
		h.trailer.AddLine(name, value)
	// Of the known names only those that are of use after a body stay (RFC 9110 section 6.5.1).
	case message.ETag, message.ServerTiming, message.EndpointLoadMetrics, message.CacheStatus, message.Link:
		h.trailer.Add(id, value)
	case message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding, message.Upgrade:
		return refuseTrailer
	}
	return nil
}
