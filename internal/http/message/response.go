package message

import "io"

// Response is a final answer, or an interim one.
type Response struct {
	Fields
	Status        int
	ContentLength int64              // of the body; -1 when it is not known before its end
	Bytes         []byte             // the whole body in memory; then Body is nil. Not changed by anyone
	Body          Body               // nil when there is none or it is in Bytes
	Trailer       *Fields            // filled when Body has ended; nil when there is none
	Upgrade       io.ReadWriteCloser // with status 101 or a 2xx to CONNECT: the other side of the tunnel
	Ender         Ender              // told once when the answer has left or was given up; may be nil
}

// Ender is told how an answer ended.
type Ender interface{ End(Outcome) }

// Outcome is how an answer ended.
type Outcome struct {
	Status int   // as sent; 0 when nothing was sent
	Head   int64 // bytes of heads sent
	Body   int64 // bytes of body sent, without framing
	Err    error // nil when the whole answer left
}

// Reset empties r and keeps its memory.
func (r *Response) Reset() {
	r.Fields.Reset()
	r.Status, r.ContentLength = 0, 0
	r.Bytes, r.Body, r.Trailer, r.Upgrade, r.Ender = nil, nil, nil, nil, nil
}

// SetBytes makes b the whole body.
func (r *Response) SetBytes(b []byte) {
	r.Bytes, r.Body, r.ContentLength = b, nil, int64(len(b))
}

// NoBody says whether an answer with this status to this method has no body, whatever its
// fields say (RFC 9110 section 6.4.1).
func NoBody(m Method, status int) bool {
	return m == HEAD || status < 200 || status == 204 || status == 304 || m == CONNECT && status < 300
}
