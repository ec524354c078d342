// Package jwt lets requests pass that carry a good JSON Web Token: the JwtPolicy document.
//
// # What is checked
//
// The signature, with a key of the issuer that the token's iss claim names and an algorithm that the policy
// lists (never none, and never a public key as a secret: a key only signs with algorithms of its own kind); exp
// and nbf, give or take the clock skew; aud; the certificate that a token is bound to (RFC 8705), where the policy says
// so; the claims that the policy asks for. A token of a type that is none
// for access (typ), or with a critical header, is refused. Keys that a token brings or names by address (jwk,
// jku, x5c, x5u) are not looked at. The good token's claims are written into the fields that the policy names;
// what a visitor wrote there is removed whatever comes of the token, in mode shadow too. Like Client-Cert they
// are written into the request as it came, so that the cache's key and Vary see them.
//
// A token may stand in several places. Two different ones are refused, since the origin might read the other.
//
// # Keys
//
// A key set is fetched when its document comes into service, every refresh after that, and when a token names a
// key that it does not hold, at most every 30 s for all of these tokens together; that token waits for the
// answer, for 2 s at most. A set that cannot be fetched or read changes nothing: the last good one holds, and the
// next try comes after a pause that doubles up to 5 minutes. Connections go only where an OriginPool's may.
// Redirections are not followed, answers are bounded in bytes and keys.
//
// # Cost
//
// A token that was found good is remembered until it expires or its issuer's keys change: 16,384 tokens and 32
// MiB in a process, of which the least lately used of four gives way. Such a request costs a hash and a
// comparison, no signature check and no allocation. Bad tokens are not remembered: they would wash out good ones.
//
// # A visitor with a basket
//
// Is judged like anybody. A basket is no proof of who somebody is, and costs nothing to get. Shadow first.
//
// # What it does not do
//
// Encrypted tokens (JWE), opaque tokens and introspection (RFC 7662), DPoP (RFC 9449), logging people in.
package jwt
