package std

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/relais-edge/relais/internal/http/message"
)

// refusal is why a request is not given to the Handler.
type refusal struct {
	status       int
	code, detail string
}

// maxMethod is that of our own core.
const maxMethod = 32

func bad(code, detail string) *refusal { return &refusal{http.StatusBadRequest, code, detail} }

// fill makes c.req of r, or says why r is refused. It holds r against what net/http does
// not check: RFC 9112 section 3.2, RFC 9113 sections 8.2 and 8.3, RFC 9110 section 8.6.
func (c *call) fill(ctx context.Context, h *connHandler, out *writer) *refusal {
	q, r := &c.req, out.r
	q.Conn = h.conn
	q.Secure = h.conn.TLS != nil
	q.Proto = protoOf(r)
	if r.ProtoMajor == 1 && r.ProtoMinor > 1 {
		return &refusal{http.StatusHTTPVersionNotSupported, "http_version_not_supported", "neither HTTP/1.1 nor HTTP/1.0"}
	}
	if len(r.Method) > maxMethod {
		return &refusal{http.StatusNotImplemented, "method_too_long", "the method is longer than any known one"}
	}
	if !validToken(r.Method) {
		return bad("bad_method", "the method is not a token")
	}
	q.SetMethod([]byte(r.Method))
	if ref := c.target(h.a.cfg.Limits, r); ref != nil {
		return ref
	}
	if ref := c.authority(r); ref != nil {
		return ref
	}
	if ref := c.fields(h.a.cfg.Limits, r); ref != nil {
		return ref
	}
	return c.content(ctx, h, out)
}

func protoOf(r *http.Request) message.Proto {
	switch {
	case r.ProtoMajor == 3:
		return message.HTTP3
	case r.ProtoMajor == 2:
		return message.HTTP2
	case r.ProtoMinor == 0:
		return message.HTTP10
	}
	return message.HTTP11
}

// target sets path and query from the request target as it came (RFC 9112 section 3.2).
func (c *call) target(limits Limits, r *http.Request) *refusal {
	q, t := &c.req, r.RequestURI
	if n := limits.TargetBytes; n > 0 && len(t) > n {
		return &refusal{http.StatusRequestURITooLong, "target_too_long", "the request target is over the limit"}
	}
	for i := range len(t) {
		if b := t[i]; b <= ' ' || b == 0x7f || b == '#' {
			return bad("bad_target", "the request target has a byte that must be percent-encoded")
		}
	}
	switch {
	case q.Method == message.CONNECT:
		if _, port, ok := strings.Cut(r.Host, ":"); !ok || port == "" || q.Proto >= message.HTTP2 && r.URL.Path != "" || strings.Contains(t, "/") {
			return bad("bad_target", "CONNECT takes a host, a port and no path")
		}
		return nil
	case t == "*":
		if q.Method != message.OPTIONS {
			return bad("bad_target", "only OPTIONS takes the target *")
		}
		q.SetPath([]byte(t))
		return nil
	case q.Proto < message.HTTP2 && !strings.HasPrefix(t, "/"):
		if t = absolute(t, q.Method); t == "*" {
			q.SetPath([]byte(t))
			return nil
		}
	}
	if !strings.HasPrefix(t, "/") {
		return bad("bad_target", "the path does not begin with /")
	}
	path, query, has := strings.Cut(t, "?")
	q.SetPath([]byte(path))
	if has {
		q.SetQuery([]byte(query))
	}
	return nil
}

// absolute gives the path and query of a target in absolute-form; net/http has made its
// authority the Host (RFC 9112 section 3.2.2). It is empty for what is no such target.
func absolute(t string, m message.Method) string {
	scheme, rest, ok := strings.Cut(t, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return ""
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	switch {
	case !ValidAuthority(authority):
		return ""
	case path == "" && m == message.OPTIONS:
		return "*"
	case !strings.HasPrefix(path, "/"):
		return "/" + path
	}
	return path
}

// authority sets the authority. Net/http has put the Host field, or :authority, in r.Host.
func (c *call) authority(r *http.Request) *refusal {
	hosts := r.Header["Host"] // HTTP/2 and 3 only; net/http removes it on HTTP/1
	if len(hosts) > 1 || len(hosts) == 1 && !strings.EqualFold(hosts[0], r.Host) {
		return bad("host_differs", ":authority and Host differ")
	}
	if r.Host == "" {
		if c.req.Proto == message.HTTP10 {
			return nil
		}
		return bad("no_host", "the request names no host")
	}
	if !ValidAuthority(r.Host) {
		return bad("bad_host", "the host is not an authority (RFC 3986 section 3.2)")
	}
	c.req.SetAuthority([]byte(r.Host))
	if c.req.Proto < message.HTTP2 {
		c.req.AddString(message.Host, r.Host)
	}
	return nil
}

// fields copies the field lines, sorted by name.
func (c *call) fields(limits Limits, r *http.Request) *refusal {
	c.names = c.names[:0]
	for name := range r.Header {
		c.names = append(c.names, name)
	}
	slices.Sort(c.names)
	lines, size := 0, 0
	for _, name := range c.names {
		if ref := checkField(c.req.Proto, name, r.Header[name]); ref != nil {
			return ref
		}
		for _, v := range r.Header[name] {
			lines++
			if limits.Fields > 0 && lines > limits.Fields {
				return &refusal{http.StatusRequestHeaderFieldsTooLarge, "too_many_fields", "the head has too many field lines"}
			}
			if size += len(name) + len(v); limits.HeadBytes > 0 && size > limits.HeadBytes {
				return &refusal{http.StatusRequestHeaderFieldsTooLarge, "head_too_long", "the head is over the limit"}
			}
			c.req.AddLine([]byte(name), []byte(v))
		}
	}
	clear(c.names)
	if c.req.Proto < message.HTTP2 && len(r.TransferEncoding) > 0 {
		if c.req.Proto == message.HTTP10 {
			return bad("transfer_encoding_on_http10", "Transfer-Encoding on HTTP/1.0 (RFC 9112 section 6.1)")
		}
		c.req.AddString(message.TransferEncoding, "chunked") // net/http takes no other
	}
	return nil
}

func checkField(p message.Proto, name string, values []string) *refusal {
	if !validToken(name) {
		return bad("bad_field_name", "a field name is not a token")
	}
	if strings.Contains(name, "_") && collides(name) {
		return bad("field_name_collision", "a name that some origins read as a framing, host or forwarding field")
	}
	for _, v := range values {
		if !validValue(v) {
			return bad("control_byte", "a field value has a control byte")
		}
	}
	switch name {
	case "Content-Length":
		if len(values) != 1 || !digits(values[0]) {
			return bad("bad_content_length", "Content-Length is not one decimal number")
		}
	case "Expect":
		if len(values) != 1 || !strings.EqualFold(values[0], "100-continue") {
			return &refusal{http.StatusExpectationFailed, "expectation_failed", "an expectation other than 100-continue (RFC 9110 section 10.1.1)"}
		}
	case "Connection":
		if p >= message.HTTP2 {
			return bad("connection_field", "a connection-specific field (RFC 9113 section 8.2.2)")
		}
		return checkConnection(values)
	case "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade":
		if p >= message.HTTP2 {
			return bad("connection_field", "a connection-specific field (RFC 9113 section 8.2.2)")
		}
	case "Te":
		if p >= message.HTTP2 && (len(values) != 1 || !strings.EqualFold(values[0], "trailers")) {
			return bad("connection_field", "TE other than trailers (RFC 9113 section 8.2.2)")
		}
	}
	return nil
}

// collides says whether a name with underscores is that of a framing, host or forwarding
// field to an origin that reads "_" as "-", as CGI does.
func collides(name string) bool {
	switch message.KnownID([]byte(strings.ReplaceAll(name, "_", "-"))) {
	case message.ContentLength, message.TransferEncoding, message.ProxyConnection, message.ProxyAuthorization,
		message.XForwardedFor, message.XForwardedHost, message.XForwardedProto, message.XRealIP:
		return true
	}
	return false
}

// checkConnection sees that Connection names no field that is not for one hop.
func checkConnection(values []string) *refusal {
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.Trim(item, " \t"); item == "" {
				continue
			}
			if !validToken(item) {
				return bad("bad_connection", "Connection is not a list of tokens")
			}
			switch message.KnownID([]byte(item)) {
			case message.Other, message.KeepAlive, message.Upgrade, message.TE, message.Trailer, message.ProxyConnection,
				message.Connection, message.ProxyAuthorization, message.ProxyAuthenticate:
			default:
				return bad("bad_connection", "Connection names a field that is not for one hop (RFC 9110 section 7.6.1)")
			}
		}
	}
	return nil
}

// asksUpgrade says whether Connection names Upgrade.
func asksUpgrade(r *http.Request) bool {
	for _, v := range r.Header["Connection"] {
		if hasToken([]byte(v), "upgrade") {
			return true
		}
	}
	return false
}

// content sets the body, the trailer and the control.
func (c *call) content(ctx context.Context, h *connHandler, out *writer) *refusal {
	q, r := &c.req, out.r
	if q.Has(message.Upgrade) && q.Proto < message.HTTP2 && (q.Proto == message.HTTP10 || r.ContentLength != 0 || !asksUpgrade(r)) {
		q.Del(message.Upgrade) // it does not count (RFC 9110 section 7.8)
	}
	c.ctl = control{w: out.w, proto: q.Proto}
	q.Control = &c.ctl
	q.ContentLength = r.ContentLength
	if limit := h.a.cfg.Limits.BodyBytes; limit > 0 && r.ContentLength > limit {
		return &refusal{http.StatusRequestEntityTooLarge, "body_too_large", "Content-Length is over the limit"}
	}
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		q.ContentLength = 0
		return nil
	}
	c.body.begin(ctx, h.a.cfg, out, &c.trailer)
	if q.Proto == message.HTTP3 && r.ContentLength < 0 && q.Method.Safe() {
		// In HTTP/3 only the end of the stream says that there is no body. Safe requests
		// seldom have one, so it is worth the wait to know: they may be cached and retried.
		if !c.body.peek(ctx) {
			q.ContentLength = 0
			return nil
		}
	}
	if q.Proto < message.HTTP2 && r.ContentLength < 0 {
		// Net/http hides a Content-Length beside chunked, and would take the bytes that it
		// meant for another request (RFC 9112 section 6.1).
		out.close = true
	}
	q.Body, q.Trailer = &c.body, &c.trailer
	return nil
}
