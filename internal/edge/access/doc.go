// Package access allows and denies requests by the visitor's address, path and method: the
// AccessPolicy document.
//
// Rules are tried in order and the first whose parts all match decides; where none does, the
// default decides. A rule without addresses matches every address. A denied request gets 403,
// http_request_denied.
//
// # Addresses
//
// The address is the exchange's Client, so what a listener's trusted proxies say of it counts.
// An IPv4 address in IPv6 form (::ffff:192.0.2.1) is the IPv4 address, in rules and in requests
// alike. An IPv6 network, ::/0 too, holds no IPv4 address. An exchange without an address
// matches only rules without addresses.
//
// # Cost
//
// All rules that have neither path nor method are one sorted table, so that their number does
// not count: a request costs one binary search over at most twice as many boundaries as there
// are networks. Each rule that has a path or methods is a comparison of these, and a search of
// its own where they match. A boundary is 6 bytes for IPv4 and 18 for IPv6. Sites that share a
// policy's specification share its table.
//
// # A visitor with a basket
//
// The lists apply to every visitor alike: an address that its tenant denies is denied with a
// basket too. What a list would have done is seen beforehand in mode shadow.
//
// # What it does not do
//
// Geography, tokens and client certificates; lists that change without a reload. Paths are
// compared as normalised, case-sensitively; %2F in a path is not a slash.
package access
