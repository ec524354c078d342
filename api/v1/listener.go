package v1

// Listener is an address on which visitors are received.
type Listener struct {
	TypeMeta `json:",inline"`
	Metadata Metadata     `json:"metadata" schema:"required"`
	Spec     ListenerSpec `json:"spec" schema:"required"`
}

// ListenerSpec is what a Listener does.
type ListenerSpec struct {
	// Address is host:port; an empty host means every address of the machine, port 0 any free port.
	Address string `json:"address" schema:"required,format=listen"`
	// Protocols are offered together on the address: http1 and h2c in clear, or http1, h2 and h3 over TLS.
	// Absent means http1 and h2c in clear, and http1, h2 and h3 with tls.
	Protocols []Protocol `json:"protocols,omitempty" schema:"maxItems=4,enum=http1|h2c|h2|h3"`
	// Engine is relais (our own HTTP core) or std (net/http; slower, for comparison and compatibility).
	Engine Engine `json:"engine,omitempty" schema:"enum=relais|std,default=relais"`
	// TLS makes this a TLS listener.
	TLS *ListenerTLS `json:"tls,omitempty"`
	// ClientAddress says whose word is taken for a visitor's address.
	ClientAddress ClientAddress `json:"clientAddress,omitempty"`
	// Limits bound what one connection or request may cost.
	Limits ListenerLimits `json:"limits,omitempty"`
	// Timeouts bound how long a visitor may take.
	Timeouts ListenerTimeouts `json:"timeouts,omitempty"`
	// RequestID lets a trusted proxy in front choose the request id.
	RequestID RequestIDSpec `json:"requestId,omitempty"`
}

// Protocol is a way to speak HTTP.
type Protocol string

// The protocols.
const (
	ProtocolHTTP1 Protocol = "http1"
	ProtocolH2C   Protocol = "h2c"
	ProtocolH2    Protocol = "h2"
	ProtocolH3    Protocol = "h3"
)

// Engine names an HTTP implementation.
type Engine string

// The engines.
const (
	EngineRelais Engine = "relais"
	EngineStd    Engine = "std"
)

// ListenerTLS is how a listener speaks TLS.
type ListenerTLS struct {
	// Certificates are names of Certificate documents of the listener's organization; the first answers
	// clients that name no known host. Absent means one certificate of the internal CA.
	Certificates []string `json:"certificates,omitempty" schema:"maxItems=1000,ref=Certificate"`
	// MinVersion is the lowest TLS version.
	MinVersion string `json:"minVersion,omitempty" schema:"enum=1.2|1.3,default=1.2"`
	// ClientAuth asks visitors for a certificate of their own.
	ClientAuth *ClientAuth `json:"clientAuth,omitempty"`
	// TicketKeys is a folder of session-ticket keys that several edges share, so that a visitor resumes a
	// session at any of them. An edge that may write there adds a key every 12 hours; the others read it.
	// Absent means keys of this process alone.
	TicketKeys string `json:"ticketKeys,omitempty" schema:"maxLength=4096"`
	// EarlyData serves GET, HEAD and OPTIONS without a body that come with the first packets of a QUIC
	// connection (0-RTT) to clients whose address a token proves. Such a request can be
	// replayed by others: it is forwarded with "Early-Data: 1", and an origin may answer 425. Other
	// requests wait for the handshake. Over TCP there is no early data.
	EarlyData bool `json:"earlyData,omitempty"`
	// UnknownNames says what clients get that ask for a host name which no site of the listener has: answer shows
	// them the first certificate, refuse ends the handshake before any work for it. Clients that name none are
	// answered.
	UnknownNames string `json:"unknownNames,omitempty" schema:"enum=answer|refuse,default=answer"`
}

// ClientAuth asks visitors for a certificate. What was verified is told to the origin in Client-Cert
// (RFC 9440); what a visitor writes there himself is removed.
type ClientAuth struct {
	// CA holds the certificates of the authorities that visitors' certificates must come from, as PEM.
	CA string `json:"ca" schema:"required,maxLength=1048576"`
	// Mode require ends a handshake without a certificate; verify-if-given lets it pass.
	Mode string `json:"mode,omitempty" schema:"enum=require|verify-if-given,default=require"`
}

// ClientAddress says whose word is taken for a visitor's address.
type ClientAddress struct {
	// TrustedProxies may tell the visitor's address in Field or by the PROXY protocol.
	TrustedProxies []string `json:"trustedProxies,omitempty" schema:"maxItems=1024,format=cidr"`
	// Field is the request field that a trusted proxy fills: X-Forwarded-For and Forwarded are lists, any
	// other, such as X-Real-IP, CF-Connecting-IP or True-Client-IP, holds one address and stands once.
	Field string `json:"field,omitempty" schema:"format=field-name,maxLength=64,default=X-Forwarded-For"`
	// ProxyProtocol accepts the PROXY protocol, versions 1 and 2, from TrustedProxies. When it is
	// required, a connection without it is closed.
	ProxyProtocol string `json:"proxyProtocol,omitempty" schema:"enum=off|optional|required,default=off"`
}

// ListenerLimits bound what a connection or a request may cost.
type ListenerLimits struct {
	// Connections open at once. For one more an idle connection is closed; where none is idle, it is
	// refused. From three quarters on, one address has at most a sixteenth of them.
	Connections int `json:"connections,omitempty" schema:"default=100000,min=1,max=10000000"`
	// ConnectionsPerAddress open at once from one IPv4 address or IPv6 /64; 0 means no limit.
	ConnectionsPerAddress int `json:"connectionsPerAddress,omitempty" schema:"default=0,min=0,max=1000000"`
	// HeaderBytes of a request's head, request line included.
	HeaderBytes Size `json:"headerBytes,omitempty" schema:"default=32KiB,min=1KiB,max=1MiB"`
	// HeaderFields of a request.
	HeaderFields int `json:"headerFields,omitempty" schema:"default=128,min=8,max=1024"`
	// TargetBytes of a request target.
	TargetBytes Size `json:"targetBytes,omitempty" schema:"default=8KiB,min=256,max=256KiB"`
	// BodyBytes of a request body; 0 allows none.
	BodyBytes *Size `json:"bodyBytes,omitempty" schema:"default=1GiB,min=0,max=1TiB"`
	// Streams at once on one HTTP/2 or HTTP/3 connection.
	Streams int `json:"streams,omitempty" schema:"default=128,min=1,max=10000"`
	// BodyRate is the bytes a second that a request body must bring, on average over the
	// time spent waiting for it beyond timeouts.body; 0 means no limit.
	BodyRate *Size `json:"bodyRate,omitempty" schema:"default=240,min=0,max=1GiB"`
	// WriteRate is the bytes a second that a visitor must take of an answer, on average over
	// the time spent waiting for it beyond timeouts.write; 0 means no limit.
	WriteRate *Size `json:"writeRate,omitempty" schema:"default=240,min=0,max=1GiB"`
	// Requests on one connection before it is closed in good order; 0 means no limit.
	Requests int `json:"requests,omitempty" schema:"default=0,min=0,max=1000000000"`
}

// ListenerTimeouts bound how long a visitor may take.
type ListenerTimeouts struct {
	// Handshake is for the TLS handshake and the PROXY protocol header.
	Handshake Duration `json:"handshake,omitempty" schema:"default=10s,min=100ms,max=5m"`
	// Header is from the first byte of a request to the end of its head, whatever arrives in between.
	Header Duration `json:"header,omitempty" schema:"default=10s,min=100ms,max=10m"`
	// Body is the longest wait for more bytes of a request body.
	Body Duration `json:"body,omitempty" schema:"default=30s,min=100ms,max=1h"`
	// Write is the longest time in which a visitor takes no byte of an answer.
	Write Duration `json:"write,omitempty" schema:"default=30s,min=100ms,max=1h"`
	// Idle is the longest wait for the next request on a connection.
	Idle Duration `json:"idle,omitempty" schema:"default=75s,min=1s,max=24h"`
	// Drain is how long requests under way may go on when the process stops.
	Drain *Duration `json:"drain,omitempty" schema:"default=30s,min=0s,max=1h"`
}

// RequestIDSpec says who chooses the request id.
type RequestIDSpec struct {
	// Trust takes an X-Request-Id from the client address's trusted proxies when it has the form of our
	// own (26 characters), as another Relais in front sends it.
	Trust bool `json:"trust,omitempty"`
}
