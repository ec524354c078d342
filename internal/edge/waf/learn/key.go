package learn

import "strings"

// Key tells findings apart.
type Key struct {
	Policy string `json:"policy"`
	Rule   int    `json:"rule"`
	Target string `json:"target,omitempty"`
	Method string `json:"method"`
	// Path is normalised; an element that looks like an id is *.
	Path string `json:"path"`
}

// Place is where a request goes, as far as findings are told apart by it.
type Place struct{ Policy, Method, Path string }

// PlaceOf makes a place of the policy that judges there, a method and a normalised path. A long
// path is cut at an element.
func PlaceOf(policy, method string, path []byte) Place {
	return Place{policy, method, pattern(string(path))}
}

func (p *Place) key(h *Hit) Key { return Key{p.Policy, h.Rule, h.Target, p.Method, p.Path} }

// pattern writes * for each element of a path that looks like an id, so that pages of one kind
// are one place.
func pattern(path string) string {
	if len(path) > maxPath {
		path = path[:strings.LastIndexByte(path[:maxPath], '/')+1]
		path += "*"
	}
	if !strings.ContainsAny(path, "0123456789") {
		return path
	}
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if isID(p) {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, "/")
}

// isID says that an element of a path names one of many things: a number, or letters with
// several digits, such as p-1234567.html.
func isID(s string) bool {
	digits := 0
	for i := range len(s) {
		if s[i] >= '0' && s[i] <= '9' {
			digits++
		}
	}
	return digits > 0 && (digits >= 3 || digits == len(s))
}

// Scope is the path of an exclusion for a pattern: the path itself, or what lies before its first
// *, with all below. Whole says that this is every path.
func Scope(pattern string) (path string, exact, whole bool) {
	before, _, cut := strings.Cut(pattern, "*")
	if !cut {
		return pattern, true, false
	}
	before = before[:strings.LastIndexByte(before, '/')+1]
	if len(before) > 1 {
		before = strings.TrimSuffix(before, "/")
	}
	return before, false, before == "/"
}

// usable says that a target is fit to be remembered: short, and of characters that names of
// fields have. What else there is comes from visitors, not from the site's forms.
func usable(target string) bool {
	if len(target) > maxTarget {
		return false
	}
	for i := range len(target) {
		switch c := target[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte(`_-.:[]/\^$+`, c) >= 0:
		default:
			return false
		}
	}
	return true
}
