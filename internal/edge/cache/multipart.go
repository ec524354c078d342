package cache

import (
	"math/rand/v2"
	"strconv"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
)

// divide makes the form that of several parts (RFC 9110 section 15.3.7.2).
func (f *form) divide(in *message.Request) {
	f.spans = semantics.Spans(nil, &in.Fields, f.size)
	f.status = 206
	// 128 random bits do not occur in a body by chance, and nobody can choose a body that holds them.
	f.boundary = strconv.FormatUint(rand.Uint64(), 36) + strconv.FormatUint(rand.Uint64(), 36)
}

// setMultipart sets the Content-Type of an answer of several parts.
func setMultipart(to *message.Fields, f *form) {
	to.Begin(message.ContentType)
	to.Append("multipart/byteranges; boundary=")
	to.Append(f.boundary)
	to.End()
}

// multipart is the body of several parts of o.
func (f *form) multipart(o *object) *piecewise {
	b := &piecewise{}
	contentType := o.fields.Get(message.ContentType)
	for _, s := range f.spans {
		head := make([]byte, 0, 128+len(contentType))
		head = append(head, "\r\n--"...)
		head = append(head, f.boundary...)
		if contentType != nil {
			head = append(head, "\r\nContent-Type: "...)
			head = append(head, contentType...)
		}
		head = append(head, "\r\nContent-Range: bytes "...)
		head = strconv.AppendInt(head, s.First, 10)
		head = append(head, '-')
		head = strconv.AppendInt(head, s.Last, 10)
		head = append(head, '/')
		head = strconv.AppendInt(head, f.size, 10)
		b.rest = append(b.rest, append(head, "\r\n\r\n"...))
		b.rest = o.pieces(b.rest, s)
	}
	b.rest = append(b.rest, []byte("\r\n--"+f.boundary+"--\r\n"))
	return b
}
