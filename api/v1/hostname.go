package v1

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// checkHostname holds s against lower-case letters, digits and hyphens (RFC 1123 section 2.1), A-labels
// for internationalised names (RFC 5890). A pattern may also be * or begin with *. and a name.
func checkHostname(s string, pattern bool) (what, fix string) {
	if pattern {
		if s == "*" {
			return "", ""
		}
		if rest, ok := strings.CutPrefix(s, "*."); ok {
			if what, fix = checkHostname(rest, false); fix != "" {
				fix = strings.Replace(fix, "write ", "write *.", 1)
			}
			return what, fix
		}
		if strings.Contains(s, "*") {
			return quote(s) + " has a wildcard in another place than the first label", "write *.example.com, or * for every host"
		}
	} else if strings.Contains(s, "*") {
		return quote(s) + " may not hold a wildcard", "write one host name"
	}
	switch name, ok := strings.CutSuffix(s, "."); {
	case strings.Contains(s, "://"):
		_, rest, _ := strings.Cut(s, "://")
		host, _, _ := strings.Cut(rest, "/")
		return quote(s) + " is a URL", "write " + host
	case ok && name != "":
		return quote(s) + " ends with a dot", "write " + name
	case len(s) > 253:
		return quote(s) + " is longer than 253 bytes", "write a shorter name"
	}
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return unicodeName(s)
		}
	}
	if lower := strings.ToLower(s); lower != s {
		return quote(s) + " has upper-case letters", "write " + lower
	}
	for label := range strings.SplitSeq(s, ".") {
		if what := checkLabel(label); what != "" {
			return quote(s) + " " + what, "write a host name such as shop.example.com"
		}
	}
	return "", ""
}

func checkLabel(label string) string {
	switch {
	case label == "":
		return "has an empty label"
	case len(label) > 63:
		return "has a label of more than 63 bytes"
	case label[0] == '-' || label[len(label)-1] == '-':
		return "has a label that begins or ends with a hyphen"
	}
	for i := range len(label) {
		if !isLowerAlnum(label[i]) && label[i] != '-' {
			return "may not hold " + quote(string(rune(label[i])))
		}
	}
	return ""
}

// unicodeName refuses a name of U-labels and offers its A-labels.
func unicodeName(s string) (what, fix string) {
	what = quote(s) + " is not in ASCII"
	labels := strings.Split(strings.ToLower(s), ".")
	for i, l := range labels {
		a, ok := toASCII(l)
		if !ok || checkLabel(a) != "" {
			return what, "write the name as it is registered, in its xn-- form"
		}
		labels[i] = a
	}
	return what, "write " + strings.Join(labels, ".")
}

// toASCII gives the A-label of a lower-case label (RFC 3492). It leaves to the reader what would need
// tables: a label with marks that should be composed first is not converted.
func toASCII(label string) (string, bool) {
	basic := make([]byte, 0, len(label))
	var points []rune
	for _, r := range label {
		if r == utf8.RuneError || unicode.Is(unicode.M, r) {
			return "", false
		}
		if r < utf8.RuneSelf {
			basic = append(basic, byte(r))
		}
		points = append(points, r)
	}
	if len(basic) == len(label) {
		return label, true
	}
	return "xn--" + punycode(basic, points), true
}

// punycode encodes code points, of which basic are in ASCII (RFC 3492 section 6.3).
func punycode(basic []byte, points []rune) string {
	out, done := basic, len(basic)
	handled := done
	if done > 0 {
		out = append(out, '-')
	}
	n, delta, bias := rune(0x80), 0, 72
	for handled < len(points) {
		next := rune(math.MaxInt32)
		for _, p := range points {
			if p >= n {
				next = min(next, p)
			}
		}
		delta += int(next-n) * (handled + 1)
		n = next
		for _, p := range points {
			if p < n {
				delta++
			}
			if p != n {
				continue
			}
			q := delta
			for k := 36; ; k += 36 {
				t := min(max(k-bias, 1), 26)
				if q < t {
					break
				}
				out = append(out, punyDigit(t+(q-t)%(36-t)))
				q = (q - t) / (36 - t)
			}
			out = append(out, punyDigit(q))
			bias = adapt(delta, handled+1, handled == done)
			delta = 0
			handled++
		}
		delta++
		n++
	}
	return string(out)
}

func punyDigit(d int) byte {
	if d < 26 {
		return byte('a' + d)
	}
	return byte('0' + d - 26)
}

// adapt is the bias adaptation of RFC 3492 section 6.1.
func adapt(delta, count int, first bool) int {
	if first {
		delta /= 700
	} else {
		delta /= 2
	}
	delta += delta / count
	k := 0
	for delta > 455 {
		delta /= 35
		k += 36
	}
	return k + 36*delta/(delta+38)
}
