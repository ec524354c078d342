package cache

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// flight is one fetch for all who want its answer. It has a goroutine and an exchange of its
// own, so that neither a slow client nor one that leaves delays another.
type flight struct {
	s      *Stage
	rule   *rule
	key    []byte
	hash   store.Hash
	next   *flight // another flight under the same key
	fork   *stage.Exchange
	cancel context.CancelFunc
	// solo: nobody but its leader wants the answer.
	solo bool
	// route, selector and selected tell, before the head is there, whom the answer may be for.
	route              string
	selector, selected []byte
	class              stage.Class
	spare              bool    // no visitor led it: it had only what was to spare at the origins
	prior              *object // the stored answer that is validated; the flight holds it
	held               *hold   // that of prior
	epoch              uint32  // of the key, when the flight began
	born               uint64  // the number of the last purge then
	background         bool    // nobody led it
	completed          bool    // the answer is prior with what was missing
	aliased            bool    // key is that of a No-Vary-Search rule

	mu      sync.Mutex
	wake    chan struct{} // closed at the next change; nil when nobody sleeps
	interim []interim
	landed  landing // from landNone on to one other
	leader  bool    // a leader is there to take an answer that is only for it
	waiting int     // clients that wait for the head, or have not yet opened the body
	over    bool    // run is at its end

	// Set with landed, and not changed after.
	obj        *object // of landShared, landShown and landStale
	own        message.Fields
	resp       *message.Response // of landOwn
	err        error             // of landFailed
	code       int               // of the origin's answer, 0 when there was none
	validated  bool              // obj is prior, and the origin said that it is still good
	storing    bool
	home       home // where obj is stored
	moved      bool // the answer is not for all who have the flight's key
	why        string
	trail      *stage.Trail
	pool, tier string
	origin     string
	tries      int
	waited     string // for room, as Exchange.Full says
	full       bool   // there was no room
	sick       int    // of landOwn: the status of an error page that may be its leader's own, so that others get ours

	body body
}

// landing is what came of a flight's head.
type landing uint8

const (
	landNone   landing = iota
	landShared         // an answer for all whom it fits
	landShown          // an error page for those who waited for it
	landStale          // an error; the stored answer stands in
	landOwn            // an answer for the leader only
	landFailed         // no answer
)

// interim is an answer before the answer.
type interim struct {
	status int
	fields message.Fields
}

// maxFlights bounds the flights under one key, each for another variant.
const maxFlights = maxVariants

// maxInterim bounds the interim answers that are handed on.
const maxInterim = 8

// Inform implements message.Control for the fork: clients who wait are informed.
func (fl *flight) Inform(status int, f *message.Fields) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if len(fl.interim) == maxInterim || fl.landed != landNone {
		return
	}
	fl.interim = append(fl.interim, interim{status: status})
	fl.interim[len(fl.interim)-1].fields.CopyFrom(f)
	fl.changed()
}

// MayBlock implements message.Control: a flight blocks nobody.
func (fl *flight) MayBlock() {}

// changed wakes all who sleep. The lock is held.
func (fl *flight) changed() {
	if fl.wake != nil {
		close(fl.wake)
		fl.wake = nil
	}
}

// lessToWaitFor wakes the fetch, which may wait for a client that is now gone. It waits only while the
// body is not stored; else the others, who may be thousands, need not know. The lock is held.
func (fl *flight) lessToWaitFor() {
	if fl.landed != landNone && !fl.body.stored {
		fl.changed()
	}
}

// letGo lets the stored answer go once neither the flight nor a client without a hold of its own needs it. The lock
// is held.
func (fl *flight) letGo() {
	if fl.over && fl.waiting == 0 && fl.held != nil {
		fl.held.release()
		fl.held = nil
	}
}

// sleep lends what changed closes. The lock is held.
func (fl *flight) sleep() <-chan struct{} {
	if fl.wake == nil {
		fl.wake = make(chan struct{})
	}
	return fl.wake
}

// fits says whether x may wait for the flight: what is known of its answer does not speak
// against it. S.mu is held.
func (fl *flight) fits(l *local, x *stage.Exchange) bool {
	if fl.route != x.Route.Name || !bytes.Equal(fl.key, l.key) {
		return false
	}
	fl.mu.Lock()
	o := fl.obj
	fl.mu.Unlock()
	if fl.outdated(x, o) {
		return false
	}
	if o != nil {
		return o.isFor(l, x)
	}
	l.selected = semantics.AppendSelected(l.selected[:0], fl.selector, &x.In.Fields)
	return bytes.Equal(l.selected, fl.selected)
}

// join finds the flight that x waits for, or starts one. Nil means that no more can be
// started. Where no flight is found but a fresh object is, that is returned: a flight stores
// before it is off the list, so that nothing is fetched twice in between.
func (s *Stage) join(ctx context.Context, x *stage.Exchange, next stage.Handler, l *local, o *object, solo bool) (fl *flight, leads bool, fresh *object) {
	for {
		s.mu.Lock()
		if !solo {
			n := 0
			for fl = s.flights[l.hash]; fl != nil; fl = fl.next {
				if n++; n > maxFlights {
					s.mu.Unlock()
					s.m.tooMany.Inc()
					return nil, true, nil
				}
				if fl.fits(l, x) {
					fl.mu.Lock()
					fl.waiting++
					fl.mu.Unlock()
					s.mu.Unlock()
					return fl, false, nil
				}
			}
		}
		if at := s.stores.at(l.hash); solo || at == l.stores {
			fl = s.launch(ctx, x, next, l, o, solo, true)
			s.mu.Unlock()
			return fl, true, nil
		} else {
			l.stores = at
		}
		// Something was stored since the look-up. It may have to be read from a disk, so not under the lock.
		s.mu.Unlock()
		if fresh = s.meanwhile(x, l); fresh != nil {
			return nil, false, fresh
		}
	}
}

// meanwhile finds a fresh object that was stored since the look-up.
func (s *Stage) meanwhile(x *stage.Exchange, l *local) *object {
	if o, verdict, _ := s.find(l, x, l.reuse(&l.second), true); o != nil && verdict.Soft == 0 && o.Use(&l.control, l.now) == semantics.Fresh && (!o.partial() || o.serves(x.In, l.now)) {
		return o
	}
	return nil
}

// launch starts a flight, or returns nil when no more can be. S.mu is held.
func (s *Stage) launch(ctx context.Context, x *stage.Exchange, next stage.Handler, l *local, o *object, solo, leader bool) *flight {
	if o != nil && o.partial() && (o.size > l.rule.maxObject || !semantics.HasStrongValidator(&o.fields, l.now)) {
		o = nil // what is stored cannot be made whole
	}
	if s.closed || len(s.running) >= s.cfg.MaxFills {
		s.m.tooMany.Inc()
		return nil
	}
	fl := &flight{
		s: s, rule: l.rule, epoch: s.epochs.at(l.hash), born: l.born, key: bytes.Clone(l.key), hash: l.hash, solo: solo, prior: o,
		route: x.Route.Name, class: x.Visitor.Class, spare: x.Visitor.Background, fork: s.forks.Get().(*stage.Exchange),
		leader: leader, background: !leader, aliased: l.aliased,
	}
	if o != nil && o.hold != nil {
		o.enrol(l.rule.mark, x)
		o.hold.take()
		fl.held = o.hold
	}
	if !leader {
		s.background++
	}
	if leader {
		fl.waiting = 1
	}
	fl.selector = bytes.Clone(l.hint)
	fl.selected = semantics.AppendSelected(nil, fl.selector, &x.In.Fields)
	x.ForkInto(fl.fork)
	fl.fork.StandIn = o.standsInForRoom(l.now)
	fl.fork.In.Control = fl
	semantics.DropConditions(&fl.fork.In.Fields)
	if !x.PeerTrusted {
		l.rule.dropUnkeyed(&fl.fork.In.Fields)
	}
	ctx, fl.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.running[fl] = struct{}{}
	if !solo {
		fl.next = s.flights[l.hash]
		s.flights[l.hash] = fl
	}
	go fl.run(ctx, next)
	return fl
}

// leave takes the flight out of those that can be joined.
func (fl *flight) leave() {
	fl.s.mu.Lock()
	defer fl.s.mu.Unlock()
	fl.s.unlist(fl)
}

// unlist does so under s.mu.
func (s *Stage) unlist(fl *flight) {
	if fl.solo {
		return
	}
	head := s.flights[fl.hash]
	if head == fl {
		if fl.next == nil {
			delete(s.flights, fl.hash)
		} else {
			s.flights[fl.hash] = fl.next
		}
		return
	}
	for ; head != nil; head = head.next {
		if head.next == fl {
			head.next = fl.next
			return
		}
	}
}

// await waits for the head, and hands interim answers on meanwhile. Early says that x was
// there before the head was.
func (fl *flight) await(ctx context.Context, x *stage.Exchange) (early bool, err error) {
	told := 0
	for {
		fl.mu.Lock()
		news := fl.interim[told:]
		told = len(fl.interim)
		landed := fl.landed != landNone
		var wake <-chan struct{}
		if !landed {
			wake = fl.sleep()
		}
		fl.mu.Unlock()
		for i := range news {
			x.Inform(news[i].status, &news[i].fields)
		}
		if landed {
			return early, nil
		}
		early = true
		select {
		case <-wake:
		case <-ctx.Done():
			return early, goneError(ctx)
		}
	}
}

// goneError says why a client waits no longer.
func goneError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &stage.Error{Code: "http_response_timeout", Side: stage.SideOrigin, Status: 504, Err: context.Cause(ctx)}
	}
	return &stage.Error{Code: "client_gone", Side: stage.SideClient, Status: 499, Close: true, Err: context.Cause(ctx)}
}

// abandon is what a client does that leaves before the head, or at the same moment.
func (fl *flight) abandon(leads bool) {
	fl.mu.Lock()
	fl.waiting--
	ownerless := leads && fl.landed == landOwn && fl.leader
	if leads {
		fl.leader = false
	}
	fl.lessToWaitFor()
	fl.letGo()
	fl.mu.Unlock()
	if ownerless {
		closeBody(fl.resp)
		fl.end(message.Outcome{Status: fl.code, Err: errNotWanted})
	}
}

// quit says that a client has its answer, or looks for another one.
func (fl *flight) quit(leads bool) {
	fl.mu.Lock()
	fl.waiting--
	if leads {
		fl.leader = false
	}
	fl.lessToWaitFor()
	fl.letGo()
	fl.mu.Unlock()
}
