package screen

import "bytes"

// partsForm is what a look at the delimiters of a multipart body (RFC 2046, section 5.1.1) says of its form.
type partsForm uint8

const (
	partsOdd    partsForm = iota // written in a way that only the library can tell
	partsBroken                  // a head or the end is missing
	partsGood                    // delimiters and heads are where they must be
)

// formOfParts looks at the form of a multipart body without reading its parts, for a hundredth of what that costs. It proves
// nothing: what is good is read by the library all the same, and what is broken is the engine's.
func formOfParts(body []byte, boundary string) partsForm {
	line := append(append(append(make([]byte, 0, 80), "\r\n--"...), boundary...), "--"...)
	if !bytes.Contains(body, line[2:]) {
		return partsBroken // the library knows no other end
	}
	line = line[:len(line)-2]
	rest, ok := bytes.CutPrefix(body, line[2:])
	for range maxParts + 1 {
		switch {
		case !ok: // a preamble, or no part at all
			return partsOdd
		case bytes.HasPrefix(rest, []byte("--")):
			return partsGood
		case !bytes.HasPrefix(rest, line[:2]):
			return partsOdd
		}
		end := bytes.Index(rest, []byte("\r\n\r\n"))
		if end < 0 || !fieldLines(rest[2:max(end, 2)]) {
			return partsBroken
		}
		if rest = behindDelimiter(rest[end+2:], line); rest == nil {
			return partsBroken
		}
	}
	return partsOdd
}

// fieldLines says whether each line of a part's head can be one of a field.
func fieldLines(head []byte) bool {
	for len(head) > 0 {
		var l []byte
		l, head, _ = bytes.Cut(head, []byte("\r\n"))
		if bytes.IndexByte(l, ':') <= 0 && (len(l) == 0 || l[0] != ' ' && l[0] != '\t') {
			return false
		}
	}
	return true
}

// behindDelimiter is what follows the next delimiter, nil when there is none. A longer word that begins as it does is text.
func behindDelimiter(b, line []byte) []byte {
	for {
		i := bytes.Index(b, line)
		if i < 0 || i+len(line) == len(b) {
			return nil
		}
		b = b[i+len(line):]
		if c := b[0]; c == '\r' || c == '\n' || c == ' ' || c == '\t' || bytes.HasPrefix(b, []byte("--")) {
			return b
		}
	}
}
