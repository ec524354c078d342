// Package route finds the site and the route of a request, and makes the request that is
// sent to the origin.
//
// Stage stands first: it lends the normal form of host and path, on which all rules after it
// work, and applies the route's filters to the answer. Forward stands after the cache: it
// answers redirects and fixed responses, chooses one of the route's pools and builds
// Exchange.Out. Neither does anything to a visitor with a basket that it does not do to
// others, but that such a visitor keeps to one pool of a weighted route.
package route

import (
	"bytes"
	"context"
	"slices"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// Table finds the site of a host; *snapshot.Current is one.
type Table interface {
	// Site finds the site that serves a host (lower case, without port) on a listener; nil
	// when there is none.
	Site(host []byte, listener string) (*snapshot.Site, error)
	// Organization names the owner of the site that Site would find; empty when there is none.
	Organization(host []byte, listener string) string
}

// Stage finds the site and the route.
type Stage struct {
	slotted
	table Table
}

var _ stage.Stage = (*Stage)(nil)

// New returns the stage. Its part of a site is also used by Forward.
func New(slot stage.Slot, table Table) *Stage { return &Stage{slotted{slot}, table} }

// Name implements stage.Stage.
func (s *Stage) Name() string { return "route" }

// part is what a site's routes were made into.
type part struct {
	routes []compiled
	https  *v1.HTTPS // nil where requests in clear are served
}

type compiled struct {
	matches   []matcher
	listeners []string
	response  *headerFilter
	forward   []forwardPool
	weights   uint64 // sum
	redirect  *redirect
	respond   *v1.Respond
	body      []byte // of respond
}

// Compile implements stage.Compiler.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	p := &part{routes: make([]compiled, len(site.Routes))}
	if h := &site.Spec.HTTPS; h.Redirect {
		p.https = h
	}
	for i := range site.Routes {
		spec := site.Routes[i].Spec
		c := &p.routes[i]
		c.listeners = spec.Listeners
		for j := range spec.Match {
			m, err := compileMatch(&spec.Match[j])
			if err != nil {
				return nil, err
			}
			c.matches = append(c.matches, m)
		}
		c.response = compileHeaders(spec.Filters.ResponseHeaders)
		if c.respond = spec.Respond; c.respond != nil {
			c.body = []byte(c.respond.Body)
		}
		c.redirect = compileRedirect(spec)
		if err := compilePools(c, spec); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Errors of this stage.
var (
	errHost      = &stage.Error{Code: "http_request_error", Side: stage.SideClient, Status: 400}
	errPath      = &stage.Error{Code: "http_request_error", Side: stage.SideClient, Status: 400}
	errNoSite    = &stage.Error{Code: "site_not_found", Side: stage.SideClient, Status: 404}
	errMisdirect = &stage.Error{Code: "site_not_found", Side: stage.SideClient, Status: 421}
	errNoRoute   = &stage.Error{Code: "route_not_found", Side: stage.SideTenant, Status: 404}
	errMethod    = &stage.Error{Code: "http_request_denied", Side: stage.SideEdge, Status: 501}
)

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	listener := ""
	if x.In.Conn != nil {
		listener = x.In.Conn.Listener
	}
	if err := s.findSite(x, listener); err != nil {
		return nil, err
	}
	p := x.Site.Parts[s.slot].(*part)
	if p.https != nil {
		if resp, err := toHTTPS(x, p.https); resp != nil || err != nil {
			return resp, err
		}
	}
	if !p.find(x, listener) {
		return nil, errNoRoute
	}
	x.Mark("route", x.Route.Name)
	resp, err := next.Serve(ctx, x)
	if err != nil {
		return nil, err
	}
	if f := p.routes[x.Route.Index].response; f != nil {
		f.apply(s.local(x), x, &resp.Fields, resp.Status)
	}
	return resp, nil
}

func (s *Stage) findSite(x *stage.Exchange, listener string) error {
	if x.In.Method == message.CONNECT || x.In.Method == message.TRACE {
		return errMethod
	}
	if !setHost(x) {
		return errHost
	}
	if raw := x.In.Path(); plainPath(raw) {
		x.Path = raw
	} else if !setPath(x, raw) {
		return errPath
	}
	site, err := s.table.Site(x.Host, listener)
	if err != nil {
		return err
	}
	if site == nil {
		if x.In.Secure {
			return errMisdirect // RFC 9110 section 15.5.20: perhaps another connection serves it
		}
		return errNoSite
	}
	if t := x.In.Conn; t != nil && t.TLS != nil && !s.directed(x.Host, t.TLS.ServerName, site, listener) {
		return errMisdirect
	}
	x.Site = site
	return nil
}

// find finds the first route that takes x.
func (p *part) find(x *stage.Exchange, listener string) bool {
	for i := range p.routes {
		if p.routes[i].takes(x, listener) {
			x.Route = &x.Site.Routes[i]
			return true
		}
	}
	return false
}

// directed says whether a request may come on a connection that was opened for a server name: for
// that name, or for any other site of its organization, which HTTP/2 clients put on one connection
// (RFC 9113 section 9.1.1). A name that no site has stands for nobody.
func (s *Stage) directed(host []byte, name string, site *snapshot.Site, listener string) bool {
	if name == "" || string(host) == name {
		return true
	}
	var b [255]byte
	owner := s.table.Organization(append(b[:0], name...), listener)
	return owner == "" || owner == site.Organization
}

func (c *compiled) takes(x *stage.Exchange, listener string) bool {
	if c.listeners != nil && !slices.Contains(c.listeners, listener) {
		return false
	}
	for i := range c.matches {
		if c.matches[i].matches(x) {
			return true
		}
	}
	return len(c.matches) == 0
}

// setPath keeps the normal form of the path; "*" stays as it is.
func setPath(x *stage.Exchange, raw []byte) bool {
	if string(raw) == "*" {
		x.Path = raw
		return true
	}
	if len(raw) == 0 || raw[0] != '/' {
		return false
	}
	n, ok := NormalizePath(x.PathMemory(), raw)
	if ok {
		x.KeepPath(n)
	}
	return ok
}

// setHost keeps the authority's host in lower case, without brackets, port and last dot.
// The protocols have checked its syntax (RFC 3986 section 3.2.2).
func setHost(x *stage.Exchange) bool {
	h := x.In.Authority()
	if len(h) > 0 && h[0] == '[' {
		end := bytes.IndexByte(h, ']')
		if end < 0 {
			return false
		}
		h = h[1:end]
	} else if i := bytes.LastIndexByte(h, ':'); i >= 0 {
		h = h[:i]
	}
	if n := len(h); n > 0 && h[n-1] == '.' {
		h = h[:n-1]
	}
	for _, c := range h {
		if c >= 'A' && c <= 'Z' {
			x.SetHost(h)
			for i, c := range x.Host {
				if c >= 'A' && c <= 'Z' {
					x.Host[i] = c | 0x20
				}
			}
			return true
		}
	}
	x.Host = h
	return true // empty only where HTTP/1.0 names none
}
