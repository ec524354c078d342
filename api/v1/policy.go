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
	// X-Original-URL, from what is fetched to be stored. It does not store a page under a path that ends
	// like a picture, script or style sheet, nor an answer that repeats what its request brought and no key
	// holds, and gives no lifetime of ours to a path that servers read in different ways, such as /a%2f..%2fb.
	Guard string `json:"guard,omitempty" schema:"enum=on|off,default=on"`
	// StatusKey puts the key under which an answer was looked up into Cache-Status (RFC 9211 section 2.8),
	// for who looks for the reason of a miss.
	StatusKey bool `json:"statusKey,omitempty"`
	// Tags says whether visitors see Cache-Tag and Surrogate-Key, by which answers are purged: hide takes them
	// off, show leaves them, for a cache in front that is purged by them too.
	Tags string `json:"tags,omitempty" schema:"enum=hide|show,default=hide"`
	// Bypass names requests that are neither looked up nor stored: those that one of the rules matches.
	Bypass []CacheBypass `json:"bypass,omitempty" schema:"maxItems=32"`
	// Purge allows the PURGE method on the routes with this policy. Without it nobody may use it.
	Purge *CachePurge `json:"purge,omitempty"`
	// Warm bounds fetches of the edge's own, so that stored answers are there before somebody asks. Without it
	// only commands fetch, within the same bounds.
	Warm *CacheWarm `json:"warm,omitempty"`
	// Feed maps the events of a price and stock feed to what they purge. Without it there is no feed.
	Feed *CacheFeed `json:"feed,omitempty"`
	// Trial tells which pages of the routes with this policy would be safe to cache. Without it none is tried.
	Trial *CacheTrial `json:"trial,omitempty"`
	// Key says what tells two objects apart, beside scheme, host and path.
	Key CacheKey `json:"key,omitempty"`
}

// CachePurge says who may use the PURGE method. What is given has to hold, and one of both is given.
type CachePurge struct {
	// Addresses from which PURGE is allowed.
	Addresses []string `json:"addresses,omitempty" schema:"maxItems=1000,format=cidr"`
	// Tokens of which a PURGE carries one, as Authorization: Bearer.
	Tokens []string `json:"tokens,omitempty" schema:"maxItems=16,maxLength=1024,secret"`
}

// CacheBypass matches a request when each part that is given does; of a list one member has to. Members of
// Cookies, Parameters and Headers are a name, a name with a trailing * for any ending, or name=value.
type CacheBypass struct {
	// Cookies that the request has.
	Cookies []string `json:"cookies,omitempty" schema:"maxItems=32,maxLength=256"`
	// Parameters that its query has.
	Parameters []string `json:"parameters,omitempty" schema:"maxItems=32,maxLength=256"`
	// Headers that it has; names in any case, values as they are.
	Headers []string `json:"headers,omitempty" schema:"maxItems=32,maxLength=256"`
	// Suffixes one of which the path ends with, in any case; @static stands for those of pictures, scripts, style
	// sheets, fonts, films, archives and documents.
	Suffixes []string `json:"suffixes,omitempty" schema:"maxItems=64,maxLength=64"`
	// ExceptSuffixes are those of paths that the rule leaves alone.
	ExceptSuffixes []string `json:"exceptSuffixes,omitempty" schema:"maxItems=64,maxLength=64"`
}

// CacheKey says what tells two objects apart, beside scheme, host and path.
type CacheKey struct {
	// Query is which parameters count: all, none, or those of Parameters (listed), or all but those (except).
	Query string `json:"query,omitempty" schema:"enum=all|none|listed|except,default=all"`
	// Parameters for listed and except; a trailing * matches any ending, and @marketing stands for those of
	// advertisers and newsletters that origins do not read: utm_*, gclid, fbclid, msclkid and others.
	Parameters []string `json:"parameters,omitempty" schema:"maxItems=64,maxLength=128"`
	// Sort leaves the order of parameters out of the key. Those of one name keep theirs.
	Sort bool `json:"sort,omitempty"`
	// Headers that are part of the key.
	Headers []string `json:"headers,omitempty" schema:"maxItems=8,format=field-name"`
	// Cookies that are part of the key.
	Cookies []string `json:"cookies,omitempty" schema:"maxItems=8,format=token"`
	// Languages that the origin has, the first for who wants none of them. The one that fits Accept-Language best
	// (RFC 4647 section 3.4) is part of the key, and the origin is sent it alone.
	Languages []string `json:"languages,omitempty" schema:"maxItems=32,maxLength=35"`
	// Device makes the class of the visitor's device, mobile, tablet or desktop, part of the key. The origin is sent
	// it as Relais-Device; User-Agent in a Vary then stands for it.
	Device bool `json:"device,omitempty"`
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
	// DetectionParanoia is the level up to which rules are evaluated and shown; those above Paranoia never block. 0 means Paranoia.
	DetectionParanoia int `json:"detectionParanoia,omitempty" schema:"min=0,max=4"`
	// InboundThreshold is the anomaly score from which a request is blocked.
	InboundThreshold int `json:"inboundThreshold,omitempty" schema:"default=5,min=1,max=10000"`
	// BodyBytes of a request body are examined; what follows is judged by Oversize.
	BodyBytes *Size `json:"bodyBytes,omitempty" schema:"default=128KiB,min=0,max=16MiB"`
	// Oversize says what happens to a body beyond BodyBytes.
	Oversize string `json:"oversize,omitempty" schema:"enum=pass|reject,default=pass"`
	// OnFailure says what becomes of a request that cannot be judged: no place for its evaluation in time, no
	// memory for its body, a failure of the engine, a source that has used up its share. closed refuses it, open
	// lets it pass unexamined. A visitor with a basket passes either way.
	OnFailure string `json:"onFailure,omitempty" schema:"enum=closed|open,default=closed"`
	// ResponseBytes of an answer's body are examined before it goes on, where it is text/html, text/plain or
	// text/xml; 0 examines no answers. The origin is then asked for answers that are not compressed.
	ResponseBytes *Size `json:"responseBytes,omitempty" schema:"default=0,min=0,max=1MiB"`
	// OutboundThreshold is the anomaly score from which an answer is refused.
	OutboundThreshold int `json:"outboundThreshold,omitempty" schema:"default=4,min=1,max=10000"`
	// CPU is the CPU time that evaluations may take in a second at one site on average, two seconds' worth of it at once. What
	// comes beyond it cannot be judged, and OnFailure decides; visitors with a basket are evaluated all the
	// same. 0 sets no bound: a site that takes more than half the CPUs then has half of the places for evaluations.
	CPU Duration `json:"cpu,omitempty" schema:"min=0s,max=1h"`
	// Rules are the tenant's own. They are asked before the Core Rule Set, in order, and cost no evaluation by the engine.
	Rules []WafRule `json:"rules,omitempty" schema:"maxItems=64"`
	// Exclusions let requests pass that the rules misjudge. Each names rules, tags or a target.
	Exclusions []WafExclusion `json:"exclusions,omitempty" schema:"maxItems=200"`
	// Learning is what the firewall makes of hits on visitors who order. It needs a VisitorPolicy.
	Learning WafLearning `json:"learning,omitempty"`
	// Candidate is what may follow: it judges a share of the requests beside the policy, which goes on to decide, and
	// where it would do otherwise is told.
	Candidate *WafCandidate `json:"candidate,omitempty"`
}

// WafCandidate is what a WafPolicy would judge by instead. What it does not say is as in the policy; an empty list is none.
type WafCandidate struct {
	// Share of the requests that it judges as well.
	Share *Percent `json:"share,omitempty" schema:"default=10%"`
	// From is when it takes the policy's place. Without it that is left to a person, who moves its fields into the policy.
	From *Time `json:"from,omitempty"`
	// Paranoia in place of the policy's; 0 means the same.
	Paranoia int `json:"paranoia,omitempty" schema:"min=0,max=4"`
	// InboundThreshold in place of the policy's; 0 means the same.
	InboundThreshold int `json:"inboundThreshold,omitempty" schema:"min=0,max=10000"`
	// Rules of the tenant's own, in place of the policy's.
	Rules []WafRule `json:"rules,omitzero" schema:"maxItems=64"`
	// Exclusions in place of the policy's.
	Exclusions []WafExclusion `json:"exclusions,omitzero" schema:"maxItems=200"`
}

// WafRule is a rule of the tenant's own. It matches a request in its scope for which all of When hold.
type WafRule struct {
	// Name is shown where the rule matched.
	Name string `json:"name" schema:"required,format=name"`
	// Action is deny, which refuses the request, or log, which only says that the rule matched.
	Action string `json:"action,omitempty" schema:"enum=deny|log,default=deny"`
	// Path narrows the rule to a path prefix.
	Path string `json:"path,omitempty" schema:"format=path,maxLength=1024"`
	// Methods narrow the rule.
	Methods []string `json:"methods,omitempty" schema:"maxItems=16,format=token"`
	// When are the conditions; all must hold.
	When []WafCondition `json:"when,omitempty" schema:"maxItems=8"`
	// Expires ends the rule.
	Expires *Time `json:"expires,omitempty"`
}

// WafCondition looks at one part of a request. It holds when a value of the target equals, begins with, ends with,
// contains or matches one of those that are listed; where none is listed, when there is a value.
type WafCondition struct {
	// Target is path, query, host, header:NAME, cookie:NAME, argument:NAME or argument (any; of the query and of a form, decoded or in parts), json:PATH (a
	// member of a JSON body, such as cart.items.#.sku) or body (what is examined of it, as it came).
	Target string `json:"target" schema:"required,maxLength=256"`
	// Equals are whole values.
	Equals []string `json:"equals,omitempty" schema:"maxItems=256,maxLength=1024"`
	// Prefix are beginnings of values.
	Prefix []string `json:"prefix,omitempty" schema:"maxItems=64,maxLength=1024"`
	// Suffix are ends of values.
	Suffix []string `json:"suffix,omitempty" schema:"maxItems=64,maxLength=1024"`
	// Contains are texts that values hold.
	Contains []string `json:"contains,omitempty" schema:"maxItems=64,maxLength=1024"`
	// Matches is a regular expression in RE2 syntax, which finds anywhere in the value.
	Matches string `json:"matches,omitempty" schema:"format=regexp,maxLength=1024"`
	// IgnoreCase takes upper and lower case of ASCII letters for the same.
	IgnoreCase bool `json:"ignoreCase,omitempty"`
	// Longer holds for values of more bytes than this.
	Longer *int `json:"longer,omitempty" schema:"min=0,max=16777216"`
	// Not turns the condition around: it holds where no value does.
	Not bool `json:"not,omitempty"`
}

// WafLearning says what the firewall makes of rules that hit visitors who then order.
type WafLearning struct {
	// Mode is off, observe (proposes exclusions), or auto: a rule that hits too many buyers also demotes
	// itself to log for that route, where OrderField proves their orders.
	Mode string `json:"mode,omitempty" schema:"enum=auto|observe|off,default=auto"`
	// OrderField is a field by which the origin's answer names an order that was placed, such as X-Order-Id,
	// another value for each. Without it a 2xx answer to a request of the VisitorPolicy's ordered counts as one.
	OrderField string `json:"orderField,omitempty" schema:"format=field-name,maxLength=128"`
	// Buyers is how many visitors, each from another network, must have ordered after a hit before an
	// exclusion is proposed or a rule demoted.
	Buyers int `json:"buyers,omitempty" schema:"default=10,min=2,max=64"`
	// Share of the visitors with a basket who were hit that must have ordered.
	Share *Percent `json:"share,omitempty" schema:"default=10%"`
	// Lifetime of a demotion; it is renewed while half as many buyers are hit.
	Lifetime Duration `json:"lifetime,omitempty" schema:"default=24h,min=1m,max=720h"`
	// MaxDemotions of a site at a time.
	MaxDemotions *int `json:"maxDemotions,omitempty" schema:"default=4,min=0,max=32"`
}

// WafExclusion takes rules, or one of their targets, out of force where the other parts match.
type WafExclusion struct {
	// Rules are rule ids or ranges: 942100 or 942100-942199.
	Rules []string `json:"rules,omitempty" schema:"maxItems=64,maxLength=32"`
	// Tags of rules, such as attack-sqli.
	Tags []string `json:"tags,omitempty" schema:"maxItems=16,maxLength=128"`
	// Target narrows the exclusion to one variable, such as ARGS:description or REQUEST_COOKIES:prefs.
	Target string `json:"target,omitempty" schema:"maxLength=256"`
	// Shapes narrow the exclusion to values of the target that look like one of these: w is a run of words, 9 a
	// number, all else stands for itself, and so do words such as select and script.
	Shapes []string `json:"shapes,omitempty" schema:"maxItems=64,maxLength=64"`
	// Path narrows the exclusion to a path prefix.
	Path string `json:"path,omitempty" schema:"format=path,maxLength=1024"`
	// Exact narrows the exclusion to the path itself, without what lies below it.
	Exact bool `json:"exact,omitempty"`
	// Methods narrow the exclusion.
	Methods []string `json:"methods,omitempty" schema:"maxItems=16,format=token"`
	// Expires ends the exclusion.
	Expires *Time `json:"expires,omitempty"`
}

// AccessPolicy allows and denies by address, by where that is, and by the client's certificate.
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
	// Countries of visitors, as ISO 3166-1 codes such as CH, by the database of relais serve --geoip. An address
	// that it does not know, or any without a database, is in no country.
	Countries []string `json:"countries,omitempty" schema:"maxItems=260,maxLength=2"`
	// ASNs are numbers of the autonomous systems (networks of an operator) that visitors come from, by the same
	// database.
	ASNs []int `json:"asns,omitempty" schema:"maxItems=1000,min=1,max=4294967295"`
	// ClientCertificate narrows the rule to visitors whose certificate the listener has verified (tls.clientAuth).
	ClientCertificate *ClientCertificateMatch `json:"clientCertificate,omitempty"`
	// Path narrows the rule to a path prefix.
	Path string `json:"path,omitempty" schema:"format=path,maxLength=1024"`
	// Methods narrow the rule.
	Methods []string `json:"methods,omitempty" schema:"maxItems=16,format=token"`
}

// ClientCertificateMatch holds for a verified certificate that has one of each kind that is given. In a pattern
// one * stands for any text; in a name of dnsNames for any labels. Letters of names and of emails are compared
// without regard to case.
type ClientCertificateMatch struct {
	// Any holds for every verified certificate.
	Any bool `json:"any,omitempty"`
	// DNSNames are patterns for its DNS names, such as *.partner.example.
	DNSNames []string `json:"dnsNames,omitempty" schema:"maxItems=64,maxLength=253"`
	// URIs are patterns for its URIs, such as spiffe://example.org/shop/*.
	URIs []string `json:"uris,omitempty" schema:"maxItems=64,maxLength=2048"`
	// Emails are patterns for its addresses, such as *@partner.example.
	Emails []string `json:"emails,omitempty" schema:"maxItems=64,maxLength=320"`
	// Subjects are patterns for its subject as RFC 4514 writes it, such as CN=till-*,O=Example.
	Subjects []string `json:"subjects,omitempty" schema:"maxItems=64,maxLength=1024"`
	// Issuers are patterns for its issuer as RFC 4514 writes it.
	Issuers []string `json:"issuers,omitempty" schema:"maxItems=64,maxLength=1024"`
	// Fingerprints are SHA-256 digests of certificates, in hexadecimal.
	Fingerprints []string `json:"fingerprints,omitempty" schema:"maxItems=1000,maxLength=64"`
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
	// Burst is how many requests may come at once; 0 means Requests. With Statuses it bounds those that are under
	// way together with those that counted lately.
	Burst int `json:"burst,omitempty" schema:"default=0,min=0,max=1000000000"`
	// Key says what is counted apart.
	Key RateLimitKey `json:"key,omitempty"`
	// Keys in the place of Key are counted apart together, such as an address and a path.
	Keys []RateLimitKey `json:"keys,omitempty" schema:"maxItems=4"`
	// Statuses of the answers that count: codes such as 401, or classes such as 4xx. Absent means that requests
	// count, whatever the answer. A request counts until its answer is known, and then no more if that has none of
	// them. One that comes once the limit is reached is refused unasked.
	Statuses []string `json:"statuses,omitempty" schema:"maxItems=16,maxLength=3"`
	// Shared counts what all edges take together, within a tenth of a second or so, where they are joined by a bus.
	Shared bool `json:"shared,omitempty"`
	// Path narrows the limit to a path prefix.
	Path string `json:"path,omitempty" schema:"format=path,maxLength=1024"`
	// Methods narrow the limit.
	Methods []string `json:"methods,omitempty" schema:"maxItems=16,format=token"`
	// SpareBaskets leaves visitors with a basket unlimited; their requests are counted all the same. Absent means
	// true, and false with Statuses.
	SpareBaskets *bool `json:"spareBaskets,omitempty"`
	// BasketCeiling bounds a visitor that is spared to so many times the limit; 0 is no bound.
	BasketCeiling *int `json:"basketCeiling,omitempty" schema:"default=10,min=0,max=10000"`
}

// RateLimitKey says what is counted apart.
type RateLimitKey struct {
	// On is client (an IPv4 address or an IPv6 /64), network (its first bits), header, cookie, token (what
	// Authorization holds), path, json (a field of a body, of which 16 KiB are read) or site (all visitors together).
	On string `json:"on,omitempty" schema:"enum=client|network|header|cookie|token|path|json|site,default=client"`
	// Name of the header or cookie, or of the field, with dots between names: user.email. A request without it
	// is counted by its client address.
	Name string `json:"name,omitempty" schema:"format=token,maxLength=128"`
	// IPv4 is how many bits of an address a network has; 0 means 24.
	IPv4 int `json:"ipv4,omitempty" schema:"default=0,min=0,max=32"`
	// IPv6 is the same for IPv6; 0 means 48.
	IPv6 int `json:"ipv6,omitempty" schema:"default=0,min=0,max=128"`
}

// FloodPolicy tells an attack from a rush of visitors, and takes measures against the first.
type FloodPolicy struct {
	TypeMeta `json:",inline"`
	Metadata Metadata        `json:"metadata" schema:"required"`
	Spec     FloodPolicySpec `json:"spec"`
}

// FloodPolicySpec is what a FloodPolicy does. There is no number of requests a second in it: how a site is when
// all is calm is learned.
type FloodPolicySpec struct {
	Protection `json:",inline"`
	// Sensitivity is how little has to be unusual about what comes, while something is saturated.
	Sensitivity string `json:"sensitivity,omitempty" schema:"enum=low|normal|high,default=normal"`
	// WarmUp is how long a site is watched, with requests, before an attack on it can be told.
	WarmUp Duration `json:"warmUp,omitempty" schema:"default=10m,min=5s,max=168h"`
	// Hold is how long nothing must be saturated before a step is left. It doubles each time that was too early.
	Hold Duration `json:"hold,omitempty" schema:"default=20s,min=1s,max=1h"`
	// Steps that may be taken, whatever their order here; absent means all. They are, the least harmful first:
	// stale (stored answers are used stale), cache (see cache), challenge (suspects get a page that a browser
	// solves), limit (suspects are limited by address, network and browser) and drop (suspects are refused).
	Steps []string `json:"steps,omitempty" schema:"maxItems=5,enum=stale|cache|challenge|limit|drop"`
	// Harm is the share of the requests of visitors with signed state that a step may hit; a step that hits
	// more is taken back for five minutes. Visitors with a basket are hit by none.
	Harm *Percent `json:"harm,omitempty" schema:"default=0.1%"`
	// Cache says where the step of that name acts.
	Cache FloodCache `json:"cache,omitempty"`
	// Limits of suspects in the step limit.
	Limits FloodLimits `json:"limits,omitempty"`
	// Trusted networks and addresses are never judged: callbacks of payment, monitoring.
	Trusted []string `json:"trusted,omitempty" schema:"maxItems=10000,format=cidr"`
}

// FloodCache says where, in the step cache, parameters that a site does not know are left off a query, so that
// they do not make another page.
type FloodCache struct {
	// Paths are prefixes by path elements.
	Paths []string `json:"paths,omitempty" schema:"maxItems=64,format=path,maxLength=1024"`
	// Parameters that the pages below Paths know; a trailing * matches any ending.
	Parameters []string `json:"parameters,omitempty" schema:"maxItems=128,maxLength=128"`
}

// FloodLimits bound suspects, in requests a second.
type FloodLimits struct {
	// Address is for an IPv4 address or an IPv6 /64.
	Address int `json:"address,omitempty" schema:"default=2,min=1,max=100"`
	// Network is for an IPv4 /24 or an IPv6 /48.
	Network int `json:"network,omitempty" schema:"default=20,min=1,max=100"`
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
