package semantics

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/message"
)

// A selector says which parts of a request choose among the answers under one key: the fields
// that Vary names (RFC 9111 section 4.1), and the fields and cookies that the owner named. It
// is a byte that says how the part is compared, a name in lower case, and a comma, for each.
const (
	compareField     = 'h' // as a list: lines joined, white space around commas left out
	comparePreferred = 'q' // also in lower case and in one order: Accept, Accept-Language
	compareCodings   = 'e' // by which of the usual codings are accepted: Accept-Encoding
	compareCookie    = 'c' // one cookie
)

// limits of a selector; a Vary beyond them counts as Vary: *.
const (
	maxSelector = 1024
	maxParts    = 32
)

// HasVaryStar says whether a member of Vary is "*", in any line and place.
func HasVaryStar(f *message.Fields) bool {
	for i := f.Next(message.Vary, 0); i >= 0; i = f.Next(message.Vary, i+1) {
		_, _, v := f.At(i)
		for {
			name, rest, ok := nextName(v)
			if !ok {
				break
			}
			if len(name) == 1 && name[0] == '*' {
				return true
			}
			v = rest
		}
	}
	return false
}

// AppendSelector appends to dst, which may hold the owner's parts already, those of the Vary
// of f. Device, when it is not empty, is the field that stands for User-Agent and Sec-CH-UA-Mobile, of which
// the owner says that nothing but the class of the device counts. It is false when the selector would be too long.
func AppendSelector(dst []byte, f *message.Fields, device string) ([]byte, bool) {
	start := len(dst)
	codings := byte(comparePreferred)
	if usualCoding(f) {
		codings = compareCodings
	}
	for i := f.Next(message.Vary, 0); i >= 0; i = f.Next(message.Vary, i+1) {
		_, _, v := f.At(i)
		for {
			name, rest, ok := nextName(v)
			if !ok {
				break
			}
			v = rest
			if len(dst)-start+len(name) > maxSelector {
				return dst, false
			}
			if device != "" && (fold(name, "user-agent") || fold(name, "sec-ch-ua-mobile")) {
				name = []byte(device)
			}
			dst = appendPart(dst, name, codings)
		}
	}
	return dst, bytes.Count(dst, []byte{','}) <= maxParts
}

// AppendField appends a part that the owner named.
func AppendField(dst []byte, name string) []byte {
	return appendPart(dst, []byte(name), comparePreferred)
}

// AppendCookie appends a cookie that the owner named.
func AppendCookie(dst []byte, name string) []byte {
	dst = append(dst, compareCookie)
	dst = append(dst, name...)
	return append(dst, ',')
}

func appendPart(dst, name []byte, codings byte) []byte {
	how := byte(compareField)
	switch message.KnownID(name) {
	case message.AcceptEncoding:
		how = codings
	case message.Accept, message.AcceptLanguage, message.AcceptCharset:
		how = comparePreferred
	}
	at := len(dst)
	dst = append(dst, how)
	for _, c := range name {
		dst = append(dst, lower(c))
	}
	dst = append(dst, ',')
	if bytes.Contains(dst[:at], dst[at:]) {
		return dst[:at] // named twice
	}
	return dst
}

// AppendSelected appends what the request gives for each part of the selector, in a form that
// is the same for requests that mean the same.
func AppendSelected(dst, selector []byte, req *message.Fields) []byte {
	for len(selector) > 0 {
		end := bytes.IndexByte(selector, ',')
		how, name := selector[0], selector[1:end]
		selector = selector[end+1:]
		switch how {
		case compareCookie:
			dst = appendCookieValue(dst, req, name)
		case compareCodings:
			dst = append(dst, codingsOf(req))
		case comparePreferred:
			start := len(dst)
			dst = appendPreferred(appendList(dst, req, name, true), start)
		default:
			dst = appendList(dst, req, name, false)
		}
		dst = append(dst, 0)
	}
	return dst
}

// appendList appends the members of a list field, "+" before them; "-" when it is absent.
func appendList(dst []byte, req *message.Fields, name []byte, low bool) []byte {
	start, found := len(dst), false
	dst = append(dst, '-')
	id := message.KnownID(name)
	for i := range req.Len() {
		lid, n, v := req.At(i)
		if lid != id || id == message.Other && !equalFold(n, name) {
			continue
		}
		if found {
			dst = append(dst, ',')
		}
		dst, found = appendMembers(dst, v, low), true
	}
	if found {
		dst[start] = '+'
	}
	return dst
}

// appendMembers appends v without white space around commas that are not quoted.
func appendMembers(dst, v []byte, low bool) []byte {
	quoted := false
	first := len(dst)
	for i := 0; i < len(v); i++ {
		c := v[i]
		switch {
		case quoted && c == '\\' && i+1 < len(v):
			dst = append(dst, c)
			i++
			c = v[i]
		case c == '"':
			quoted = !quoted
		case !quoted && c == ',':
			for len(dst) > first && (dst[len(dst)-1] == ' ' || dst[len(dst)-1] == '\t') {
				dst = dst[:len(dst)-1]
			}
		case !quoted && (c == ' ' || c == '\t') && (len(dst) == first || dst[len(dst)-1] == ','):
			continue
		case low && !quoted:
			c = lower(c)
		}
		dst = append(dst, c)
	}
	for len(dst) > first && (dst[len(dst)-1] == ' ' || dst[len(dst)-1] == '\t') {
		dst = dst[:len(dst)-1]
	}
	return dst
}

// appendPreferred puts the members from start on in one order: which of two equally preferred
// comes first means nothing (RFC 9110 section 12.4.2). White space inside them is left out.
func appendPreferred(dst []byte, start int) []byte {
	if len(dst) == start || dst[start] != '+' || bytes.IndexByte(dst[start:], '"') >= 0 {
		return dst
	}
	w := start
	for _, c := range dst[start:] {
		if c != ' ' && c != '\t' {
			dst[w] = c
			w++
		}
	}
	dst = dst[:w]
	members := dst[start+1:]
	const most = 32
	var at [most + 1]int
	n := 1
	for i, c := range members {
		if c == ',' {
			if n == most {
				return dst
			}
			at[n] = i + 1
			n++
		}
	}
	if n == 1 {
		return dst
	}
	at[n] = len(members) + 1
	var order [most]uint8
	member := func(i uint8) []byte { return members[at[i] : at[i+1]-1] }
	for i := range uint8(n) {
		j := i
		for ; j > 0 && bytes.Compare(member(order[j-1]), member(i)) > 0; j-- {
			order[j] = order[j-1]
		}
		order[j] = i
	}
	// Write the sorted members behind, then over the unsorted ones.
	end := len(dst)
	for i := range n {
		dst = append(dst, member(order[i])...)
		dst = append(dst, ',')
	}
	copy(dst[start+1:end], dst[end:])
	return dst[:end]
}

// The codings that nearly all answers have.
const (
	codingAbsent = 1 << 7 // there is no Accept-Encoding
	codingGzip   = 1 << iota
	codingBrotli
	codingZstd
	codingNoIdentity
	codingAny = 1 // keeps the byte from being 0
)

// codingsOf says which of the usual codings a request accepts (RFC 9110 section 12.5.3). Their
// order and weights are left out: any of them is acceptable.
func codingsOf(req *message.Fields) byte {
	i := req.Next(message.AcceptEncoding, 0)
	if i < 0 {
		return codingAbsent
	}
	if _, _, v := req.At(i); req.Next(message.AcceptEncoding, i+1) < 0 {
		// What nearly all clients send.
		switch string(v) {
		case "gzip, deflate, br, zstd":
			return codingAny | codingGzip | codingBrotli | codingZstd
		case "gzip, deflate, br":
			return codingAny | codingGzip | codingBrotli
		case "gzip, deflate", "gzip":
			return codingAny | codingGzip
		}
	}
	return readCodings(req)
}

// readCodings reads the field as it is.
func readCodings(req *message.Fields) byte {
	set, named, star := byte(codingAny), byte(0), byte(0)
	for i := req.Next(message.AcceptEncoding, 0); i >= 0; i = req.Next(message.AcceptEncoding, i+1) {
		_, _, v := req.At(i)
		for {
			m, rest, ok := nextName(v)
			if !ok {
				break
			}
			v = rest
			name, params, _ := cut(m, ';')
			bit, yes := codingBit(trim(name)), !zeroWeight(params)
			switch {
			case bit == codingAny && yes:
				star = codingGzip | codingBrotli | codingZstd
			case bit == codingNoIdentity:
				if !yes {
					set |= codingNoIdentity
				}
			case yes:
				set |= bit
			}
			named |= bit
		}
	}
	return set | star&^named
}

func codingBit(name []byte) byte {
	switch {
	case fold(name, "gzip"), fold(name, "x-gzip"):
		return codingGzip
	case fold(name, "br"):
		return codingBrotli
	case fold(name, "zstd"):
		return codingZstd
	case fold(name, "identity"):
		return codingNoIdentity
	case fold(name, "*"):
		return codingAny
	}
	return 0
}

// zeroWeight says whether parameters hold q=0, in any of its forms.
func zeroWeight(params []byte) bool {
	for len(params) > 0 {
		p, rest, _ := cut(params, ';')
		params = rest
		p = trim(p)
		if len(p) > 2 && lower(p[0]) == 'q' && p[1] == '=' {
			return len(bytes.Trim(p[2:], "0.")) == 0
		}
	}
	return false
}

// usualCoding says whether the answer has at most one coding, and one that codingsOf tells.
func usualCoding(f *message.Fields) bool {
	v := f.Get(message.ContentEncoding)
	if v == nil {
		return true
	}
	switch codingBit(trim(v)) {
	case codingGzip, codingBrotli, codingZstd:
		return f.Count(message.ContentEncoding) == 1
	}
	return false
}

// appendCookieValue appends the value of the first cookie of that name, "+" before it.
func appendCookieValue(dst []byte, req *message.Fields, name []byte) []byte {
	for i := req.Next(message.Cookie, 0); i >= 0; i = req.Next(message.Cookie, i+1) {
		_, _, v := req.At(i)
		for len(v) > 0 {
			pair, rest, _ := cut(v, ';')
			v = rest
			n, value, _ := cut(trim(pair), '=')
			if bytes.Equal(n, name) {
				dst = append(dst, '+')
				return append(dst, value...)
			}
		}
	}
	return append(dst, '-')
}
