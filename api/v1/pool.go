package v1

// OriginPool is where requests go: tiers of origins, tried in order of capacity.
type OriginPool struct {
	TypeMeta `json:",inline"`
	Metadata Metadata       `json:"metadata" schema:"required"`
	Spec     OriginPoolSpec `json:"spec" schema:"required"`
}

// OriginPoolSpec is what an OriginPool does.
type OriginPoolSpec struct {
	// Algorithm chooses an origin within a tier: in turn (round-robin), the one with the fewest requests in
	// flight (least-request), the one that will answer soonest by its lately measured times and what it has
	// in flight (peak-ewma), the one that a hash leads to (consistent-hash), by chance (random), or the first
	// that is well (first).
	Algorithm Algorithm `json:"algorithm,omitempty" schema:"enum=round-robin|least-request|peak-ewma|consistent-hash|random|first,default=least-request"`
	// Hash says what consistent-hash hashes.
	Hash HashSpec `json:"hash,omitempty"`
	// SlowStart is the time in which an origin that is new, or is well again, gets its full share; 0 gives
	// it at once.
	SlowStart Duration `json:"slowStart,omitempty" schema:"default=0s,min=0s,max=1h"`
	// Zones prefer the origins that are near.
	Zones ZoneSpec `json:"zones,omitempty"`
	// Discovery finds the addresses of origins by DNS.
	Discovery DiscoverySpec `json:"discovery,omitempty"`
	// Tiers are filled in order: the next one takes what the one before has no room for.
	Tiers []Tier `json:"tiers" schema:"required,minItems=1,maxItems=16"`
	// Health finds out which origins are well.
	Health HealthSpec `json:"health,omitempty"`
	// Retries of a failed try.
	Retries RetrySpec `json:"retries,omitempty"`
	// Connection to an origin.
	Connection ConnectionSpec `json:"connection,omitempty"`
	// Stickiness keeps a visitor in the tier that holds its basket.
	Stickiness StickinessSpec `json:"stickiness,omitempty"`
	// WhenFull is what becomes of visitors with a basket while no tier has room.
	WhenFull WhenFullSpec `json:"whenFull,omitempty"`
}

// Algorithm names a way to choose an origin.
type Algorithm string

// The algorithms.
const (
	RoundRobin     Algorithm = "round-robin"
	LeastRequest   Algorithm = "least-request"
	PeakEWMA       Algorithm = "peak-ewma"
	ConsistentHash Algorithm = "consistent-hash"
	Random         Algorithm = "random"
	First          Algorithm = "first"
)

// HashSpec says what consistent-hash hashes.
type HashSpec struct {
	// On is what is hashed.
	On string `json:"on,omitempty" schema:"enum=client|path|header|cookie,default=client"`
	// Name of the header or cookie.
	Name string `json:"name,omitempty" schema:"format=token,maxLength=128"`
	// Table leads from a hash to an origin: maglev is the most even, with ring the fewest keys move when an
	// origin comes or goes. Both pass by an origin that has a quarter more requests than its share.
	Table string `json:"table,omitempty" schema:"enum=maglev|ring,default=maglev"`
}

// Tier is a cluster of origins with a capacity.
type Tier struct {
	// Name appears in logs, metrics and explanations; absent means tier-N.
	Name string `json:"name,omitempty" schema:"format=name,maxLength=63"`
	// Capacity of the whole tier.
	Capacity Capacity `json:"capacity,omitempty"`
	// Order is the tier's rank; absent means its place in the list, from 1. Among tiers of one rank those in this
	// edge's zone (relais serve --zone) come first, then those of a lower price, then those that stand first.
	Order *int `json:"order,omitempty" schema:"min=1,max=16"`
	// Price of a request there, in any unit that the pool's tiers share.
	Price int `json:"price,omitempty" schema:"default=0,min=0,max=1000000000"`
	// Zone says where the tier is.
	Zone string `json:"zone,omitempty" schema:"format=name,maxLength=63"`
	// Subset is how many of the tier's origins this edge uses, so that many edges do not all keep connections
	// to all of them; 0 means all. Edges that are numbered (relais serve --edge-number) share the origins evenly.
	Subset int `json:"subset,omitempty" schema:"default=0,min=0,max=10000"`
	// Origins of the tier.
	Origins []Origin `json:"origins" schema:"required,minItems=1,maxItems=10000"`
}

// Capacity is how much a tier takes: the least of what is told here, what the time of its answers shows, and
// what its origins report.
type Capacity struct {
	// InFlight is the number of requests at once; absent means that it is not told.
	InFlight *int `json:"inFlight,omitempty" schema:"min=1,max=10000000"`
	// Adaptive finds the number of requests at once from how long answers take and from load reports of the
	// origins: auto does so in every tier that has another one after it and no inFlight.
	Adaptive string `json:"adaptive,omitempty" schema:"enum=auto|on|off,default=auto"`
	// Reserve is the least share kept for visitors with a basket; where inFlight is told it follows the share
	// that they have of the tier, up to a quarter.
	Reserve Percent `json:"reserve,omitempty" schema:"default=0%"`
	// SoftMark is the share of the limit from which new anonymous visitors go to the next tier.
	SoftMark *Percent `json:"softMark,omitempty" schema:"default=95%"`
}

// Origin is one server, or with expand or srv those that DNS names. Exactly one of Address and SRV is given.
type Origin struct {
	// Address is host:port.
	Address string `json:"address,omitempty" schema:"format=host-port"`
	// Expand makes each address of the name an origin of its own, looked up anew every discovery.interval.
	// Otherwise the name is one origin, looked up for each new connection.
	Expand bool `json:"expand,omitempty"`
	// SRV is the name of SRV records (RFC 2782), such as _http._tcp.shop.example, each an origin with its
	// port and weight, looked up anew every discovery.interval. Of several priorities only the first is used.
	SRV string `json:"srv,omitempty" schema:"maxLength=253"`
	// Weight relative to the others of the tier.
	Weight *int `json:"weight,omitempty" schema:"default=1,min=0,max=1000"`
	// Zone says where the origin is; see zones.
	Zone string `json:"zone,omitempty" schema:"format=name,maxLength=63"`
	// InFlight is the most requests at once that it is sent; 0 means no limit of its own.
	InFlight int `json:"inFlight,omitempty" schema:"default=0,min=0,max=10000000"`
}

// HealthSpec finds out which origins are well.
type HealthSpec struct {
	// Path is requested for active checks; absent means none.
	Path string `json:"path,omitempty" schema:"format=path,maxLength=1024"`
	// Host is sent as the authority of a check.
	Host string `json:"host,omitempty" schema:"format=hostname"`
	// Headers are sent with a check by path.
	Headers []CheckHeader `json:"headers,omitempty" schema:"maxItems=16"`
	// Statuses of a good answer: codes such as 204, or classes such as 2xx. Absent means 200 to 399.
	Statuses []string `json:"statuses,omitempty" schema:"maxItems=16,maxLength=3"`
	// Body is a text that a good answer has in its first 64 KiB.
	Body string `json:"body,omitempty" schema:"maxLength=1024"`
	// GRPC makes a check of a call of grpc.health.v1.Health/Check, over HTTP/2.
	GRPC *GRPCCheck `json:"grpc,omitempty"`
	// Connect makes a check of opening a connection alone, TLS included: for origins that do not speak HTTP.
	Connect bool `json:"connect,omitempty"`
	// Interval between two checks of one origin.
	Interval Duration `json:"interval,omitempty" schema:"default=5s,min=100ms,max=1h"`
	// Timeout of a check.
	Timeout Duration `json:"timeout,omitempty" schema:"default=2s,min=10ms,max=1m"`
	// UnhealthyAfter so many failed checks in a row.
	UnhealthyAfter int `json:"unhealthyAfter,omitempty" schema:"default=3,min=1,max=100"`
	// HealthyAfter so many good checks in a row.
	HealthyAfter int `json:"healthyAfter,omitempty" schema:"default=2,min=1,max=100"`
	// Panic is the share of a pool's origins below which nobody believes in their being ill: with fewer
	// that are well, all are used as if they were. At 0% that holds when none is.
	Panic Percent `json:"panic,omitempty" schema:"default=0%"`
	// Passive ejects an origin by what visitors' requests show.
	Passive PassiveHealth `json:"passive,omitempty"`
}

// PassiveHealth ejects an origin by what visitors' requests show.
type PassiveHealth struct {
	// ConsecutiveFailures (connection errors, timeouts, 502, 503, 504) that eject an origin; 0 never does.
	ConsecutiveFailures *int `json:"consecutiveFailures,omitempty" schema:"default=5,min=0,max=1000"`
	// SuccessRate is the share of good answers in an interval below which an origin is ejected, unless half of
	// its tier does no better; 0% never does.
	SuccessRate Percent `json:"successRate,omitempty" schema:"default=0%"`
	// LatencyFactor ejects an origin whose mean time to the head of an answer is more than so many times the
	// median of its tier's origins, of which three at least must have answered enough; 0 never does.
	LatencyFactor int `json:"latencyFactor,omitempty" schema:"default=0,min=0,max=1000"`
	// Interval over which the success rate and the latency are taken.
	Interval Duration `json:"interval,omitempty" schema:"default=10s,min=1s,max=1h"`
	// MinRequests is how many answers in an interval say something about an origin.
	MinRequests int `json:"minRequests,omitempty" schema:"default=20,min=1,max=1000000"`
	// Ejection is the time of a first ejection; each further one lasts longer by as much, up to ten times.
	Ejection Duration `json:"ejection,omitempty" schema:"default=10s,min=100ms,max=1h"`
	// MaxEjected is the largest share of a tier's origins that may be ejected.
	MaxEjected *Percent `json:"maxEjected,omitempty" schema:"default=50%"`
}

// RetrySpec allows further tries, only of requests that are safe to repeat or never left.
type RetrySpec struct {
	// Attempts after the first.
	Attempts *int `json:"attempts,omitempty" schema:"default=2,min=0,max=10"`
	// Budget is the largest share of tries under way that may be retries.
	Budget *Percent `json:"budget,omitempty" schema:"default=20%"`
	// InFlight is the most retries under way in the pool, whatever the budget; 0 means no such limit.
	InFlight int `json:"inFlight,omitempty" schema:"default=0,min=0,max=1000000"`
	// Hedge sends a second try beside one that is slow. Absent means never.
	Hedge *HedgeSpec `json:"hedge,omitempty"`
	// Statuses of an origin that are tried again, for safe methods.
	Statuses []int `json:"statuses,omitempty" schema:"maxItems=16,min=500,max=599"`
}

// ConnectionSpec is how an origin is spoken to.
type ConnectionSpec struct {
	// TLS speaks TLS to the origins.
	TLS *OriginTLS `json:"tls,omitempty"`
	// Protocol is what the origins are spoken to with: http1; h2, over TLS; h2c, HTTP/2 in clear by
	// prior knowledge; or auto, whatever of h2 and http1 an origin prefers in its TLS handshake.
	// HTTP/2 carries many requests on a connection, and gRPC.
	Protocol OriginProtocol `json:"protocol,omitempty" schema:"enum=http1|h2|h2c|auto,default=http1"`
	// Connect is the time to open a connection, TLS included.
	Connect Duration `json:"connect,omitempty" schema:"default=3s,min=10ms,max=1m"`
	// Idle connections are closed after this time.
	Idle Duration `json:"idle,omitempty" schema:"default=55s,min=1s,max=1h"`
	// Read is the longest time in which a body brings no byte.
	Read Duration `json:"read,omitempty" schema:"default=30s,min=10ms,max=1h"`
	// MaxPerOrigin connections at once; more requests wait.
	MaxPerOrigin int `json:"maxPerOrigin,omitempty" schema:"default=1024,min=1,max=100000"`
	// MaxIdlePerOrigin connections are kept.
	MaxIdlePerOrigin *int `json:"maxIdlePerOrigin,omitempty" schema:"default=256,min=0,max=100000"`
	// MaxAge is the longest time that a connection is used, so that an origin whose address changes is found
	// again; a tenth less, by chance.
	MaxAge Duration `json:"maxAge,omitempty" schema:"default=10m,min=1s,max=24h"`
	// MaxWaiting requests wait for a connection to one origin; one more is sent elsewhere, or fails.
	MaxWaiting *int `json:"maxWaiting,omitempty" schema:"default=1024,min=0,max=1000000"`
	// Resolvers are DNS servers that are asked for the origins' names, as address:port; absent means the system's.
	Resolvers []string `json:"resolvers,omitempty" schema:"maxItems=8,format=host-port"`
	// Allow lists networks that an origin's address may be in although they are not public: loopback,
	// link-local, private ones when Public is true. Without it an address at which a cloud tells its machines
	// their secrets (169.254.169.254 and others) is refused always.
	Allow []string `json:"allow,omitempty" schema:"maxItems=64,format=cidr"`
	// Public refuses, when a connection is opened, addresses that are not public.
	Public bool `json:"public,omitempty"`
	// ProxyProtocol tells the origin the visitor's address, in front of what is sent: a line (v1) or in
	// binary form (v2). An HTTP connection is then used for one visitor's connection alone. Over UDP (v2
	// only) each datagram begins with it.
	ProxyProtocol string `json:"proxyProtocol,omitempty" schema:"enum=off|v1|v2,default=off"`
	// SourceAddresses are those of this machine from which origins are dialled, so that origins can shut
	// out everybody else. An origin of a family without an address here is not dialled. Absent lets the
	// system choose.
	SourceAddresses []string `json:"sourceAddresses,omitempty" schema:"maxItems=64,format=address,local"`
	// Signature signs each request to the origin (RFC 9421), so that the origin can refuse all others.
	Signature *OriginSignature `json:"signature,omitempty"`
}

// OriginSignature signs requests to an origin with HMAC-SHA256 (RFC 9421 section 3.3.3). Fields
// Signature and Signature-Input of the visitor are dropped.
type OriginSignature struct {
	// KeyID names the secret to the origin, so that it can be changed.
	KeyID string `json:"keyId,omitempty" schema:"default=relais,format=token,maxLength=64"`
	// Secret is shared with the origin, at least 16 bytes.
	Secret string `json:"secret" schema:"required,maxLength=512,secret"`
}

// OriginProtocol is what an origin is spoken to with.
type OriginProtocol string

// The protocols towards origins.
const (
	OriginHTTP1 OriginProtocol = "http1"
	OriginH2    OriginProtocol = "h2"
	OriginH2C   OriginProtocol = "h2c"
	OriginAuto  OriginProtocol = "auto"
)

// OriginTLS is how TLS is spoken to an origin.
type OriginTLS struct {
	// ServerName is sent as SNI and checked in the certificate; absent means the request's host.
	ServerName string `json:"serverName,omitempty" schema:"format=hostname"`
	// CA is PEM of the authorities to trust in place of the system's.
	CA string `json:"ca,omitempty" schema:"maxLength=262144"`
	// ClientCertificate names the Certificate that is shown to an origin that asks for one.
	ClientCertificate string `json:"clientCertificate,omitempty" schema:"ref=Certificate"`
	// InsecureSkipVerify accepts any certificate.
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
}

// StickinessSpec keeps a visitor in the tier that holds its basket.
type StickinessSpec struct {
	// On says how a visitor is known again: by the visitor policy's signed cookie, or not at all.
	On string `json:"on,omitempty" schema:"enum=none|visitor,default=visitor"`
}
