// Package http3 is HTTP/3 (RFC 9114) by hand on the QUIC transport of quic-go, the server side.
//
// A Listener holds a UDP socket and accepts connections; a Server speaks HTTP/3 on them and
// gives requests to a Handler as our own HTTP/1 core does. A connection's goroutine accepts a
// stream, answers what is in memory in place, and hands the accepting over to another before it
// does anything that may wait. So a request that is answered from memory starts no goroutine.
//
// With a handler of net/http a Listener has quic-go's own HTTP/3 speak instead: the slow twin.
package http3
