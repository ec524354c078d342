package manifest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// What is refused, and why.
var (
	// ErrForm: it is not well formed, or larger than MaxHead.
	ErrForm = errors.New("manifest: not well formed")
	// ErrKey: the key that signed it is not trusted, or no longer.
	ErrKey = errors.New("manifest: signed by a key that is not trusted")
	// ErrSignature: it is not what was signed.
	ErrSignature = errors.New("manifest: the signature does not fit")
	// ErrFormat: it has a form that this version does not read.
	ErrFormat = errors.New("manifest: of a format that is not known")
	// ErrForeign: it is for another PoP.
	ErrForeign = errors.New("manifest: for another PoP")
	// ErrOlder: it is not newer than what there is.
	ErrOlder = errors.New("manifest: not newer than what is served")
)

// Bounds.
const (
	// MaxHead bounds what is signed, in bytes.
	MaxHead = 4096
	// MaxKeys bounds the keys of a KeySet.
	MaxKeys = 16
)

// What is signed says what it is, so that no signature is good for anything else.
const (
	headDomain = "relais manifest head\x00"
	keysDomain = "relais manifest keys\x00"
)

// After says whether p is newer than q.
func (p Position) After(q Position) bool {
	return p.Epoch > q.Epoch || p.Epoch == q.Epoch && p.Revision > q.Revision
}

// Signer signs with one key.
type Signer struct {
	id  string
	key ed25519.PrivateKey
}

// NewSigner makes a signer of a private key. Its id is made of the public one.
func NewSigner(key ed25519.PrivateKey) *Signer {
	return &Signer{KeyID(key.Public().(ed25519.PublicKey)), key}
}

// KeyID names a key.
func KeyID(key ed25519.PublicKey) string { return Of(key).String()[:16] }

// Public is the key by which signatures are verified.
func (s *Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Sign signs a head.
func (s *Signer) Sign(h *Head) (*Signed, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return &Signed{Head: b, Key: s.id, Signature: ed25519.Sign(s.key, slices.Concat([]byte(headDomain), b))}, nil
}

// Key is a public key that signs manifests.
type Key struct {
	Public ed25519.PublicKey `json:"public"`
	// Until is when it is no longer trusted; zero: while it is in the set.
	Until time.Time `json:"until,omitzero"`
}

// KeySet are the keys that PoPs trust. Sets are numbered, and each is signed by a key of the one before: so a new key is
// added, used once every PoP has the set with it, and the old one is left out of a later set, without a gap.
type KeySet struct {
	Number uint64 `json:"number"`
	Keys   []Key  `json:"keys"`
}

// SignedKeys is a KeySet as it is sent: Set holds the bytes that are signed.
type SignedKeys struct {
	Set       []byte `json:"set"`
	Key       string `json:"key"`
	Signature []byte `json:"signature"`
}

// SignKeys signs a key set, with a key of the set before.
func (s *Signer) SignKeys(set *KeySet) (*SignedKeys, error) {
	b, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	return &SignedKeys{Set: b, Key: s.id, Signature: ed25519.Sign(s.key, slices.Concat([]byte(keysDomain), b))}, nil
}

// Keyring is a key set that is trusted. It is not changed once it was made.
type Keyring struct {
	set  KeySet
	keys map[string]Key
}

// NewKeyring trusts a set, such as the one that enrolment gave.
func NewKeyring(set KeySet) (*Keyring, error) {
	if len(set.Keys) == 0 || len(set.Keys) > MaxKeys {
		return nil, fmt.Errorf("%w: a set has 1 to %d keys, and not %d", ErrForm, MaxKeys, len(set.Keys))
	}
	k := &Keyring{set: KeySet{set.Number, slices.Clone(set.Keys)}, keys: map[string]Key{}}
	for _, key := range set.Keys {
		if len(key.Public) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%w: a key has %d bytes, and not %d", ErrForm, ed25519.PublicKeySize, len(key.Public))
		}
		k.keys[KeyID(key.Public)] = key
	}
	return k, nil
}

// Set is the set that is trusted.
func (k *Keyring) Set() KeySet { return k.set }

// IDs of the keys, sorted.
func (k *Keyring) IDs() []string { return slices.Sorted(maps.Keys(k.keys)) }

// verify holds a signature against a trusted key.
func (k *Keyring) verify(domain string, data []byte, id string, signature []byte, now time.Time) error {
	if len(data) > MaxHead || len(signature) != ed25519.SignatureSize {
		return fmt.Errorf("%w: %d bytes, a signature of %d", ErrForm, len(data), len(signature))
	}
	key, trusted := k.keys[id]
	if !trusted || !key.Until.IsZero() && !now.Before(key.Until) {
		return fmt.Errorf("%w: %.32q", ErrKey, id)
	}
	if !ed25519.Verify(key.Public, slices.Concat([]byte(domain), data), signature) {
		return ErrSignature
	}
	return nil
}

// Open gives the head that was signed, if this PoP may go on to it from after. Time decides nothing but which keys are
// trusted: a clock that is wrong keeps nothing from going forward.
func (k *Keyring) Open(s *Signed, pop string, after Position, now time.Time) (*Head, error) {
	if err := k.verify(headDomain, s.Head, s.Key, s.Signature, now); err != nil {
		return nil, err
	}
	h := &Head{}
	if err := strictly(s.Head, h); err != nil {
		return nil, err
	}
	switch {
	case h.Format != Format:
		return nil, fmt.Errorf("%w: %d, and this version reads %d", ErrFormat, h.Format, Format)
	case h.Pop != pop:
		return nil, fmt.Errorf("%w: %.64q, and this is %q", ErrForeign, h.Pop, pop)
	case !h.After(after):
		return nil, fmt.Errorf("%w: %d.%d, and %d.%d is", ErrOlder, h.Epoch, h.Revision, after.Epoch, after.Revision)
	}
	return h, nil
}

// Renew gives the ring of a newer set, that a key of this ring signed.
func (k *Keyring) Renew(s *SignedKeys, now time.Time) (*Keyring, error) {
	if err := k.verify(keysDomain, s.Set, s.Key, s.Signature, now); err != nil {
		return nil, err
	}
	var set KeySet
	if err := strictly(s.Set, &set); err != nil {
		return nil, err
	}
	if set.Number <= k.set.Number {
		return nil, fmt.Errorf("%w: key set %d, and %d is trusted", ErrOlder, set.Number, k.set.Number)
	}
	return NewKeyring(set)
}

// strictly reads one JSON value. Fields that are not known are left alone, as they are a later version's.
func strictly(data []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	if d.More() {
		return fmt.Errorf("%w: more than one value", ErrForm)
	}
	return nil
}
