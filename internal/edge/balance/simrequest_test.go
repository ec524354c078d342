package balance

import (
	"slices"

	"github.com/relais-edge/relais/internal/stage"
	"github.com/relais-edge/relais/internal/virtual"
)

// arrive is a request of somebody at an edge. When an edge is gone its visitors come elsewhere.
func (w *world) arrive(edge int) {
	gap := w.rng.ExpFloat64() / (w.peak * w.shares[edge]) * 1e9
	w.q.Push(virtual.Event{At: w.now + max(1, int64(gap)), Kind: evArrive, ID: int32(edge)})
	if w.rng.Float64()*w.peak > w.rate(w.now-second) {
		return
	}
	at := edge
	for !w.edges[at].alive {
		at = (at + 1 + w.rng.IntN(len(w.edges))) % len(w.edges)
	}
	e := w.edges[at]
	var v int32
	if n := len(e.idle); n > 200 && w.rng.Float64() > 0.15 {
		i := w.rng.IntN(n)
		v = e.idle[i]
		e.idle[i] = e.idle[n-1]
		e.idle = e.idle[:n-1]
	} else {
		v = w.newVisitor(at)
	}
	w.visitors[v].edge = at
	id := w.newRequest()
	r := &w.requests[id]
	r.visitor, r.edge, r.first = v, int32(at), w.now
	if w.files != nil && w.rng.Float64() < w.files(w.now-second) {
		r.kind = fileKind
	}
	if r.order = w.visitors[v].buys && w.visitors[v].step == 8; r.order && w.book != nil {
		r.key = w.book.open()
	}
	w.send(id)
}

func (w *world) newVisitor(edge int) int32 {
	w.nextID++
	v := simVisitor{id: mix(w.nextID), edge: edge, buys: w.rng.Float64() < w.buys}
	if w.rng.Float64() < 0.1 {
		v.step = w.rng.IntN(4)
	}
	if n := len(w.freeV); n > 0 {
		i := w.freeV[n-1]
		w.freeV = w.freeV[:n-1]
		w.visitors[i] = v
		return i
	}
	w.visitors = append(w.visitors, v)
	return int32(len(w.visitors) - 1)
}

func (w *world) newRequest() int32 {
	if n := len(w.freeR); n > 0 {
		i := w.freeR[n-1]
		w.freeR = w.freeR[:n-1]
		w.requests[i] = simRequest{gen: w.requests[i].gen}
		return i
	}
	w.requests = append(w.requests, simRequest{})
	return int32(len(w.requests) - 1)
}

func (v *simVisitor) class() stage.Class {
	switch {
	case v.basket != "":
		return stage.Protected
	case v.step >= 3:
		return stage.Known
	}
	return stage.Anonymous
}

// fileKind is that of requests for files; the others are of kind 0.
const fileKind = 1

// countSlow looks at which origins count as slow.
func (w *world) countSlow(e *simEdge) {
	for _, t := range e.view.Load().tiers {
		for _, m := range t.members {
			w.looked++
			if m.o.slow.Load() {
				w.slowFound++
			}
		}
	}
}

// send is a try of a visitor.
func (w *world) send(id int32) {
	r := &w.requests[id]
	v := &w.visitors[r.visitor]
	for !w.edges[r.edge].alive {
		r.edge = int32(w.rng.IntN(len(w.edges)))
	}
	r.start, r.tries, r.attempts = w.now, r.tries+1, 0
	r.answered, r.gone, r.epoch = false, false, -1
	r.tried.reset()
	if v.class() == stage.Protected {
		w.baskets++
	}
	w.q.Push(virtual.Event{At: w.now + w.patience, Kind: evGiveUp, ID: id})
	r.refs = 1
	w.try(id)
}

func (w *world) try(id int32) {
	r := &w.requests[id]
	who := w.visitor(r)
	who.wait = mayWait
	s, err := w.edges[r.edge].Pick(who, &r.tried)
	if err == errWait {
		t := s.tier
		r.waiter = &waiter{turn: make(chan struct{}, 1), lane: int(s.lane)}
		granted, waits := t.joins(r.waiter)
		if waits {
			r.slot, r.until = s, w.now+int64(t.patience.lasts(int(s.lane)))
			r.refs++
			w.lingered++
			w.edges[r.edge].linger = append(w.edges[r.edge].linger, id)
			w.q.Push(virtual.Event{At: r.until, Kind: evPatience, ID: id})
			return
		}
		r.waiter = nil
		w.sit(id, t, granted)
		return
	}
	w.sent(id, s, err)
}

// visitor is whom a pool sees.
func (w *world) visitor(r *simRequest) Visitor {
	v := &w.visitors[r.visitor]
	return Visitor{Class: v.class(), Key: v.id, Tier: v.basket, Hash: v.id, Now: w.now, Kind: r.kind}
}

// sit is the end of a wait: with a place of t, or in any other one.
func (w *world) sit(id int32, t *tier, granted bool) {
	r := &w.requests[id]
	who := w.visitor(r)
	if granted {
		if s, ok := w.edges[r.edge].seat(t, &who, &r.tried); ok {
			w.sent(id, s, nil)
			return
		}
	}
	who.wait = hasWaited
	s, err := w.edges[r.edge].Pick(who, &r.tried)
	w.sent(id, s, err)
}

// served has those who were called at an edge go on.
func (w *world) served(edge int32) {
	e := w.edges[edge]
	for i := 0; i < len(e.linger); {
		id := e.linger[i]
		r := &w.requests[id]
		if r.waiter == nil || !r.waiter.called {
			i++
			continue
		}
		e.linger = slices.Delete(e.linger, i, i+1)
		w.waited(id)
	}
}

// waited ends the wait of a request.
func (w *world) waited(id int32) {
	r := &w.requests[id]
	t := r.slot.tier
	granted := t.leaves(r.waiter)
	if r.waiter = nil; granted {
		w.lingeredWell++
	}
	w.sit(id, t, granted)
}

// patienceEnds is the end of the time for which a request waits for a moment.
func (w *world) patienceEnds(id int32) {
	r := &w.requests[id]
	if r.waiter != nil && r.until == w.now {
		e := w.edges[r.edge]
		if i := slices.Index(e.linger, id); i >= 0 {
			e.linger = slices.Delete(e.linger, i, i+1)
		}
		w.waited(id)
	}
	w.unref(id)
}

// sent is what becomes of a try once its place is known.
func (w *world) sent(id int32, s Slot, err error) {
	r := &w.requests[id]
	v := &w.visitors[r.visitor]
	if err != nil {
		w.refusedAll++
		w.edges[r.edge].history.away[v.class()].Add(1)
		if v.class() == stage.Protected {
			w.refusedBaskets++
		}
		r.answered = true
		w.ended(id, false, 0)
		return
	}
	if v.basket != "" && s.Tier() != v.basket {
		w.basketMoved++
	}
	s.count(w.edges[r.edge].view.Load())
	r.slot, r.held = s, true
	r.server, r.epoch = w.byAddress[s.Address()], -1
	if t := w.now - second; t < w.from && t >= w.warm {
		w.early++
		if s.at > 0 {
			w.spilledEarly++
		}
	} else if t >= w.from+3*second && t < w.to && s.at > 0 {
		w.sentOn++
		if w.homeFree() {
			w.wasted++
		}
	} else if t >= w.to+5*second {
		w.after++
		if s.at > 0 {
			w.afterOn++
		}
	}
	srv := &w.servers[r.server]
	r.refs++
	w.q.Push(virtual.Event{At: w.now + w.tiers[srv.tier].rtt/2, Kind: evAtServer, ID: id})
}

func (w *world) atServer(id int32) {
	r := &w.requests[id]
	s := &w.servers[r.server]
	if !s.up {
		w.q.Push(virtual.Event{At: w.now + w.tiers[s.tier].rtt/2, Kind: evRefused, ID: id})
		return
	}
	r.epoch = s.epoch
	if s.Enter(id, w.tiers[s.tier].slots) {
		w.count(s, 1)
		w.begin(s, id)
	}
}

// count notes that a slot is in use, or free.
func (w *world) count(s *simServer, d int64) {
	w.nBusy[s.tier] += d
	if s.tier == 0 && s.slow == 1 {
		w.nHB += d
	}
}

func (w *world) begin(s *simServer, id int32) {
	r := &w.requests[id]
	r.gen++
	took := .3 * float64(ms)
	if r.kind != fileKind {
		took = w.service(w.rng)
	}
	w.q.Push(virtual.Event{At: w.now + max(1, int64(took*s.slow)), Kind: evDone, Gen: r.gen, ID: id})
}

func (w *world) done(id int32) {
	r := &w.requests[id]
	s := &w.servers[r.server]
	r.epoch, r.said = -1, int64(s.Len())
	if r.key != 0 {
		w.book.write(r.key)
	}
	w.q.Push(virtual.Event{At: w.now + w.tiers[s.tier].rtt/2, Kind: evAnswer, ID: id})
	if next, ok := s.Leave(); ok {
		w.begin(s, next)
	} else {
		w.count(s, -1)
	}
}

func (w *world) release(r *simRequest, o Outcome) {
	if r.held {
		r.held = false
		r.slot.Release(o)
		w.served(r.edge)
	}
}

func (w *world) answer(id int32) {
	r := &w.requests[id]
	s := &w.servers[r.server]
	if r.held {
		if w.rule != nil {
			w.rule.answered(int(r.edge), r.slot.tier, r.slot.began, w.now)
		} else {
			r.slot.paced(w.now)
			if w.reports != nil {
				if l, ok := w.reports(r.said, w.tiers[s.tier].slots); ok {
					r.slot.Reported(l, w.now)
				}
			}
		}
	}
	w.release(r, Succeeded)
	if !r.gone {
		r.answered = true
		w.samples = append(w.samples, reply{r.start - second, w.now - r.start, int8(s.tier), true})
		w.ended(id, true, s.tier)
	}
	w.unref(id)
}

// refusedBy is a connection that failed: the edge tries elsewhere.
func (w *world) refusedBy(id int32) {
	r := &w.requests[id]
	if r.held {
		r.tried.add(r.slot.origin)
	}
	w.release(r, Failed)
	if !r.gone {
		if r.attempts++; r.attempts <= 3 {
			w.try(id)
		} else {
			r.answered = true
			w.ended(id, false, 0)
		}
	}
	w.unref(id)
}

// giveUp is the end of a visitor's patience. The server works on.
func (w *world) giveUp(id int32) {
	r := &w.requests[id]
	if !r.answered {
		r.gone = true
		w.release(r, Abandoned)
		w.samples = append(w.samples, reply{r.start - second, w.patience, -1, false})
		w.ended(id, false, 0)
	}
	w.unref(id)
}

// unref frees a request that no event knows any more.
func (w *world) unref(id int32) {
	r := &w.requests[id]
	if r.refs--; r.refs == 0 && r.visitor < 0 {
		w.freeR = append(w.freeR, id)
	}
}

// again has a visitor send the request once more after a while.
func (w *world) again(id int32, after int64) {
	n := w.newRequest()
	r, to := &w.requests[id], &w.requests[n]
	to.visitor, to.edge, to.first, to.tries, to.order, to.key = r.visitor, r.edge, r.first, r.tries, r.order, r.key
	w.q.Push(virtual.Event{At: w.now + after, Kind: evAgain, ID: n})
	r.visitor = -1
}

// ended is what a visitor does after an answer, or without one.
func (w *world) ended(id int32, ok bool, tier int) {
	r := &w.requests[id]
	v := &w.visitors[r.visitor]
	protected := v.class() == stage.Protected
	if !ok && protected && r.tries < 3 {
		w.again(id, second+w.rng.Int64N(2*second))
		return
	}
	vi := r.visitor
	if r.key != 0 {
		w.book.close(r.key, ok)
	}
	if r.order {
		w.orders++
		if !ok {
			w.lost++
		}
	} else if !ok && protected {
		w.refusedBaskets++
	}
	r.visitor = -1
	v.step++
	switch {
	case v.step == 6 && v.buys && ok:
		v.basket = w.tiers[tier].name
	case v.step >= 9 || v.step >= 6 && !v.buys:
		w.freeV = append(w.freeV, vi)
		return
	}
	w.edges[v.edge].idle = append(w.edges[v.edge].idle, vi)
}
