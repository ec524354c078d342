// Package http2 is HTTP/2 by hand (RFC 9113), on the flat messages of package message.
//
// A server connection has one goroutine that reads. It handles all frames that a read
// brought and writes all that came of them at once, so that answers from memory cost a
// share of one read and one write. A handler that says it may block keeps the goroutine,
// and another goes on reading.
package http2
