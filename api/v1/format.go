package v1

import (
	"net/netip"
	"path"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	http "github.com/relais-edge/relais/internal/http/syntax"
)

var formats = [...]string{
	"host-port", "listen", "hostname", "hostname-pattern", "cidr", "address", "path", "token", "field-name", "regexp", "name",
}

// maxProgram bounds the compiled size of a regular expression, in instructions: matching costs at most
// this much for each byte.
const maxProgram = 2000

// checkFormat says what is wrong with s and how to mend it; what is empty when nothing is.
func checkFormat(format, s string) (what, fix string) {
	switch format {
	case "host-port":
		return checkHostPort(s, false)
	case "listen":
		return checkHostPort(s, true)
	case "hostname":
		return checkHostname(s, false)
	case "hostname-pattern":
		return checkHostname(s, true)
	case "cidr":
		return checkNetwork(s)
	case "address":
		return checkAddress(s)
	case "path":
		return checkPath(s)
	case "token", "field-name":
		return checkToken(s)
	case "regexp":
		return checkRegexp(s)
	case "name":
		return checkName(s)
	}
	return "", ""
}

func checkHostPort(s string, listen bool) (what, fix string) {
	const example = "write host:port, such as 10.0.1.10:8080, shop.internal:80 or [2001:db8::1]:443"
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return quote(s) + " has no port", example
	}
	host, port := s[:i], s[i+1:]
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || port[0] == '+' {
		return quote(port) + " is not a port", "write a number from 1 to 65535 after the colon"
	}
	if n == 0 && !listen {
		return "port 0 cannot be connected to", "write a number from 1 to 65535 after the colon"
	}
	if host == "" {
		if listen {
			return "", ""
		}
		return "there is no host before the port", example
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if a, err := netip.ParseAddr(inner); !ok || err != nil || !a.Is6() {
			return quote(host) + " is not an IPv6 address in brackets", example
		}
		return "", ""
	}
	if strings.Contains(host, ":") {
		if a, err := netip.ParseAddr(s); err == nil {
			return quote(s) + " has no port", "write [" + a.String() + "]:PORT"
		}
		if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
			return quote(host) + " is an IPv6 address without brackets", "write [" + a.String() + "]:" + port
		}
		return quote(s) + " is not host:port", example
	}
	if what, fix = checkHostname(host, false); what != "" {
		return what, fix
	}
	return "", ""
}

func checkNetwork(s string) (what, fix string) {
	const example = "write a network such as 10.0.0.0/8 or 2001:db8::/32, or one address"
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil || a.Zone() != "":
			return quote(s) + " is neither a network nor an address", example
		case a.Is4In6():
			return quote(s) + " is an IPv4 address in IPv6 form", "write " + a.Unmap().String()
		}
		return "", ""
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return quote(s) + " is not a network", example
	case p.Addr().Is4In6():
		return quote(s) + " is an IPv4 network in IPv6 form", example
	case p.Masked() != p:
		return quote(s) + " has bits set behind its length", "write " + p.Masked().String() + ", or " + p.Addr().String() + " for the one address"
	}
	return "", ""
}

// checkAddress wants an address that a machine can have.
func checkAddress(s string) (what, fix string) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil || a.Zone() != "":
		return quote(s) + " is not an address", "write an address such as 192.0.2.1 or 2001:db8::1"
	case a.Is4In6():
		return quote(s) + " is an IPv4 address in IPv6 form", "write " + a.Unmap().String()
	case a.IsUnspecified() || a.IsMulticast():
		return quote(s) + " is no address that a machine has", "write one address of this machine"
	}
	return "", ""
}

func checkPath(s string) (what, fix string) {
	if !strings.HasPrefix(s, "/") {
		return quote(s) + " does not begin with a slash", "write " + quote("/"+s)
	}
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		return quote(s) + " holds more than a path", "write " + quote(s[:i]) + "; a query is matched by query"
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%':
			if i+2 >= len(s) || !http.Is(s[i+1], http.Hex) || !http.Is(s[i+2], http.Hex) {
				return quote(s) + " has a percent sign without two hexadecimal digits", "write %25 for a percent sign"
			}
		case c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^`+"`{|}", c) >= 0:
			return quote(s) + " has characters that no request path has", "write " + quote(escapePath(s))
		}
	}
	if clean := path.Clean(s); clean != s && clean+"/" != s {
		return quote(s) + " is not in the normal form to which requests are brought", "write " + quote(clean)
	}
	return "", ""
}

func escapePath(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^`+"`{|}", c) >= 0 {
			b.WriteString("%" + string("0123456789ABCDEF"[c>>4]) + string("0123456789ABCDEF"[c&15]))
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// checkToken holds s against the grammar of a token (RFC 9110 section 5.6.2).
func checkToken(s string) (what, fix string) {
	for i := range len(s) {
		if c := s[i]; !http.Is(c, http.Token) {
			return quote(s) + " may not hold " + quote(string(rune(c))), "use letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 section 5.6.2)"
		}
	}
	return "", ""
}

func checkRegexp(s string) (what, fix string) {
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		reason := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		switch err.(*syntax.Error).Code {
		case syntax.ErrInvalidPerlOp:
			fix = "use RE2 syntax, which has no look-around"
		case syntax.ErrInvalidEscape:
			fix = "use RE2 syntax, which has no back-references; write \\\\ for a backslash"
		case syntax.ErrLarge, syntax.ErrInvalidRepeatSize:
			fix = "repeat at most 1000 times"
		default:
			fix = "use RE2 syntax"
		}
		return quote(s) + " is not a regular expression: " + reason, fix
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil || len(prog.Inst) > maxProgram {
		return quote(s) + " is too large when compiled", "repeat less, or split it into several matches"
	}
	return "", ""
}

func checkName(s string) (what, fix string) {
	ok := s != "" && isLowerAlnum(s[0]) && isLowerAlnum(s[len(s)-1])
	for i := range len(s) {
		ok = ok && (isLowerAlnum(s[i]) || s[i] == '-' || s[i] == '.')
	}
	if ok {
		return "", ""
	}
	fix = "use lower-case letters, digits, - and ., beginning and ending with a letter or a digit"
	clean := strings.Trim(strings.Map(func(r rune) rune {
		r = unicode.ToLower(r)
		switch {
		case r < utf8.RuneSelf && (isLowerAlnum(byte(r)) || r == '-' || r == '.'):
			return r
		case r == ' ' || r == '_' || r == '/':
			return '-'
		}
		return -1
	}, s), "-.")
	if clean != "" {
		fix += ", such as " + clean
	}
	return quote(s) + " is not a name", fix
}

func isLowerAlnum(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' }

// quote puts quotation marks around s, cut to a length that a person can read.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		return strconv.Quote(s[:cut]) + "…"
	}
	return strconv.Quote(s)
}
