package hub

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/internal/identity"
	"github.com/relais-edge/relais/internal/manifest"
)

// Organization keeps the platform's own keys, closed by the vault. No tenant can be called so.
const Organization = "~platform"

// keys are those of the platform: all control planes have the same.
type keys struct {
	Root   identity.KeyPair
	Issuer identity.KeyPair
	Signer *manifest.Signer
	Shared []byte // between PoPs
}

// names of the keys.
const (
	rootKey     = "root"
	issuerKey   = "issuer"
	manifestKey = "manifest"
	sharedKey   = "shared"
	receiptKey  = "receipts"
)

func secretKey(name string) store.Key {
	return store.Key{Organization: Organization, Kind: secret.Kind, Name: name}
}

// openKeys reads the platform's keys, and makes those that there are not. Of several control planes that begin at once one
// makes them.
func openKeys(ctx context.Context, s *store.Store, vault *secret.Vault, domain string, now time.Time) (*keys, error) {
	k := &keys{}
	_, err := s.Update(ctx, store.Change{Author: "hub", Reason: "the platform's keys"}, func(tx *store.Tx) error {
		if err := pair(ctx, tx, vault, rootKey, &k.Root, func() (identity.KeyPair, error) { return identity.NewRoot(domain, now, identity.RootLife) }); err != nil {
			return err
		}
		if err := pair(ctx, tx, vault, issuerKey, &k.Issuer, func() (identity.KeyPair, error) {
			return identity.NewIssuer(domain, k.Root, now, identity.IssuerLife)
		}); err != nil {
			return err
		}
		seed, err := keep(ctx, tx, vault, manifestKey, seed)
		if err != nil {
			return err
		}
		if len(seed) != ed25519.SeedSize {
			return fmt.Errorf("hub: the key %s has %d bytes", manifestKey, len(seed))
		}
		k.Signer = manifest.NewSigner(ed25519.NewKeyFromSeed(seed))
		k.Shared, err = keep(ctx, tx, vault, sharedKey, func() ([]byte, error) {
			b := make([]byte, 16)
			_, err := rand.Read(b)
			return b, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("hub: the platform's keys: %w", err)
	}
	return k, nil
}

// pair keeps a pair of keys.
func pair(ctx context.Context, tx *store.Tx, vault *secret.Vault, name string, to *identity.KeyPair, fresh func() (identity.KeyPair, error)) error {
	text, err := keep(ctx, tx, vault, name, func() ([]byte, error) {
		p, err := fresh()
		if err != nil {
			return nil, err
		}
		return json.Marshal(&p)
	})
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}

// keep reads a secret, or makes it.
func keep(ctx context.Context, tx *store.Tx, vault *secret.Vault, name string, fresh func() ([]byte, error)) ([]byte, error) {
	value, err := vault.Get(ctx, &tx.Reader, secretKey(name))
	if !errors.Is(err, store.ErrNotFound) {
		return value, err
	}
	if value, err = fresh(); err != nil {
		return nil, err
	}
	_, err = vault.Put(ctx, tx, secretKey(name), value, store.Absent)
	return value, err
}

// ReceiptKey is the key that signs receipts of use.
func ReceiptKey(ctx context.Context, s *store.Store, vault *secret.Vault) (key ed25519.PrivateKey, err error) {
	_, err = s.Update(ctx, store.Change{Author: "hub", Reason: "the platform's keys"}, func(tx *store.Tx) error {
		seed, err := keep(ctx, tx, vault, receiptKey, seed)
		if err == nil && len(seed) != ed25519.SeedSize {
			err = fmt.Errorf("hub: the key %s has %d bytes", receiptKey, len(seed))
		}
		if err == nil {
			key = ed25519.NewKeyFromSeed(seed)
		}
		return err
	})
	return key, err
}

// seed makes a new ed25519 key.
func seed() ([]byte, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	return private.Seed(), nil
}
