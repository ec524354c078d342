package encode

import (
	"context"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
	"github.com/relais-edge/relais/internal/stage"
)

// Ranges is the stage that says of which representation a range is: it stands above the cache, so that
// a range is the same whether it is stored or not. It implements stage.Stage.
//
// A range of what the edge compresses would be of bytes that no other edge, and no later moment, has.
// So where a client asks for a range and accepts a coding that the edge makes, it gets the range of the
// plain representation, which an origin's range is of too: the request goes on as if it accepted no
// coding. If-Range can name that representation only by its strong tag. A weak one never matches (RFC
// 9110 section 13.1.5), and a date may be that of a compressed answer of which the client has the
// beginning: then Range is ignored, and the answer is whole, and compressed as ever.
type Ranges struct{ s *Stage }

var _ stage.Stage = Ranges{}

// Ranges returns the stage for ranges.
func (s *Stage) Ranges() Ranges { return Ranges{s} }

// Name implements stage.Stage.
func (Ranges) Name() string { return "encode-ranges" }

// Serve implements stage.Stage.
func (r Ranges) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	if x.In.Method == message.GET && x.In.Has(message.Range) {
		r.settle(x)
	}
	return next.Serve(ctx, x)
}

// settle makes a request for a range one for the plain representation, or for the whole.
func (r Ranges) settle(x *stage.Exchange) {
	f := &x.In.Fields
	has := f.Has(message.IfRange)
	_, weak, ok := syntax.EntityTag(f.Get(message.IfRange))
	if has && ok && weak {
		unrange(x)
		return
	}
	rule := r.s.rule(x)
	if rule == nil || choose(f, rule.prefer, rule.shared) == identity {
		return
	}
	if w, _ := weigh(f); w[identity] == 0 || has && !ok || f.Count(message.IfRange) > 1 {
		unrange(x)
		return
	}
	f.Del(message.AcceptEncoding)
	f.AddString(message.AcceptEncoding, "identity")
	x.Mark("encode", "range")
}

// unrange takes the range off a request.
func unrange(x *stage.Exchange) {
	x.In.Del(message.Range)
	x.In.Del(message.IfRange)
	x.Mark("encode", "no-range")
}
