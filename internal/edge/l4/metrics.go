package l4

import "github.com/relais-edge/relais/internal/observe"

// The reasons for which a connection or session is refused, as counted.
const (
	refuseConnections = "connections"             // the service is full
	refuseAddress     = "connections_per_address" // the client's address is
	refuseDrain       = "drain"                   // the service is on its way out
	refuseOrigin      = "origin"                  // no origin could be had
	refuseHellos      = "hellos"                  // too many ClientHellos are waited for
	refuseHello       = "hello"                   // no ClientHello came, or a bad one
	refuseName        = "name"                    // no service takes the name
	refuseUntrusted   = "proxy_untrusted"         // the PROXY protocol is required and the peer may not speak it
	refuseProxy       = "proxy_header"            // its header is missing, malformed or late
	refuseFiles       = "files"                   // no descriptor is left
	refuseOpening     = "opening"                 // too many UDP sessions are being opened
)

func refusals() []string {
	return []string{
		refuseConnections, refuseAddress, refuseDrain, refuseOrigin, refuseHellos, refuseHello, refuseName,
		refuseUntrusted, refuseProxy, refuseFiles, refuseOpening,
	}
}

// maxSeries bounds the services that are counted apart.
const maxSeries = 1000

type metrics struct {
	open    *observe.Family[observe.Gauge]
	total   *observe.Family[observe.Counter]
	refused *observe.Family[observe.Counter]
	bytes   *observe.Family[observe.Counter]
	dropped *observe.Family[observe.Counter]
}

func newMetrics(r *observe.Registry) metrics {
	return metrics{
		open:    r.Gauges("relais_service_connections_open", "Connections and UDP sessions open now.", maxSeries, "service"),
		total:   r.Counters("relais_service_connections_total", "Connections and UDP sessions that reached an origin.", maxSeries, "service"),
		refused: r.Counters("relais_service_refused_total", "Connections and UDP sessions that were refused, by reason. What could not be given to one service counts for the first of its address.", maxSeries*len(refusals()), "service", "reason"),
		bytes:   r.Counters("relais_service_bytes_total", "Bytes from clients (received) and to them (sent), counted when a connection or session ends.", 2*maxSeries, "service", "direction"),
		dropped: r.Counters("relais_service_datagrams_dropped_total", "Datagrams that came while their session was being opened and did not fit.", maxSeries, "service"),
	}
}

// series are the metrics of one service.
type series struct {
	open                           observe.Gauge
	total, received, sent, dropped observe.Counter
	refused                        map[string]observe.Counter // by reason
}

// series finds the series of a service.
func (m *metrics) series(key string) *series {
	s := &series{
		open: m.open.With(key), total: m.total.With(key), received: m.bytes.With(key, "received"), sent: m.bytes.With(key, "sent"),
		dropped: m.dropped.With(key), refused: map[string]observe.Counter{},
	}
	for _, r := range refusals() {
		s.refused[r] = m.refused.With(key, r)
	}
	return s
}

// forget gives the series of a service back.
func (m *metrics) forget(key string) {
	m.open.Forget(key)
	m.total.Forget(key)
	m.bytes.Forget(key, "received")
	m.bytes.Forget(key, "sent")
	m.dropped.Forget(key)
	for _, r := range refusals() {
		m.refused.Forget(key, r)
	}
}
