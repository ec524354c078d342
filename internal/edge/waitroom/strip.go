package waitroom

import (
	"github.com/relais-edge/relais/internal/edge/cookie"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Strip removes the tickets of x's site from the fields f of a request, which an origin has no use for.
func (s *Stage) Strip(x *stage.Exchange, f *message.Fields) {
	pt, _ := x.Site.Parts[s.cfg.Slot].(*part)
	if pt == nil {
		return
	}
	for _, h := range pt.headers {
		f.DelLine(h)
	}
	if !f.Has(message.Cookie) {
		return
	}
	m := s.memory(x)
	m.buf = cookie.Strip(m.buf, f, pt.names)
}
