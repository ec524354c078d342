// Package hints sends early hints (RFC 8297): while the origin still makes a page, the browser
// learns from a 103 what the page asked for the last time.
//
// What is sent are Link fields of earlier answers for the same site, route, host and path:
// preload, modulepreload and preconnect, to the site's own host or below it. They are
// learned only from answers that anybody might have got: 200, HTML, without Set-Cookie, private
// and no-store, to requests without credentials. They are sent to navigations over HTTP/2 and
// HTTP/3 only, as browsers take them from there.
//
// The stage stands below the cache: a stored page needs no hint. Interim answers of the origin
// pass beside this stage as they are. To visitors with a basket it does what it does to all.
package hints

import (
	"bytes"
	"context"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// Stage learns and sends early hints. It implements stage.Stage and stage.Compiler.
type Stage struct {
	slot  stage.Slot
	table table
	sent  observe.Counter
}

var (
	_ stage.Stage    = (*Stage)(nil)
	_ stage.Compiler = (*Stage)(nil)
)

// New returns the stage.
func New(slot stage.Slot, m *observe.Registry) *Stage {
	return &Stage{
		slot: slot, table: newTable(m.Counters("relais_hints_evicted_total", "Pages whose early hints made room for others.", 1).With()),
		sent: m.Counters("relais_hints_sent_total", "Early hints (103) that the edge sent of its own.", 1).With(),
	}
}

// Name implements stage.Stage.
func (s *Stage) Name() string { return "hints" }

// part says for each route whether it has early hints.
type part struct{ routes []bool }

// Compile implements stage.Compiler. What was learned is the stage's own and outlives sites.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	p, some := &part{make([]bool, len(site.Routes))}, false
	for i := range site.Routes {
		if on := site.Routes[i].Spec.EarlyHints; on != nil && *on {
			p.routes[i], some = true, true
		}
	}
	if !some {
		return nil, nil
	}
	return p, nil
}

// local is what the stage keeps in an exchange from one request to the next.
type local struct {
	key, links []byte
	fields     message.Fields
}

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	p, _ := x.Site.Parts[s.slot].(*part)
	if p == nil || !p.routes[x.Route.Index] || x.In.Method != message.GET {
		return next.Serve(ctx, x)
	}
	l, _ := x.Local[s.slot].(*local)
	if l == nil {
		l = new(local)
		x.Local[s.slot] = l
	}
	l.key = append(append(l.key[:0], x.Route.Name...), 0)
	l.key = append(append(append(l.key, x.Host...), 0), x.Path...)
	if navigates(x.In) {
		if links := s.table.get(x.Site.Key, l.key); links != "" {
			l.fields.Reset()
			l.fields.AddString(message.Link, links)
			x.Inform(103, &l.fields)
			x.Mark("hints", "early")
			s.sent.Inc()
		}
	}
	resp, err := next.Serve(ctx, x)
	if err == nil && page(x.In, resp) {
		l.links = appendLinks(l.links[:0], &resp.Fields, x.Host)
		s.table.put(x.Site.Key, l.key, l.links)
	}
	return resp, err
}

// navigates says whether a browser shows the answer to its user (Fetch Metadata). Who has the
// page already and asks whether it is still good needs no hint.
func navigates(in *message.Request) bool {
	return in.Proto >= message.HTTP2 && string(in.Get(message.SecFetchMode)) == "navigate" &&
		!in.Has(message.IfNoneMatch) && !in.Has(message.IfModifiedSince)
}

// page says whether an answer's Link fields may be told to others.
func page(in *message.Request, resp *message.Response) bool {
	return resp.Status == 200 && !resp.Has(message.SetCookie) && !in.Has(message.Authorization) &&
		isHTML(resp.Get(message.ContentType)) && !personal(&resp.Fields)
}

func isHTML(v []byte) bool {
	name, _, _ := bytes.Cut(v, []byte{';'})
	return message.EqualFold(bytes.TrimSpace(name), "text/html")
}

// personal looks for private and no-store, with fields or without.
func personal(f *message.Fields) bool {
	for i := f.Next(message.CacheControl, 0); i >= 0; i = f.Next(message.CacheControl, i+1) {
		_, _, v := f.At(i)
		for len(v) > 0 {
			var d []byte
			d, v = syntax.NextItem(v)
			d, _, _ = bytes.Cut(d, []byte{'='})
			if d = syntax.Trim(d); message.EqualFold(d, "private") || message.EqualFold(d, "no-store") {
				return true
			}
		}
	}
	return false
}
