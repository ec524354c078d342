package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Limits of a key set.
const (
	// MaxKeys of a set are used.
	MaxKeys = 64
	// MaxSetBytes is the longest text of a set.
	MaxSetBytes = 256 << 10
	minRSA      = 2048 // bits; RFC 7518 section 3.3
	maxRSA      = 8192 // a check costs with the square of the length
)

// Keys are the keys of one issuer. They do not change.
type Keys struct {
	// Digest tells two sets apart.
	Digest [sha256.Size]byte
	// Ignored says of each key of the text that is not used why.
	Ignored []string
	list    []key
}

// key is one public key, or a secret.
type key struct {
	id     string
	alg    Algorithm // the one it is for; empty for each that fits its kind
	public any
}

// Len is the number of keys.
func (k *Keys) Len() int { return len(k.list) }

// Has says whether a key has the id.
func (k *Keys) Has(id string) bool {
	for i := range k.list {
		if k.list[i].id == id {
			return true
		}
	}
	return false
}

// Secret makes the keys of a secret. It is for HS256, HS384 and HS512 alone.
func Secret(secret string) *Keys {
	b := []byte(secret)
	return &Keys{Digest: sha256.Sum256(b), list: []key{{public: b}}}
}

// ParseKeys reads a key set (RFC 7517 section 5). Keys that are not for signatures, are symmetric, private, weak
// or not understood are left out and named in Ignored; a set without any key that is left is an error.
func ParseKeys(text []byte) (*Keys, error) {
	if len(text) > MaxSetBytes {
		return nil, fmt.Errorf("the key set has %d bytes, more than %d", len(text), MaxSetBytes)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("the key set is not a JSON object with a list of keys")
	}
	if len(set.Keys) > MaxKeys {
		return nil, fmt.Errorf("the key set has %d keys, more than %d", len(set.Keys), MaxKeys)
	}
	keys := &Keys{Digest: sha256.Sum256(text)}
	for i, raw := range set.Keys {
		k, why := parseKey(raw)
		if why != "" {
			keys.Ignored = append(keys.Ignored, fmt.Sprintf("key %d %s", i+1, why))
			continue
		}
		keys.list = append(keys.list, k)
	}
	if len(keys.list) == 0 {
		if len(keys.Ignored) > 0 {
			return nil, errors.New("no key of the set can be used: " + strings.Join(keys.Ignored, ", "))
		}
		return nil, errors.New("the key set holds no key")
	}
	return keys, nil
}

// parseKey reads one key; why is empty when it can be used.
func parseKey(raw []byte) (k key, why string) {
	var head struct {
		Kty    string   `json:"kty"`
		Use    string   `json:"use"`
		KeyOps []string `json:"key_ops"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return k, "is not an object of text"
	}
	switch {
	case head.Kty == "oct":
		return k, "is a secret, and secrets are not published"
	case head.Use != "" && head.Use != "sig":
		return k, "is not for signatures"
	case len(head.KeyOps) > 0 && !contains(head.KeyOps, "verify"):
		return k, "is not for verifying"
	}
	var j jose.JSONWebKey
	if err := j.UnmarshalJSON(raw); err != nil || !j.Valid() {
		return k, "cannot be read"
	}
	if !j.IsPublic() {
		return k, "is a private key, and whoever fetched the set has it"
	}
	switch p := j.Key.(type) {
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n < minRSA || n > maxRSA {
			return k, fmt.Sprintf("is an RSA key of %d bits", n)
		}
		if p.E < 3 || p.E&1 == 0 {
			return k, "is an RSA key with a weak exponent"
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return k, "is of a kind that is not known"
	}
	return key{id: j.KeyID, alg: Algorithm(j.Algorithm), public: j.Key}, ""
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// signs says whether the algorithm is one for the kind of the key (RFC 8725 section 3.1): a public key never
// serves as a secret.
func (k *key) signs(a Algorithm) bool {
	if k.alg != "" && k.alg != a {
		return false
	}
	switch p := k.public.(type) {
	case *rsa.PublicKey:
		switch a {
		case jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512:
			return true
		}
	case *ecdsa.PublicKey:
		switch a {
		case jose.ES256:
			return p.Curve == elliptic.P256()
		case jose.ES384:
			return p.Curve == elliptic.P384()
		case jose.ES512:
			return p.Curve == elliptic.P521()
		}
	case ed25519.PublicKey:
		return a == jose.EdDSA
	case []byte:
		return a == jose.HS256 || a == jose.HS384 || a == jose.HS512
	}
	return false
}
