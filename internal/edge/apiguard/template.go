package apiguard

// maxTemplate bounds a template; what is longer is one row.
const (
	maxTemplate = 256
	maxSegments = 16
)

// appendTemplate appends a path with what looks like the name of one thing among many as {id}: numbers, UUIDs,
// digests, ULIDs, tokens, addresses of mail. It allocates nothing when dst has room.
func appendTemplate(dst, path []byte) []byte {
	from := len(dst)
	segments := 0
	for len(path) > 0 {
		if path[0] == '/' {
			dst = append(dst, '/')
			path = path[1:]
			continue
		}
		n := 0
		for n < len(path) && path[n] != '/' {
			n++
		}
		if segments++; segments > maxSegments || len(dst)-from > maxTemplate {
			return append(dst, "{more}"...)
		}
		if isID(path[:n]) {
			dst = append(dst, "{id}"...)
		} else {
			dst = append(dst, path[:n]...)
		}
		path = path[n:]
	}
	return dst
}

// isID says whether a segment names one thing among many.
func isID(s []byte) bool {
	var digits, hex, upper, lower, marks, other int
	for _, c := range s {
		switch {
		case c >= '0' && c <= '9':
			digits++
			hex++
		case c >= 'a' && c <= 'f':
			lower++
			hex++
		case c >= 'A' && c <= 'F':
			upper++
			hex++
		case c >= 'g' && c <= 'z':
			lower++
		case c >= 'G' && c <= 'Z':
			upper++
		case c == '-' || c == '_' || c == '.' || c == ':' || c == '=' || c == '~' || c == ',':
			marks++
		case c == '@':
			return len(s) > 4
		case c == '%': // encoded: names of people and things, not of endpoints
			return true
		default:
			other++
		}
	}
	n := len(s)
	switch {
	case n > 64: // whatever it is, no row holds it
		return true
	case other > 0:
		return false
	case digits > 0 && digits+marks == n: // numbers, dates, coordinates
		return true
	case n == 36 && marks == 4 && hex == 32 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-': // RFC 9562
		return true
	case hex == n && n >= 8 && digits > 0: // digests, object ids
		return true
	case n == 26 && marks == 0 && digits > 0 && (upper == 0 || lower == 0): // ULID
		return true
	case n >= 20 && digits >= 2 && upper > 0 && lower > 0: // tokens
		return true
	case n >= 32 && digits >= 4:
		return true
	case digits >= 4 && digits*2 >= n-marks: // order-2024001, SKU12345
		return true
	}
	return false
}
