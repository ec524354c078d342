package v1

// CachePolicy says what is stored and how it is found again. The rules of RFC 9111 hold under it.
type CachePolicy struct {
	TypeMeta `json:",inline"`
	Metadata Metadata        `json:"metadata" schema:"required"`
	Spec     CachePolicySpec `json:"spec"`
}

// CachePolicySpec is what a CachePolicy does.
type CachePolicySpec struct {
	// DefaultTTL is the lifetime of a 200, 203, 301, 404 or 410 answer to GET that gives none and carries no
	// Set-Cookie; 0 leaves only the heuristics of RFC 9111 section 4.2.2.
	DefaultTTL Duration `json:"defaultTTL,omitempty" schema:"default=0s,max=8760h"`
	// MaxTTL cuts longer lifetimes; 0 cuts none.
	MaxTTL Duration `json:"maxTTL,omitempty" schema:"default=0s,max=87600h"`
	// StaleWhileRevalidate is taken when an answer with a lifetime gives none (RFC 5861).
	StaleWhileRevalidate Duration `json:"staleWhileRevalidate,omitempty" schema:"default=0s,max=8760h"`
	// StaleIfError is taken when an answer with a lifetime gives none (RFC 5861).
	StaleIfError Duration `json:"staleIfError,omitempty" schema:"default=0s,max=8760h"`
	// StaleDisconnected is how long an answer with a lifetime is used stale while no origin answers at
	// all, as RFC 9111 section 4.2.4 allows; what the answer forbids it does not undo.
	StaleDisconnected Duration `json:"staleDisconnected,omitempty" schema:"default=0s,max=8760h"`
	// SetCookie says when an answer with Set-Cookie is stored: guarded wants a lifetime that is meant for
	// shared caches (public, s-maxage, or max-age in CDN-Cache-Control), standard any explicit lifetime, as
	// RFC 9111 section 7.3 allows.
	SetCookie string `json:"setCookie,omitempty" schema:"enum=guarded|standard,default=guarded"`
	// MaxObject is the largest body stored.
	MaxObject Size `json:"maxObject,omitempty" schema:"default=64MiB,min=1,max=16GiB"`
	// TargetedFields are obeyed in place of Cache-Control and Expires, the first one that an answer has
	// (RFC 9213 section 2.2). Without the list it is CDN-Cache-Control alone.
	TargetedFields []string `json:"targetedFields,omitempty" schema:"maxItems=8,format=field-name"`
	// Guard on keeps request fields that no key holds and that origins build answers from, such as
	// X-Original-URL, from what is fetched to be stored, and does not store a page under a path that ends
	// like a picture, script or style sheet.
	Guard string `json:"guard,omitempty" schema:"enum=on|off,default=on"`
	// StatusKey puts the key under which an answer was looked up into Cache-Status (RFC 9211 section 2.8),
	// for who looks for the reason of a miss.
	StatusKey bool `json:"statusKey,omitempty"`
	// Tags says whether visitors see Cache-Tag and Surrogate-Key, by which answers are purged: hide takes them
	// off, show leaves them, for a cache in front that is purged by them too.
	Tags string `json:"tags,omitempty" schema:"enum=hide|show,default=hide"`
	// Purge allows the PURGE method on the routes with this policy. Without it nobody may use it.
	Purge *CachePurge `json:"purge,omitempty"`
	// Key says what tells two objects apart, beside scheme, host and path.
	Key CacheKey `json:"key,omitempty"`
}

// CachePurge says who may use the PURGE method. What is given has to hold, and one of both is given.
type CachePurge struct {
	// Addresses from which PURGE is allowed.
	Addresses []string `json:"addresses,omitempty" schema:"maxItems=1000,format=cidr"`
	// Tokens of which a PURGE carries one, as Authorization: Bearer.
	Tokens []string `json:"tokens,omitempty" schema:"maxItems=16,maxLength=1024"`
}

// CacheKey says what tells two objects apart, beside scheme, host and path.
type CacheKey struct {
	// Query is which parameters count: all, none, or those of Parameters (listed), or all but those (except).
	Query string `json:"query,omitempty" schema:"enum=all|none|listed|except,default=all"`
	// Parameters for listed and except; a trailing * matches any ending.
	Parameters []string `json:"parameters,omitempty" schema:"maxItems=64,maxLength=128"`
	// Headers that are part of the key.
	Headers []string `json:"headers,omitempty" schema:"maxItems=8,format=field-name"`
	// Cookies that are part of the key.
	Cookies []string `json:"cookies,omitempty" schema:"maxItems=8,format=token"`
}

// WafPolicy is the web application firewall: the OWASP Core Rule Set and the tenant's exceptions.
type WafPolicy struct {
	TypeMeta `json:",inline"`
	Metadata Metadata      `json:"metadata" schema:"required"`
	Spec     WafPolicySpec `json:"spec"`
}

// WafPolicySpec is what a WafPolicy does.
type WafPolicySpec struct {
	Protection `json:",inline"`
	// Paranoia is the level of the Core Rule Set, 1 (few false alarms) to 4.
	Paranoia int `json:"paranoia,omitempty" schema:"default=1,min=1,max=4"`
	// InboundThreshold is the anomaly score from which a request is blocked.
	InboundThreshold int `json:"inboundThreshold,omitempty" schema:"default=5,min=1,max=10000"`
	// BodyBytes of a request body are examined; what follows is judged by Oversize.
	BodyBytes *Size `json:"bodyBytes,omitempty" schema:"default=128KiB,min=0,max=16MiB"`
	// Oversize says what happens to a body beyond BodyBytes.
	Oversize string `json:"oversize,omitempty" schema:"enum=pass|reject,default=pass"`
	// Exclusions let requests pass that the rules misjudge. Each names rules, tags or a target.
	Exclusions []WafExclusion `json:"exclusions,omitempty" schema:"maxItems=200"`
}

// WafExclusion takes rules, or one of their targets, out of force where the other parts match.
type WafExclusion struct {
	// Rules are rule ids or ranges: 942100 or 942100-942199.
	Rules []string `json:"rules,omitempty" schema:"maxItems=64,maxLength=32"`
	// Tags of rules, such as attack-sqli.
	Tags []string `json:"tags,omitempty" schema:"maxItems=16,maxLength=128"`
	// Target narrows the exclusion to one variable, such as ARGS:description or REQUEST_COOKIES:prefs.
	Target string `json:"target,omitempty" schema:"maxLength=256"`
	// Path narrows the exclusion to a path prefix.
	Path string `json:"path,omitempty" schema:"format=path,maxLength=1024"`
	// Methods narrow the exclusion.
	Methods []string `json:"methods,omitempty" schema:"maxItems=16,format=token"`
	// Expires ends the exclusion.
	Expires *Time `json:"expires,omitempty"`
}

// AccessPolicy allows and denies by address.
type AccessPolicy struct {
	TypeMeta `json:",inline"`
	Metadata Metadata         `json:"metadata" schema:"required"`
	Spec     AccessPolicySpec `json:"spec"`
}

// AccessPolicySpec is what an AccessPolicy does. Rules are tried in order; the first that matches decides.
type AccessPolicySpec struct {
	Protection `json:",inline"`
	// Rules in order.
	Rules []AccessRule `json:"rules,omitempty" schema:"maxItems=1000"`
	// Default decides where no rule matches.
	Default string `json:"default,omitempty" schema:"enum=allow|deny,default=allow"`
}

// AccessRule decides for the requests that match all of its parts.
type AccessRule struct {
	// Action is allow or deny.
	Action string `json:"action" schema:"required,enum=allow|deny"`
	// Addresses of visitors, as networks or single addresses.
	Addresses []string `json:"addresses,omitempty" schema:"maxItems=100000,format=cidr"`
	// Path narrows the rule to a path prefix.
	Path string `json:"path,omitempty" schema:"format=path,maxLength=1024"`
	// Methods narrow the rule.
	Methods []string `json:"methods,omitempty" schema:"maxItems=16,format=token"`
}

// RateLimit limits requests by a key, with the generic cell rate algorithm.
type RateLimit struct {
	TypeMeta `json:",inline"`
	Metadata Metadata      `json:"metadata" schema:"required"`
	Spec     RateLimitSpec `json:"spec" schema:"required"`
}

// RateLimitSpec is what a RateLimit does.
type RateLimitSpec struct {
	Protection `json:",inline"`
	// Requests allowed in each Per.
	Requests int `json:"requests" schema:"required,min=1,max=1000000000"`
	// Per is the period.
	Per Duration `json:"per,omitempty" schema:"default=1s,min=1ms,max=24h"`
	// Burst is how many requests may come at once; 0 means Requests.
	Burst int `json:"burst,omitempty" schema:"default=0,min=0,max=1000000000"`
	// Key says what is counted apart.
	Key RateLimitKey `json:"key,omitempty"`
	// Path narrows the limit to a path prefix.
	Path string `json:"path,omitempty" schema:"format=path,maxLength=1024"`
	// Methods narrow the limit.
	Methods []string `json:"methods,omitempty" schema:"maxItems=16,format=token"`
	// SpareBaskets leaves visitors with a basket unlimited; their requests are counted all the same.
	SpareBaskets *bool `json:"spareBaskets,omitempty" schema:"default=true"`
}

// RateLimitKey says what is counted apart.
type RateLimitKey struct {
	// On is client (an IPv4 address or an IPv6 /64), header, cookie or site (all visitors together).
	On string `json:"on,omitempty" schema:"enum=client|header|cookie|site,default=client"`
	// Name of the header or cookie. A request without it is counted by its client address.
	Name string `json:"name,omitempty" schema:"format=token,maxLength=128"`
}

// VisitorPolicy tells visitors apart by how near they are to an order, with a signed cookie.
type VisitorPolicy struct {
	TypeMeta `json:",inline"`
	Metadata Metadata          `json:"metadata" schema:"required"`
	Spec     VisitorPolicySpec `json:"spec" schema:"required"`
}

// VisitorPolicySpec is what a VisitorPolicy does.
type VisitorPolicySpec struct {
	Protection `json:",inline"`
	// Cookie is the name of the signed cookie.
	Cookie string `json:"cookie,omitempty" schema:"default=rv,format=token,maxLength=64"`
	// Secret signs the cookie, at least 16 bytes; give the same to all edges of a site. Absent means one
	// that the edge makes and keeps on its disk.
	Secret string `json:"secret,omitempty" schema:"maxLength=512"`
	// Basket names the requests that put something into a basket: a 2xx or 3xx answer to one of them
	// makes the visitor protected.
	Basket []StageMatch `json:"basket,omitempty" schema:"maxItems=16"`
	// Ordered names the requests that complete an order: a 2xx or 3xx answer ends the protection Grace later.
	Ordered []StageMatch `json:"ordered,omitempty" schema:"maxItems=16"`
	// Lifetime of a basket's protection after the last request.
	Lifetime Duration `json:"lifetime,omitempty" schema:"default=2h,min=1m,max=720h"`
	// Grace after an order.
	Grace *Duration `json:"grace,omitempty" schema:"default=5m,min=0s,max=24h"`
}

// StageMatch names requests by path and method.
type StageMatch struct {
	// Path is a prefix by path elements.
	Path string `json:"path" schema:"required,format=path,maxLength=1024"`
	// Methods; absent means POST.
	Methods []string `json:"methods,omitempty" schema:"maxItems=8,format=token"`
}

// Certificate is a certificate and its key for a listener.
type Certificate struct {
	TypeMeta `json:",inline"`
	Metadata Metadata        `json:"metadata" schema:"required"`
	Spec     CertificateSpec `json:"spec" schema:"required"`
}

// CertificateSpec is where a certificate comes from. Exactly one field is given.
type CertificateSpec struct {
	// Internal issues the certificate from the edge's own CA.
	Internal *InternalCertificate `json:"internal,omitempty"`
	// Files reads PEM files; they are read again when they change.
	Files *CertificateFiles `json:"files,omitempty"`
	// Inline is PEM in the document.
	Inline *CertificateInline `json:"inline,omitempty"`
	// ACME gets certificates from an authority such as Let's Encrypt (RFC 8555), and renews them.
	ACME *ACMECertificate `json:"acme,omitempty"`
	// OCSP staples the authority's word that the certificate is not revoked, where it has a responder.
	OCSP string `json:"ocsp,omitempty" schema:"enum=staple|off,default=staple"`
}

// InternalCertificate is issued by the edge's own CA.
type InternalCertificate struct {
	// Hostnames of the certificate.
	Hostnames []string `json:"hostnames,omitempty" schema:"maxItems=100,format=hostname-pattern"`
}

// CertificateFiles are PEM files.
type CertificateFiles struct {
	// Certificate chain, leaf first.
	Certificate string `json:"certificate" schema:"required,maxLength=4096"`
	// Key of the leaf.
	Key string `json:"key" schema:"required,maxLength=4096"`
}

// ACMECertificate is got from an ACME authority: one certificate for each host name. Until there is one,
// the edge's own CA answers for the name.
type ACMECertificate struct {
	// Hostnames to get certificates for, besides those of the sites that name this document.
	Hostnames []string `json:"hostnames,omitempty" schema:"maxItems=10000,format=hostname-pattern"`
	// Directory is the address of the authority's directory.
	Directory string `json:"directory,omitempty" schema:"default=https://acme-v02.api.letsencrypt.org/directory,maxLength=2048"`
	// CA holds the certificates that the directory's own TLS is checked with, as PEM; absent means the system's.
	CA string `json:"ca,omitempty" schema:"maxLength=262144"`
	// Email is told to the authority, for word of trouble.
	Email string `json:"email,omitempty" schema:"maxLength=320"`
	// ExternalAccount binds to an account that the authority knows already.
	ExternalAccount *ACMEExternalAccount `json:"externalAccount,omitempty"`
	// Challenges that may be used, tried in this order. Absent means tls-alpn-01 and http-01, or dns-01 when
	// dns is given. http-01 needs a listener in clear on port 80, tls-alpn-01 one with TLS on port 443.
	Challenges []string `json:"challenges,omitempty" schema:"maxItems=3,enum=http-01|tls-alpn-01|dns-01"`
	// DNS sets and removes the TXT records of dns-01.
	DNS *ACMEHook `json:"dns,omitempty"`
	// KeyType of the certificates' keys.
	KeyType string `json:"keyType,omitempty" schema:"enum=p256|p384|rsa2048|rsa4096,default=p256"`
	// OnDemand gets a certificate when a visitor first asks for a name.
	OnDemand *ACMEOnDemand `json:"onDemand,omitempty"`
}

// ACMEExternalAccount is what an authority gave out to bind accounts with (RFC 8555 section 7.3.4).
type ACMEExternalAccount struct {
	// KeyID names the key.
	KeyID string `json:"keyId" schema:"required,maxLength=1024"`
	// HMAC is the key, in base64url.
	HMAC string `json:"hmac" schema:"required,maxLength=1024"`
}

// ACMEHook changes DNS. Exactly one of Exec and Webhook is given.
type ACMEHook struct {
	// Exec is a program and its first arguments. It is given three more: present or cleanup, the record's
	// name with its last dot, and its value; and ends with 0 once that is done.
	Exec []string `json:"exec,omitempty" schema:"maxItems=32,maxLength=4096"`
	// Webhook is an address that gets POST {"action": "present" or "cleanup", "name": ..., "value": ...} as
	// JSON and answers with a status of 2xx once that is done.
	Webhook string `json:"webhook,omitempty" schema:"maxLength=2048"`
	// Wait is how long after that the record is everywhere.
	Wait *Duration `json:"wait,omitempty" schema:"default=30s,min=0s,max=1h"`
	// Timeout of one call.
	Timeout Duration `json:"timeout,omitempty" schema:"default=1m,min=1s,max=10m"`
}

// ACMEOnDemand guards certificates on demand: only a name that a site of the visitor's listener has, by
// itself or by a wildcard such as *.example.com, is asked for. A site for all names (*) needs Ask too.
type ACMEOnDemand struct {
	// Ask is an address that is asked with GET and ?domain=NAME, and allows the name with a status of 2xx.
	Ask string `json:"ask,omitempty" schema:"maxLength=2048"`
	// PerMinute bounds how many names are tried, for this document on this edge.
	PerMinute int `json:"perMinute,omitempty" schema:"default=10,min=1,max=10000"`
}

// CertificateInline is PEM in the document.
type CertificateInline struct {
	// Certificate chain, leaf first.
	Certificate string `json:"certificate" schema:"required,maxLength=262144"`
	// Key of the leaf.
	Key string `json:"key" schema:"required,maxLength=65536"`
}

// Service forwards TCP, UDP or TLS connections without looking into them.
type Service struct {
	TypeMeta `json:",inline"`
	Metadata Metadata    `json:"metadata" schema:"required"`
	Spec     ServiceSpec `json:"spec" schema:"required"`
}

// ServiceSpec is what a Service does.
type ServiceSpec struct {
	// Protocol is tcp, udp, or tls-passthrough (chosen by SNI, the TLS stays the origin's).
	Protocol string `json:"protocol" schema:"required,enum=tcp|udp|tls-passthrough"`
	// Address is host:port to receive on. Several tls-passthrough services may share one.
	Address string `json:"address" schema:"required,format=listen"`
	// Hostnames that a tls-passthrough service takes, by SNI.
	Hostnames []string `json:"hostnames,omitempty" schema:"maxItems=1000,format=hostname-pattern"`
	// Pool names the OriginPool.
	Pool string `json:"pool" schema:"required,ref=OriginPool"`
	// Idle ends a connection, or a UDP session, on which nothing passes.
	Idle Duration `json:"idle,omitempty" schema:"default=5m,min=1s,max=24h"`
	// Hello is the time for the PROXY protocol header and for the TLS ClientHello.
	Hello Duration `json:"hello,omitempty" schema:"default=10s,min=100ms,max=5m"`
	// Drain is how long connections may go on when the service is taken out or the process stops.
	Drain *Duration `json:"drain,omitempty" schema:"default=30s,min=0s,max=1h"`
	// ClientAddress says whose word is taken for a client's address.
	ClientAddress ServiceClientAddress `json:"clientAddress,omitempty"`
	// Limits bound what clients may cost.
	Limits ServiceLimits `json:"limits,omitempty"`
}

// ServiceClientAddress says whose word is taken for a client's address. On an address that is shared
// with a Listener, the Listener's holds.
type ServiceClientAddress struct {
	// TrustedProxies may tell the client's address by the PROXY protocol.
	TrustedProxies []string `json:"trustedProxies,omitempty" schema:"maxItems=1024,format=cidr"`
	// ProxyProtocol accepts the PROXY protocol, versions 1 and 2, from TrustedProxies, over TCP. When it
	// is required, a connection without it is closed.
	ProxyProtocol string `json:"proxyProtocol,omitempty" schema:"enum=off|optional|required,default=off"`
}

// ServiceLimits bound what the clients of a Service may cost.
type ServiceLimits struct {
	// Connections, or UDP sessions, at once; more are refused.
	Connections int `json:"connections,omitempty" schema:"default=100000,min=1,max=10000000"`
	// ConnectionsPerAddress at once from one IPv4 address or IPv6 /64; 0 means no limit for TCP, and for
	// UDP, whose source addresses can be forged, 1000.
	ConnectionsPerAddress int `json:"connectionsPerAddress,omitempty" schema:"default=0,min=0,max=1000000"`
}
