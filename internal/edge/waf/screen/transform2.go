package screen

import (
	"bytes"
	"path"
	"unicode"
	"unicode/utf8"
)

// latinSpace is white space of Latin-1 as the engine's compressWhitespace knows it.
func latinSpace(r rune) bool {
	return r == ' ' || r >= '\t' && r <= '\r' || r == 0x85 || r == 0xA0
}

func compressWhitespace(dst, v []byte) []byte {
	in := false
	for i := 0; i < len(v); {
		r, n := utf8.DecodeRune(v[i:])
		if latinSpace(r) || v[i] == 0xA0 {
			if !in {
				dst = append(dst, ' ')
			}
			in = true
		} else {
			in = false
			dst = append(dst, v[i:i+n]...)
		}
		i += n
	}
	return dst
}

func removeWhitespace(dst, v []byte) []byte {
	for i := 0; i < len(v); {
		r, n := utf8.DecodeRune(v[i:])
		if !unicode.IsSpace(r) {
			dst = utf8.AppendRune(dst, r)
		}
		i += n
	}
	return dst
}

// cmdLine begins where the engine does: at the first byte that it acts on, which here includes
// a slash and a parenthesis, before which nothing can have changed.
func cmdLine(dst, v []byte) []byte {
	space := false
	for _, c := range v {
		switch c {
		case '"', '\'', '\\', '^':
			continue
		case ' ', ',', ';', '\t', '\r', '\n':
			if !space {
				dst = append(dst, ' ')
			}
			space = true
			continue
		case '/', '(':
			if space {
				dst = dst[:len(dst)-1]
			}
		default:
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
		}
		space = false
		dst = append(dst, c)
	}
	return dst
}

func replaceComments(dst, v []byte) []byte {
	for {
		i := bytes.Index(v, []byte("/*"))
		if i < 0 {
			return append(dst, v...)
		}
		dst = append(append(dst, v[:i]...), ' ')
		v = v[i+2:]
		if i = bytes.Index(v, []byte("*/")); i < 0 {
			return dst
		}
		v = v[i+2:]
	}
}

func removeCommentsChar(dst, v []byte) []byte {
	for len(v) > 0 {
		n := 0
		switch v[0] {
		case '/':
			if bytes.HasPrefix(v, []byte("/*")) {
				n = 2
			}
		case '*':
			if bytes.HasPrefix(v, []byte("*/")) {
				n = 2
			}
		case '<':
			if bytes.HasPrefix(v, []byte("<!--")) {
				n = 4
			}
		case '-':
			if bytes.HasPrefix(v, []byte("-->")) {
				n = 3
			} else if bytes.HasPrefix(v, []byte("--")) {
				n = 2
			}
		case '#':
			n = 1
		}
		if n == 0 {
			dst = append(dst, v[0])
			n = 1
		}
		v = v[n:]
	}
	return dst
}

// tidy says that cleaning the path changes nothing, without making a string of it.
func tidy(v []byte) bool {
	if len(v) == 0 {
		return true
	}
	if v[0] == '.' || v[len(v)-1] == '.' || len(v) == 1 && v[0] == '/' {
		return false
	}
	for i, c := range v[:len(v)-1] {
		if c == '/' && (v[i+1] == '/' || v[i+1] == '.') {
			return false
		}
	}
	return true
}

func normalizePath(dst, v []byte) []byte {
	if tidy(v) {
		return append(dst, v...)
	}
	clean := path.Clean(string(v))
	if clean == "." {
		return dst
	}
	dst = append(dst, clean...)
	if v[len(v)-1] == '/' {
		dst = append(dst, '/')
	}
	return dst
}

func normalizePathWin(dst, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	if bytes.IndexByte(v, '\\') >= 0 {
		v = bytes.ReplaceAll(v, []byte{'\\'}, []byte{'/'})
	}
	at := len(dst)
	dst = normalizePath(dst, v)
	out := dst[at:]
	if bytes.IndexByte(out, ':') >= 0 {
		out = stripStream(out)
	}
	return trimComponents(dst[:at], out)
}

// stripStream removes an NTFS stream's name, after a colon in the last component, but not the
// colon of a drive. It works in place.
func stripStream(v []byte) []byte {
	from := 0
	if len(v) >= 2 && v[1] == ':' && (v[0]|0x20 >= 'a' && v[0]|0x20 <= 'z') {
		from = 2
	}
	body, slash := v[from:], false
	if n := len(body); n > 0 && body[n-1] == '/' {
		body, slash = body[:n-1], true
	}
	last := bytes.LastIndexByte(body, '/') + 1
	if c := bytes.IndexByte(body[last:], ':'); c >= 0 {
		body = body[:last+c]
	}
	if slash {
		body = append(body, '/')
	}
	return v[:from+len(body)]
}

// trimComponents removes dots and spaces from the ends of components, and components of both;
// those of dots alone stay. It writes in place, v starting where dst ends.
func trimComponents(dst, v []byte) []byte {
	if !needsTrim(v) {
		return dst[:len(dst)+len(v)]
	}
	wrote := false
	for rest, more := v, true; more; {
		var seg []byte
		seg, rest, more = bytes.Cut(rest, []byte{'/'})
		if !allDots(seg) {
			t := bytes.TrimRight(seg, ". ")
			if len(t) == 0 {
				continue
			}
			seg = t
		}
		if wrote {
			dst = append(dst, '/')
		}
		dst = append(dst, seg...)
		wrote = true
	}
	return dst
}

func needsTrim(v []byte) bool {
	for rest, more := v, true; more; {
		var seg []byte
		seg, rest, more = bytes.Cut(rest, []byte{'/'})
		if !allDots(seg) && (seg[len(seg)-1] == '.' || seg[len(seg)-1] == ' ') {
			return true
		}
	}
	return false
}

func allDots(v []byte) bool {
	for _, c := range v {
		if c != '.' {
			return false
		}
	}
	return true
}

// base64Decode ends at the first character that is none of the alphabet; ends of lines are
// passed over.
func base64Decode(dst, v []byte) []byte {
	x, n := uint32(0), 0
	for _, c := range v {
		if c == '\r' || c == '\n' {
			continue
		}
		d := base64Value(c)
		if d < 0 {
			break
		}
		x = x<<6 | uint32(d)
		if n++; n == 4 {
			dst = append(dst, byte(x>>16), byte(x>>8), byte(x))
			x, n = 0, 0
		}
	}
	switch n {
	case 2:
		dst = append(dst, byte(x>>4))
	case 3:
		dst = append(dst, byte(x>>10), byte(x>>2))
	}
	return dst
}

func base64Value(c byte) int {
	switch {
	case c >= 'A' && c <= 'Z':
		return int(c - 'A')
	case c >= 'a' && c <= 'z':
		return int(c-'a') + 26
	case c >= '0' && c <= '9':
		return int(c-'0') + 52
	case c == '+':
		return 62
	case c == '/':
		return 63
	}
	return -1
}
