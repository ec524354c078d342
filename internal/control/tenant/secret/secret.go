// Package secret keeps secrets encrypted with age, for the control plane's own keys at rest, and sealed to the keys of those
// PoPs that need them. A secret is bound to its name: what is moved to another name does not open.
package secret

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/relais-edge/relais/internal/control/store"
)

// Kind is the kind of the documents that hold secrets.
const Kind = "Secret"

// Bounds.
const (
	maxValue      = 256 << 10 // bytes of a secret
	maxRecipients = 2000      // PoPs that one sealing is for
	maxKeys       = 16        // of a key ring
)

var (
	// ErrKey says that no key at hand opens the secret.
	ErrKey = errors.New("no key at hand opens it")
	// ErrMoved says that a secret was sealed under another name.
	ErrMoved = errors.New("it was sealed under another name")
)

// Vault opens and closes secrets with the control plane's keys.
type Vault struct {
	keys []*age.X25519Identity // the first closes, all open
}

// Store is what the vault needs of control/store.
type Store interface {
	View(ctx context.Context, fn func(*store.Reader) error) error
	Update(ctx context.Context, c store.Change, fn func(*store.Tx) error) (store.Commit, error)
}

// NewKey makes an X25519 key in age's form: the private part, and the public one to hand out.
func NewKey() (private, public string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", fmt.Errorf("secret: %w", err)
	}
	return id.String(), id.Recipient().String(), nil
}

// NewVault takes private keys a line, the newest first; lines that begin with # are comments. To rotate, put a new one
// first, call Rotate (and of tenant RotateTOTP and RotateProviders), and take the old one away then.
func NewVault(keys string) (*Vault, error) {
	v := &Vault{}
	for n, line := range strings.Split(keys, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		id, err := age.ParseX25519Identity(line)
		if err != nil {
			return nil, fmt.Errorf("secret: line %d of the keys is no AGE-SECRET-KEY", n+1) // the error of age could show it
		}
		v.keys = append(v.keys, id)
	}
	if len(v.keys) == 0 || len(v.keys) > maxKeys {
		return nil, fmt.Errorf("secret: there are %d keys; give 1 to %d", len(v.keys), maxKeys)
	}
	return v, nil
}

// envelope is what is encrypted: the value and the name that it belongs to.
type envelope struct {
	Key   store.Key `json:"key"`
	Value []byte    `json:"value"`
}

// Body is a secret at rest.
type Body struct {
	Recipient string `json:"recipient"` // public key of the control plane that it is closed for
	Cipher    []byte `json:"cipher"`
}

func seal(key store.Key, value []byte, to ...age.Recipient) ([]byte, error) {
	if len(value) > maxValue {
		return nil, &store.LimitError{What: "bytes of a secret", Have: int64(len(value)), Most: maxValue}
	}
	plain, err := json.Marshal(envelope{key, value})
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("secret: close %s: %w", key, err)
	}
	return b.Bytes(), nil
}

func unseal(key store.Key, cipher []byte, with ...age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(cipher), with...)
	if err != nil {
		return nil, fmt.Errorf("secret: open %s: %w", key, ErrKey)
	}
	plain, err := io.ReadAll(io.LimitReader(r, 2*maxValue))
	if err != nil {
		return nil, fmt.Errorf("secret: open %s: it is damaged", key)
	}
	var e envelope
	if err := json.Unmarshal(plain, &e); err != nil || e.Key != key {
		return nil, fmt.Errorf("secret: open %s: %w", key, ErrMoved)
	}
	return e.Value, nil
}

// Close encrypts a value for the control plane's newest key. Key names what it belongs to.
func (v *Vault) Close(key store.Key, value []byte) (Body, error) {
	to := v.keys[0].Recipient()
	cipher, err := seal(key, value, to)
	return Body{to.String(), cipher}, err
}

// Open decrypts what Close made under the same key.
func (v *Vault) Open(key store.Key, b Body) ([]byte, error) {
	ids := make([]age.Identity, len(v.keys))
	for i, k := range v.keys {
		ids[i] = k
	}
	return unseal(key, b.Cipher, ids...)
}

// Outdated says that a newer key should close it.
func (v *Vault) Outdated(b Body) bool { return b.Recipient != v.keys[0].Recipient().String() }

// Put keeps a secret as a document of kind Secret.
func (v *Vault) Put(ctx context.Context, tx *store.Tx, key store.Key, value []byte, expect store.Expect) (int64, error) {
	if key.Kind != Kind {
		return 0, fmt.Errorf("secret: %s is not of kind %s", key, Kind)
	}
	b, err := v.Close(key, value)
	if err != nil {
		return 0, err
	}
	body, err := json.Marshal(b)
	if err != nil {
		return 0, fmt.Errorf("secret: %w", err)
	}
	return tx.Put(ctx, key, body, expect)
}

// Get reads a secret's value.
func (v *Vault) Get(ctx context.Context, r *store.Reader, key store.Key) ([]byte, error) {
	d, err := r.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	var b Body
	if err := json.Unmarshal(d.Body, &b); err != nil {
		return nil, fmt.Errorf("secret: %s is damaged: %w", key, err)
	}
	return v.Open(key, b)
}

// SealFor reads a secret and encrypts it for PoPs, named by their public keys, and for nobody else: not for the control
// plane either, which has its own. To rotate a PoP's key, seal again for the new one.
func (v *Vault) SealFor(ctx context.Context, r *store.Reader, key store.Key, pops []string) ([]byte, error) {
	if len(pops) == 0 || len(pops) > maxRecipients {
		return nil, fmt.Errorf("secret: %s is sealed for %d PoPs; it may be 1 to %d", key, len(pops), maxRecipients)
	}
	to := make([]age.Recipient, 0, len(pops))
	for _, p := range slices.Compact(slices.Sorted(slices.Values(pops))) {
		one, err := age.ParseX25519Recipient(p)
		if err != nil {
			return nil, fmt.Errorf("secret: %q is no public key of a PoP: %w", p, err)
		}
		to = append(to, one)
	}
	value, err := v.Get(ctx, r, key)
	if err != nil {
		return nil, err
	}
	return seal(key, value, to...)
}

// OpenAt opens what SealFor made, with a PoP's private key.
func OpenAt(private string, key store.Key, sealed []byte) ([]byte, error) {
	id, err := age.ParseX25519Identity(private)
	if err != nil {
		return nil, errors.New("secret: the PoP's key is no AGE-SECRET-KEY")
	}
	return unseal(key, sealed, id)
}

// rotatePage is how many documents one change closes anew.
const rotatePage = 100

// Rotate closes every secret document anew that is not closed for the newest key, and forgets the form it had before:
// pruning the history is the caller's. It gives how many it closed. It may be called again after an error.
func (v *Vault) Rotate(ctx context.Context, s Store, author string) (n int, err error) {
	return Renew(ctx, s, Kind, author, v.rotate)
}

// Renew calls renew for every document of a kind, a page of them in a change, and gives how many it says that it closed anew.
func Renew(ctx context.Context, s Store, kind, author string, renew func(context.Context, *store.Tx, store.Document) (int, error)) (n int, err error) {
	q := store.Query{Kind: kind, Limit: rotatePage}
	for {
		var page store.Page
		closed := 0
		_, err := s.Update(ctx, store.Change{Author: author, Reason: "rotation of the control plane's key"}, func(tx *store.Tx) error {
			if page, err = tx.List(ctx, q); err != nil {
				return err
			}
			for _, d := range page.Documents {
				done, err := renew(ctx, tx, d)
				if err != nil {
					return err
				}
				closed += done
			}
			return nil
		})
		if err != nil {
			return n, err
		}
		n += closed
		if q.Cursor = page.Next; q.Cursor == "" {
			return n, nil
		}
	}
}

func (v *Vault) rotate(ctx context.Context, tx *store.Tx, d store.Document) (int, error) {
	var b Body
	if err := json.Unmarshal(d.Body, &b); err != nil {
		return 0, fmt.Errorf("secret: %s is damaged: %w", d.Key, err)
	}
	if !v.Outdated(b) {
		return 0, nil
	}
	value, err := v.Open(d.Key, b)
	if err != nil {
		return 0, err
	}
	_, err = v.Put(ctx, tx, d.Key, value, store.Expect(d.Revision))
	return 1, err
}
