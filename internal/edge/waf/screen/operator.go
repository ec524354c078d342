package screen

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/corazawaf/libinjection-go"
)

// operator says whether a value matches, before negation. It may say yes too often, unless
// exact is set, and never no wrongly. A negated link needs an exact one.
type operator struct {
	name    string
	exact   bool
	clauses [][]string // required words; nil: it always runs
	needs   []byteSet  // of each, every match holds a byte
	match   func(v []byte, steps *int) bool
}

// always is what stands for an operator that the screen cannot judge.
func always(name string) operator {
	return operator{name: "any:" + name, match: func([]byte, *int) bool { return true }}
}

// text lends v as a string to functions that keep nothing of it.
func text(v []byte) string { return unsafe.String(unsafe.SliceData(v), len(v)) }

// operators makes the operator of a link; arg has its constants expanded.
func newOperator(fsys fs.FS, l *link, arg string) (operator, error) {
	switch l.op {
	case "rx":
		return newRegexp(arg)
	case "pm":
		return newWords("pm", strings.Split(strings.ToLower(arg), " ")), nil
	case "pmfromfile", "pmf":
		return newFileWords(fsys, l, arg)
	case "contains", "strmatch":
		op := compareText(l.op, func(v []byte) bool { return bytes.Contains(v, []byte(arg)) })
		op.clauses = clauseOf(arg)
		return op, nil
	case "streq":
		return compareText(l.op, func(v []byte) bool { return string(v) == arg }), nil
	case "beginswith":
		return compareText(l.op, func(v []byte) bool { return strings.HasPrefix(text(v), arg) }), nil
	case "endswith":
		return compareText(l.op, func(v []byte) bool { return strings.HasSuffix(text(v), arg) }), nil
	case "within":
		return compareText(l.op, func(v []byte) bool { return strings.Contains(arg, text(v)) }), nil
	case "eq", "gt", "ge", "lt", "le":
		cmp, err := newCompare(l.op, arg)
		return operator{name: l.op, exact: true, match: func(v []byte, _ *int) bool { return cmp(atoi(v)) }}, err
	case "validatebyterange":
		return newByteRange(arg)
	case "validateurlencoding":
		op := compareText(l.op, badURLEncoding)
		op.clauses = [][]string{{"%"}}
		return op, nil
	case "validateutf8encoding":
		return compareText(l.op, func(v []byte) bool { return !utf8.Valid(v) }), nil
	case "detectsqli":
		return compareText(l.op, func(v []byte) bool {
			if oneWord(v) || plainWords(v) {
				return false
			}
			yes, _ := libinjection.IsSQLi(text(v))
			return yes
		}), nil
	case "detectxss":
		op := compareText(l.op, func(v []byte) bool { return libinjection.IsXSS(text(v)) })
		op.clauses = [][]string{{"<", "="}}
		return op, nil
	}
	return always(l.op), nil
}

func compareText(name string, f func(v []byte) bool) operator {
	return operator{name: name, exact: true, match: func(v []byte, _ *int) bool { return f(v) }}
}

// clauseOf is the clause of one word that must be there, in any case.
func clauseOf(s string) [][]string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return nil
		}
	}
	if s == "" {
		return nil
	}
	return [][]string{{strings.ToLower(s)}}
}

// atoi is strconv.Atoi as the engine uses it: what is no number is 0, what is too large is the
// largest.
func atoi(v []byte) int {
	if len(v) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(string(v))
	return n
}

func newCompare(op, arg string) (func(int) bool, error) {
	n, _ := strconv.Atoi(arg)
	switch op {
	case "eq":
		return func(v int) bool { return v == n }, nil
	case "gt":
		return func(v int) bool { return v > n }, nil
	case "ge":
		return func(v int) bool { return v >= n }, nil
	case "lt":
		return func(v int) bool { return v < n }, nil
	case "le":
		return func(v int) bool { return v <= n }, nil
	}
	return nil, fmt.Errorf("%s compares no numbers", op)
}

// oneWord: the engine's library makes one token of it, and no fingerprint of one token that a
// word or a number can be is listed as an attack.
func oneWord(v []byte) bool {
	for _, c := range v {
		if c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// keywordsWithDigits are the library's keywords that hold a digit.
var keywordsWithDigits = [...]string{
	"atan2", "crc32", "datetime2fromparts", "float4", "float8", "from_base64", "int1", "int2", "int3", "int4", "int8",
	"log10", "log2", "md5", "own3d", "serial2", "serial4", "serial8", "sha1", "sha2", "to_base64", "_armscii8", "_big5",
	"_cp1250", "_cp1251", "_cp1257", "_cp850", "_cp852", "_cp866", "_cp932", "_dec8", "_gb2312", "_geostd8", "_hp8",
	"_keybcs2", "_koi8r", "_koi8u", "_latin1", "_latin2", "_latin5", "_latin7", "_swe7", "_tis620", "_usc2", "_utf8",
}

// plainWords: words with single dashes between them, each of hexadecimal digits and dots, or
// starting with a letter and with a digit before the first dot. The library makes numbers,
// unknown words, dots and operators of them, and no fingerprint of these alone is listed. The one
// keyword of hexadecimal letters is DEC, and those with digits are in the table.
func plainWords(v []byte) bool {
	for len(v) > 0 {
		n := 0
		for n < len(v) && v[n] != '-' {
			n++
		}
		if !plainWord(v[:n]) {
			return false
		}
		if v = v[n:]; len(v) == 0 {
			break
		}
		if v = v[1:]; len(v) > 0 && v[0] == '-' {
			return false
		}
	}
	return true
}

func plainWord(v []byte) bool {
	hex, first, digit := true, len(v), false
	for i, c := range v {
		low := c | 0x20
		switch {
		case c >= '0' && c <= '9':
			digit = digit || i < first
		case c == '.':
			first = min(first, i)
		case low >= 'a' && low <= 'f':
			hex = hex && (low != 'd' || i+2 >= len(v) || v[i+1]|0x20 != 'e' || v[i+2]|0x20 != 'c')
		case low >= 'g' && low <= 'z' || c == '_':
			hex = false
		default:
			return false
		}
	}
	if hex {
		return true
	}
	if !digit || v[0] < 'A' {
		return false
	}
	for _, k := range &keywordsWithDigits {
		if len(k) == first && foldPrefix(v, k) {
			return false
		}
	}
	return true
}

func badURLEncoding(v []byte) bool {
	for i := 0; i < len(v); i++ {
		if v[i] != '%' {
			continue
		}
		if hexRun(v[i+1:], 2) < 0 {
			return true
		}
		i += 2
	}
	return false
}

func newByteRange(arg string) (operator, error) {
	var valid [256]bool
	for p := range strings.SplitSeq(arg, ",") {
		a, b, two := strings.Cut(strings.TrimSpace(p), "-")
		lo, err := strconv.Atoi(a)
		hi := lo
		if two && err == nil {
			hi, err = strconv.Atoi(b)
		}
		if err != nil || lo < 0 || hi > 255 {
			return operator{}, fmt.Errorf("validateByteRange: %q is no range of bytes", p)
		}
		for i := lo; i <= hi; i++ {
			valid[i] = true
		}
	}
	return compareText("validatebyterange", func(v []byte) bool {
		for _, c := range v {
			if !valid[c] {
				return true
			}
		}
		return false
	}), nil
}

// newRegexp compiles an expression as the engine does: with (?sm) before it, or, when it holds
// bytes that are no UTF-8, byte by byte and without.
func newRegexp(pattern string) (operator, error) {
	binary := arbitraryBytes("(?sm)" + pattern)
	full := "(?sm)" + pattern
	if binary {
		full = pattern
	}
	re, err := syntax.Parse(full, syntax.Perl)
	if err != nil {
		return operator{}, fmt.Errorf("the expression %.60q: %w", pattern, err)
	}
	re = re.Simplify()
	wide := binary && folds(re)
	if wide && strings.Contains(pattern, "[^") {
		return always("rx"), nil
	}
	d, err := newDFA(re, binary)
	if err != nil {
		return always("rx"), nil
	}
	op := operator{name: "rx", exact: true, clauses: requiredWords(re), needs: neededBytes(re)}
	if binary { // letters beyond ASCII fold here; whether the engine folds bytes does not matter then
		op.name, op.exact = "rx.bytes", !wide
	}
	op.match = func(v []byte, steps *int) bool {
		yes, ok := d.match(v, steps)
		return yes || !ok
	}
	return op, nil
}

func folds(re *syntax.Regexp) bool {
	if re.Op == syntax.OpLiteral && re.Flags&syntax.FoldCase != 0 {
		return true
	}
	for _, s := range re.Sub {
		if folds(s) {
			return true
		}
	}
	return false
}

var hexEscape = regexp.MustCompile(`\\x(?:\{([0-9a-fA-F]{2})[^}]*\}|([0-9a-fA-F]{2}))`)

// arbitraryBytes says whether the text of an expression, with its escapes of one byte taken as
// bytes, is no UTF-8: then the engine matches byte by byte.
func arbitraryBytes(expr string) bool {
	return !utf8.ValidString(hexEscape.ReplaceAllStringFunc(expr, func(m string) string {
		x, _ := strconv.ParseUint(strings.TrimPrefix(m[2:], "{")[:2], 16, 8)
		return string([]byte{byte(x)})
	}))
}

func newFileWords(fsys fs.FS, l *link, name string) (operator, error) {
	b, err := fs.ReadFile(fsys, path.Join(l.dir, name))
	if err != nil {
		return operator{}, err
	}
	var list []string
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if t := strings.TrimSpace(sc.Text()); t != "" && t[0] != '#' {
			list = append(list, strings.ToLower(t))
		}
	}
	return newWords("pmfromfile", list), nil
}

// newWords matches what holds one of the words, without regard to ASCII case.
func newWords(name string, list []string) operator {
	var byFirst [256][]string
	for _, w := range list {
		if w == "" {
			return always(name)
		}
		byFirst[w[0]] = append(byFirst[w[0]], w)
	}
	op := operator{name: name, exact: true, clauses: [][]string{list}}
	op.match = func(v []byte, _ *int) bool {
		for i, c := range v {
			for _, w := range byFirst[lowerASCII(c)] {
				if foldPrefix(v[i:], w) {
					return true
				}
			}
		}
		return false
	}
	return op
}

func lowerASCII(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func foldPrefix(v []byte, lower string) bool {
	if len(v) < len(lower) {
		return false
	}
	for i := range len(lower) {
		if lowerASCII(v[i]) != lower[i] {
			return false
		}
	}
	return true
}

// capture is a link with an expression whose groups the next link judges: the two become one
// question to a value. The groups are those of the leftmost match, as in the engine.
type capture struct {
	re       *regexp.Regexp
	template template // of the judged text, such as |%{tx.1}|
	chain    []*transform
	judge    operator
	arg      template // when it holds groups too: compared by streq
	neg      bool
}

// holds judges v; it allocates, so it is asked only after the expression matched.
func (c *capture) holds(v []byte, steps *int) bool {
	m := c.re.FindSubmatchIndex(v)
	if m == nil {
		return false
	}
	var room, other [256]byte
	got := c.template.expand(room[:0], v, m)
	for _, t := range c.chain {
		got = t.apply(nil, got)
	}
	if c.arg != nil {
		return bytes.Equal(got, c.arg.expand(other[:0], v, m)) != c.neg
	}
	return c.judge.match(got, steps) != c.neg
}

var macro = regexp.MustCompile(`%\{([^}]*)\}`)

// template is a text with groups, %{tx.0} to %{tx.8}, in pieces.
type template []piece

// piece is a text, or a group when it is empty.
type piece struct {
	text  string
	group int
}

func newTemplate(s string) (t template) {
	at := 0
	for _, m := range macro.FindAllStringIndex(s, -1) {
		if m[0] > at {
			t = append(t, piece{text: s[at:m[0]]})
		}
		if k := groupOf(s[m[0]+2 : m[1]-1]); k >= 0 {
			t = append(t, piece{group: k})
		}
		at = m[1]
	}
	if at < len(s) {
		t = append(t, piece{text: s[at:]})
	}
	return t
}

// expand appends the text with the groups that m found in v.
func (t template) expand(dst, v []byte, m []int) []byte {
	for _, p := range t {
		switch k := 2 * p.group; {
		case p.text != "":
			dst = append(dst, p.text...)
		case k+1 < len(m) && m[k] >= 0:
			dst = append(dst, v[m[k]:m[k+1]]...)
		}
	}
	return dst
}

// groupOf is the number of the group that a variable is, or -1. The engine keeps nine.
func groupOf(name string) int {
	n, ok := strings.CutPrefix(strings.ToLower(name), "tx.")
	if !ok || len(n) != 1 || n[0] < '0' || n[0] > '8' {
		return -1
	}
	return int(n[0] - '0')
}
