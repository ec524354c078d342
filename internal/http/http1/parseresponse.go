package http1

import (
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// parseResponse reads one answer's head at the start of b into r, which is reset. It returns
// the head's length, 0 when more bytes are needed, or why the bytes are refused.
func parseResponse(b []byte, lim *Limits, r *message.Response, h *head) (n int, proto message.Proto, flt *fault) {
	r.Reset()
	*h = head{length: -1, answer: true}
	p, proto, flt := statusLine(b, r)
	if p == 0 {
		return 0, 0, flt
	}
	n, flt = h.fieldLines(b, p, &r.Fields, lim.Fields)
	if n == 0 {
		return 0, 0, flt
	}
	if n > lim.HeadBytes {
		return 0, 0, faultHeadLong
	}
	if flt := h.framing(proto); flt != nil {
		return 0, 0, flt
	}
	r.Load(b[:n])
	return n, proto, nil
}

// statusLine reads a status line and returns where it ends (RFC 9112 section 4). A missing
// reason may miss its space too.
func statusLine(b []byte, r *message.Response) (int, message.Proto, *fault) {
	const v11 = "HTTP/1.1 "
	if len(b) < len("HTTP/1.1 200\r\n") {
		for i := 0; i < len(b) && i < len(v11); i++ {
			if b[i] != v11[i] && !(i == 7 && b[i] == '0') {
				return 0, 0, faultStatus
			}
		}
		return 0, 0, nil
	}
	proto := message.HTTP11
	if string(b[:len(v11)]) != v11 {
		if string(b[:len(v11)]) != "HTTP/1.0 " {
			return 0, 0, faultStatus
		}
		proto = message.HTTP10
	}
	if b[9] < '1' || b[9] > '9' || !syntax.Digit(b[10]) || !syntax.Digit(b[11]) || b[12] != ' ' && b[12] != '\r' {
		return 0, 0, faultStatus
	}
	r.Status = int(b[9]-'0')*100 + int(b[10]-'0')*10 + int(b[11]-'0')
	end, flt := lineEnd(b, 12)
	if end == 0 {
		return 0, 0, flt
	}
	return end + 2, proto, nil
}
