package cache

import (
	"math/rand/v2"
	"strconv"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
)

// multipart is an answer of several parts (RFC 9110 section 15.3.7.2).
type multipart struct {
	spans    []semantics.Span
	boundary string
	size     int64 // of the whole
}

// divide makes the form that of several parts.
func (f *form) divide(in *message.Request) {
	f.status = 206
	f.multi = &multipart{
		spans: semantics.Spans(nil, &in.Fields, f.size),
		// 128 random bits do not occur in a body by chance, and nobody can choose a body that holds them.
		boundary: strconv.FormatUint(rand.Uint64(), 36) + strconv.FormatUint(rand.Uint64(), 36),
		size:     f.size,
	}
}

func (m *multipart) setType(to *message.Fields) {
	to.Begin(message.ContentType)
	to.Append("multipart/byteranges; boundary=")
	to.Append(m.boundary)
	to.End()
}

// pieces are those of a body with parts of o.
func (m *multipart) pieces(o *object) (list []chunk) {
	contentType := o.fields.Get(message.ContentType)
	for _, s := range m.spans {
		head := make([]byte, 0, 128+len(contentType))
		head = append(head, "\r\n--"...)
		head = append(head, m.boundary...)
		if contentType != nil {
			head = append(head, "\r\nContent-Type: "...)
			head = append(head, contentType...)
		}
		head = append(head, "\r\nContent-Range: bytes "...)
		head = strconv.AppendInt(head, s.First, 10)
		head = append(head, '-')
		head = strconv.AppendInt(head, s.Last, 10)
		head = append(head, '/')
		head = strconv.AppendInt(head, m.size, 10)
		list = append(list, chunk{data: append(head, "\r\n\r\n"...)})
		list = o.pieces(list, s)
	}
	return append(list, chunk{data: []byte("\r\n--" + m.boundary + "--\r\n")})
}
