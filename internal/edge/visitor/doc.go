// Package visitor tells visitors apart by how near they are to an order, with a signed cookie:
// the VisitorPolicy document.
//
// # What it is for
//
// A visitor with a basket is admitted before anyone else and is the last to be limited. The
// shop does not tell us who has one, so the document names the requests that fill a basket. A
// 2xx or 3xx answer to one of them gives the visitor a cookie that says protected; other stages
// find it as the exchange's Visitor. An answer to a request that completes an order sets the
// cookie's end to the grace time from now, and it is not renewed. This stage refuses nobody.
//
// # The cookie
//
// 42 bytes in base32 (digits and lower-case letters, so that no rule of a firewall takes it for
// an attack): a version, the class, the times of issue and of expiry, a random id of the
// visitor, the pool and the tier that hold the basket (as hashes of their names), and the first
// 16 bytes of an HMAC-SHA256 whose key is derived from the secret, the site and the cookie's
// name. It says nothing about a person. A cookie that does not verify is as none, and is
// counted. HttpOnly, SameSite=Lax, Path=/, and Secure where the request is.
//
// It is written when the class changes, when the tier that holds the basket changed, and when
// half of the lifetime is over. The tier is taken from the answer that filled the basket, and
// later only from answers of the same pool. No cookie is written on an answer that came from
// the cache or from a rule, nor, unless the request was unsafe, on one that a shared cache may
// store. The cache of this edge is below this stage and never sees the cookie.
//
// The origin does not see it either: see Strip.
//
// # Limits
//
// A source (an IPv4 address, an IPv6 /64) and its network get as many new protected cookies a
// minute for each site as the policy's minting says. Beyond that the visitor gets a cookie that says known; it tries again
// with its next basket. Sources are counted in a table of a fixed size. An order that the origin confirms gives its source
// more, once for each token; one that its path alone tells of gives back what its own token took, if it looks like an order.
//
// What only a path tells of counts for more when it was sent than when it was looked at: see unproven. Until it is protected a
// visitor's paths put it before nobody (stage.Visitor.Near).
//
// # A visitor with a basket
//
// Is who this stage is for. In mode shadow nothing is read into the exchange and nothing is
// written; marks say what would have been.
//
// # What it does not do
//
// It does not look into the shop: an answer 2xx that says "sold out" counts as a basket. It
// does not bind the cookie to an address, because telephones change theirs: who copies a cookie
// is protected as its owner is. It has no challenge and no waiting room. A cookie cannot be
// called back before it expires, except by changing the secret.
package visitor
