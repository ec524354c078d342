// Package manifest says what a PoP serves: a signed head that only goes forward, over a table of tenants, each with the
// digest of its bundle. So one tenant can be moved alone, nothing older or of another PoP is taken, and two numbers and
// a digest tell whether a PoP has what it should.
package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Format is the number of this form.
const Format = 1

// Digest is the SHA-256 of a blob. Its text is 64 hexadecimal digits.
type Digest [sha256.Size]byte

// Of is the digest of data.
func Of(data []byte) Digest { return sha256.Sum256(data) }

// String is the text of d.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != 2*len(d) {
		return errors.New("a digest has 64 hexadecimal digits")
	}
	if _, err := hex.Decode(d[:], text); err != nil {
		return fmt.Errorf("a digest has 64 hexadecimal digits: %w", err)
	}
	return nil
}

// Ref names a blob by its content.
type Ref struct {
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"` // bytes
}

// Tenant is what one organization has at a PoP.
type Tenant struct {
	Organization string `json:"organization"`
	// Revision is the organization's revision in the store of which the bundle was compiled.
	Revision int64 `json:"revision"`
	// Index names the bundle.Index, which names the parts.
	Index Ref `json:"index"`
}

// Position orders manifests: by epoch, then by revision. An epoch begins when a control plane was restored from a
// backup, and so may have forgotten revisions.
type Position struct {
	Epoch    uint64 `json:"epoch"`
	Revision uint64 `json:"revision"`
}

// Head is what is signed.
type Head struct {
	Format int    `json:"format"`
	Pop    string `json:"pop"`
	Position
	Issued  time.Time `json:"issued"`
	Table   Digest    `json:"table"` // of the table's canonical form
	Tenants int       `json:"tenants"`
}

// Signed is a head as it is sent: Head holds the bytes that are signed.
type Signed struct {
	Head      []byte `json:"head"` // JSON of a Head
	Key       string `json:"key"`  // id of the key
	Signature []byte `json:"signature"`
}

// Delta leads from one table to another.
type Delta struct {
	From    Digest   `json:"from"` // of the table that it is for
	Changed []Tenant `json:"changed,omitempty"`
	Removed []string `json:"removed,omitempty"`
}
