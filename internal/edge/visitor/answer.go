package visitor

import (
	"math/rand/v2"
	"time"

	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func success(r *message.Response) bool { return r != nil && r.Status >= 200 && r.Status < 400 }

// answer is what decides over a visitor's next token.
type answer struct {
	pt        *part
	p         *policy
	t         token
	r         *message.Response
	step      stage.Step
	confirmed bool // the origin said so
	emptied   bool // the origin said that there is no basket any more
	asked     bool // the visitor wants a field and no cookie
}

// heed takes in what the origin says in its own field, and takes the field off. An answer that no origin
// made just now for this visitor says nothing of it.
func (a *answer) heed(x *stage.Exchange) {
	if a.p.funnel == "" {
		return
	}
	v := a.r.Lookup(a.p.funnel)
	if v == nil {
		return
	}
	if x.Tries > 0 && success(a.r) {
		switch string(v) {
		case "basket":
			a.step, a.confirmed = stage.StepBasket, true
		case "checkout":
			a.step, a.confirmed = stage.StepCheckout, true
		case "ordered":
			a.step, a.confirmed = stage.StepOrder, true
		case "none":
			a.step, a.emptied = stage.StepBrowse, true
		default:
			x.MarkDetail("visitor", "unknown-word", "the origin's field says neither basket, checkout, ordered nor none")
		}
		if (a.confirmed || a.emptied) && !a.p.speaks.Load() {
			a.p.speaks.Store(true)
		}
	}
	a.r.DelLine(a.p.funnel)
}

// answer decides what an answer changes in the visitor's token, and writes it.
func (s *Stage) answer(x *stage.Exchange, a answer) {
	a.heed(x)
	if a.t.id == 0 && a.step == stage.StepBrowse {
		return
	}
	if s.presume != nil {
		a.t.pool = hashName(x.Pool)
	}
	now := x.Start.Unix()
	was := a.t
	outcome := a.change(x, now)
	if outcome < 0 {
		return
	}
	pt := a.pt
	if x.Tries == 0 || x.In.Method.Safe() && shareable(&a.r.Fields) {
		pt.metrics[withheld].Inc()
		return
	}
	if outcome == unproven {
		pt.metrics[unproven].Inc()
		x.Mark("visitor", outcomes[unproven])
		return
	}
	x.Visitor.Ordered = outcome == end && a.step == stage.StepOrder
	if outcome == protect && !s.mayMint(x, &a) {
		outcome = capped
		if was.class != stage.Anonymous { // the token it has is as good
			pt.metrics[capped].Inc()
			x.Mark("visitor", outcomes[capped])
			return
		}
		a.t.class, a.t.paid = stage.Known, false
	}
	if outcome == end && !a.emptied {
		s.credit(x, &a, &was, now)
	}
	a.t.bind(x)
	pt.metrics[outcome].Inc()
	x.Mark("visitor", outcomes[outcome])
	s.write(x, &a, max(0, int64(a.t.expires)-now))
}

// mayMint asks the budgets of the source and its network for a basket.
func (s *Stage) mayMint(x *stage.Exchange, a *answer) bool {
	kind := byPath
	if a.confirmed {
		kind = byWord
	}
	scope := a.pt.hash ^ kind
	return s.mint.Take(s.mint.Address(scope, x.Client), a.p.mint[kind], x.Start) &&
		s.mint.Take(s.mint.Network(scope, x.Client), a.p.mintNet[kind], x.Start)
}

// The budgets of baskets: of those that a path alone tells of, and of those that the origin's word does.
const (
	byPath uint64 = iota
	byWord
)

const (
	// oldEnough is for how many seconds a token must have protected before an order by path gives back what it took.
	oldEnough = 30
	// orderMemory is how long it is remembered that a token's order gave credit.
	orderMemory = 24 * time.Hour
)

// credit gives the source of an order more baskets, once for each token: a farm of baskets has no orders. An order
// that the origin confirms gives what the policy says; one that a path alone tells of, as anybody can ask for the
// path, gives back the one basket that its own token took, so that there is nothing to be gained.
func (s *Stage) credit(x *stage.Exchange, a *answer, was *token, now int64) {
	n := a.p.credit
	if n == 0 || !a.confirmed && !a.earned(x, was, now) ||
		!s.orders.Take(s.orders.Key(a.pt.hash, was.id), budget.Per(1, orderMemory), x.Start) {
		return
	}
	last := byWord
	if !a.confirmed {
		n, last = 1, byPath
	}
	for kind := byPath; kind <= last; kind++ {
		scope := a.pt.hash ^ kind
		s.mint.Credit(s.mint.Address(scope, x.Client), n, maxCredit, x.Start)
		s.mint.Credit(s.mint.Network(scope, x.Client), n, maxCredit, x.Start)
	}
}

// earned says whether an order that only its path tells of looks like one: it was sent and not only looked at, with a
// token that was paid for, has protected for a while and came to the checkout, of an origin that has never said
// itself how far visitors are.
func (a *answer) earned(x *stage.Exchange, was *token, now int64) bool {
	p := a.p
	return !x.In.Method.Safe() && !p.speaks.Load() && was.paid &&
		(was.aged || now-int64(was.issued) >= oldEnough) &&
		(was.reached >= stage.StepCheckout || len(p.steps[stage.StepCheckout]) == 0)
}

// unproven says whether the path of a safe request is all that speaks for a basket. Anybody can have a browser ask for
// a path, so the answer must say that it is for this visitor alone; and nobody has a basket for having looked at the
// checkout, but who was told so when the budget of its source was used up.
func (a *answer) unproven(x *stage.Exchange) bool {
	if a.confirmed || !x.In.Method.Safe() {
		return false
	}
	had := a.t.class == stage.Known && a.t.reached >= stage.StepBasket
	return a.step == stage.StepCheckout && !had || !a.r.Has(message.CacheControl) || shareable(&a.r.Fields)
}

// change makes a.t what it is after the answer. It returns the outcome, or -1 when it stays.
func (a *answer) change(x *stage.Exchange, now int64) int {
	t, p := &a.t, a.p
	ok := success(a.r)
	tier, pool := hashName(x.Tier), hashName(x.Pool)
	protected := t.class == stage.Protected
	fills := ok && (a.step == stage.StepBasket || a.step == stage.StepCheckout)
	switch {
	case a.emptied && protected:
		*t = token{class: stage.Known, issued: uint32(now), expires: uint32(now + p.lifetime), id: t.id}
		return end
	case a.step == stage.StepOrder && ok && protected && !t.final:
		t.final, t.paid, t.aged = true, false, false
		t.reached, t.issued, t.expires = stage.StepOrder, uint32(now), uint32(now+p.grace)
		return end
	case fills && (!protected || t.final):
		if a.unproven(x) {
			return unproven
		}
		if t.id == 0 {
			t.id = rand.Uint64() | 1 // names a visitor; the signature is what protects it
		}
		*t = token{
			class: stage.Protected, reached: a.step, confirmed: a.confirmed, paid: !a.confirmed,
			issued: uint32(now), expires: uint32(now + p.lifetime), id: t.id, pool: pool, tier: tier,
		}
		return protect
	case !protected:
		return -1
	}
	outcome := -1
	if fills && (a.step > t.reached || a.confirmed && !t.confirmed) {
		t.reached, t.confirmed = max(t.reached, a.step), t.confirmed || a.confirmed
		outcome = confirm
	}
	if tier != 0 && (tier != t.tier || pool != t.pool) && (pool == t.pool || fills) {
		t.tier, t.pool = tier, pool
		outcome = move
	}
	if half := int64(t.issued) + (int64(t.expires)-int64(t.issued))/2; !t.final && now >= half {
		t.issued, t.expires, t.aged = uint32(now), uint32(now+p.lifetime), true
		outcome = max(outcome, renew)
	}
	return outcome
}

// shareable says whether a cache in front of the edge may keep an answer to a safe request for
// other visitors (RFC 9111 sections 3 and 4.2.2), on the side of caution.
func shareable(f *message.Fields) bool {
	if !f.Has(message.CacheControl) {
		return f.Has(message.Expires) || f.Has(message.LastModified)
	}
	for i := f.Next(message.CacheControl, 0); i >= 0; i = f.Next(message.CacheControl, i+1) {
		_, _, v := f.At(i)
		if hasDirective(v, "private") || hasDirective(v, "no-store") {
			return false
		}
	}
	return true
}

// hasDirective finds a directive without argument in a Cache-Control line.
func hasDirective(line []byte, name string) bool {
	for len(line) > 0 {
		n := 0
		for n < len(line) && line[n] != ',' {
			n++
		}
		d := line[:n]
		for len(d) > 0 && (d[0] == ' ' || d[0] == '\t') {
			d = d[1:]
		}
		for len(d) > 0 && (d[len(d)-1] == ' ' || d[len(d)-1] == '\t') {
			d = d[:len(d)-1]
		}
		if message.EqualFold(d, name) {
			return true
		}
		line = line[min(n+1, len(line)):]
	}
	return false
}
