package hints

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/message"
)

// Bounds of what is learned of one page.
const (
	maxLinks = 16
	maxBytes = 2 << 10
)

// appendLinks appends the links of an answer that are hints, as one field value.
func appendLinks(dst []byte, f *message.Fields, host []byte) []byte {
	n := 0
	for i := f.Next(message.Link, 0); i >= 0; i = f.Next(message.Link, i+1) {
		_, _, v := f.At(i)
		for len(v) > 0 && n < maxLinks {
			var link []byte
			link, v = nextLink(v)
			if link = bytes.TrimSpace(link); !hint(link, host) || len(dst)+len(link)+2 > maxBytes {
				continue
			}
			if len(dst) > 0 {
				dst = append(dst, ", "...)
			}
			dst = append(dst, link...)
			n++
		}
	}
	return dst
}

// nextLink cuts the first link off a list (RFC 8288 section 3). A comma inside <> or quotes is
// no end.
func nextLink(v []byte) (link, rest []byte) {
	quoted, inside := false, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case quoted && c == '\\':
			i++
		case c == '"' && !inside:
			quoted = !quoted
		case quoted:
		case c == '<':
			inside = true
		case c == '>':
			inside = false
		case c == ',' && !inside:
			return v[:i], v[i+1:]
		}
	}
	return v, nil
}

// hint says whether a link is a hint to something of the site's own.
func hint(link, host []byte) bool {
	end := bytes.IndexByte(link, '>')
	if len(link) < 2 || link[0] != '<' || end < 0 {
		return false
	}
	return ownTarget(link[1:end], host) && hintRelation(link[end+1:])
}

// hintRelation says whether one of the relation types is a hint that browsers take from a 103.
func hintRelation(params []byte) bool {
	for len(params) > 0 {
		var p []byte
		p, params = nextParam(params)
		name, value, _ := bytes.Cut(p, []byte{'='})
		if !message.EqualFold(bytes.TrimSpace(name), "rel") {
			continue
		}
		// Of several rel the first counts (RFC 8288 section 3.3).
		for _, want := range [...]string{"preload", "modulepreload", "preconnect"} {
			for rest := bytes.Trim(value, " \t\""); len(rest) > 0; {
				var word []byte
				word, rest, _ = bytes.Cut(rest, []byte{' '})
				if message.EqualFold(word, want) {
					return true
				}
			}
		}
		return false
	}
	return false
}

// nextParam cuts the first parameter off. A semicolon inside quotes is no end.
func nextParam(v []byte) (p, rest []byte) {
	quoted := false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ';' && !quoted:
			return v[:i], v[i+1:]
		}
	}
	return v, nil
}

// ownTarget says whether a URI reference leads to host, or below it: a relative one, or one of
// http or https whose host is the same, or ends in it less a leading www. Browsers read a
// backslash as a slash, and leave line breaks out; neither is taken.
func ownTarget(uri, host []byte) bool {
	for _, c := range uri {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	authority := uri
	switch {
	case len(uri) == 0:
		return false
	case bytes.HasPrefix(uri, []byte("//")):
		authority = uri[2:]
	case foldPrefix(uri, "https://"):
		authority = uri[8:]
	case foldPrefix(uri, "http://"):
		authority = uri[7:]
	default:
		colon := bytes.IndexByte(uri, ':')
		end := bytes.IndexAny(uri, "/?#")
		return colon < 0 || end >= 0 && end < colon
	}
	if i := bytes.IndexAny(authority, "/?#"); i >= 0 {
		authority = authority[:i]
	}
	if bytes.IndexByte(authority, '@') >= 0 {
		return false
	}
	if i := bytes.LastIndexByte(authority, ':'); i >= 0 && bytes.IndexByte(authority[i:], ']') < 0 {
		authority = authority[:i]
	}
	authority = bytes.Trim(authority, "[]")
	if bytes.EqualFold(authority, host) {
		return len(host) > 0
	}
	base := bytes.TrimPrefix(host, []byte("www."))
	n := len(authority) - len(base)
	return len(base) > 0 && bytes.IndexByte(base, '.') > 0 && n > 1 && authority[n-1] == '.' && bytes.EqualFold(authority[n:], base)
}

func foldPrefix(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && message.EqualFold(b[:len(prefix)], prefix)
}
