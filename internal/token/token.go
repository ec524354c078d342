// Package token reads JSON Web Tokens (RFC 7519) and the key sets that they are checked with (RFC 7517).
// It knows nothing of requests, fetches nothing, and believes nothing that a token says of its own keys:
// jku, x5u, x5c and jwk in a header are not looked at, and kid is only compared.
package token

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// The errors of a token. Each says what is wrong with it, never what is in it.
var (
	ErrMalformed = errors.New("is not a JSON Web Token in compact form")
	ErrAlgorithm = errors.New("is signed with an algorithm that is not taken")
	ErrCritical  = errors.New("has a critical header that is not known")
	ErrType      = errors.New("is of a type that is no token for access")
	ErrUnknown   = errors.New("names a key that the issuer does not have")
	ErrSignature = errors.New("has a signature that is not the issuer's")
	ErrClaims    = errors.New("has a payload that is not an object of claims")
)

// Algorithm is a name of RFC 7518 section 3.1 or RFC 8037.
type Algorithm = jose.SignatureAlgorithm

// Asymmetric are the algorithms of public keys that are taken by default.
func Asymmetric() []Algorithm {
	return []Algorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA}
}

// Hashed are those of secrets that are taken by default.
func Hashed() []Algorithm { return []Algorithm{jose.HS256} }

// Token is a token that was read and not checked yet.
type Token struct {
	// Algorithm and KeyID as the header says; KeyID is only to be compared.
	Algorithm Algorithm
	KeyID     string
	jws       *jose.JSONWebSignature
}

// anyAlgorithm are all that have a meaning here. "none" is not among them.
var anyAlgorithm = []Algorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	jose.HS256, jose.HS384, jose.HS512,
}

// Parse reads a token in compact form (RFC 7515 section 7.1). What it refuses is refused whoever the issuer is.
func Parse(text string) (*Token, error) {
	if !compact(text) {
		return nil, ErrMalformed
	}
	jws, err := jose.ParseSignedCompact(text, anyAlgorithm)
	if err != nil {
		var bad *jose.ErrUnexpectedSignatureAlgorithm
		if errors.As(err, &bad) {
			return nil, ErrAlgorithm
		}
		return nil, ErrMalformed
	}
	if len(jws.Signatures) != 1 {
		return nil, ErrMalformed
	}
	h := jws.Signatures[0].Protected
	if _, is := h.ExtraHeaders["crit"]; is {
		return nil, ErrCritical
	}
	if _, is := h.ExtraHeaders["b64"]; is {
		return nil, ErrCritical
	}
	if typ, is := h.ExtraHeaders["typ"]; is && !accessType(typ) {
		return nil, ErrType
	}
	return &Token{Algorithm: Algorithm(h.Algorithm), KeyID: h.KeyID, jws: jws}, nil
}

// compact says whether text has the shape of a token: three parts of base64url, the first of which is an object.
func compact(text string) bool {
	dots := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '.':
			dots++
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return dots == 2 && strings.HasPrefix(text, "ey") && !strings.Contains(text, "..") && !strings.HasSuffix(text, ".")
}

// accessType says whether a typ header may be one of a token for access (RFC 9068 section 4, RFC 8725 section
// 3.11): others, such as logout tokens and DPoP proofs, are signed by the same keys for something else.
func accessType(typ any) bool {
	s, ok := typ.(string)
	if !ok {
		return false
	}
	s = strings.TrimPrefix(strings.ToLower(s), "application/")
	return s == "jwt" || s == "at+jwt" || s == "jose" || s == ""
}

// Issuer is the iss claim before anything was checked, for the choice of keys.
func (t *Token) Issuer() string {
	var c struct {
		Issuer any `json:"iss"`
	}
	if json.Unmarshal(t.jws.UnsafePayloadWithoutVerification(), &c) != nil {
		return ""
	}
	s, _ := c.Issuer.(string)
	return s
}

// maxTries bounds how many keys are tried for a token that names none.
const maxTries = 4

// Verify checks the signature with the keys and returns the claims. The algorithm must be one of algorithms, and
// one for the kind of the key.
func (t *Token) Verify(keys *Keys, algorithms []Algorithm) (Claims, error) {
	if !slices.Contains(algorithms, t.Algorithm) {
		return Claims{}, ErrAlgorithm
	}
	tries, found := 0, false
	for i := range keys.list {
		k := &keys.list[i]
		if t.KeyID != "" && k.id != "" && t.KeyID != k.id || !k.signs(t.Algorithm) {
			continue
		}
		found = true
		if tries++; tries > maxTries {
			break
		}
		if payload, err := t.jws.Verify(k.public); err == nil {
			return parseClaims(payload)
		}
	}
	if !found {
		return Claims{}, ErrUnknown
	}
	return Claims{}, ErrSignature
}

func parseClaims(payload []byte) (Claims, error) {
	d := json.NewDecoder(strings.NewReader(string(payload)))
	d.UseNumber()
	var c Claims
	if err := d.Decode(&c.all); err != nil || c.all == nil {
		return Claims{}, ErrClaims
	}
	if _, err := d.Token(); err != io.EOF { // something stands behind the object
		return Claims{}, ErrClaims
	}
	return c, nil
}

// Describe says an error of this package in words that follow "the token".
func Describe(err error) string {
	if err == nil {
		return "is good"
	}
	return err.Error()
}
