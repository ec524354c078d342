package listen

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
)

// acmeProtocol is the ALPN protocol of TLS-ALPN-01 (RFC 8737 section 6.2).
const acmeProtocol = "acme-tls/1"

// tlsConfig is the listener's, for TCP. Key exchange is Go's own choice, which puts
// X25519MLKEM768 first. The cipher suites of TLS 1.2 are those with forward secrecy and AEAD;
// those of TLS 1.3 are not to be chosen.
func tlsConfig(spec *v1.ListenerTLS, protos []string, s *selector) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protos, GetCertificate: s.get,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
	if spec.MinVersion == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	if a := spec.ClientAuth; a != nil {
		c.ClientAuth = tls.RequireAndVerifyClientCert
		if a.Mode == "verify-if-given" {
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
		c.ClientCAs = x509.NewCertPool()
		c.ClientCAs.AppendCertsFromPEM([]byte(a.CA))
	}
	c.GetConfigForClient = s.hello
	return c
}

// errUnknownName ends a handshake before there is any work for it.
var errUnknownName = errors.New("no site of the listener has the name that the client asks for")

// known says whether a site of the listener has the name that a client asks for, if it does.
func (s *selector) known(hello *tls.ClientHelloInfo) error {
	if hello.ServerName == "" {
		return nil
	}
	if sure, any := s.m.cfg.Sites.Serves(message.ServerName(hello.ServerName), s.listener); !sure && !any {
		return errUnknownName
	}
	return nil
}

// challenge answers an ACME authority that checks a name by TLS-ALPN-01; everybody else gets the
// listener's own settings. In the challenge nobody is asked for a certificate.
func (s *selector) challenge(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != acmeProtocol {
		return nil, nil
	}
	cert := s.m.cfg.ACME.ChallengeCertificate(message.ServerName(hello.ServerName))
	if cert == nil {
		return nil, nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{acmeProtocol}, Certificates: []tls.Certificate{*cert}, SessionTicketsDisabled: true}, nil
}

// The reasons of handshakes that fail, as counted.
const (
	failTimeout  = "timeout"
	failClosed   = "closed"     // by the client
	failPlain    = "plain_http" // HTTP in clear on a TLS port
	failProtocol = "protocol"   // no common ALPN protocol
	failClient   = "client_certificate"
	failName     = "unknown_name"
	failTLS      = "tls" // everything else
)

func failures() []string {
	return []string{failTimeout, failClosed, failPlain, failProtocol, failClient, failName, failTLS}
}

// answerPlain tells a client that speaks HTTP in clear what is wrong.
const answerPlain = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: 67\r\n\r\n" +
	"This port speaks TLS. Use https:// in the address instead of http:\n"

// handshakeFailure names why a handshake failed, and answers where that helps.
func handshakeFailure(err error) string {
	var plain tls.RecordHeaderError
	var ne net.Error
	var alert tls.AlertError
	var bad *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errUnknownName):
		return failName
	case errors.As(err, &bad), strings.Contains(err.Error(), "didn't provide a certificate"): // crypto/tls has no sentinel for it
		return failClient
	case errors.As(err, &plain) && plain.Conn != nil:
		if h := string(plain.RecordHeader[:]); looksLikeHTTP(h) {
			_, _ = io.WriteString(plain.Conn, answerPlain)
			return failPlain
		}
	case errors.As(err, &ne) && ne.Timeout():
		return failTimeout
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return failClosed
	case errors.As(err, &alert):
		return failTLS
	case strings.Contains(err.Error(), "application protocol"): // crypto/tls has no sentinel for it
		return failProtocol
	}
	return failTLS
}

func looksLikeHTTP(h string) bool {
	switch h {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET", "CONNE", "PRI *":
		return true
	}
	return false
}
