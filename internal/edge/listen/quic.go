package listen

import (
	"crypto/tls"
	"net/netip"

	"github.com/relais-edge/relais/internal/http/http3"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
)

// Settings implements http3.Acceptor.
func (e *endpoint) Settings() *http3.Settings { return e.current.Load().settings }

// Admit implements http3.Acceptor: a connection has its place among the listener's before its
// handshake costs anything. Its address is not counted yet, for it may be forged.
func (e *endpoint) Admit(peer netip.AddrPort, verified bool) (func(http3.Failure), bool) {
	a := e.enter()
	if !a.enterQUIC(verified) {
		a.series.refused[refuseConnections].Inc()
		a.exit()
		return nil, false
	}
	return func(failed http3.Failure) {
		if failed != "" {
			a.series.quic.failed[string(failed)].Inc()
			if verified && failed != http3.FailClosed {
				a.blame(&message.Conn{Client: peer.Addr().Unmap()})
			}
		}
		a.state.give()
		a.exit()
	}, true
}

// Accept implements http3.Acceptor.
func (e *endpoint) Accept(peer, local netip.AddrPort, state *tls.ConnectionState) (*http3.Service, func()) {
	a := e.enter()
	facts := new(message.Conn)
	*facts = a.facts(peer, local)
	facts.TLS = message.NewTLS(state)
	counted, refused := a.admit(facts.Client)
	if refused != "" {
		a.series.refused[refused].Inc()
		a.exit()
		return nil, nil
	}
	a.series.open.Add(1)
	a.series.total[speakHTTP3].Inc()
	v := &http3.Service{Own: a.own3, Facts: facts}
	if v.Own == nil {
		//lint:ignore SA1012 nil says that requests live as long as their streams
		v.Std = a.quic.For(nil, facts)
	}
	return v, func() {
		a.series.open.Add(-1)
		if counted {
			a.state.giveFrom(facts.Client)
		}
		a.exit()
	}
}

// The reasons of QUIC handshakes that fail, as counted: those of http3.Failure.
func quicFailures() []string {
	return []string{string(http3.FailTimeout), string(http3.FailClosed), string(http3.FailProtocol), string(http3.FailTLS)}
}

// http3Event is what our own HTTP/3 counts, by name.
type http3Event struct {
	name string
	read func(*http3.Stats) uint64
}

func http3Events() []http3Event {
	return []http3Event{
		{"refused", func(s *http3.Stats) uint64 { return s.Refused }},
		{"aborted", func(s *http3.Stats) uint64 { return s.Aborted }},
		{"slow", func(s *http3.Stats) uint64 { return s.Slow }},
		{"given_up", func(s *http3.Stats) uint64 { return s.Gone }},
		{"early_data", func(s *http3.Stats) uint64 { return s.Early }},
		{"protocol_error", func(s *http3.Stats) uint64 { return s.Faults }},
		{"flood", func(s *http3.Stats) uint64 { return s.Floods }},
	}
}

// quicSeries are the metrics of one listener's HTTP/3.
type quicSeries struct {
	failed map[string]observe.Counter // by reason
	events []observe.Counter          // in the order of http3Events
	last   http3.Stats                // what events have already
}

// count brings the counters up to date. It is called by one goroutine at a time.
func (q *quicSeries) count(s http3.Stats) {
	for i, e := range http3Events() {
		q.events[i].Add(float64(e.read(&s) - e.read(&q.last)))
	}
	q.last = s
}
