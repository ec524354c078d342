package claim

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// ErrName says that a text is no host name that can be claimed.
var ErrName = errors.New("no host name that can be claimed")

// Name is a host name in its one form: A-labels in lower case without a dot at the end. Of *.example.com the domain is
// example.com; it stands for all names below, at any depth.
type Name struct {
	Domain   string
	Wildcard bool
}

// String is the name as a document writes it.
func (n Name) String() string {
	if n.Wildcard {
		return "*." + n.Domain
	}
	return n.Domain
}

// ParseName brings a name, as a person or a client writes it, into its one form (RFC 5891; UTS 46 mapping, not
// transitional). What could never be proved is refused: addresses, names of one label, and public suffixes.
func ParseName(s string) (Name, error) {
	bad := func(why string) (Name, error) { return Name{}, fmt.Errorf("%w: %q %s", ErrName, s, why) }
	if len(s) > 1024 {
		return Name{}, fmt.Errorf("%w: it has %d bytes", ErrName, len(s))
	}
	text, wildcard := strings.CutPrefix(s, "*.")
	ascii, err := idna.Lookup.ToASCII(text)
	if err != nil {
		return bad("is not well formed: " + err.Error())
	}
	// What the mapping makes of a name must be one by itself, else two spellings of one name could pass for two names.
	if again, err := idna.Lookup.ToASCII(ascii); err != nil || again != ascii || !utf8.ValidString(text) {
		return bad("has no form that means the same")
	}
	// The mapping turns other full stops (U+3002) into dots too, so the last one goes after it.
	ascii = strings.TrimSuffix(strings.ToLower(ascii), ".")
	labels := strings.Split(ascii, ".")
	if _, err := netip.ParseAddr(ascii); err == nil {
		return bad("is an address")
	}
	if len(labels) < 2 || len(ascii) > 253 {
		return bad("has one label, or more than 253 bytes")
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return bad("has a label that is no host name's")
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return bad("ends like an address")
	}
	// Registries' suffixes belong to nobody. Those of the list's private part belong to who can prove them.
	if suffix, icann := publicsuffix.PublicSuffix(ascii); icann && suffix == ascii {
		return bad("is a public suffix")
	}
	return Name{ascii, wildcard}, nil
}

// Covers says whether a name of one host is the claimed one or below the wildcard.
func (n Name) Covers(host string) bool {
	if !n.Wildcard {
		return n.Domain == host
	}
	rest, ok := strings.CutSuffix(host, "."+n.Domain)
	return ok && rest != ""
}

// overlaps says whether some host belongs to both.
func (n Name) overlaps(o Name) bool {
	switch {
	case !n.Wildcard && !o.Wildcard:
		return n.Domain == o.Domain
	case n.Wildcard && o.Wildcard:
		return n.Domain == o.Domain || below(n.Domain, o.Domain) || below(o.Domain, n.Domain)
	case n.Wildcard:
		return below(o.Domain, n.Domain)
	}
	return below(n.Domain, o.Domain)
}

func below(name, domain string) bool { return strings.HasSuffix(name, "."+domain) }

// reversed writes labels from the last to the first with a dot behind each, so that names below one begin with it:
// com.example.shop. The wildcard is a star as one label more.
func (n Name) reversed() string {
	labels := strings.Split(n.Domain, ".")
	slices.Reverse(labels)
	s := strings.Join(labels, ".") + "."
	if n.Wildcard {
		s += "*."
	}
	return s
}

// above gives the domain's parents, the nearest first, down to two labels.
func (n Name) above() (list []string) {
	for d := n.Domain; ; {
		_, rest, ok := strings.Cut(d, ".")
		if !ok || !strings.Contains(rest, ".") {
			return list
		}
		list = append(list, rest)
		d = rest
	}
}
