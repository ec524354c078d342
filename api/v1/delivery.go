package v1

// Delivery is how answers reach visitors: what a site says holds for each of its routes that says nothing else.
type Delivery struct {
	// Compression of answers that the origin does not compress itself; absent means none.
	Compression *Compression `json:"compression,omitempty"`
	// EarlyHints sends 103 with the Link fields that the page had last time, before the origin answers
	// (RFC 8297).
	EarlyHints *bool `json:"earlyHints,omitempty"`
}

// Compression of answers to clients that accept it (RFC 9110 section 8.4).
type Compression struct {
	// Enabled turns compression off for a route where its site has it on.
	Enabled *bool `json:"enabled,omitempty" schema:"default=true"`
	// Algorithms in the order in which they are preferred; absent means zstd, br, gzip.
	Algorithms []string `json:"algorithms,omitempty" schema:"maxItems=3,enum=zstd|br|gzip"`
	// Types of content to compress: type/subtype, type/* or *+suffix. Absent means text/* and the usual textual
	// types of application, image and font.
	Types []string `json:"types,omitempty" schema:"maxItems=64,maxLength=128"`
	// MinLength is the least Content-Length to compress; an answer that gives none is compressed.
	MinLength *Size `json:"minLength,omitempty" schema:"default=1KiB,min=0,max=16MiB"`
	// Level is how much work is spent: fast, balanced or small.
	Level string `json:"level,omitempty" schema:"enum=fast|balanced|small,default=balanced"`
}

// HTTPS is what a site does so that visitors come with TLS.
type HTTPS struct {
	// Redirect sends requests in clear to https: 301 to GET and HEAD, 308 to all others. Requests for
	// /.well-known/acme-challenge/ are served as they are.
	Redirect bool `json:"redirect,omitempty"`
	// Port of https for visitors; 0 means that of the site's TLS listener, or 443 where ports are mapped in front.
	Port int `json:"port,omitempty" schema:"min=0,max=65535"`
	// HSTS is told on every answer over TLS, error pages too (RFC 6797).
	HSTS *HSTS `json:"hsts,omitempty"`
}

// HSTS is the field Strict-Transport-Security (RFC 6797).
type HSTS struct {
	// MaxAge is how long browsers come with TLS only; 0 tells them to forget it.
	MaxAge *Duration `json:"maxAge,omitempty" schema:"default=8760h,min=0s,max=87600h"`
	// IncludeSubDomains holds for all subdomains too.
	IncludeSubDomains bool `json:"includeSubDomains,omitempty"`
	// Preload asks for the lists that browsers ship. It needs a maxAge of at least 8760h and includeSubDomains.
	Preload bool `json:"preload,omitempty"`
}

// Maintenance answers visitors with a page while the site is worked on.
type Maintenance struct {
	// Enabled turns it on.
	Enabled bool `json:"enabled,omitempty"`
	// Status of the answer.
	Status int `json:"status,omitempty" schema:"default=503,min=400,max=599"`
	// RetryAfter is told to visitors and crawlers; 0 tells nothing.
	RetryAfter *Duration `json:"retryAfter,omitempty" schema:"default=5m,min=0s,max=720h"`
	// Page in place of the edge's own.
	Page Page `json:"page,omitempty"`
	// Allow these networks or addresses to go on.
	Allow []string `json:"allow,omitempty" schema:"maxItems=1000,format=cidr"`
	// AllowProtected lets visitors with a basket go on, so that their orders can be completed.
	AllowProtected *bool `json:"allowProtected,omitempty" schema:"default=true"`
}

// ErrorPage is what visitors see in place of the edge's own page for an error. What origins answer is not changed.
type ErrorPage struct {
	// Statuses are codes such as 404, or classes: 4xx, 5xx. Of two pages that fit, the one with the code is taken.
	Statuses []string `json:"statuses" schema:"required,minItems=1,maxItems=32,maxLength=3"`
	Page     `json:",inline"`
}

// Page is a content in several forms; the visitor's Accept chooses. A form that is not given is the edge's own.
// ${request.id}, ${request.host} and ${response.status} are replaced; ${request.id} finds the request in relais
// explain. In a file, write $${ where a variable has no dot.
type Page struct {
	// HTML for browsers. The values of variables are escaped.
	HTML string `json:"html,omitempty" schema:"maxLength=65536"`
	// JSON for programs.
	JSON string `json:"json,omitempty" schema:"maxLength=65536"`
	// Text for all others.
	Text string `json:"text,omitempty" schema:"maxLength=65536"`
}

// Mirror sends copies of a route's requests to another pool, after their own. Its answers are discarded: the
// visitor neither waits for it nor sees it fail.
type Mirror struct {
	// Pool names the OriginPool that gets the copies.
	Pool string `json:"pool" schema:"required,ref=OriginPool"`
	// Percent of the requests that are sent to an origin.
	Percent *Percent `json:"percent,omitempty" schema:"default=100%"`
	// Unsafe mirrors methods that change things too. An order that is mirrored to a real shop is made twice.
	Unsafe bool `json:"unsafe,omitempty"`
	// MaxBody is the largest request body that is mirrored; a request with a larger one is not.
	MaxBody *Size `json:"maxBody,omitempty" schema:"default=64KiB,min=0,max=1MiB"`
}

// RegexRewrite replaces every match of a pattern in the normalised path.
type RegexRewrite struct {
	// Pattern is an RE2 expression; it is matched anywhere unless it has ^ and $.
	Pattern string `json:"pattern" schema:"required,format=regexp,maxLength=1024"`
	// Replacement with $1 to $9 for the groups of the pattern, $0 for the whole match and $$ for a dollar sign.
	Replacement string `json:"replacement,omitempty" schema:"maxLength=1024"`
}

// QueryRewrite removes parameters, then sets others.
type QueryRewrite struct {
	// Strip removes the whole query.
	Strip bool `json:"strip,omitempty"`
	// Remove these parameters; a trailing * matches any ending.
	Remove []string `json:"remove,omitempty" schema:"maxItems=64,maxLength=128"`
	// Set these parameters, in place of any of the same name.
	Set []Parameter `json:"set,omitempty" schema:"maxItems=32"`
}

// Parameter of a query, as text: the edge encodes it.
type Parameter struct {
	// Name of the parameter.
	Name string `json:"name" schema:"required,maxLength=128"`
	// Value of the parameter.
	Value string `json:"value,omitempty" schema:"maxLength=2048"`
}
