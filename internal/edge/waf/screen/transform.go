package screen

import (
	"bytes"
	"html"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Kinds of bytes on which transformations act. A transformation changes no text that holds
// none of its kinds; a property test holds this against the engine.
const (
	kindUpper  uint16 = 1 << iota // A-Z
	kindHigh                      // 0x80 and above
	kindURL                       // % +
	kindAmp                       // &
	kindSlash                     // backslash
	kindNul                       // 0x00
	kindSpace                     // white space of ASCII
	kindShell                     // what cmdLine removes or replaces
	kindStar                      // *
	kindRemark                    // - # <
	kindPath                      // / . backslash
	kindColon                     // :
	kindAlways                    // of every text
)

// kinds is by byte.
type kindTable [256]uint16

func newKindTable() *kindTable {
	var t kindTable
	add := func(s string, k uint16) {
		for i := range len(s) {
			t[s[i]] |= k
		}
	}
	add("%+", kindURL)
	add("&", kindAmp)
	add("\\", kindSlash|kindShell|kindPath)
	add("\x00", kindNul)
	add("\t\n\v\f\r ", kindSpace)
	add("\"'^,; \t\r\n", kindShell)
	add("*", kindStar)
	add("-#<", kindRemark)
	add("/.", kindPath)
	add(":", kindColon)
	for c := 'A'; c <= 'Z'; c++ {
		t[c] |= kindUpper
	}
	for c := 0x80; c < 256; c++ {
		t[c] |= kindHigh
	}
	return &t
}

// transform is one transformation: it appends to dst what becomes of v. dst never overlaps v.
type transform struct {
	name  string
	needs uint16 // without a byte of these kinds the text stays as it is
	fold  bool   // only the case of ASCII changes when nothing is beyond ASCII
	apply func(dst, v []byte) []byte
}

// transforms are those of SecLang that the screen computes as the engine does; a rule with
// another one is never proved not to match.
var transforms = []transform{
	{name: "lowercase", needs: kindUpper | kindHigh, fold: true, apply: lowercase},
	{name: "urldecodeuni", needs: kindURL, apply: urlDecodeUni},
	{name: "utf8tounicode", needs: kindHigh, apply: utf8ToUnicode},
	{name: "htmlentitydecode", needs: kindAmp, apply: htmlEntityDecode},
	{name: "jsdecode", needs: kindSlash, apply: jsDecode},
	{name: "cssdecode", needs: kindSlash, apply: cssDecode},
	{name: "escapeseqdecode", needs: kindSlash, apply: escapeSeqDecode},
	{name: "removenulls", needs: kindNul, apply: removeNulls},
	{name: "compresswhitespace", needs: kindSpace | kindHigh, apply: compressWhitespace},
	{name: "removewhitespace", needs: kindSpace | kindHigh, apply: removeWhitespace},
	{name: "cmdline", needs: kindUpper | kindShell, apply: cmdLine},
	{name: "replacecomments", needs: kindStar, apply: replaceComments},
	{name: "removecommentschar", needs: kindStar | kindRemark, apply: removeCommentsChar},
	{name: "normalizepath", needs: kindPath, apply: normalizePath},
	{name: "normalisepath", needs: kindPath, apply: normalizePath},
	{name: "normalizepathwin", needs: kindPath | kindColon | kindSpace, apply: normalizePathWin},
	{name: "normalisepathwin", needs: kindPath | kindColon | kindSpace, apply: normalizePathWin},
	{name: "base64decode", needs: kindAlways, apply: base64Decode},
	{name: "length", needs: kindAlways, apply: func(dst, v []byte) []byte { return strconv.AppendInt(dst, int64(len(v)), 10) }},
}

func findTransform(name string) *transform {
	for i := range transforms {
		if transforms[i].name == name {
			return &transforms[i]
		}
	}
	return nil
}

func lowercase(dst, v []byte) []byte {
	for i := 0; i < len(v); {
		c := v[i]
		if c < utf8.RuneSelf {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(v[i:])
		dst = utf8.AppendRune(dst, unicode.ToLower(r))
		i += n
	}
	return dst
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// hexRun reads exactly n hexadecimal digits at the start of v, or returns -1.
func hexRun(v []byte, n int) int {
	if len(v) < n {
		return -1
	}
	x := 0
	for _, c := range v[:n] {
		h := hexValue(c)
		if h < 0 {
			return -1
		}
		x = x<<4 | h
	}
	return x
}

func urlDecodeUni(dst, v []byte) []byte {
	for i := 0; i < len(v); {
		switch c := v[i]; {
		case c == '+':
			dst = append(dst, ' ')
			i++
		case c != '%':
			dst = append(dst, c)
			i++
		case i+1 < len(v) && v[i+1]|0x20 == 'u':
			if x := hexRun(v[i+2:], 4); x >= 0 {
				dst = append(dst, bestFit(x))
				i += 6
			} else {
				dst = append(dst, '%', v[i+1])
				i += 2
			}
		default:
			if x := hexRun(v[i+1:], 2); x >= 0 {
				dst = append(dst, byte(x))
				i += 3
			} else {
				dst = append(dst, '%')
				i++
			}
		}
	}
	return dst
}

func utf8ToUnicode(dst, v []byte) []byte {
	for i := 0; i < len(v); {
		r, n := utf8.DecodeRune(v[i:])
		i += n
		if r < utf8.RuneSelf {
			dst = append(dst, byte(r))
			continue
		}
		dst = append(dst, "%u"...)
		for limit := rune(0x1000); r < limit; limit >>= 4 {
			dst = append(dst, '0')
		}
		dst = strconv.AppendUint(dst, uint64(r), 16)
	}
	return dst
}

// htmlEntityDecode spares the way through strings when nothing in v can be an entity.
func htmlEntityDecode(dst, v []byte) []byte {
	for rest := v; ; {
		i := bytes.IndexByte(rest, '&')
		if i < 0 {
			return append(dst, v...)
		}
		rest = rest[i+1:]
		if mayBeEntity(rest) {
			return append(dst, html.UnescapeString(string(v))...)
		}
	}
}

// mayBeEntity: after an ampersand come a number, a name with a semicolon, or a name that
// starts with one of those known without.
func mayBeEntity(v []byte) bool {
	if len(v) == 0 {
		return false
	}
	if v[0] == '#' {
		return true
	}
	n := 0
	for n < len(v) && (v[n]|0x20 >= 'a' && v[n]|0x20 <= 'z' || v[n] >= '0' && v[n] <= '9') {
		n++
	}
	if n < len(v) && v[n] == ';' {
		return n > 0
	}
	for k := 2; k <= min(n, 6); k++ {
		if bareEntity(string(v[:k])) {
			return true
		}
	}
	return false
}

// bareEntity lists the character references of HTML 4 that need no semicolon (HTML, 13.5).
func bareEntity(s string) bool {
	switch s {
	case "AElig", "AMP", "Aacute", "Acirc", "Agrave", "Aring", "Atilde", "Auml", "COPY", "Ccedil", "ETH", "Eacute",
		"Ecirc", "Egrave", "Euml", "GT", "Iacute", "Icirc", "Igrave", "Iuml", "LT", "Ntilde", "Oacute", "Ocirc",
		"Ograve", "Oslash", "Otilde", "Ouml", "QUOT", "REG", "THORN", "Uacute", "Ucirc", "Ugrave", "Uuml", "Yacute",
		"aacute", "acirc", "acute", "aelig", "agrave", "amp", "aring", "atilde", "auml", "brvbar", "ccedil", "cedil",
		"cent", "copy", "curren", "deg", "divide", "eacute", "ecirc", "egrave", "eth", "euml", "frac12", "frac14",
		"frac34", "gt", "iacute", "icirc", "iexcl", "igrave", "iquest", "iuml", "laquo", "lt", "macr", "micro",
		"middot", "nbsp", "not", "ntilde", "oacute", "ocirc", "ograve", "ordf", "ordm", "oslash", "otilde", "ouml",
		"para", "plusmn", "pound", "quot", "raquo", "reg", "sect", "shy", "sup1", "sup2", "sup3", "szlig", "thorn",
		"times", "uacute", "ucirc", "ugrave", "uml", "uuml", "yacute", "yen", "yuml":
		return true
	}
	return false
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

// letterEscape is what a backslash and a letter mean in C and in ECMAScript.
func letterEscape(c byte) byte {
	switch c {
	case 'a':
		return '\a'
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'v':
		return '\v'
	}
	return c
}

func jsDecode(dst, v []byte) []byte {
	for i := 0; i < len(v); {
		if v[i] != '\\' || i+1 >= len(v) {
			dst = append(dst, v[i])
			i++
			continue
		}
		rest := v[i+1:]
		if b, n := jsEscape(rest); n > 0 {
			dst = append(dst, b)
			i += 1 + n
			continue
		}
		dst = append(dst, letterEscape(rest[0]))
		i += 2
	}
	return dst
}

// jsEscape reads u{H..}, uHHHH, xHH or up to three octal digits; n is 0 when v starts with
// none of these. Of a code only the low byte counts, with full-width forms folded to ASCII.
func jsEscape(v []byte) (b byte, n int) {
	if v[0] == 'u' && len(v) > 1 && v[1] == '{' {
		k := 0
		for k < 6 && 2+k < len(v) && hexValue(v[2+k]) >= 0 {
			k++
		}
		if k > 0 && 2+k < len(v) && v[2+k] == '}' {
			x := hexRun(v[2:], k)
			b = byte(x)
			if x >= 0xff01 && x <= 0xff5e {
				b += 0x20
			}
			return b, k + 3
		}
	}
	if v[0] == 'u' {
		if x := hexRun(v[1:], 4); x >= 0 {
			b = byte(x)
			if b > 0 && b < 0x5f && x>>8 == 0xff {
				b += 0x20
			}
			return b, 5
		}
	}
	if v[0] == 'x' {
		if x := hexRun(v[1:], 2); x >= 0 {
			return byte(x), 3
		}
	}
	for n < 3 && n < len(v) && octal(v[n]) {
		n++
	}
	if n == 3 && v[0] > '3' {
		n = 2
	}
	for _, c := range v[:n] {
		b = b<<3 | (c - '0')
	}
	return b, n
}

func cssDecode(dst, v []byte) []byte {
	for i := 0; i < len(v); {
		if v[i] != '\\' {
			dst = append(dst, v[i])
			i++
			continue
		}
		if i++; i >= len(v) {
			break
		}
		n := 0
		for n < 6 && i+n < len(v) && hexValue(v[i+n]) >= 0 {
			n++
		}
		switch {
		case n > 0:
			r := rune(hexRun(v[i:], n))
			if r == 0 {
				r = utf8.RuneError
			}
			if r >= 0xff01 && r <= 0xff5e {
				r -= 0xfee0
			}
			dst = utf8.AppendRune(dst, r)
			if i += n; i < len(v) && (v[i] == ' ' || v[i] >= '\t' && v[i] <= '\r') {
				i++
			}
		case v[i] == '\n':
			i++
		default:
			dst = append(dst, v[i])
			i++
		}
	}
	return dst
}

func escapeSeqDecode(dst, v []byte) []byte {
	for i := 0; i < len(v); {
		if v[i] != '\\' || i+1 >= len(v) {
			dst = append(dst, v[i])
			i++
			continue
		}
		c := v[i+1]
		if c|0x20 == 'x' {
			if x := hexRun(v[i+2:], 2); x >= 0 {
				dst = append(dst, byte(x))
				i += 4
				continue
			}
		}
		if octal(c) {
			x, n := 0, 1
			for ; n < 4 && i+n < len(v) && octal(v[i+n]); n++ {
				x = x<<3 | int(v[i+n]-'0')
			}
			dst = append(dst, byte(x))
			i += n
			continue
		}
		dst = append(dst, letterEscape(c))
		i += 2
	}
	return dst
}

func removeNulls(dst, v []byte) []byte {
	for _, c := range v {
		if c != 0 {
			dst = append(dst, c)
		}
	}
	return dst
}
