package edge

import (
	"html"
	"strconv"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/maintenance"
	"github.com/relais-edge/relais/internal/edge/route"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// manners are what the front does for a site on every answer and every page.
type manners struct {
	hsts   []byte // Strict-Transport-Security; empty for none
	closed *contents
	codes  map[int]*contents
	class  [6]*contents
}

// contents are the forms of one page.
type contents struct{ html, json, text []v1.Segment }

// mannersOf compiles a site's manners.
type mannersOf struct{}

// Compile implements stage.Compiler.
func (mannersOf) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	s := site.Spec
	if s.HTTPS.HSTS == nil && s.Maintenance == nil && len(s.ErrorPages) == 0 {
		return nil, nil
	}
	m := &manners{hsts: strictTransport(s.HTTPS.HSTS), codes: map[int]*contents{}}
	if s.Maintenance != nil {
		m.closed = compilePage(&s.Maintenance.Page)
	}
	for i := range s.ErrorPages {
		c := compilePage(&s.ErrorPages[i].Page)
		for _, status := range s.ErrorPages[i].Statuses {
			if n, err := strconv.Atoi(status); err == nil {
				m.codes[n] = c
			} else if class := status[0] - '0'; class < 6 {
				m.class[class] = c
			}
		}
	}
	return m, nil
}

func compilePage(p *v1.Page) *contents {
	return &contents{v1.Template(p.HTML), v1.Template(p.JSON), v1.Template(p.Text)}
}

// strictTransport is the field's value (RFC 6797 section 6.1).
func strictTransport(h *v1.HSTS) []byte {
	if h == nil {
		return nil
	}
	b := strconv.AppendInt([]byte("max-age="), int64(v1.Value(h.MaxAge).Std().Seconds()), 10)
	if h.IncludeSubDomains {
		b = append(b, "; includeSubDomains"...)
	}
	if h.Preload {
		b = append(b, "; preload"...)
	}
	return b
}

func mannersFor(x *stage.Exchange) *manners {
	if x == nil || x.Site == nil || int(slotManners) >= len(x.Site.Parts) {
		return nil
	}
	m, _ := x.Site.Parts[slotManners].(*manners)
	return m
}

// secure tells a visitor who came with TLS to come so again. A field of the origin gives way:
// there may be only one (RFC 6797 section 8.1).
func (m *manners) secure(x *stage.Exchange, resp *message.Response) {
	if m != nil && len(m.hsts) > 0 && route.Secure(x) {
		resp.Set(message.StrictTransportSecurity, m.hsts)
	}
}

// page finds the site's own page for an error; nil for none.
func (m *manners) page(e *stage.Error) *contents {
	if m == nil {
		return nil
	}
	if e.Code == maintenance.Code && m.closed != nil && m.closed.some() {
		return m.closed
	}
	if c := m.codes[e.Status]; c != nil {
		return c
	}
	if class := e.Status / 100; class < len(m.class) {
		return m.class[class]
	}
	return nil
}

func (c *contents) some() bool { return c.html != nil || c.json != nil || c.text != nil }

// escape says how a variable's value is written into a form.
type escape func(string) string

func escapeJSON(s string) string {
	q := strconv.QuoteToASCII(s) // of what a host can hold, JSON and Go escape the same
	return q[1 : len(q)-1]
}

func escapeNothing(s string) string { return s }

var escapeHTML escape = html.EscapeString

// expand writes a form with its variables.
func expand(segments []v1.Segment, x *stage.Exchange, e *stage.Error, esc escape) []byte {
	var out []byte
	for i := range segments {
		switch segments[i].Variable {
		case v1.VarRequestID:
			out = append(out, x.ID.String()...)
		case v1.VarRequestHost:
			out = append(out, esc(string(x.Host))...)
		case v1.VarResponseStatus:
			out = strconv.AppendInt(out, int64(e.Status), 10)
		case "":
			out = append(out, segments[i].Text...)
		default: // a variable of header values only: as it was written
			out = append(append(append(out, "${"...), segments[i].Variable...), '}')
		}
	}
	return out
}
