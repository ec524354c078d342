package trial

import (
	"bytes"
	"strings"
)

// Reasons why pages differ, or may not be cached although they do not.
const (
	reasonToken   = "token"      // a CSRF token, a nonce or another value made anew for each request
	reasonContent = "content"    // what the page says
	reasonCookie  = "set-cookie" // each visitor is given a cookie
)

// difference is what differs between two pages; the zero value is nothing.
type difference struct {
	reason string
	where  string // names of elements and attributes, no values: those may be somebody's
}

// maxRuns bounds the differences that are looked at one by one, and lookAhead how far the pages are searched
// for where they agree again.
const (
	maxRuns   = 64
	lookAhead = 96
	maxWhere  = 80
)

// compare tells how two pages differ. Comments are left out, since nobody sees them; ids are what each request
// is named, which an origin may write down. A token counts as a difference, before all others: a stored page
// would give one visitor's to all.
func compare(a, b []byte, idA, idB string) difference {
	if bytes.Equal(a, b) {
		return difference{}
	}
	x, y := words(withoutComments(a)), words(withoutComments(b))
	var found difference
	i, j := 0, 0
	for runs := 0; i < len(x) || j < len(y); {
		if i < len(x) && j < len(y) && bytes.Equal(x[i], y[j]) {
			i++
			j++
			continue
		}
		if runs++; runs > maxRuns {
			return pick(found, difference{reasonContent, "in many places"})
		}
		di, dj := agree(x[i:], y[j:])
		if d := classify(x, i, di, y[j:j+dj], idA, idB); d.reason != "" {
			found = pick(found, d)
		}
		i, j = i+di, j+dj
	}
	return found
}

// pick prefers a token.
func pick(a, b difference) difference {
	if a.reason == "" || b.reason == reasonToken && a.reason != reasonToken {
		return b
	}
	return a
}

// agree finds how many words of each to leave out until they agree again, the fewest.
func agree(x, y [][]byte) (int, int) {
	for n := 1; n <= 2*lookAhead; n++ {
		for i := max(0, n-lookAhead); i <= min(n, lookAhead); i++ {
			j := n - i
			if i < len(x) && j < len(y) && bytes.Equal(x[i], y[j]) && (i+1 >= len(x) || j+1 >= len(y) || bytes.Equal(x[i+1], y[j+1])) {
				return i, j
			}
		}
	}
	return min(len(x), lookAhead), min(len(y), lookAhead)
}

// classify says what a run of words that differ is. X[i:i+di] is that of the one page, other that of the other.
func classify(x [][]byte, i, di int, other [][]byte, idA, idB string) difference {
	if di == len(other) && idA != "" {
		same := true
		for k := range other {
			if string(bytes.ReplaceAll(x[i+k], []byte(idA), nil)) != string(bytes.ReplaceAll(other[k], []byte(idB), nil)) {
				same = false
			}
		}
		if same {
			return difference{} // only what the requests are called
		}
	}
	where := place(x, i)
	low := strings.ToLower(where)
	for _, part := range [...]string{"csrf", "xsrf", "token", "nonce", "form_key", "formkey", "authenticity", "viewstate"} {
		if strings.Contains(low, part) {
			return difference{reasonToken, where}
		}
	}
	if di == len(other) {
		for k := range other {
			if random(x[i+k]) && random(other[k]) {
				return difference{reasonToken, where}
			}
		}
	}
	return difference{reasonContent, where}
}

// random says whether a word looks as if it was made by chance: 16 characters or more of an alphabet of
// codings, with letters and digits mixed.
func random(w []byte) bool {
	if len(w) < 16 || len(w) > 512 {
		return false
	}
	letters, digits, turns := 0, 0, 0
	for i, c := range w {
		d := '0' <= c && c <= '9'
		switch {
		case d:
			digits++
		case 'a' <= c|0x20 && c|0x20 <= 'z':
			letters++
		case c != '-' && c != '_' && c != '+' && c != '/' && c != '=' && c != '.' && c != '%':
			return false
		}
		if i > 0 && d != ('0' <= w[i-1] && w[i-1] <= '9') {
			turns++
		}
	}
	return letters > 0 && digits > 0 && turns >= 3
}

// place names the element and attribute before x[i]: what stands between it and the last "<", without values
// that are no names.
func place(x [][]byte, i int) string {
	from := i
	for n := 0; from > 0 && n < 24; n++ {
		from--
		if x[from][0] == '<' {
			break
		}
	}
	var b strings.Builder
	for _, w := range x[from:min(i, len(x))] {
		if b.Len()+len(w) > maxWhere {
			break
		}
		if name(w) {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.Write(w)
		}
	}
	if b.Len() == 0 {
		return "text"
	}
	return b.String()
}

// name says whether a word may be the name of an element, an attribute or a field.
func name(w []byte) bool {
	if len(w) > 32 {
		return false
	}
	for _, c := range w {
		if (c|0x20 < 'a' || c|0x20 > 'z') && c != '<' && c != '-' && c != '_' && c != '/' {
			return false
		}
	}
	return len(w) > 0
}

// words parts a page at white space, quotes, equal signs and the ends of tags; "<" begins a word.
func words(b []byte) [][]byte {
	out := make([][]byte, 0, len(b)/6)
	at := 0
	cut := func(i int) {
		if i > at {
			out = append(out, b[at:i])
		}
	}
	for i, c := range b {
		switch c {
		case '<':
			cut(i)
			at = i
		case '>', ' ', '\t', '\r', '\n', '"', '\'', '=', ';', '&', '?':
			cut(i)
			at = i + 1
		}
	}
	cut(len(b))
	return out
}

// withoutComments leaves comments out.
func withoutComments(b []byte) []byte {
	if !bytes.Contains(b, []byte("<!--")) {
		return b
	}
	out := make([]byte, 0, len(b))
	for {
		i := bytes.Index(b, []byte("<!--"))
		if i < 0 {
			return append(out, b...)
		}
		end := bytes.Index(b[i+4:], []byte("-->"))
		if end < 0 {
			return append(out, b...)
		}
		out, b = append(out, b[:i]...), b[i+4+end+3:]
	}
}
