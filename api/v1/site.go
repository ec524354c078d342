package v1

// Site is a web property: host names, their routes and their policies.
type Site struct {
	TypeMeta `json:",inline"`
	Metadata Metadata `json:"metadata" schema:"required"`
	Spec     SiteSpec `json:"spec" schema:"required"`
}

// SiteSpec is what a Site does. The policies named here hold for every route that names no other.
type SiteSpec struct {
	// Hostnames are exact names, names with one leading wildcard label (*.example.com, any depth), or * for all.
	Hostnames []string `json:"hostnames" schema:"required,minItems=1,maxItems=1000,format=hostname-pattern"`
	// Listeners that serve the site, of its organization or else of the one named default; absent means all.
	Listeners []string `json:"listeners,omitempty" schema:"maxItems=64,ref=Listener"`
	Delivery  `json:",inline"`
	// HTTPS brings visitors to TLS.
	HTTPS HTTPS `json:"https,omitempty"`
	// Maintenance answers with a page while the site is worked on.
	Maintenance *Maintenance `json:"maintenance,omitempty"`
	// ErrorPages take the place of the edge's own pages for errors.
	ErrorPages []ErrorPage `json:"errorPages,omitempty" schema:"maxItems=32"`
	// Challenge is what visitors are asked for whom a protection challenges.
	Challenge *Challenge `json:"challenge,omitempty"`
	// Certificates are names of Certificate documents of the site's organization, which its listeners with
	// TLS show for its host names. They are read when the first visitor asks for one of these names.
	Certificates []string `json:"certificates,omitempty" schema:"maxItems=16,ref=Certificate"`
	Policies     `json:",inline"`
	// Flood names a FloodPolicy, for all routes.
	Flood string `json:"flood,omitempty" schema:"ref=FloodPolicy"`
	// Routes are tried in order; the first that matches serves the request.
	Routes []Route `json:"routes" schema:"required,minItems=1,maxItems=1000"`
}

// Policies names the policies of a site or of a route.
type Policies struct {
	// Access names an AccessPolicy.
	Access string `json:"access,omitempty" schema:"ref=AccessPolicy"`
	// JWT names a JwtPolicy.
	JWT string `json:"jwt,omitempty" schema:"ref=JwtPolicy"`
	// API names an ApiPolicy.
	API string `json:"api,omitempty" schema:"ref=ApiPolicy"`
	// RateLimits name RateLimits; all of them hold. A route's list is added to its site's.
	RateLimits []string `json:"rateLimits,omitempty" schema:"maxItems=16,ref=RateLimit"`
	// WAF names a WafPolicy.
	WAF string `json:"waf,omitempty" schema:"ref=WafPolicy"`
	// Visitor names a VisitorPolicy.
	Visitor string `json:"visitor,omitempty" schema:"ref=VisitorPolicy"`
	// WaitingRoom names a WaitingRoom.
	WaitingRoom string `json:"waitingRoom,omitempty" schema:"ref=WaitingRoom"`
	// Bots names a BotPolicy.
	Bots string `json:"bots,omitempty" schema:"ref=BotPolicy"`
	// Cache names a CachePolicy. Without one nothing is stored.
	Cache string `json:"cache,omitempty" schema:"ref=CachePolicy"`
	// Images names an ImagePolicy: pictures are resized, and sent in the format that their reader takes best.
	// Give the route a CachePolicy too, so that each is made once.
	Images string `json:"images,omitempty" schema:"ref=ImagePolicy"`
}

// Route says which requests it takes and where they go: to a pool, to several by weight, to a
// redirect or to a fixed answer. Exactly one of Pool, Pools, Redirect and Respond is given.
type Route struct {
	// Name appears in logs, metrics and explanations; absent means route-N.
	Name string `json:"name,omitempty" schema:"format=name,maxLength=63"`
	// Match lists alternatives; absent means every request.
	Match []RouteMatch `json:"match,omitempty" schema:"maxItems=64"`
	// Listeners narrows the route to these listeners of the site.
	Listeners []string `json:"listeners,omitempty" schema:"maxItems=64,ref=Listener"`
	Policies  `json:",inline"`
	Delivery  `json:",inline"`
	// Mirror sends copies of the requests to another pool.
	Mirror *Mirror `json:"mirror,omitempty"`
	// Filters change the request and its answer, for every pool of the route.
	Filters Filters `json:"filters,omitempty"`
	// Pool names the one OriginPool.
	Pool string `json:"pool,omitempty" schema:"ref=OriginPool"`
	// Pools share the requests by weight.
	Pools []WeightedPool `json:"pools,omitempty" schema:"maxItems=64"`
	// Redirect answers with a redirection.
	Redirect *Redirect `json:"redirect,omitempty"`
	// Respond answers with a fixed response.
	Respond *Respond `json:"respond,omitempty"`
	// Timeouts bound the work for one request.
	Timeouts RouteTimeouts `json:"timeouts,omitempty"`
}

// RouteMatch holds when all of its parts hold.
type RouteMatch struct {
	// Path to compare with the request's normalised path (RFC 3986 section 6.2.2), as it is and with runs of slashes
	// merged.
	Path *PathMatch `json:"path,omitempty"`
	// Methods, one of which the request has.
	Methods []string `json:"methods,omitempty" schema:"maxItems=16,format=token"`
	// Headers, all of which hold.
	Headers []ValueMatch `json:"headers,omitempty" schema:"maxItems=16"`
	// Query parameters, all of which hold.
	Query []ValueMatch `json:"query,omitempty" schema:"maxItems=16"`
}

// PathMatch compares a path. Exactly one field is given.
type PathMatch struct {
	// Exact is the whole path.
	Exact string `json:"exact,omitempty" schema:"format=path,maxLength=1024"`
	// Prefix is matched by path elements: /img matches /img and /img/a, not /images.
	Prefix string `json:"prefix,omitempty" schema:"format=path,maxLength=1024"`
	// Regex is an RE2 expression that matches the whole path in linear time.
	Regex string `json:"regex,omitempty" schema:"format=regexp,maxLength=1024"`
}

// ValueMatch compares a header field or a query parameter. Exactly one of Exact, Regex and Present is given.
type ValueMatch struct {
	// Name of the field (any case) or of the parameter (exact case).
	Name string `json:"name" schema:"required,maxLength=256"`
	// Exact value.
	Exact *string `json:"exact,omitempty" schema:"maxLength=4096"`
	// Regex is an RE2 expression that matches the whole value.
	Regex string `json:"regex,omitempty" schema:"format=regexp,maxLength=1024"`
	// Present says that the name must be there (true) or must not (false).
	Present *bool `json:"present,omitempty"`
}

// WeightedPool is one share of a route's requests.
type WeightedPool struct {
	// Pool names an OriginPool.
	Pool string `json:"pool" schema:"required,ref=OriginPool"`
	// Weight relative to the others; 0 sends nothing.
	Weight *int `json:"weight,omitempty" schema:"default=1,min=0,max=1000000"`
	// Filters are applied after the route's, for this pool only.
	Filters Filters `json:"filters,omitempty"`
}

// Filters change a request on its way to the origin and the answer on its way back.
type Filters struct {
	// RequestHeaders changes the fields sent to the origin.
	RequestHeaders *HeaderFilter `json:"requestHeaders,omitempty"`
	// ResponseHeaders changes the fields sent to the visitor.
	ResponseHeaders *HeaderFilter `json:"responseHeaders,omitempty"`
	// Rewrite changes the host, the path or the query sent to the origin. Rules and the cache work on the target
	// as the visitor sent it.
	Rewrite *Rewrite `json:"rewrite,omitempty"`
}

// HeaderFilter removes, then sets, then adds fields.
type HeaderFilter struct {
	// Remove these fields.
	Remove []string `json:"remove,omitempty" schema:"maxItems=32,format=field-name"`
	// Set these fields, in place of any of the same name.
	Set []HeaderValue `json:"set,omitempty" schema:"maxItems=32"`
	// Add these fields.
	Add []HeaderValue `json:"add,omitempty" schema:"maxItems=32"`
}

// HeaderValue is one field line. Its value may hold variables: ${client.ip}, ${client.port}, ${request.id},
// ${request.method}, ${request.scheme}, ${request.host}, ${request.authority}, ${request.path}, ${request.query},
// ${http.version}, ${tls.version}, ${tls.cipher}, ${tls.sni}, ${site.name}, ${route.name}, ${visitor.class} and, in
// an answer, ${response.status}.
type HeaderValue struct {
	// Name of the field.
	Name string `json:"name" schema:"required,format=field-name"`
	// Value of the field.
	Value string `json:"value" schema:"required,maxLength=4096"`
	// Statuses of the answers that get the line: codes such as 404, or classes such as 5xx. Absent means all.
	// Only in responseHeaders.
	Statuses []string `json:"statuses,omitempty" schema:"maxItems=16,maxLength=3"`
}

// Rewrite changes the request's target. Path, Prefix and Regex exclude each other.
type Rewrite struct {
	// Hostname is sent as the authority in place of the visitor's.
	Hostname string `json:"hostname,omitempty" schema:"format=hostname"`
	// Path replaces the whole path.
	Path string `json:"path,omitempty" schema:"format=path,maxLength=1024"`
	// Prefix replaces the prefix that the route's path match named.
	Prefix *string `json:"prefix,omitempty" schema:"maxLength=1024"`
	// Regex replaces what a pattern matches in the path.
	Regex *RegexRewrite `json:"regex,omitempty"`
	// Query removes and sets parameters.
	Query *QueryRewrite `json:"query,omitempty"`
}

// Redirect answers with a redirection to the same URL with some parts replaced.
type Redirect struct {
	// Scheme is http or https.
	Scheme string `json:"scheme,omitempty" schema:"enum=http|https"`
	// Hostname replaces the host.
	Hostname string `json:"hostname,omitempty" schema:"format=hostname"`
	// Port replaces the port; 0 means the scheme's own, or the listener's when the scheme stays.
	Port int `json:"port,omitempty" schema:"min=0,max=65535"`
	// Path replaces the whole path.
	Path string `json:"path,omitempty" schema:"format=path,maxLength=1024"`
	// Prefix replaces the prefix that the route's path match named.
	Prefix *string `json:"prefix,omitempty" schema:"maxLength=1024"`
	// Status is the status code.
	Status int `json:"status,omitempty" schema:"enum=301|302|303|307|308,default=302"`
}

// Respond is a fixed answer.
type Respond struct {
	// Status code.
	Status int `json:"status,omitempty" schema:"default=200,min=200,max=599"`
	// ContentType of the body.
	ContentType string `json:"contentType,omitempty" schema:"default=text/plain; charset=utf-8,maxLength=256"`
	// Body is the content.
	Body string `json:"body,omitempty" schema:"maxLength=65536"`
}

// RouteTimeouts bound the work for one request.
type RouteTimeouts struct {
	// Request is the whole time until the head of the answer, all tries included; 0 means no limit.
	Request *Duration `json:"request,omitempty" schema:"default=60s,min=0s,max=24h"`
	// Try is the time of one try until the head of its answer; 0 means no limit of its own.
	Try Duration `json:"try,omitempty" schema:"default=0s,min=0s,max=24h"`
	// Header is a field in which a client may ask for less than Request, in whole milliseconds, and in which
	// each try tells the origin how many are left. Absent means none. Grpc-Timeout of gRPC always does both.
	Header string `json:"header,omitempty" schema:"format=field-name"`
}
