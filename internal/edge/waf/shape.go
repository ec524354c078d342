package waf

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

// Bounds of shapes.
const (
	maxShape      = 64  // bytes of one
	maxShaped     = 512 // bytes of a value that has one
	maxHitShapes  = 8   // of the values that a rule matched in one target
	wordShape     = "w"
	numberShape   = "9"
	maxKeywordLen = 14
)

// shapeOf is what a value looks like, without what it says: a run of words is w, a number is 9, a word that means something
// to a database, a shell, a browser or an interpreter stands as it is in lower case, and so does all that is neither a
// letter nor a digit nor a space. "1' x 2' wall board" has the shape 9' w 9' w. It is empty for a value that has none:
// long, not UTF-8, or with control characters.
func shapeOf(value string) string {
	if len(value) > maxShaped || !utf8.ValidString(value) {
		return ""
	}
	b := make([]byte, 0, maxShape)
	space := false // is owed
	for i := 0; i < len(value); {
		r, n := utf8.DecodeRuneInString(value[i:])
		switch {
		case unicode.IsSpace(r):
			space = len(b) > 0
			i += n
			continue
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == utf8.RuneError:
			return ""
		}
		var token string
		switch end := run(value, i); {
		case isDigit(r):
			token, i = numberShape, end
		case isLetter(r):
			word := strings.ToLower(value[i:end])
			if token = wordShape; len(word) <= maxKeywordLen && keyword(word) {
				token = word
			}
			i = end
		default:
			token = value[i : i+n]
			i += n
		}
		if space && token == wordShape && endsInWord(b) {
			space = false
			continue // one more word of the same run
		}
		if space {
			b = append(b, ' ')
			space = false
		}
		if b = append(b, token...); len(b) > maxShape {
			return ""
		}
	}
	return string(b)
}

// endsInWord says whether the last token is w. Of the tokens that hold a w at their end none is a keyword.
func endsInWord(b []byte) bool {
	n := len(b)
	return n > 0 && b[n-1] == 'w' && (n == 1 || b[n-2] >= utf8.RuneSelf || !isLetter(rune(b[n-2])))
}

// run is where the letters or the digits end that begin at i.
func run(s string, i int) int {
	first, n := utf8.DecodeRuneInString(s[i:])
	digits := isDigit(first)
	j := i + n
	for j < len(s) {
		r, n := utf8.DecodeRuneInString(s[j:])
		if digits && !isDigit(r) || !digits && !isLetter(r) {
			break
		}
		j += n
	}
	return j
}

func isDigit(r rune) bool { return r >= '0' && r <= '9' }

// isLetter counts marks and other numbers as letters, and _, as it stands in names.
func isLetter(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' || r >= utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r))
}

// keyword says whether a word means something to who executes text.
func keyword(w string) bool {
	_, found := slices.BinarySearch(keywords[:], w)
	return found
}

// keywords are the words that a shape keeps, in order. None of them is anybody's name or address.
var keywords = [...]string{
	"admin", "alert", "all", "alter", "and", "any", "apply", "asc", "ascii", "assert", "atob", "bash", "begin", "benchmark",
	"between", "bin", "body", "by", "case", "cast", "cat", "char", "chmod", "chr", "class", "cmd", "collate", "columns", "concat", "config",
	"confirm", "const", "constructor", "convert", "cookie", "count", "create", "curl", "database", "declare", "delay", "delete", "desc",
	"describe", "distinct", "div", "document", "drop", "dumpfile", "echo", "else", "end", "env", "etc", "eval", "exe", "exec", "execute",
	"exists", "exit", "export", "expression", "false", "fetch", "file", "for", "from", "fromcharcode", "ftp", "function", "gopher", "grant",
	"group", "having", "hex", "href", "html", "http", "https", "if", "iframe", "img", "in", "include", "input", "insert", "intersect", "into",
	"is", "java", "javascript", "jndi", "join", "kill", "lang", "ldap", "like", "limit", "load_file", "localhost", "location", "ls",
	"merge", "mod", "natural", "nc", "netcat", "new", "not", "null", "object", "offset", "on", "onclick", "onerror", "onfocus", "onload",
	"onmouseover", "or", "order", "outfile", "passthru", "passwd", "perl", "phar", "php", "phpinfo", "ping", "popen", "powershell", "proc",
	"procedure", "process", "prompt", "python", "regexp", "rename", "replace", "require", "return", "rlike", "rm", "rmi", "root", "ruby",
	"runtime", "schema", "script", "select", "set", "sh", "shadow", "shell", "shutdown", "sleep", "src", "string", "style", "substr",
	"substring", "sudo", "svg", "sysdate", "system", "table", "tables", "then", "this", "tmp", "top", "true", "truncate", "union",
	"update", "use", "user", "using", "usr", "values", "var", "vbscript", "version", "waitfor", "wget", "when", "where", "while", "whoami",
	"window", "windows", "with", "xor", "xp_cmdshell",
}

// isShape says whether a text is one that shapeOf can give.
func isShape(s string) bool { return s != "" && shapeOf(s) == s }

// datum is a value that a rule matched, as far as exclusions by shape ask.
type datum struct{ key, shape string }

// shaped is an exclusion that holds only for values of some shapes.
type shaped struct {
	exclusion
	shapes []string // sorted
}

// fits says whether x takes a hit out: the rule, the target, and the shape of each value that was matched.
func (s *shaped) fits(e *engine, h *hit) bool {
	if len(h.data) == 0 || h.many || h.Target == "" {
		return false
	}
	if i, r := e.number(h.Rule); r == nil || !s.rules.Has(i) {
		return false
	}
	name, _, _ := strings.Cut(h.Target, ":")
	if !strings.EqualFold(name, s.variable.Name()) {
		return false
	}
	for _, d := range h.data {
		if s.key != "" && !strings.EqualFold(s.key, d.key) || s.keyRx != nil && !s.keyRx.MatchString(d.key) {
			return false
		}
		if _, has := slices.BinarySearch(s.shapes, d.shape); !has || d.shape == "" {
			return false
		}
	}
	return true
}

// fitting are exclusions of just the rules and targets of hits that a policy takes out for their values' shapes.
func (e *engine) fitting(p *policy, x *stage.Exchange, hits []hit) (out []exclusion) {
	for i := range p.shaped {
		s := &p.shaped[i]
		if !s.holds(x) {
			continue
		}
		for k := range hits {
			if h := &hits[k]; s.fits(e, h) {
				if x, err := e.exclusion(&v1.WafExclusion{Rules: []string{strconv.Itoa(h.Rule)}, Target: h.Target}); err == nil {
					out = append(out, x)
				}
			}
		}
	}
	return out
}
