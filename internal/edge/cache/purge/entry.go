package purge

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind is what a purge names.
type Kind uint8

// The kinds, from the widest to the narrowest. Their numbers are in logs and do not change.
const (
	_            Kind = iota
	All               // everything of every site
	Organization      // everything of the sites of one organization
	Site              // everything of a site
	Host              // everything of one host of a site
	Prefix            // paths that are Value or lie below it
	Path              // a path with any query
	URL               // a path with one query, as the key has it
	Tag               // what carries a tag
	Group             // a cache group (RFC 9875); Host is the one origin, or empty for all of the site
	numKinds
)

var kindNames = [numKinds]string{"", "all", "organization", "site", "host", "prefix", "path", "url", "tag", "group"}

// String is the kind as people write it.
func (k Kind) String() string {
	if k < numKinds {
		return kindNames[k]
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Kind) UnmarshalText(b []byte) error {
	for i := All; i < numKinds; i++ {
		if kindNames[i] == string(b) {
			*k = i
			return nil
		}
	}
	return fmt.Errorf("%q is no kind of purge; write %s", b, strings.Join(kindNames[1:], ", "))
}

// Entry is one purge. To apply it twice is to apply it once.
type Entry struct {
	Number uint64    `json:"number"`
	Time   time.Time `json:"time"`
	Kind   Kind      `json:"kind"`
	// Site is the key of the site, the name of the organization for Organization, empty for All.
	Site string `json:"site,omitempty"`
	// Host in lower case without port; empty means all hosts of the site, where the kind has a host.
	Host string `json:"host,omitempty"`
	// Value is the path in its normal form (for URL with ? and query), the tag or the group.
	Value string `json:"value,omitempty"`
	// Soft makes stale what a hard purge would remove.
	Soft bool `json:"soft,omitempty"`
}

// Bounds of an entry's texts, in bytes, and of the elements of a prefix.
const (
	MaxSite     = 512
	MaxHost     = 512
	MaxValue    = 16 << 10
	MaxTag      = 1024
	MaxSegments = 64
)

// Check says what is wrong with an entry, or nil.
func (e *Entry) Check() error {
	switch {
	case e.Kind == 0 || e.Kind >= numKinds:
		return errors.New("the kind of the purge is not known")
	case e.Kind != All && e.Site == "":
		return fmt.Errorf("a purge by %s needs the site", e.Kind)
	case len(e.Site) > MaxSite || len(e.Host) > MaxHost || len(e.Value) > MaxValue:
		return fmt.Errorf("the purge names more than is kept: a site or host of %d bytes, a value of %d", MaxSite, MaxValue)
	case e.Kind == Host && e.Host == "":
		return errors.New("a purge by host needs the host")
	}
	switch e.Kind {
	case Prefix, Path, URL:
		if !strings.HasPrefix(e.Value, "/") {
			return fmt.Errorf("%q is no path: it begins with /", e.Value)
		}
		if e.Kind == Prefix && strings.Count(strings.TrimRight(e.Value, "/"), "/") > MaxSegments {
			return fmt.Errorf("a prefix has at most %d path elements", MaxSegments)
		}
	case Tag:
		if !GoodTag([]byte(e.Value)) {
			return fmt.Errorf("%q is no tag: one is 1 to %d printable bytes without space and comma, of which upper and lower case are the same", e.Value, MaxTag)
		}
	case Group:
		if e.Value == "" || strings.IndexFunc(e.Value, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
			return fmt.Errorf("%q is no cache group: one is printable ASCII, of which upper and lower case differ (RFC 9875 section 2)", e.Value)
		}
	}
	return nil
}

// String is the entry in words.
func (e *Entry) String() string {
	var b strings.Builder
	if e.Soft {
		b.WriteString("soft ")
	}
	b.WriteString("purge by " + e.Kind.String())
	if e.Host != "" || e.Value != "" {
		b.WriteString(" " + e.Host + e.Value)
	}
	return b.String()
}

// organization is the part of a site's key before the slash.
func organization(site string) string {
	org, _, _ := strings.Cut(site, "/")
	return org
}

// GoodTag says whether a tag can be kept: printable ASCII or UTF-8 without space and comma.
func GoodTag(t []byte) bool {
	if len(t) == 0 || len(t) > MaxTag {
		return false
	}
	return bytes.IndexFunc(t, func(r rune) bool { return r <= ' ' || r == ',' || r == 0x7f }) < 0
}
