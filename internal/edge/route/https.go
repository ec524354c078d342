package route

import (
	"bytes"
	"strconv"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// acme is where certificate authorities ask for proof, in clear (RFC 8555 section 8.3).
const acme = "/.well-known/acme-challenge/"

// Secure says whether the visitor came with TLS: to us, or to a trusted proxy that says so.
func Secure(x *stage.Exchange) bool {
	if x.In.Secure {
		return true
	}
	return x.PeerTrusted && message.EqualFold(x.In.Get(message.XForwardedProto), "https")
}

// toHTTPS answers a request in clear with the same URL over TLS; nil where it is to be served.
// GET and HEAD get 301, which every client knows; all others 308, with which the method and
// the content stay: an order that came in clear is sent again, not lost.
func toHTTPS(x *stage.Exchange, h *v1.HTTPS) (*message.Response, error) {
	if Secure(x) || len(x.Path) == 0 || x.Path[0] != '/' || bytes.HasPrefix(x.Path, []byte(acme)) {
		return nil, nil
	}
	if len(x.Host) == 0 {
		return nil, errHost // HTTP/1.0 without a host: there is no URL to name
	}
	to := appendHost(append(make([]byte, 0, 256), "https://"...), x.Host)
	if port := portOfHTTPS(x, h.Port); port != 0 {
		to = strconv.AppendInt(append(to, ':'), int64(port), 10)
	}
	to = append(to, x.In.Path()...)
	if x.In.HasQuery() {
		to = append(append(to, '?'), x.In.Query()...)
	}
	resp := &x.Response
	resp.Reset()
	resp.Status = 308
	if x.In.Method == message.GET || x.In.Method == message.HEAD {
		resp.Status = 301
	}
	resp.Add(message.Location, to)
	resp.SetBytes(nil)
	x.Mark("route", "https")
	return resp, nil
}

// portOfHTTPS is the port to write, 0 for the scheme's own. Who came to port 80 while we
// listen on another came through a mapping of ports, which then maps that of https too.
func portOfHTTPS(x *stage.Exchange, port int) int {
	a := x.In.Authority()
	i := bytes.LastIndexByte(a, ':')
	named := i >= 0 && bytes.IndexByte(a[i:], ']') < 0
	if port == 443 || !named && x.In.Conn != nil && x.In.Conn.Local.Port() != 80 {
		return 0
	}
	return port
}
