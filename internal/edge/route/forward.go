package route

import (
	"bytes"
	"context"
	"strconv"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
	"github.com/relais-edge/relais/internal/stage"
)

// Forward makes the request that is sent to the origin.
type Forward struct {
	slotted
	cookies Cookies
}

// Cookies takes out of a request what is between the visitor and us.
type Cookies interface {
	Strip(x *stage.Exchange, f *message.Fields)
}

var _ stage.Stage = (*Forward)(nil)

// NewForward returns the stage; slot is that of Stage.
func NewForward(slot stage.Slot, cookies Cookies) *Forward { return &Forward{slotted{slot}, cookies} }

// Name implements stage.Stage.
func (f *Forward) Name() string { return "forward" }

var errNoWeight = &stage.Error{Code: "destination_unavailable", Side: stage.SideTenant, Status: 503}

// Serve implements stage.Stage.
func (f *Forward) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	c := &x.Site.Parts[f.slot].(*part).routes[x.Route.Index]
	switch {
	case c.respond != nil:
		return respond(x, c.respond, c.body), nil
	case c.redirect != nil:
		return c.answerRedirect(x), nil
	}
	p := c.choose(x)
	if p == nil {
		return nil, errNoWeight
	}
	x.Pool = p.name
	if err := f.build(x, c, p); err != nil {
		return nil, err
	}
	x.MayBlock()
	resp, err := next.Serve(ctx, x)
	if err == nil && p.response != nil {
		p.response.apply(f.local(x), x, &resp.Fields, resp.Status)
	}
	return resp, err
}

func respond(x *stage.Exchange, r *v1.Respond, body []byte) *message.Response {
	resp := &x.Response
	resp.Reset()
	resp.Status = r.Status
	if r.Body != "" {
		resp.AddString(message.ContentType, r.ContentType)
	}
	resp.SetBytes(body)
	x.Mark("forward", "respond")
	return resp
}

// choose picks a pool by weight: at random, but always the same for a visitor with a basket.
func (c *compiled) choose(x *stage.Exchange) *forwardPool {
	if len(c.forward) == 1 {
		return &c.forward[0]
	}
	if c.weights == 0 {
		return nil
	}
	n := x.Visitor.Key
	if x.Visitor.Class != stage.Protected {
		n = x.Chance()
	}
	n %= c.weights
	for i := range c.forward {
		if p := &c.forward[i]; n < p.weight {
			return p
		} else {
			n -= p.weight
		}
	}
	return nil
}

// build makes x.Out from x.In.
func (f *Forward) build(x *stage.Exchange, c *compiled, p *forwardPool) error {
	out := &x.Out
	out.CopyFrom(x.In)
	if x.Narrowed() {
		if out.ClearQuery(); len(x.Query()) > 0 {
			out.SetQuery(x.Query())
		}
	}
	if p.path.regex != nil {
		path, err := p.path.regex.rewritePath(f.local(x), x.Path)
		if err != nil {
			return err
		}
		out.SetPath(path)
	} else if p.path.changes() {
		path, prefix := c.matched(x)
		out.SetPath(p.path.append(nil, path, prefix))
	} else if !bytes.Equal(x.Path, x.In.Path()) {
		out.SetPath(x.Path)
	}
	if p.host != nil {
		out.SetAuthority(p.host)
	}
	for _, q := range p.query {
		q.apply(f.local(x), out)
	}
	removeHopByHop(out)
	f.cookies.Strip(x, &out.Fields)
	addForwarded(x, out)
	for _, h := range p.request {
		h.apply(f.local(x), x, &out.Fields, 0)
	}
	x.Forwarding = true
	return nil
}

// matched lends the path of x that a prefix of the route matches, and that prefix.
func (c *compiled) matched(x *stage.Exchange) (path []byte, prefix string) {
	for i := range c.matches {
		if m := &c.matches[i]; m.hasPrefix && m.matches(x) {
			path, _ = m.pathOf(x)
			return path, m.prefix
		}
	}
	return x.Path, ""
}

// removeHopByHop removes what is for one connection only (RFC 9110 section 7.6.1) and what
// is for us. Upgrade stays where Connection asks for it, TE where it says trailers: the
// protocol that sends writes the Connection field they need.
func removeHopByHop(out *message.Request) {
	upgrade := false
	for i := out.Next(message.Connection, 0); i >= 0; i = out.Next(message.Connection, i+1) {
		_, _, v := out.At(i)
		for len(v) > 0 {
			var name []byte
			name, v = syntax.NextItem(v)
			switch id := message.KnownID(name); id {
			case message.Upgrade:
				upgrade = true
			case message.Connection, message.KeepAlive, message.TE:
			case message.Other:
				if !message.EqualFold(name, "close") && out.DelLine(string(name)) {
					i = -1 // the lines have moved
				}
			default:
				if out.Del(id) {
					i = -1
				}
			}
		}
	}
	if !upgrade {
		out.Del(message.Upgrade)
	}
	for _, id := range [...]message.ID{message.Connection, message.KeepAlive, message.ProxyConnection, message.ProxyAuthorization, message.TransferEncoding} {
		out.Del(id)
	}
	if te := out.Get(message.TE); te != nil && !message.EqualFold(te, "trailers") {
		out.Del(message.TE)
	}
}

// addForwarded tells the origin who asks. What a peer that is not trusted says of itself is dropped.
func addForwarded(x *stage.Exchange, out *message.Request) {
	peer := x.Client
	if x.PeerTrusted && x.In.Conn != nil {
		peer = x.In.Conn.Client
	} else {
		out.Del(message.XForwardedFor)
		out.Del(message.Forwarded)
		out.Del(message.XRealIP)
		out.Del(message.XForwardedHost)
		out.Del(message.XForwardedProto)
		if x.ClientField != "" {
			out.DelLine(x.ClientField)
		}
	}
	if t := x.In.Conn; !x.PeerTrusted && (t == nil || t.TLS == nil || t.TLS.ClientCert == "") {
		out.DelLine("Client-Cert") // RFC 9440 section 2.4
		out.DelLine("Client-Cert-Chain")
	}
	var text [48]byte
	addr := peer.AppendTo(text[:0])
	if i := out.Next(message.XForwardedFor, 0); i >= 0 {
		_, _, old := out.At(i)
		out.Begin(message.XForwardedFor)
		out.AppendBytes(old)
		out.Append(", ")
		out.AppendBytes(addr)
		out.End()
		out.DelAt(i)
	} else {
		out.Add(message.XForwardedFor, addr)
	}
	if !out.Has(message.XForwardedProto) {
		out.AddString(message.XForwardedProto, schemeOf(x.In.Secure))
	}
	if !out.Has(message.XForwardedHost) {
		out.Add(message.XForwardedHost, x.In.Authority())
	}
	out.AddString(message.Via, via[x.In.Proto])
	out.Set(message.XRequestId, x.IDText())
}

// via is our own entry by the version received (RFC 9110 section 7.6.3).
var via = [...]string{message.HTTP10: "1.0 relais", message.HTTP11: "1.1 relais", message.HTTP2: "2 relais", message.HTTP3: "3 relais"}

// answerRedirect answers with a redirection to the request's URL with some parts replaced.
func (c *compiled) answerRedirect(x *stage.Exchange) *message.Response {
	r := c.redirect.spec
	scheme := r.Scheme
	if scheme == "" {
		scheme = schemeOf(x.In.Secure)
	}
	to := append(make([]byte, 0, 256), scheme...)
	to = append(to, "://"...)
	if r.Hostname != "" {
		to = append(to, r.Hostname...)
	} else {
		to = appendHost(to, x.Host)
	}
	if port := redirectPort(x, r, scheme); port != "" {
		to = append(append(to, ':'), port...)
	}
	path, prefix := c.matched(x)
	to = c.redirect.path.append(to, path, prefix)
	if x.In.HasQuery() {
		to = append(append(to, '?'), x.In.Query()...)
	}
	resp := &x.Response
	resp.Reset()
	resp.Status = r.Status
	resp.Add(message.Location, to)
	resp.SetBytes(nil)
	x.Mark("forward", "redirect")
	return resp
}

func appendHost(dst, host []byte) []byte {
	if bytes.IndexByte(host, ':') >= 0 {
		return append(append(append(dst, '['), host...), ']')
	}
	return append(dst, host...)
}

// redirectPort is the port to write, empty for the scheme's own.
func redirectPort(x *stage.Exchange, r *v1.Redirect, scheme string) string {
	port := ""
	switch {
	case r.Port != 0:
		port = strconv.Itoa(r.Port)
	case r.Scheme == "" || (r.Scheme == "https") == x.In.Secure:
		a := x.In.Authority()
		if i := bytes.LastIndexByte(a, ':'); i >= 0 && bytes.IndexByte(a[i:], ']') < 0 {
			port = string(a[i+1:])
		}
	}
	if port == "80" && scheme == "http" || port == "443" && scheme == "https" {
		return ""
	}
	return port
}
