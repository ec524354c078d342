// Package http1 is HTTP/1.0 and HTTP/1.1 by hand: the server side towards visitors and the
// client side towards origins (RFC 9112, RFC 9110).
//
// Its rule is to refuse what two parsers could read differently, and to write all framing
// anew: what is forwarded never carries the sender's framing. A goroutine serves a
// connection; a request that is answered from memory allocates nothing and costs one read and
// one write. A connection that is quiet may be parked: it has no goroutine then until its
// client, a limit of time or the end of the Server wakes it.
//
// Time limits are coarse. A Server and a Client each have one sweeper (Run) that looks at
// every connection ten times a second and wakes those whose time is over, so that a request
// arms no timer. Without Run no limit of time is kept and Date stands still.
package http1
