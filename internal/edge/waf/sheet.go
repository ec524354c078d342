package waf

import (
	"bytes"
	"strconv"

	"github.com/relais-edge/relais/internal/edge/waf/screen"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// sheet is a request as the rules see it: the screen and the engine judge the same one. Its
// parts are lent by the exchange or lie in its own buffers, which are used again.
type sheet struct {
	screen.Request
	overlay               screen.Overlay
	target, proto, number []byte
	folded, plain         []byte // of the tenant's own rules
	parts                 parts  // of a form in parts, for them
}

var (
	hostName     = []byte("Host")
	lengthName   = []byte("Content-Length")
	encodingName = []byte("Transfer-Encoding")
	chunked      = []byte("chunked")
)

// fill takes the request line and the fields, as the origin would see them, and what was read
// of the body; cut says that there is more of it.
func (s *sheet) fill(x *stage.Exchange, body []byte, cut bool) {
	in := x.In
	uri := in.Path()
	if in.Method == message.CONNECT {
		uri = in.Authority()
	}
	s.target = append(s.target[:0], uri...)
	if in.HasQuery() {
		s.target = append(append(s.target, '?'), in.Query()...)
	}
	s.proto = append(s.proto[:0], in.Proto.String()...)
	s.Method, s.Target, s.Proto = in.MethodName(), s.target, s.proto
	s.Body, s.Opaque = body, cut && len(body) > 0
	s.parts.reset()
	s.Fields = s.Fields[:0]
	for i := range in.Len() {
		id, name, value := in.At(i)
		if id == message.Expect && message.EqualFold(value, "100-continue") {
			continue // the edge's own business
		}
		s.Fields = append(s.Fields, screen.Field{Name: name, Value: value})
	}
	if !in.Has(message.Host) && len(in.Authority()) > 0 {
		s.Fields = append(s.Fields, screen.Field{Name: hostName, Value: in.Authority()})
	}
	if in.Body != nil && in.Proto <= message.HTTP11 && !in.Has(message.ContentLength) && !in.Has(message.TransferEncoding) {
		// The framing was read by the protocol; the rules ask for it.
		if in.ContentLength >= 0 {
			s.number = strconv.AppendInt(s.number[:0], in.ContentLength, 10)
			s.Fields = append(s.Fields, screen.Field{Name: lengthName, Value: s.number})
		} else {
			s.Fields = append(s.Fields, screen.Field{Name: encodingName, Value: chunked})
		}
	}
}

// copyOf makes s the same request as r, in memory of its own.
func (s *sheet) copyOf(r *sheet) {
	s.Request = screen.Request{
		Method: bytes.Clone(r.Method), Target: bytes.Clone(r.Target), Proto: bytes.Clone(r.Proto),
		Body: bytes.Clone(r.Body), Opaque: r.Opaque,
	}
	for _, f := range r.Fields {
		s.Fields = append(s.Fields, screen.Field{Name: bytes.Clone(f.Name), Value: bytes.Clone(f.Value)})
	}
}

// clear lets go of what the exchange lent.
func (s *sheet) clear() {
	clear(s.Fields[:cap(s.Fields)])
	s.Request = screen.Request{Fields: s.Fields[:0]}
	s.overlay.Reset()
	s.parts.reset()
}
