// Package ratelimit limits how many requests come in a time, counted apart by client, network,
// header, cookie, token, path, JSON field, several of these together, or for the whole site: the
// RateLimit document.
//
// # The algorithm
//
// It is the generic cell rate algorithm: a limit of R requests in a time P with a burst of B
// takes a request when the theoretical arrival time of its key lies at most (B-1)·P/R in the
// future, and moves that time by P/R. Times are nanoseconds and a fraction with the denominator
// R, so that nothing is rounded, for any R and P. A request that is refused does not count.
// The clock is the monotonic one of the exchange's start. Requests that are judged in another
// order than they came in, and a clock that goes back, make a key wait longer, never shorter.
//
// All limits of a route hold; they are asked in order and the first that refuses ends it. What
// the ones before it took stays taken.
//
// # What is counted apart
//
// The site, the limit's name and the key. Two sites of an organization that name the same limit
// count apart. Client is an IPv4 address or an IPv6 /64. A request without the header or cookie
// is counted by its client. Of several lines of a header, and of several cookies of a name, the
// first counts.
//
// # Memory
//
// One table of a fixed size holds the keys of all sites, 24 bytes each. A key is known by 64
// bits of a hash whose seed is drawn at the start. An idle key, one whose burst is whole again,
// says nothing and gives its place away. When a set of eight is full of busy keys the one
// nearest to being idle goes, and its visitor may start a new burst: a limit under an attack
// from more sources than there is room for lets more pass, and never refuses the wrong visitor.
// relais_ratelimit_evictions_total counts both. The table is the process's, so a reload keeps
// what was counted. A limit whose numbers changed is another limit and counts from nothing.
//
// # What the visitor sees
//
// 429 with Retry-After, and on every answer under a limit in mode enforce the fields
// RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-10: q and w are the
// document's, r is how many requests could come now, t the seconds until the whole burst is
// there again. They are not sent to a visitor that is spared.
//
// # A visitor with a basket
//
// Is spared, unless the document says spareBaskets: false, or counts by status (below). Its requests are counted all the
// same, so that they are seen, and so that they are limited as others are once the basket is
// gone. A basket is the visitor stage's signed cookie: whoever copies one is spared as its owner
// is, until it expires. So a visitor that is spared has a ceiling, ten times the limit
// (basketCeiling), counted by the visitor. Who was unblocked by a person is spared too.
//
// # Answers that count
//
// With statuses only requests whose answer has one of them count in the end: failed logins. Each counts when it
// comes until its answer is another, so that requests that are under way at once cannot go beyond
// the limit, however many they are. The burst is so the most that may be under way at once and have failed lately:
// give as many as may sign in at the same moment behind one key. Visitors with a basket are limited as others are by
// such a limit, unless the document says spareBaskets: true; a basket is had for nothing, and guesses no password.
//
// # Limits that edges share
//
// With shared, and a Bus, edges tell each other ten times a second what they let through, under
// keys that are hashed with a secret they share. Each counts what the others took as if it had
// come here, one burst beyond the limit at most. So all edges together let through the limit and
// what comes in a tenth of a second. Without a Bus, and when it fails, each counts what it sees.
//
// # What it does not do
//
// Count bytes. Survive a restart.
package ratelimit
