package waitroom

import (
	"encoding/binary"
	"time"

	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// visit is what is known of a visitor to a room.
type visit struct {
	ticket
	has    bool   // it carries a ticket that is good
	in     bool   // it may go in
	first  bool   // with a place that nobody came with before
	number uint64 // its place; 0 for none
	asked  bool   // it wants a field and no cookie
}

// memo is what the stage keeps in an exchange: the visit is looked at once, as a place is good for one.
type memo struct {
	id     stage.RequestID
	looked bool
	visit  visit
	buf    []byte
}

func (s *Stage) memory(x *stage.Exchange) *memo {
	m, _ := x.Local[s.cfg.Slot].(*memo)
	if m == nil {
		m = &memo{}
		x.Local[s.cfg.Slot] = m
	}
	if m.id != x.ID {
		m.id, m.looked = x.ID, false
	}
	return m
}

// look reads the ticket of x and says whether it lets x in. It is asked at several steps, and decides at the first.
func (s *Stage) look(x *stage.Exchange, p *policy) *visit {
	m := s.memory(x)
	if !m.looked {
		m.looked, m.visit = true, visit{}
		s.judge(x, p, &m.visit)
	}
	return &m.visit
}

func (s *Stage) judge(x *stage.Exchange, p *policy, v *visit) {
	v.asked = p.header != "" && x.In.Lookup(p.header) != nil
	if v.ticket, v.has = p.read(x); !v.has {
		return
	}
	l := p.room.line
	if v.kind == kindPass {
		v.number = v.ticket.number
		fits, exactly := v.fits(x)
		if seldom := s.spread.Use(s.passKey(p, &v.ticket), x.Client, budget.Fold(x.In.Get(message.UserAgent)), x.Start); !fits || !seldom && !exactly {
			s.copied(x, p, v, "the pass was given to another network and another User-Agent, or is used from four others within ten minutes")
			return
		}
		s.allow(x, p, v)
		return
	}
	if v.number = l.place(&v.ticket); v.number == 0 {
		v.has = false
		return
	}
	if v.guest == 0 && (v.epoch != l.epoch || v.ticket.number > v.number) {
		v.guest = guestOf(&v.ticket)
	}
	if v.number > l.called.Load() {
		return
	}
	ok := false
	if v.guest != 0 {
		// Several of them have one number here, which is that of their time, so that they are told apart by their own.
		ok = s.guests.Use(s.passes.Key(p.hash, uint64(v.guest)), x.Client, budget.Fold(x.In.Get(message.UserAgent)), x.Start)
	} else {
		ok, v.first = l.admit(v.number, whoOf(x, v.number), s.clock.Steady(x.Start))
	}
	if !ok {
		s.copied(x, p, v, "somebody came with this place before")
		return
	}
	s.allow(x, p, v)
}

// allow lets a visitor in, as far as a pass or place is used as one person uses it.
func (s *Stage) allow(x *stage.Exchange, p *policy, v *visit) {
	if v.in = s.passes.Take(s.passKey(p, &v.ticket), passRate(), x.Start); !v.in {
		x.MarkDetail(name, "shared", "the pass is used for more than 20 requests a second")
	}
}

// copied takes a ticket for none: its bearer is at the end of the line, as who comes without one.
func (s *Stage) copied(x *stage.Exchange, p *policy, v *visit, why string) {
	p.metrics[outCopied].Inc()
	x.MarkDetail(name, "copied", why)
	*v = visit{asked: v.asked}
}

// passKey names a ticket in the tables.
func (s *Stage) passKey(p *policy, t *ticket) uint64 {
	return s.passes.Key(p.hash^uint64(t.epoch)<<32^uint64(t.guest), t.number)
}

// passRate is what a pass is good for.
func passRate() budget.Rate { return budget.Per(20, time.Second).Burst(300) }

// guestOf names a place that another edge gave; it is never 0.
func guestOf(t *ticket) uint32 {
	var b [12]byte
	binary.BigEndian.PutUint32(b[:], t.epoch)
	binary.BigEndian.PutUint64(b[4:], t.number)
	return uint32(budget.Fold(b[:])) | 1
}

// hold gives x a place, if it has none, and the page.
func (s *Stage) hold(x *stage.Exchange, p *policy, v *visit) *message.Response {
	now := uint32(s.clock.Unix(x.Start))
	l := p.room.line
	if !v.has {
		if !s.tickets.Take(s.tickets.Address(p.hash, x.Client), p.tickets, x.Start) {
			p.metrics[outCapped].Inc()
			x.MarkDetail(name, "capped", "its address took all the places that one may take in a minute")
			return p.page(x, v, view{refresh: p.refresh, wait: -1})
		}
		v.ticket = ticket{kind: kindPlace, epoch: l.epoch, number: l.take(), arrived: now}
		v.number, v.has = v.ticket.number, true
	}
	if v.kind == kindPlace {
		v.epoch, v.ticket.number, v.expires = l.epoch, v.number, now+placeLife
	}
	if v.kind == kindPass && v.unbound {
		v.network, v.client = budget.Bind(v.ticket.number, x.Client, x.In.Get(message.UserAgent))
	}
	called := l.called.Load()
	w := view{refresh: p.refresh, wait: l.wait(v.number), ticket: true}
	if v.number > called {
		w.position = v.number - called
	}
	w.refresh = p.next(w.wait, l.waiting(), v.in)
	p.metrics[outWaits].Inc()
	x.Mark(name, "waits")
	return p.page(x, v, w)
}

// welcome gives a pass with an answer, at the first time and at half of its life.
func (s *Stage) welcome(x *stage.Exchange, p *policy, v *visit, resp *message.Response) {
	now := s.clock.Unix(x.Start)
	if v.kind == kindPass && int64(v.expires)-now > p.session/2 && !v.unbound {
		return
	}
	if x.In.Method.Safe() && mayBeShared(&resp.Fields) {
		return // the ticket is as good
	}
	if v.kind == kindPlace && (v.guest != 0 || p.room.line.enter(v.number, s.clock.Steady(x.Start))) {
		p.metrics[outComes].Inc()
		x.Mark(name, "comes")
	}
	t := ticket{
		kind: kindPass, epoch: p.room.line.epoch, number: v.number, arrived: v.arrived, expires: uint32(now + p.session), guest: v.guest,
	}
	agent := x.In.Get(message.UserAgent)
	t.network, t.client = budget.Bind(t.number, x.Client, agent)
	s.spread.Use(s.passKey(p, &t), x.Client, budget.Fold(agent), x.Start)
	p.write(x, &resp.Fields, &t, v.asked, p.session)
}
