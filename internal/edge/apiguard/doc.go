// Package apiguard holds requests against an OpenAPI document and finds out which endpoints are in use: the
// ApiPolicy document.
//
// # What is checked
//
// Method and path against the document's templates; parameters of path, query, fields and cookies; the media type;
// and bodies of JSON and forms against their schema, up to bodyBytes. What of a document is not held against
// requests (patterns that only a backtracking engine could match, unevaluatedProperties, formats, deepObject) is told
// by relais api endpoints and once in the log. A document that refers to another, or to itself without a step into
// the value, does not come into service. A body that is encoded, of another type, a tunnel or gRPC is not examined.
//
// # Modes
//
// Shadow, the default, records what would have been refused. In mode enforce a request that differs from the
// document gets 400, 413 or 415, one for an endpoint that is not there what unknown says: 404, or 405 where only the
// method is not there. The work for one request is bounded: a body that takes more is refused in mode enforce, as
// one that nobody could check.
//
// # A visitor with a basket
//
// Passes what would be refused, and is counted, unless baskets says otherwise: a document is often behind the shop,
// and a wrong line in it must not cost an order. Where we have no memory for another body it passes in any case.
//
// # Discovery
//
// Each policy of a site counts requests by method and template: the document's, or the path with numbers, ids,
// digests and tokens as {id}. At most 512 rows: for a new one the row with the fewest requests goes and the new one
// inherits its count as a possible error, so that what is often used stays (Metwally, Agrawal and El Abbadi 2005,
// "Space-Saving"). The counts survive reloads and not restarts.
package apiguard
