package encode

import (
	"context"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Own is the stage for answers that no origin made and that never come down to Stage: what a route
// responds with. It stands below the cache too. It implements stage.Stage.
type Own struct{ s *Stage }

var _ stage.Stage = Own{}

// Own returns the stage for the edge's own answers.
func (s *Stage) Own() Own { return Own{s} }

// Name implements stage.Stage.
func (Own) Name() string { return "encode-own" }

// Serve implements stage.Stage.
func (o Own) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	resp, err := next.Serve(ctx, x)
	if err != nil || x.Forwarding || len(resp.Bytes) == 0 {
		return resp, err
	}
	if r := o.s.rule(x); r != nil {
		o.s.whole(x, r, r.level, resp, &r.made)
	}
	return resp, nil
}

// Page compresses an error page, with the least work: it is made once for each visitor. The pages of
// 403 and 429 stay as they are, since they must cost little in a flood.
func (s *Stage) Page(x *stage.Exchange, resp *message.Response) {
	if resp.Status == 403 || resp.Status == 429 || len(resp.Bytes) == 0 {
		return
	}
	if r := s.rule(x); r != nil {
		s.whole(x, r, fast, resp, nil)
	}
}

// rule is that of the exchange's route, or the site's first where no route was found; nil for none.
func (s *Stage) rule(x *stage.Exchange) *rule {
	if x.Site == nil || int(s.slot) >= len(x.Site.Parts) {
		return nil
	}
	p, _ := x.Site.Parts[s.slot].(*part)
	switch {
	case p == nil:
		return nil
	case x.Route == nil:
		return p.first
	}
	return p.routes[x.Route.Index]
}

// made keeps what a route responds with, in each coding: it is the same each time.
type made [codings]atomic.Pointer[version]

// version is a body and its coded form; nil when that would be longer.
type version struct{ plain, coded []byte }

// of says whether v is made of b itself, and not of bytes that are equal.
func (v *version) of(b []byte) bool {
	return v != nil && len(v.plain) == len(b) && &v.plain[0] == &b[0]
}

// whole puts an answer that is in memory into a coding. Kept may be nil.
func (s *Stage) whole(x *stage.Exchange, r *rule, l level, resp *message.Response, kept *made) {
	if !r.fits(resp) || resp.Has(message.ETag) {
		return
	}
	addVary(&resp.Fields)
	c := choose(&x.In.Fields, r.prefer, r.shared)
	if c == identity {
		return
	}
	var v *version
	if kept != nil {
		v = kept[c].Load()
	}
	if !v.of(resp.Bytes) {
		coded, ok := s.compress(resp.Bytes, c, l)
		if !ok {
			s.busy.Inc()
			x.Mark("encode", "busy")
			return
		}
		v = &version{resp.Bytes, coded}
		if kept != nil {
			kept[c].Store(v)
		}
	}
	if v.coded == nil {
		return
	}
	s.answers[c].Inc()
	x.Mark("encode", codingNames[c])
	resp.SetBytes(v.coded)
	resp.AddString(message.ContentEncoding, codingNames[c])
}

// compress returns b in a coding, nil when that is no shorter; false when too many are at it.
func (s *Stage) compress(b []byte, c coding, l level) (coded []byte, ok bool) {
	out := &buffer{b: make([]byte, 0, len(b))}
	enc := s.encoders.take(c, l, false, out)
	if enc == nil {
		return nil, false
	}
	defer s.encoders.give(enc, c, l, false)
	if _, err := enc.Write(b); err != nil || enc.Close() != nil || len(out.b) >= len(b) {
		return nil, true
	}
	s.count(c, len(b), len(out.b))
	return out.b, true
}
