package route

import (
	"crypto/tls"
	"strconv"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// template is a value with variables.
type template struct {
	plain    []byte // the whole, where there are none
	segments []v1.Segment
}

func compileTemplate(s string) template {
	segments := v1.Template(s)
	for i := range segments {
		if segments[i].Variable != "" {
			return template{segments: segments}
		}
	}
	return template{plain: []byte(s)}
}

// append appends the value for x; status is the answer's, 0 before there is one.
func (t *template) append(dst []byte, x *stage.Exchange, status int) []byte {
	for i := range t.segments {
		if s := &t.segments[i]; s.Variable != "" {
			dst = appendVariable(dst, s.Variable, x, status)
		} else {
			dst = append(dst, s.Text...)
		}
	}
	return dst
}

// appendVariable appends a variable's value, which is empty where there is none. The protocols
// have checked what a visitor can choose, so that a value holds no line break.
func appendVariable(dst []byte, v v1.Variable, x *stage.Exchange, status int) []byte {
	in := x.In
	switch v {
	case v1.VarClientIP:
		if x.Client.IsValid() {
			dst = x.Client.AppendTo(dst)
		}
	case v1.VarClientPort:
		// A proxy in front hides the visitor's port.
		if c := in.Conn; c != nil && c.Peer.Addr().Unmap() == x.Client.Unmap() {
			dst = strconv.AppendUint(dst, uint64(c.Peer.Port()), 10)
		}
	case v1.VarRequestID:
		dst = append(dst, x.IDText()...)
	case v1.VarRequestMethod:
		dst = append(dst, in.MethodName()...)
	case v1.VarRequestScheme:
		dst = append(dst, schemeOf(in.Secure)...)
	case v1.VarRequestHost:
		dst = append(dst, x.Host...)
	case v1.VarRequestAuthority:
		dst = append(dst, in.Authority()...)
	case v1.VarRequestPath:
		dst = append(dst, x.Path...)
	case v1.VarRequestQuery:
		dst = append(dst, in.Query()...)
	case v1.VarHTTPVersion:
		dst = append(dst, in.Proto.String()...)
	case v1.VarTLSVersion, v1.VarTLSCipher, v1.VarTLSSNI:
		if in.Conn != nil && in.Conn.TLS != nil {
			dst = appendTLS(dst, v, in.Conn.TLS)
		}
	case v1.VarSiteName:
		dst = append(dst, x.Site.Name...)
	case v1.VarRouteName:
		if x.Route != nil {
			dst = append(dst, x.Route.Name...)
		}
	case v1.VarVisitorClass:
		dst = append(dst, x.Visitor.Class.String()...)
	case v1.VarResponseStatus:
		dst = strconv.AppendInt(dst, int64(status), 10)
	}
	return dst
}

func schemeOf(secure bool) string {
	if secure {
		return "https"
	}
	return "http"
}

func appendTLS(dst []byte, v v1.Variable, s *message.TLS) []byte {
	switch v {
	case v1.VarTLSVersion:
		switch s.Version {
		case tls.VersionTLS12:
			return append(dst, "TLSv1.2"...)
		case tls.VersionTLS13:
			return append(dst, "TLSv1.3"...)
		}
		return strconv.AppendUint(append(dst, "0x"...), uint64(s.Version), 16)
	case v1.VarTLSCipher:
		return append(dst, tls.CipherSuiteName(s.Cipher)...)
	}
	// The name comes from the handshake, where nobody held it against a grammar.
	for i := range len(s.ServerName) {
		if c := s.ServerName[i]; c <= ' ' || c >= 0x7f {
			return dst
		}
	}
	return append(dst, s.ServerName...)
}

// statuses says which answers a line is for; none means all.
type statuses []struct{ first, last int }

func compileStatuses(list []string) statuses {
	var out statuses
	for _, s := range list {
		if len(s) == 3 && s[1:] == "xx" {
			n := int(s[0]-'0') * 100
			out = append(out, struct{ first, last int }{n, n + 99})
		} else if n, err := strconv.Atoi(s); err == nil {
			out = append(out, struct{ first, last int }{n, n})
		}
	}
	return out
}

func (s statuses) hold(status int) bool {
	for _, r := range s {
		if status >= r.first && status <= r.last {
			return true
		}
	}
	return len(s) == 0
}

// local is what the room keeps in an exchange from one request to the next.
type local struct{ value, path, query []byte }

func (s slotted) local(x *stage.Exchange) *local {
	l, _ := x.Local[s.slot].(*local)
	if l == nil {
		l = new(local)
		x.Local[s.slot] = l
	}
	return l
}

// slotted is the place of the room in sites and exchanges.
type slotted struct{ slot stage.Slot }

// apply changes fields: those of the request that is sent, with status 0, or those of an answer.
func (h *headerFilter) apply(l *local, x *stage.Exchange, f *message.Fields, status int) {
	for _, n := range h.remove {
		f.DelLine(n)
	}
	for i := range h.set {
		if s := &h.set[i]; s.statuses.hold(status) {
			f.SetLine(s.name, s.text(l, x, status))
		}
	}
	for i := range h.add {
		if s := &h.add[i]; s.statuses.hold(status) {
			f.AddLine(s.bytes, s.text(l, x, status))
		}
	}
}

// text lends the line's value.
func (n *line) text(l *local, x *stage.Exchange, status int) []byte {
	if n.value.segments == nil {
		return n.value.plain
	}
	l.value = n.value.append(l.value[:0], x, status)
	return l.value
}
