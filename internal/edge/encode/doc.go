// Package encode compresses answers for clients that accept it (RFC 9110 section 8.4), with gzip,
// br or zstd.
//
// The stage stands below the cache, so that what is stored is what is sent: a hit costs no
// compression. The cache keeps one answer for each set of codings that clients accept, by the
// Vary that this stage adds; so on a route with a cache the coding depends on that set and on
// the site's preference only, never on a client's weights. What an origin has compressed
// passes as it is; nothing is ever decompressed.
//
// An answer keeps its time: unless its length is known beforehand, each chunk that comes is
// compressed, flushed and sent before the next is waited for.
//
// A compressed answer is another representation of the resource, and its bytes depend on when
// the origin's chunks came. Its entity tag is therefore weak, and names the coding:
// W/"tag~zstd" for the origin's "tag" (RFC 9110 section 8.8.3). In If-None-Match and If-Match
// the origin gets its own tag back, and a 304 names the tag that the client asked with.
//
// A range is never one of compressed bytes (Ranges): who asks for one gets it of the plain
// representation, from the cache or from the origin, and the whole, compressed, where If-Range does not
// name that representation by a strong tag.
//
// Answers of the edge's own are in memory and have no tag. What a route responds with is compressed
// once for each coding and kept (Own); an error page each time, with the least work, unless it refuses
// what comes in floods (Page).
//
// To visitors with a basket it does what it does to all.
package encode
