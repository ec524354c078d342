package route

import "github.com/relais-edge/relais/internal/http/syntax"

// NormalizePath appends the normal form of a raw path to dst: percent-encoded unreserved
// characters decoded, hexadecimal digits in upper case, characters that no URI may hold
// encoded, dot segments removed (RFC 3986 section 6.2.2). Slashes are kept as they are,
// encoded or not. It is false for a broken percent-encoding, for NUL, encoded or not, and
// for other raw control characters: servers read them in different ways.
func NormalizePath(dst, raw []byte) ([]byte, bool) {
	base := len(dst)
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '%':
			if i+2 >= len(raw) {
				return dst, false
			}
			hi, ok1 := syntax.Unhex(raw[i+1])
			lo, ok2 := syntax.Unhex(raw[i+2])
			if !ok1 || !ok2 || hi|lo == 0 {
				return dst, false
			}
			i += 2
			if d := hi<<4 | lo; class[d] == unreserved {
				dst = append(dst, d)
			} else {
				dst = append(dst, '%', upperHex[hi], upperHex[lo])
			}
		case c < 0x20 || c == 0x7f:
			return dst, false
		case class[c] == forbidden:
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return removeDots(dst, base), true
}

// plainPath says that a path is its own normal form and has no run of slashes, without looking
// further. It is the common case.
func plainPath(p []byte) bool {
	for i, c := range p {
		if (c == '.' || c == '/' && i > 0) && p[i-min(i, 1)] == '/' || class[c] == forbidden || c == '%' {
			return false
		}
	}
	return len(p) > 0 && p[0] == '/'
}

// removeDots removes the dot segments of the path dst[base:] in place (RFC 3986 section 5.2.4).
func removeDots(dst []byte, base int) []byte {
	w := base
	for r := base; r < len(dst); {
		end := r + 1
		for end < len(dst) && dst[end] != '/' {
			end++
		}
		switch segment := string(dst[r:end]); segment {
		case "/.":
			if end == len(dst) {
				dst[w] = '/'
				w++
			}
		case "/..":
			for w > base {
				w--
				if dst[w] == '/' {
					break
				}
			}
			if end == len(dst) {
				dst[w] = '/'
				w++
			}
		default:
			w += copy(dst[w:], dst[r:end])
		}
		r = end
	}
	return dst[:w]
}

const upperHex = "0123456789ABCDEF"

const (
	forbidden  = iota // in a path, only percent-encoded
	reserved          // as it is, and not the same as its percent-encoding
	unreserved        // as it is
)

// class sorts bytes by RFC 3986 sections 2.2, 2.3 and 3.3.
var class = func() (t [256]byte) {
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-32] = unreserved, unreserved
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = unreserved
	}
	for _, c := range "-._~" {
		t[c] = unreserved
	}
	for _, c := range "/!$&'()*+,;=:@" {
		t[c] = reserved
	}
	return t
}()
