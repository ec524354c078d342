package http2

import (
	"github.com/relais-edge/relais/internal/http/hpack"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// The faults of an answer's fields: it is malformed (RFC 9113 section 8.1.1).
var (
	faultNoStatus    = &fault{ProtocolError, true, "no :status (section 8.3.2)"}
	faultPseudo      = &fault{ProtocolError, true, "a pseudo-header field that is unknown, repeated, late, or in a trailer (section 8.3)"}
	faultStatus      = &fault{ProtocolError, true, ":status is not three digits (section 8.3.2)"}
	faultAnswerName  = &fault{ProtocolError, true, "a field name is no token in lower case (section 8.2.1)"}
	faultAnswerValue = &fault{ProtocolError, true, "a control byte in a field value (section 8.2.1)"}
	faultAnswerHop   = &fault{ProtocolError, true, "a connection-specific field (section 8.2.2)"}
	faultAnswerCL    = &fault{ProtocolError, true, "Content-Length is not one decimal number"}
	faultAnswerLines = &fault{EnhanceYourCalm, true, "too many field lines"}
)

// maxClientTrailer is the most lines of a trailer.
const maxClientTrailer = 64

// clientSink puts the fields of a block where they belong.
type clientSink struct {
	f       *message.Fields // nil when they are of no use
	trailer bool
	regular bool // a field that is no pseudo-header field came
	status  int
	length  int64
	left    int // lines that may still come
}

// begin makes the sink ready for a block of s, which may be nil.
func (k *clientSink) begin(s *clientStream, lines int) {
	*k = clientSink{length: -1, left: lines}
	switch {
	case s == nil:
	case s.head:
		k.f, k.trailer, k.left = &s.trailer, true, maxClientTrailer
	default:
		k.f = &s.resp.Fields
	}
}

// Field implements hpack.Sink.
func (k *clientSink) Field(id message.ID, name, value []byte, _ bool) error {
	if k.f == nil {
		return nil
	}
	if hpack.IsPseudo(id) {
		return k.pseudo(id, value)
	}
	k.regular = true
	if k.left--; k.left < 0 {
		return faultAnswerLines
	}
	value = syntax.Trim(value)
	if !syntax.Plain(value) {
		return faultAnswerValue
	}
	if id == message.Other {
		if !syntax.IsLowerName(name) {
			return faultAnswerName
		}
		k.f.AddLine(name, value)
		return nil
	}
	switch id {
	case message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding, message.Upgrade:
		return faultAnswerHop
	case message.TE, message.Trailer:
		return nil
	case message.ContentLength:
		n, ok := syntax.Decimal(value)
		if !ok || k.length >= 0 && n != k.length {
			return faultAnswerCL
		}
		if k.length >= 0 || k.trailer {
			return nil
		}
		k.length = n
	}
	if !k.trailer || !clientNotInTrailer(id) {
		k.f.Add(id, value)
	}
	return nil
}

func (k *clientSink) pseudo(id message.ID, v []byte) error {
	if id != hpack.Status || k.trailer || k.regular || k.status != 0 {
		return faultPseudo
	}
	if len(v) != 3 || v[0] < '1' || v[0] > '9' || v[1] < '0' || v[1] > '9' || v[2] < '0' || v[2] > '9' {
		return faultStatus
	}
	k.status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
	return nil
}

// clientNotInTrailer says whether a field has no business in a trailer: framing, routing,
// authentication and modifiers (RFC 9110 section 6.5.1). Such a line is dropped.
func clientNotInTrailer(id message.ID) bool {
	switch id {
	case message.ContentLength, message.Host, message.Expect, message.MaxForwards, message.Authorization,
		message.ProxyAuthorization, message.Cookie, message.SetCookie, message.WWWAuthenticate, message.ProxyAuthenticate,
		message.ContentEncoding, message.ContentType, message.ContentRange, message.Range, message.CacheControl,
		message.IfMatch, message.IfNoneMatch, message.IfModifiedSince, message.IfUnmodifiedSince, message.IfRange,
		message.XForwardedFor, message.XForwardedHost, message.XForwardedProto, message.XRealIP, message.Forwarded:
		return true
	}
	return id.PerHop()
}
