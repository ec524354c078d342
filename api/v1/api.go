package v1

// JwtPolicy lets requests pass that carry a JSON Web Token (RFC 7519) of an issuer that it names.
type JwtPolicy struct {
	TypeMeta `json:",inline"`
	Metadata Metadata      `json:"metadata" schema:"required"`
	Spec     JwtPolicySpec `json:"spec" schema:"required"`
}

// JwtPolicySpec is what a JwtPolicy does.
type JwtPolicySpec struct {
	Protection `json:",inline"`
	// Issuers whose tokens are good. A token's iss claim chooses among them.
	Issuers []JwtIssuer `json:"issuers" schema:"required,minItems=1,maxItems=16"`
	// Sources are the places where a token is looked for, in order; the first that holds one counts. Absent
	// means Authorization: Bearer (RFC 6750).
	Sources []JwtSource `json:"sources,omitempty" schema:"maxItems=8"`
	// Missing says what becomes of a request without a token. A token that is not good is refused either way.
	Missing string `json:"missing,omitempty" schema:"enum=refuse|pass,default=refuse"`
	// TokenBytes is the longest token that is looked at.
	TokenBytes Size `json:"tokenBytes,omitempty" schema:"default=8KiB,min=64,max=64KiB"`
}

// JwtIssuer is who makes tokens, and what is asked of them.
type JwtIssuer struct {
	// Issuer is the iss claim, exactly. Absent takes any, and is allowed for a sole issuer only.
	Issuer string `json:"issuer,omitempty" schema:"maxLength=2048"`
	// Audiences, one of which the token's aud claim holds; absent takes any.
	Audiences []string `json:"audiences,omitempty" schema:"maxItems=16,maxLength=1024"`
	// Algorithms that are taken (RFC 7518, RFC 8037). Absent means RS256, PS256, ES256 and EdDSA, or HS256 with
	// secret. HS256, HS384 and HS512 are for secret alone: a public key never becomes a secret.
	Algorithms []string `json:"algorithms,omitempty" schema:"maxItems=13,enum=RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA|HS256|HS384|HS512"`
	// JWKS are the issuer's public keys (RFC 7517).
	JWKS *JwtKeys `json:"jwks,omitempty"`
	// Secret that both sides know, for HS256, HS384 and HS512; at least 32 bytes.
	Secret string `json:"secret,omitempty" schema:"maxLength=1024,secret"`
	// ClockSkew is how far the issuer's clock may be off.
	ClockSkew *Duration `json:"clockSkew,omitempty" schema:"default=1m,min=0s,max=1h"`
	// Expiry says whether a token must have an exp claim.
	Expiry string `json:"expiry,omitempty" schema:"enum=required|optional,default=required"`
	// Binding says what becomes of the certificate that a token is bound to (cnf with x5t#S256, RFC 8705): it is
	// ignored; checked, so that a token that is bound comes over a connection with that certificate only; or
	// required of every token. The listener asks for certificates with tls.clientAuth.
	Binding string `json:"binding,omitempty" schema:"enum=ignore|check|require,default=ignore"`
	// Claims that a token must have.
	Claims []JwtClaim `json:"claims,omitempty" schema:"maxItems=16"`
	// Forward writes claims into fields of the request, for rules and the origin. What a visitor writes there
	// himself is removed.
	Forward []JwtForward `json:"forward,omitempty" schema:"maxItems=16"`
}

// JwtKeys is where keys come from. Exactly one of URL and Inline is given.
type JwtKeys struct {
	// URL of the key set. It is fetched before it is needed, again when Refresh is over, and when a token names
	// a key that it did not hold. While it cannot be fetched, the last good keys hold.
	URL string `json:"url,omitempty" schema:"maxLength=2048"`
	// Refresh is how often the set is fetched.
	Refresh Duration `json:"refresh,omitempty" schema:"default=10m,min=10s,max=24h"`
	// CA holds the certificates that the URL's own TLS is checked with, as PEM; absent means the system's.
	CA string `json:"ca,omitempty" schema:"maxLength=262144"`
	// Public refuses addresses that are not public, as connection.public of an OriginPool does.
	Public bool `json:"public,omitempty"`
	// Allow lists networks that the URL's address may be in all the same, as connection.allow of an OriginPool
	// does. Without it an address at which a cloud tells its machines their secrets is refused always.
	Allow []string `json:"allow,omitempty" schema:"maxItems=64,format=cidr"`
	// Inline is a key set in the document, as JSON.
	Inline string `json:"inline,omitempty" schema:"maxLength=262144"`
}

// JwtSource is one place of a token. Exactly one of Header, Cookie and Query is given.
type JwtSource struct {
	// Header that holds the token behind Prefix.
	Header string `json:"header,omitempty" schema:"format=field-name,maxLength=128"`
	// Prefix in the header, such as Bearer; compared without regard to case, and followed by a space.
	Prefix string `json:"prefix,omitempty" schema:"format=token,maxLength=64"`
	// Cookie that holds the token.
	Cookie string `json:"cookie,omitempty" schema:"format=token,maxLength=128"`
	// Query parameter that holds the token. It then stands in logs along the way; prefer the others.
	Query string `json:"query,omitempty" schema:"format=token,maxLength=128"`
}

// JwtClaim is a claim that a token must have.
type JwtClaim struct {
	// Name of the claim. A dot goes into an object where no claim has the whole name: realm_access.roles.
	Name string `json:"name" schema:"required,maxLength=256"`
	// Values, as text. Of a list each entry counts, and of scope and scp each word. Absent means that the claim
	// must be there.
	Values []string `json:"values,omitempty" schema:"maxItems=64,maxLength=1024"`
	// Match says how many of Values the claim must hold.
	Match string `json:"match,omitempty" schema:"enum=any|all,default=any"`
}

// JwtForward writes a claim into a field.
type JwtForward struct {
	// Claim by its name, as in claims.
	Claim string `json:"claim" schema:"required,maxLength=256"`
	// Header that gets it. A list becomes values with commas between them; an object becomes JSON.
	Header string `json:"header" schema:"required,format=field-name,maxLength=128"`
}

// ApiPolicy holds requests against an OpenAPI document, and finds out which endpoints are in use.
type ApiPolicy struct {
	TypeMeta `json:",inline"`
	Metadata Metadata      `json:"metadata" schema:"required"`
	Spec     ApiPolicySpec `json:"spec"`
}

// ApiPolicySpec is what an ApiPolicy does.
type ApiPolicySpec struct {
	// Mode is shadow (record what would have been refused), enforce, or off.
	Mode Mode `json:"mode,omitempty" schema:"enum=enforce|shadow|off,default=shadow"`
	// Expires is the instant (RFC 3339) from which the document acts as if its mode were off.
	Expires *Time `json:"expires,omitempty"`
	// Document is the OpenAPI document (3.0 or 3.1). Without one only Discovery has an effect.
	Document *ApiDocument `json:"document,omitempty"`
	// BasePath stands before the document's paths. Absent means the paths of its servers, or / where it has none.
	BasePath string `json:"basePath,omitempty" schema:"format=path,maxLength=1024"`
	// Unknown says what becomes of requests for an endpoint that is not in the document: pass them, pass and
	// report them, or refuse them.
	Unknown string `json:"unknown,omitempty" schema:"enum=pass|report|refuse,default=report"`
	// Baskets says what becomes of a visitor with a basket whose request would be refused: it passes and is
	// counted, or is refused like anybody.
	Baskets string `json:"baskets,omitempty" schema:"enum=pass|refuse,default=pass"`
	// BodyBytes of a request body are held to be checked; 0 checks no body.
	BodyBytes *Size `json:"bodyBytes,omitempty" schema:"default=128KiB,min=0,max=16MiB"`
	// Oversize says what happens to a body beyond BodyBytes that there is a schema for.
	Oversize string `json:"oversize,omitempty" schema:"enum=pass|reject,default=pass"`
	// Discovery counts requests by method and path template, for relais api endpoints.
	Discovery string `json:"discovery,omitempty" schema:"enum=on|off,default=on"`
}

// ApiDocument is an OpenAPI document, in JSON or YAML. Exactly one of File and Inline is given.
type ApiDocument struct {
	// File beside this document (a relative path counts from its folder). It is read when documents are, and
	// again when it changes.
	File string `json:"file,omitempty" schema:"maxLength=4096,local"`
	// Inline is the document's text.
	Inline string `json:"inline,omitempty" schema:"maxLength=4194304"`
}
