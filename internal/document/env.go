package document

import (
	"strings"
)

// maxExpanded bounds the text of one value after its variables are replaced.
const maxExpanded = 1 << 20

// expand replaces ${NAME} and ${NAME:-default} from the environment, and $$ by a dollar sign. As in a
// shell, a default is taken when the variable is not set or empty. Any other dollar sign stays, and so
// does ${client.ip} and its like with a dot: it names a value of a request.
func expand(s string, env func(string) (string, bool)) (text, what, fix string) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			b.WriteString(s)
			return b.String(), "", ""
		}
		b.WriteString(s[:i])
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			s = s[i+2:]
			continue
		case '{':
		default:
			b.WriteByte('$')
			s = s[i+1:]
			continue
		}
		inner, rest, ok := strings.Cut(s[i+2:], "}")
		if !ok {
			return "", "${ is not closed", "write ${NAME} or ${NAME:-default}, or $${ for the characters themselves"
		}
		name, fallback, hasFallback := strings.Cut(inner, ":-")
		if isRequestVariable(inner) {
			b.WriteString("${" + inner + "}")
			s = rest
			continue
		}
		if !isVariable(name) {
			return "", quote("${"+inner+"}") + " does not name a variable", "write ${NAME} or ${NAME:-default}, or $${ for the characters themselves"
		}
		v, set := env(name)
		switch {
		case hasFallback && v == "":
			v = fallback
		case !set:
			return "", "the environment variable " + name + " is not set", "set it, or write ${" + name + ":-default}"
		}
		if b.Len()+len(v) > maxExpanded {
			return "", "is too long with the value of " + name, "set a shorter value"
		}
		b.WriteString(v)
		s = rest
	}
}

func isVariable(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// isRequestVariable says whether s has the form of a variable of a request: words in lower case with
// dots between them.
func isRequestVariable(s string) bool {
	first, last, dot := strings.Cut(s, ".")
	return dot && isWord(first) && (isWord(last) || isRequestVariable(last))
}

func isWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (i == 0 || (c < '0' || c > '9') && c != '-' && c != '_') {
			return false
		}
	}
	return s != ""
}
