package v1

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
	// Header is the field for programs that keep no cookies, such as apps: who sends it, with any value, gets
	// the token in the same field of answers in place of a cookie, and sends it back from then on.
	Header string `json:"header,omitempty" schema:"default=Relais-Visitor,format=field-name"`
	// Secret signs the token, at least 16 bytes; give the same to all edges of a site. Absent means one
	// that the edge makes and keeps on its disk.
	Secret string `json:"secret,omitempty" schema:"maxLength=512,secret"`
	// PreviousSecrets sign nothing more, but what they signed is good. Take one out a Lifetime after it was
	// replaced.
	PreviousSecrets []string `json:"previousSecrets,omitempty" schema:"maxItems=4,maxLength=512,secret"`
	// Basket names the requests that put something into a basket: a 2xx or 3xx answer to one of them
	// makes the visitor protected; one to a GET only when it says Cache-Control: private or no-store.
	Basket []StageMatch `json:"basket,omitempty" schema:"maxItems=16"`
	// Checkout names the requests of somebody who is about to pay. They protect as Basket does, but a GET protects
	// only who has filled a basket before.
	Checkout []StageMatch `json:"checkout,omitempty" schema:"maxItems=16"`
	// Ordered names the requests that complete an order: a 2xx or 3xx answer ends the protection Grace later.
	Ordered []StageMatch `json:"ordered,omitempty" schema:"maxItems=16"`
	// OriginHeader is the field in which the origin's answers say how far the visitor is: basket, checkout,
	// ordered, or none for an emptied basket. It counts for more than a path, and is taken off the answer.
	OriginHeader string `json:"originHeader,omitempty" schema:"default=Relais-Funnel,format=field-name"`
	// Minting bounds the new baskets of a source.
	Minting Minting `json:"minting,omitempty"`
	// Lifetime of a basket's protection after the last request.
	Lifetime Duration `json:"lifetime,omitempty" schema:"default=2h,min=1m,max=720h"`
	// Grace after an order.
	Grace *Duration `json:"grace,omitempty" schema:"default=5m,min=0s,max=24h"`
	// Callbacks are requests of payment and logistics, which count as if they had a basket.
	Callbacks []Callback `json:"callbacks,omitempty" schema:"maxItems=32"`
}

// Minting bounds the visitors of a source who become protected, so that baskets cannot be farmed. A source is an
// IPv4 address or IPv6 /64; its IPv4 /24 or IPv6 /48 together has four times as many.
type Minting struct {
	// PerMinute is how many may by the path of a request alone.
	PerMinute int `json:"perMinute,omitempty" schema:"default=600,min=1,max=1000000"`
	// ConfirmedPerMinute is how many more may by the origin's word, OriginHeader.
	ConfirmedPerMinute int `json:"confirmedPerMinute,omitempty" schema:"default=6000,min=1,max=1000000"`
	// OrderCredit is how many more a source gets for each order that the origin confirms in OriginHeader, once for each
	// token, so that a shared address with many buyers is not bounded as a farm is. An order by path gives back the one
	// that its own token took.
	OrderCredit *int `json:"orderCredit,omitempty" schema:"default=20,min=0,max=1000"`
}

// Callback is a request that somebody's server sends about orders. All parts that are given hold, and one of
// Addresses, Certificates and Signature is given.
type Callback struct {
	// Name appears in explanations.
	Name string `json:"name" schema:"required,format=name,maxLength=63"`
	// Path is a prefix by path elements.
	Path string `json:"path" schema:"required,format=path,maxLength=1024"`
	// Methods; absent means POST.
	Methods []string `json:"methods,omitempty" schema:"maxItems=8,format=token"`
	// Addresses from which it comes, as networks or single addresses.
	Addresses []string `json:"addresses,omitempty" schema:"maxItems=10000,format=cidr"`
	// Certificates are the SHA-256 fingerprints, in hexadecimal, of client certificates of which it shows one. The
	// listener asks for them (tls.clientAuth).
	Certificates []string `json:"certificates,omitempty" schema:"maxItems=32,maxLength=95"`
	// Signature is a keyed hash (HMAC-SHA256) of its body.
	Signature *CallbackSignature `json:"signature,omitempty"`
}

// CallbackSignature is how a callback is signed.
type CallbackSignature struct {
	// Scheme says what is signed and how it is written: github (sha256= and hexadecimal, of the body), stripe
	// (t=TIME,v1=HEX, of the time, a dot and the body), hex or base64 (of the body).
	Scheme string `json:"scheme" schema:"required,enum=github|stripe|hex|base64"`
	// Header holds the signature; absent means X-Hub-Signature-256 for github and Stripe-Signature for stripe.
	Header string `json:"header,omitempty" schema:"format=field-name"`
	// Secrets, any of which may have been used.
	Secrets []string `json:"secrets" schema:"required,minItems=1,maxItems=4,maxLength=512,secret"`
	// Tolerance is how far the time of a stripe signature may be from ours.
	Tolerance Duration `json:"tolerance,omitempty" schema:"default=5m,min=1s,max=24h"`
	// MaxBody is the longest body that is looked at; a longer one is an ordinary request.
	MaxBody Size `json:"maxBody,omitempty" schema:"default=256KiB,min=1,max=4MiB"`
}

// StageMatch names requests by path and method.
type StageMatch struct {
	// Path is a prefix by path elements.
	Path string `json:"path" schema:"required,format=path,maxLength=1024"`
	// Methods; absent means POST.
	Methods []string `json:"methods,omitempty" schema:"maxItems=8,format=token"`
}

// WaitingRoom lets visitors in in the order of their coming, as fast as the origins take them.
type WaitingRoom struct {
	TypeMeta `json:",inline"`
	Metadata Metadata        `json:"metadata" schema:"required"`
	Spec     WaitingRoomSpec `json:"spec"`
}

// WaitingRoomSpec is what a WaitingRoom does. Visitors with a basket and verified bots never wait.
type WaitingRoomSpec struct {
	Protection `json:",inline"`
	// When it has a line: overflow, as soon as every tier of a pool is full, until all who waited are in; or always,
	// between From and Until, for a sale whose hour is known.
	When string `json:"when,omitempty" schema:"enum=overflow|always,default=overflow"`
	// From is when a room that is always on begins; absent means at once.
	From *Time `json:"from,omitempty"`
	// Until is when it ends; absent means never.
	Until *Time `json:"until,omitempty"`
	// NewPerMinute is the most visitors who are let in; 0 means as many as the tiers can take.
	NewPerMinute int `json:"newPerMinute,omitempty" schema:"default=0,min=0,max=10000000"`
	// Session is how long one who was let in may be idle before waiting again.
	Session Duration `json:"session,omitempty" schema:"default=10m,min=1m,max=24h"`
	// Refresh is how often the page asks for its place, and more often near the front.
	Refresh Duration `json:"refresh,omitempty" schema:"default=20s,min=5s,max=5m"`
	// TicketsPerMinute is how many places in the line an IPv4 address or IPv6 /64 may take.
	TicketsPerMinute int `json:"ticketsPerMinute,omitempty" schema:"default=1200,min=1,max=1000000"`
	// Cookie is the name of the signed ticket.
	Cookie string `json:"cookie,omitempty" schema:"default=rq,format=token,maxLength=64"`
	// Header is the field for programs that keep no cookies: who sends it, with any value, gets the ticket in it.
	Header string `json:"header,omitempty" schema:"default=Relais-Ticket,format=field-name"`
	// Secret signs tickets, at least 16 bytes; give the same to all edges of a site. Absent means one that the
	// edge makes and keeps on its disk.
	Secret string `json:"secret,omitempty" schema:"maxLength=512,secret"`
	// PreviousSecrets sign nothing more, but what they signed is good.
	PreviousSecrets []string `json:"previousSecrets,omitempty" schema:"maxItems=4,maxLength=512,secret"`
	// Page is shown to those who wait, in place of the edge's own. ${room.position}, ${room.wait} (seconds, empty
	// while nobody knows) and ${room.refresh} (seconds) are replaced too.
	Page Page `json:"page,omitempty"`
}

// Challenge is how visitors prove that they are worth an answer, by work that costs a visitor a moment and an
// attacker a processor.
type Challenge struct {
	// Effort is the work of a puzzle: about 2 to this number of SHA-256 hashes.
	Effort int `json:"effort,omitempty" schema:"default=16,min=8,max=24"`
	// Wait is how long those wait whose browser runs no scripts, before they press a button.
	Wait Duration `json:"wait,omitempty" schema:"default=10s,min=1s,max=2m"`
	// Lifetime of the proof.
	Lifetime Duration `json:"lifetime,omitempty" schema:"default=30m,min=1m,max=24h"`
	// Cookie is the name of the proof.
	Cookie string `json:"cookie,omitempty" schema:"default=rc,format=token,maxLength=64"`
	// Header is the field in which programs without cookies send the proof.
	Header string `json:"header,omitempty" schema:"default=Relais-Pass,format=field-name"`
	// Secret signs puzzles and proofs, at least 16 bytes; give the same to all edges of a site. Absent means one
	// that the edge makes and keeps on its disk.
	Secret string `json:"secret,omitempty" schema:"maxLength=512,secret"`
	// PreviousSecrets sign nothing more, but what they signed is good.
	PreviousSecrets []string `json:"previousSecrets,omitempty" schema:"maxItems=4,maxLength=512,secret"`
}

// BotPolicy counts what speaks for a program, tells verified programs from others, and asks for work or refuses.
type BotPolicy struct {
	TypeMeta `json:",inline"`
	Metadata Metadata      `json:"metadata" schema:"required"`
	Spec     BotPolicySpec `json:"spec"`
}

// BotPolicySpec is what a BotPolicy does. Visitors with a basket are scored and neither challenged nor denied.
type BotPolicySpec struct {
	Protection `json:",inline"`
	// Verified are the programs that are welcome once they have proved who they are.
	Verified []VerifiedBot `json:"verified,omitempty" schema:"maxItems=64"`
	// Honeypots are paths, prefixes by path elements, that no visitor finds: who asks for one is a program. They
	// are not sent to the origin.
	Honeypots []string `json:"honeypots,omitempty" schema:"maxItems=64,format=path,maxLength=1024"`
	// HoneypotTime is how long an address is scored for it.
	HoneypotTime Duration `json:"honeypotTime,omitempty" schema:"default=1h,min=1m,max=24h"`
	// Fingerprints are JA4 fingerprints of programs, of which a trailing * matches any ending.
	Fingerprints []string `json:"fingerprints,omitempty" schema:"maxItems=1000,maxLength=64"`
	// ChallengeFrom is the score, 1 to 100, from which visitors are challenged; 0 challenges nobody.
	ChallengeFrom int `json:"challengeFrom,omitempty" schema:"default=0,min=0,max=100"`
	// DenyFrom is the score from which visitors are refused; 0 refuses nobody.
	DenyFrom int `json:"denyFrom,omitempty" schema:"default=0,min=0,max=100"`
}

// VerifiedBot is a program that proves who it is in one of the ways given.
type VerifiedBot struct {
	// Name appears in logs and explanations.
	Name string `json:"name" schema:"required,format=name,maxLength=63"`
	// UserAgent is a word of its User-Agent, in any case. Who has the word and no proof is scored as an impostor.
	// Domains needs it.
	UserAgent string `json:"userAgent,omitempty" schema:"maxLength=128"`
	// Addresses it publishes, as networks or single addresses.
	Addresses []string `json:"addresses,omitempty" schema:"maxItems=10000,format=cidr"`
	// AddressFiles hold such addresses, one a line or as JSON with ipv4Prefix and ipv6Prefix. They are read when the
	// site is built anew.
	AddressFiles []string `json:"addressFiles,omitempty" schema:"maxItems=16,maxLength=4096,local"`
	// Domains end the name of its addresses in DNS, whose own addresses are asked for in turn.
	Domains []string `json:"domains,omitempty" schema:"maxItems=16,format=hostname"`
	// Keys are public Ed25519 keys, in base64url, with which it signs requests (Web Bot Auth, RFC 9421).
	Keys []string `json:"keys,omitempty" schema:"maxItems=32,maxLength=64"`
}
