package http1

// What a byte may be part of.
const (
	isToken      = 1 << iota // RFC 9110 section 5.6.2
	isUnderscore             // the one token byte that CGI-like origins read as another
	isTarget                 // a request target: no control byte, no space, no "#"; bytes over 0x7f pass
	isRegName                // RFC 3986 section 3.2.2, without percent-encoding
	isHex
)

// chars holds the above for each byte, 32 a line.
var chars = [256]uint8{
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 13, 4, 1, 13, 5, 13, 13, 12, 12, 13, 13, 12, 13, 13, 4, 29, 29, 29, 29, 29, 29, 29, 29, 29, 29, 4, 12, 4, 12, 4, 4,
	4, 29, 29, 29, 29, 29, 29, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 4, 4, 4, 5, 15,
	5, 29, 29, 29, 29, 29, 29, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 4, 5, 4, 13, 0,
	4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
	4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
	4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
	4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
}

func allToken(b []byte) bool {
	for _, c := range b {
		if chars[c]&isToken == 0 {
			return false
		}
	}
	return len(b) > 0
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// nextItem cuts the first element off a comma-separated list (RFC 9110 section 5.6.1).
func nextItem(list []byte) (item, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}

// decimal reads 1*DIGIT; false for anything else and for what 18 digits cannot hold.
func decimal(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
