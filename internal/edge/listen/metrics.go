package listen

import (
	"github.com/relais-edge/relais/internal/http/deadline"
	"github.com/relais-edge/relais/internal/http/http2"
	"github.com/relais-edge/relais/internal/observe"
)

// The reasons for which a connection is refused, as counted.
const (
	refuseConnections = "connections"             // the listener is full
	refuseAddress     = "connections_per_address" // the client's address is
	refuseShare       = "connections_share"       // the listener is nearly full and the client's address has its share
	refuseHandshakes  = "handshakes"              // too many TLS handshakes are under way
	refuseUntrusted   = "proxy_untrusted"         // the PROXY protocol is required and the peer may not speak it
	refuseProxy       = "proxy_header"            // its header is missing, malformed or late
	refuseProtocol    = "protocol"                // the connection speaks none that the listener offers
	refuseFiles       = "files"                   // the process, or the system, has no descriptor left
)

func refusals() []string {
	return []string{refuseConnections, refuseAddress, refuseShare, refuseHandshakes, refuseUntrusted, refuseProxy, refuseProtocol, refuseFiles}
}

// sheds are the states of connections that are ended to make room, as counted.
func sheds() []string { return []string{deadline.ShedIdle.String(), deadline.ShedSilent.String()} }

// maxSeries bounds the listeners that are counted apart.
const maxSeries = 1000

type metrics struct {
	gauge   *observe.Family[observe.Gauge]
	total   *observe.Family[observe.Counter]
	refused *observe.Family[observe.Counter]
	failed  *observe.Family[observe.Counter]
	expiry  *observe.Family[observe.Gauge]
	shed    *observe.Family[observe.Counter]

	waited            observe.Counter
	quicFailed, http3 *observe.Family[observe.Counter]
	abuse             *observe.Family[observe.Counter]
}

// series are the metrics of one listener.
type series struct {
	open            observe.Gauge
	total           map[string]observe.Counter // by protocol
	refused, failed map[string]observe.Counter // by reason
	quic            quicSeries
	abuse           map[string]observe.Counter // by kind
	shed            map[string]observe.Counter // by kind
}

// The protocols of connections, as counted.
const (
	speakHTTP1 = "http1"
	speakHTTP2 = "http2"
	speakHTTP3 = "http3"
)

func spoken() []string { return []string{speakHTTP1, speakHTTP2, speakHTTP3} }

func newMetrics(r *observe.Registry) metrics {
	return metrics{
		expiry: r.Gauges("relais_certificate_expiry_timestamp_seconds", "When a certificate in use ends.", maxSeries, "certificate"),
		gauge:  r.Gauges("relais_listener_connections", "Connections open now.", maxSeries, "listener"),
		total: r.Counters("relais_listener_connections_total", "Connections that were served, by protocol.",
			maxSeries*len(spoken()), "listener", "protocol"),
		refused: r.Counters("relais_listener_connections_refused_total", "Connections that were closed unserved, by reason.",
			maxSeries*len(refusals()), "listener", "reason"),
		failed: r.Counters("relais_listener_handshake_failures_total", "TLS handshakes over TCP that failed, by reason.",
			maxSeries*len(failures()), "listener", "reason"),
		waited: r.Counters("relais_listener_handshakes_waited_total", "Times that a TLS handshake over TCP waited for its turn at a processor.", 1).With(),
		quicFailed: r.Counters("relais_listener_quic_handshake_failures_total", "QUIC handshakes that failed, by reason.",
			maxSeries*len(quicFailures()), "listener", "reason"),
		http3: r.Counters("relais_listener_http3_events_total", "What went wrong in HTTP/3, and early data; connections or requests, by event.",
			maxSeries*len(http3Events()), "listener", "event"),
		abuse: r.Counters("relais_listener_http2_abuse_total", "HTTP/2 connections that were closed with ENHANCE_YOUR_CALM, by what the client did too often.",
			maxSeries*len(http2.Abuses()), "listener", "kind"),
		shed: r.Counters("relais_listener_connections_shed_total", "Connections that were closed to make room for others, by what they were doing.",
			maxSeries*len(sheds()), "listener", "state"),
	}
}

// open finds the series of a listener; close gives them back.
func (m *metrics) open(key string) *series {
	s := &series{open: m.gauge.With(key), total: map[string]observe.Counter{}, refused: map[string]observe.Counter{}, failed: map[string]observe.Counter{}, abuse: map[string]observe.Counter{}, shed: map[string]observe.Counter{}}
	for _, p := range spoken() {
		s.total[p] = m.total.With(key, p)
	}
	for _, r := range refusals() {
		s.refused[r] = m.refused.With(key, r)
	}
	for _, r := range failures() {
		s.failed[r] = m.failed.With(key, r)
	}
	s.quic.failed = map[string]observe.Counter{}
	for _, r := range quicFailures() {
		s.quic.failed[r] = m.quicFailed.With(key, r)
	}
	for _, e := range http3Events() {
		s.quic.events = append(s.quic.events, m.http3.With(key, e.name))
	}
	for _, k := range http2.Abuses() {
		s.abuse[k.String()] = m.abuse.With(key, k.String())
	}
	for _, k := range sheds() {
		s.shed[k] = m.shed.With(key, k)
	}
	return s
}

func (m *metrics) close(key string) {
	m.gauge.Forget(key)
	for _, p := range spoken() {
		m.total.Forget(key, p)
	}
	for _, r := range refusals() {
		m.refused.Forget(key, r)
	}
	for _, r := range failures() {
		m.failed.Forget(key, r)
	}
	for _, r := range quicFailures() {
		m.quicFailed.Forget(key, r)
	}
	for _, e := range http3Events() {
		m.http3.Forget(key, e.name)
	}
	for _, k := range http2.Abuses() {
		m.abuse.Forget(key, k.String())
	}
	for _, k := range sheds() {
		m.shed.Forget(key, k)
	}
}
