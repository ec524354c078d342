package message

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"strings"
)

// Proto is a version of HTTP.
type Proto uint8

// The versions.
const (
	HTTP10 Proto = iota
	HTTP11
	HTTP2
	HTTP3
)

// String returns the version as a log shows it.
func (p Proto) String() string { return [...]string{"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"}[p] }

// Conn is what is known of the connection that a request came on. It does not change while
// the connection lives.
type Conn struct {
	ID       uint64
	Listener string // key of the Listener document
	Peer     netip.AddrPort
	Local    netip.AddrPort
	Client   netip.Addr // Peer, or what the PROXY protocol said
	TLS      *TLS       // nil in clear
}

// TLS is what is kept of a TLS connection's state, which is large.
type TLS struct {
	Version, Cipher uint16 // as crypto/tls numbers them
	// ServerName is what the client asked for (SNI), in lower case; empty when it did not.
	ServerName string
	// ClientCert is the client's verified certificate as a value of Client-Cert (RFC 9440 section
	// 2.2); empty without one.
	ClientCert string
	// JA4 is the fingerprint of the client's first words; empty where it is not known, as over QUIC.
	JA4 string
	// Identity is what the client's verified certificate says of it; nil without one.
	Identity *Identity
}

// Identity is what rules ask of a certificate.
type Identity struct {
	DNSNames, URIs, Emails []string
	// Subject and Issuer as RFC 4514 writes them.
	Subject, Issuer string
	// Fingerprint is the SHA-256 digest of the certificate, in lower-case hexadecimal.
	Fingerprint string
}

func newIdentity(c *x509.Certificate) *Identity {
	sum := sha256.Sum256(c.Raw)
	id := &Identity{DNSNames: c.DNSNames, Emails: c.EmailAddresses, Subject: c.Subject.String(), Issuer: c.Issuer.String(), Fingerprint: hex.EncodeToString(sum[:])}
	for _, u := range c.URIs {
		id.URIs = append(id.URIs, u.String())
	}
	return id
}

// NewTLS keeps what requests need of a TLS connection's state.
func NewTLS(state *tls.ConnectionState) *TLS {
	t := &TLS{Version: state.Version, Cipher: state.CipherSuite, ServerName: ServerName(state.ServerName)}
	if len(state.VerifiedChains) > 0 && len(state.PeerCertificates) > 0 {
		// A byte sequence of RFC 8941 section 3.3.5.
		t.ClientCert = ":" + base64.StdEncoding.EncodeToString(state.PeerCertificates[0].Raw) + ":"
		t.Identity = newIdentity(state.PeerCertificates[0])
	}
	return t
}

// ServerName is a name of SNI as tables have it: in lower case, without a last dot (RFC 6066
// section 3, RFC 4343).
func ServerName(sni string) string { return strings.ToLower(strings.TrimSuffix(sni, ".")) }

// Control is what a protocol can do for a request besides answering it.
type Control interface {
	// Inform sends an interim answer (1xx other than 101) at once; RFC 9110 section 15.2.
	// It does nothing where the version or the client cannot take one.
	Inform(status int, f *Fields)
	// MayBlock says that what follows may take long, so that an HTTP/2 connection goes on
	// reading in another goroutine.
	MayBlock()
}

// Body is pulled by its consumer: the pull is the flow control.
type Body interface {
	// Next lends the next bytes, good until the call after. A return is a point to flush at.
	// Only io.EOF means that the body is whole; bytes may come with it.
	Next(ctx context.Context) ([]byte, error)
	// Close gives the body up, or back after its end. It may be called at any time after
	// which Next is not called; cause is nil after io.EOF.
	Close(cause error)
}

// Prompt is a Body that knows whether it has bytes at hand. A protocol sends the head of an
// answer before it waits for the body; with others it sends both together.
type Prompt interface {
	Body
	// Ready says that Next will not wait.
	Ready() bool
}

// Request is a request as it came, or as it is sent. Keep it for the next message with Reset.
type Request struct {
	Fields
	Method        Method
	Proto         Proto
	Secure        bool  // the scheme is https
	ContentLength int64 // of the body; -1 when it is not known before its end
	Body          Body  // nil when there is none
	Trailer       *Fields
	Conn          *Conn
	Control       Control

	method, authority, path, query span
	hasQuery                       bool
}

// Reset empties r and keeps its memory.
func (r *Request) Reset() {
	r.Fields.Reset()
	r.Method, r.Proto, r.Secure, r.ContentLength = MethodOther, HTTP10, false, 0
	r.Body, r.Trailer, r.Conn, r.Control = nil, nil, nil, nil
	r.method, r.authority, r.path, r.query, r.hasQuery = span{}, span{}, span{}, span{}, false
}

// CopyFrom makes r equal to src in memory of its own. The body, the trailer, the connection
// and the control are shared.
func (r *Request) CopyFrom(src *Request) {
	arena, list := r.arena, r.list
	*r = *src
	r.arena, r.list = append(arena[:0], src.arena...), append(list[:0], src.list...)
}

// MethodName lends the method as it is written.
func (r *Request) MethodName() []byte { return r.method.of(r.arena) }

// Authority lends the authority (host, and port if any) that the request names.
func (r *Request) Authority() []byte { return r.authority.of(r.arena) }

// Path lends the path as it came, percent-encoding and all. It is "*" for OPTIONS *, and
// empty for CONNECT.
func (r *Request) Path() []byte { return r.path.of(r.arena) }

// Query lends what follows the first "?" of the target; HasQuery tells an empty query from none.
func (r *Request) Query() []byte { return r.query.of(r.arena) }

// HasQuery says whether the target has a "?".
func (r *Request) HasQuery() bool { return r.hasQuery }

// SetMethod sets the method from its name.
func (r *Request) SetMethod(name []byte) {
	r.Method = KnownMethod(name)
	r.method = r.keep(name)
}

// SetAuthority sets the authority.
func (r *Request) SetAuthority(a []byte) { r.authority = r.keep(a) }

// SetPath sets the path.
func (r *Request) SetPath(p []byte) { r.path = r.keep(p) }

// SetQuery sets the query and that there is one.
func (r *Request) SetQuery(q []byte) { r.query, r.hasQuery = r.keep(q), true }

// ClearQuery removes the query.
func (r *Request) ClearQuery() { r.query, r.hasQuery = span{}, false }

func (r *Request) keep(b []byte) span {
	off := uint32(len(r.arena))
	r.arena = append(r.arena, b...)
	return span{off, uint32(len(b))}
}

// Method is a known request method, or MethodOther.
type Method uint8

// The methods.
const (
	MethodOther Method = iota
	GET
	HEAD
	POST
	PUT
	DELETE
	CONNECT
	OPTIONS
	TRACE
	PATCH
)

var methods = [...]string{"", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

// KnownMethod finds a method by its name; names are case-sensitive (RFC 9110 section 9.1).
func KnownMethod(name []byte) Method {
	switch string(name) {
	case "GET":
		return GET
	case "HEAD":
		return HEAD
	case "POST":
		return POST
	case "PUT":
		return PUT
	case "DELETE":
		return DELETE
	case "CONNECT":
		return CONNECT
	case "OPTIONS":
		return OPTIONS
	case "TRACE":
		return TRACE
	case "PATCH":
		return PATCH
	}
	return MethodOther
}

// String returns the name of a known method.
func (m Method) String() string { return methods[m] }

// Safe says whether the method asks for no change (RFC 9110 section 9.2.1).
func (m Method) Safe() bool { return m == GET || m == HEAD || m == OPTIONS || m == TRACE }

// Idempotent says whether a repeat has the effect of one (RFC 9110 section 9.2.2).
func (m Method) Idempotent() bool { return m.Safe() || m == PUT || m == DELETE }
