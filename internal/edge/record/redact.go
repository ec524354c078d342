package record

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

// This file is what is hidden of a text, and what is not. A record is of use for a firewall only if attacks
// stay what they were, so that three rules hold, in this order:
//
//  1. What has a name that sounds secret is masked whole, whatever it is, as are cookies and credentials.
//  2. A value of letters, digits, spaces and what stands between words is masked, but for what is too short to
//     tell of anybody and for words that stand in attacks and in no register of people.
//  3. A value with characters that mean something to a shell, a database, a browser or a path is kept, but for
//     what looks like a card, an account, a telephone number, an e-mail address or a key in it.

// secretNames are parts of names whose values are masked whole.
var secretNames = [...]string{
	"pass", "pwd", "secret", "token", "auth", "session", "credential", "signature", "card", "cvv", "cvc", "iban", "account",
	"csrf", "xsrf", "apikey", "api-key", "api_key", "private", "jwt", "otp", "ssn", "mail", "phone", "mobile", "birth",
}

// secretWords are names, or words of names, whose values are masked whole.
var secretWords = [...]string{"key", "pin", "sid", "sig", "tel", "pan", "dob", "bic", "cc", "pw"}

// secretName says whether a name sounds as if its value were nobody's business.
func secretName(name []byte) bool {
	if len(name) == 0 {
		return false
	}
	n := strings.ToLower(string(name))
	for _, s := range secretNames {
		if strings.Contains(n, s) {
			return true
		}
	}
	for w := range strings.FieldsFuncSeq(n, func(r rune) bool { return r < '0' || r > '9' && r < 'a' }) {
		if slices.Contains(secretWords[:], w) {
			return true
		}
	}
	return false
}

// shortest is the length from which on a word or a number may tell of somebody.
const shortest = 5

// value hides v, which has a name or none, in its place; it keeps its length.
func (m *masker) value(name, v []byte) {
	switch {
	case secretName(name):
		m.mask(v, true)
	case ordinary(v):
		m.words(v)
		m.sweep(v) // numbers that are written in groups
	default:
		m.sweep(v)
	}
}

// ordinary says whether v is made of what names, numbers, addresses of people and identifiers are made of.
func ordinary(v []byte) bool {
	for _, c := range v {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= utf8.RuneSelf:
		case c == ' ', c == '\t', c == '\r', c == '\n', c == '_', c == '-', c == '.', c == ',', c == '@', c == '+', c == '~':
		default:
			return false
		}
	}
	return utf8.Valid(v) && !bytes.Contains(v, []byte("--")) && !bytes.Contains(v, []byte(".."))
}

// words masks the words of v, each for itself.
func (m *masker) words(v []byte) {
	for i := 0; i < len(v); {
		j := i
		for j < len(v) && (alphanumeric(v[j]) || v[j] >= utf8.RuneSelf) {
			j++
		}
		if w := v[i:j]; len(w) >= shortest && !attackWord(w) {
			m.mask(w, false)
		}
		i = max(j, i+1)
	}
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// attackWord says whether a word means something to a database, a shell, a browser or an interpreter.
func attackWord(w []byte) bool {
	switch strings.ToLower(string(w)) {
	case "select", "union", "where", "insert", "update", "delete", "having", "order", "group", "limit", "offset", "values",
		"table", "column", "columns", "tables", "database", "schema", "information", "benchmark", "sleep", "waitfor", "delay",
		"concat", "substring", "ascii", "sysdate", "version", "outfile", "dumpfile", "cmdshell", "declare", "varchar", "exists",
		"between", "distinct", "procedure", "pgsleep", "false",
		"script", "alert", "prompt", "confirm", "onerror", "onload", "onmouseover", "javascript", "vbscript", "iframe", "object",
		"embed", "document", "cookie", "window", "location", "fromcharcode", "style", "expression", "data",
		"passwd", "shadow", "proc", "environ", "config", "htaccess", "windows", "system", "system32", "localhost", "metadata",
		"bash", "shell", "powershell", "netcat", "chmod", "chown", "uname", "whoami", "wget", "python", "perl", "phpinfo",
		"include", "require", "assert", "passthru", "exec", "popen", "base64", "decode", "encode", "input", "filter", "phar",
		"runtime", "getruntime", "process", "processbuilder", "classloader", "jndi", "dns", "rmi", "ldap", "ldaps", "java",
		"constructor", "prototype", "proto", "require_once", "admin", "backup":
		return true
	}
	return false
}

// longNumber is how many digits in a row, and groupedNumber how many in groups, are masked: from there on they
// may be a telephone number, an account or a card.
const (
	longNumber    = 9
	groupedNumber = 13
	longKey       = 20
)

// sweep masks in v what looks like a number of somebody's, an e-mail address or a key.
func (m *masker) sweep(v []byte) {
	m.numbers(v)
	m.mails(v)
	m.keys(v)
}

// numbers masks digits in a row, or in groups with one or two characters between them.
func (m *masker) numbers(v []byte) {
	for i := 0; i < len(v); {
		if v[i] < '0' || v[i] > '9' {
			i++
			continue
		}
		end, digits, run, longest := i, 0, 0, 0
		for j, gap := i, 0; j < len(v); j++ {
			if c := v[j]; c >= '0' && c <= '9' {
				if gap > 0 {
					run = 0
				}
				digits, run, gap, end = digits+1, run+1, 0, j+1
				longest = max(longest, run)
			} else if gap++; gap > 2 || !strings.ContainsRune(" -.+_/", rune(c)) {
				break
			}
		}
		if digits >= groupedNumber || longest >= longNumber {
			m.digits(v[i:end])
		}
		i = end
	}
}

// digits masks the digits of v and nothing else. Groups do not matter for which number it becomes.
func (m *masker) digits(v []byte) {
	only := make([]byte, 0, 32)
	for _, c := range v {
		if c >= '0' && c <= '9' {
			only = append(only, c)
		}
	}
	s := m.stream(only)
	for i, c := range v {
		if c >= '0' && c <= '9' {
			v[i] = '0' + (c-'0'+1+s.next()%9)%10
		}
	}
}

// mails masks what stands around an @, and the name of the host but for its last part.
func (m *masker) mails(v []byte) {
	for i := range v {
		if v[i] != '@' {
			continue
		}
		from, to := i, i+1
		for from > 0 && (alphanumeric(v[from-1]) || v[from-1] >= utf8.RuneSelf || strings.IndexByte("._-+%", v[from-1]) >= 0) {
			from--
		}
		for to < len(v) && (alphanumeric(v[to]) || v[to] >= utf8.RuneSelf || v[to] == '.' || v[to] == '-') {
			to++
		}
		if from == i || to == i+1 {
			continue
		}
		m.mask(v[from:i], false)
		host := v[i+1 : to]
		if dot := bytes.LastIndexByte(host, '.'); dot > 0 {
			host = host[:dot]
		}
		m.mask(host, false)
	}
}

// keys masks what is long and made of letters and digits, as keys, tokens and identifiers are.
func (m *masker) keys(v []byte) {
	for i := 0; i < len(v); {
		j, digits, letters := i, 0, 0
		for j < len(v) && (alphanumeric(v[j]) || v[j] == '_' || v[j] == '-') {
			if v[j] >= '0' && v[j] <= '9' {
				digits++
			} else if v[j] != '_' && v[j] != '-' {
				letters++
			}
			j++
		}
		if j-i >= longKey && digits >= 3 && letters >= 3 {
			m.mask(v[i:j], false)
		}
		i = max(j, i+1)
	}
}
