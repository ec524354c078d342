package origin

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"strconv"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
)

// signer signs requests to an origin with HTTP Message Signatures (RFC 9421), algorithm
// hmac-sha256, under the label relais.
type signer struct {
	params string // what follows the time of creation
	states sync.Pool
}

// signState is what one signature needs; it is used again.
type signState struct {
	mac  hash.Hash
	base []byte // the signature base, then the fields' values
	sum  [sha256.Size]byte
}

const (
	signedComponents = `("@method" "@authority" "@path" "@query" "x-request-id")`
	signatureField   = "Signature"
	signatureInput   = "Signature-Input"
)

func newSigner(spec *v1.OriginSignature) *signer {
	secret := []byte(spec.Secret)
	s := &signer{params: `;keyid="` + spec.KeyID + `";alg="hmac-sha256"`}
	s.states.New = func() any { return &signState{mac: hmac.New(sha256.New, secret), base: make([]byte, 0, 1024)} }
	return s
}

// sign puts Signature-Input and Signature into req, in place of those it has. Secure says that the
// request goes over TLS, which decides the default port.
func (s *signer) sign(req *message.Request, secure bool, now time.Time) {
	st := s.states.Get().(*signState)
	defer s.states.Put(st)
	b := append(st.base[:0], `"@method": `...)
	b = append(b, req.MethodName()...)
	b = append(b, "\n\"@authority\": "...)
	b = appendAuthority(b, req.Authority(), secure)
	b = append(b, "\n\"@path\": "...)
	b = append(b, req.Path()...)
	b = append(b, "\n\"@query\": ?"...) // "?" alone stands for no query (section 2.2.7)
	b = append(b, req.Query()...)
	b = append(b, "\n\"x-request-id\": "...)
	b = append(b, bytes.TrimSpace(req.Get(message.XRequestId))...)
	b = append(b, "\n\"@signature-params\": "...)
	params := len(b)
	b = append(b, signedComponents...)
	b = append(b, ";created="...)
	b = strconv.AppendInt(b, now.Unix(), 10)
	b = append(b, s.params...)
	end := len(b)
	st.mac.Reset()
	st.mac.Write(b)
	st.mac.Sum(st.sum[:0])

	b = append(b, "relais="...)
	b = append(b, b[params:end]...)
	req.SetLine(signatureInput, b[end:])
	end = len(b)
	b = append(b, "relais=:"...)
	b = base64.StdEncoding.AppendEncode(b, st.sum[:])
	b = append(b, ':')
	req.SetLine(signatureField, b[end:])
	st.base = b
}

// appendAuthority appends the authority in lower case and without the scheme's own port (section 2.2.3).
func appendAuthority(dst, a []byte, secure bool) []byte {
	port := ":80"
	if secure {
		port = ":443"
	}
	a = bytes.TrimSuffix(a, []byte(port))
	for _, c := range a {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}
