package listen

import "github.com/relais-edge/relais/internal/observe"

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

// The kinds of connections that are ended to make room, as counted.
const (
	shedIdle   = "idle"   // between requests
	shedSilent = "silent" // no whole head came on it yet
)

func sheds() []string { return []string{shedIdle, shedSilent} }

// maxSeries bounds the listeners that are counted apart.
const maxSeries = 1000

type metrics struct {
	gauge   *observe.Family[observe.Gauge]
	total   *observe.Family[observe.Counter]
	refused *observe.Family[observe.Counter]
	failed  *observe.Family[observe.Counter]
	shed    *observe.Family[observe.Counter]
}

// series are the metrics of one listener.
type series struct {
	open            observe.Gauge
	total           map[string]observe.Counter // by protocol
	refused, failed map[string]observe.Counter // by reason
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
		gauge: r.Gauges("relais_listener_connections", "Connections open now.", maxSeries, "listener"),
		total: r.Counters("relais_listener_connections_total", "Connections that were served, by protocol.",
			maxSeries*len(spoken()), "listener", "protocol"),
		refused: r.Counters("relais_listener_connections_refused_total", "Connections that were closed unserved, by reason.",
			maxSeries*len(refusals()), "listener", "reason"),
		failed: r.Counters("relais_listener_handshake_failures_total", "TLS handshakes over TCP that failed, by reason.",
			maxSeries*len(failures()), "listener", "reason"),
		shed: r.Counters("relais_listener_connections_shed_total", "Connections that were closed to make room for others, by what they were doing.",
			maxSeries*len(sheds()), "listener", "state"),
	}
}

// open finds the series of a listener; close gives them back.
func (m *metrics) open(key string) *series {
	s := &series{open: m.gauge.With(key), total: map[string]observe.Counter{}, refused: map[string]observe.Counter{}, failed: map[string]observe.Counter{}, shed: map[string]observe.Counter{}}
	for _, p := range spoken() {
		s.total[p] = m.total.With(key, p)
	}
	for _, r := range refusals() {
		s.refused[r] = m.refused.With(key, r)
	}
	for _, r := range failures() {
		s.failed[r] = m.failed.With(key, r)
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
	for _, k := range sheds() {
		m.shed.Forget(key, k)
	}
}
