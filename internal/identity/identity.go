// Package identity is the platform's own certificate authority and what it says of whom: short certificates with a URI in
// the form of SPIFFE, how a machine gets its first one by a token that works once, and how both sides of a connection
// verify each other by name instead of by address.
package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Kind is what somebody is.
type Kind string

// The kinds that there are.
const (
	Pop       Kind = "pop"       // spiffe://DOMAIN/pop/NAME
	Control   Kind = "control"   // spiffe://DOMAIN/control/NAME
	Connector Kind = "connector" // spiffe://DOMAIN/connector/ORGANIZATION/NAME
)

// Identity is who somebody is. Its text is a SPIFFE ID (SPIFFE-ID section 2).
type Identity struct {
	Domain       string // trust domain: a host name in lower case
	Kind         Kind
	Organization string // of a connector; else empty
	Name         string // a label: a-z, 0-9 and hyphens inside, 63 bytes at most
}

// ErrIdentity says that a URI, or a certificate, names no identity of this platform.
var ErrIdentity = errors.New("no identity of this platform")

// maxDomain bounds a trust domain, in bytes.
const maxDomain = 253

// String is the URI.
func (id Identity) String() string {
	path := string(id.Kind) + "/"
	if id.Organization != "" {
		path += id.Organization + "/"
	}
	return "spiffe://" + id.Domain + "/" + path + id.Name
}

// Check says what is wrong with an identity.
func (id Identity) Check() error {
	switch {
	case !validDomain(id.Domain):
		return fmt.Errorf("%w: %q is no trust domain; write a host name in lower case", ErrIdentity, id.Domain)
	case id.Kind != Pop && id.Kind != Control && id.Kind != Connector:
		return fmt.Errorf("%w: there is no kind %q", ErrIdentity, id.Kind)
	case (id.Kind == Connector) != (id.Organization != ""):
		return fmt.Errorf("%w: a connector has an organization, and nobody else has", ErrIdentity)
	case id.Organization != "" && !ValidName(id.Organization):
		return fmt.Errorf("%w: %q is no name of an organization", ErrIdentity, id.Organization)
	case !ValidName(id.Name):
		return fmt.Errorf("%w: %q is no name; use a-z, 0-9 and hyphens inside, 63 at most", ErrIdentity, id.Name)
	}
	return nil
}

// Parse reads a URI. It takes only the one way to write an identity.
func Parse(uri string) (Identity, error) {
	rest, ok := strings.CutPrefix(uri, "spiffe://")
	if !ok || len(uri) > 2*maxDomain {
		return Identity{}, fmt.Errorf("%w: %.80q", ErrIdentity, uri)
	}
	parts := strings.Split(rest, "/")
	var id Identity
	switch {
	case len(parts) == 3:
		id = Identity{Domain: parts[0], Kind: Kind(parts[1]), Name: parts[2]}
	case len(parts) == 4:
		id = Identity{Domain: parts[0], Kind: Kind(parts[1]), Organization: parts[2], Name: parts[3]}
	default:
		return Identity{}, fmt.Errorf("%w: %.80q", ErrIdentity, uri)
	}
	return id, id.Check()
}

// Of is the identity in a certificate, which has exactly one URI (X509-SVID section 2). It verifies nothing.
func Of(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, fmt.Errorf("%w: the certificate has %d URIs", ErrIdentity, len(cert.URIs))
	}
	return Parse(cert.URIs[0].String())
}

func (id Identity) url() (*url.URL, error) {
	if err := id.Check(); err != nil {
		return nil, err
	}
	return url.Parse(id.String())
}

// ValidName says whether a PoP, control plane, connector or organization may be called so.
func ValidName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func validDomain(s string) bool {
	if s == "" || len(s) > maxDomain {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !ValidName(label) {
			return false
		}
	}
	return true
}

// Expect says whom a side of a connection wants to meet.
type Expect func(Identity) error

// Is expects one PoP, control plane, or connector of no organization, by its name.
func Is(kind Kind, name string) Expect {
	return func(id Identity) error {
		if id.Kind != kind || id.Name != name || id.Organization != "" {
			return fmt.Errorf("%w: this is %s, and %s/%s is expected", ErrIdentity, id, kind, name)
		}
		return nil
	}
}

// Any expects somebody of one of these kinds.
func Any(kinds ...Kind) Expect {
	return func(id Identity) error {
		for _, k := range kinds {
			if id.Kind == k {
				return nil
			}
		}
		return fmt.Errorf("%w: this is %s, and one of %v is expected", ErrIdentity, id, kinds)
	}
}
