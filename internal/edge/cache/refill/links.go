package refill

import (
	"net/url"
	"strings"
)

const (
	maxLinks    = 64
	maxLinkText = 16 << 10
)

// Links are the targets of rel=preload and rel=prefetch in the values of Link fields (RFC 8288 section 3), as
// whole URLs: those of the scheme and host of base only, without fragment, each once, 64 at most.
func Links(base string, values []string) []string {
	b, err := url.Parse(base)
	if err != nil {
		return nil
	}
	var out []string
	seen := map[string]bool{base: true}
	for _, v := range values {
		for len(v) > 0 && len(v) <= maxLinkText && len(out) < maxLinks {
			var target, params string
			var ok bool
			if target, params, v, ok = nextLink(v); !ok {
				break
			}
			u, err := b.Parse(target)
			if err != nil || !wanted(params) || u.Scheme != b.Scheme || !strings.EqualFold(u.Host, b.Host) || u.User != nil {
				continue
			}
			u.Fragment, u.RawFragment = "", ""
			if s := u.String(); !seen[s] {
				seen[s] = true
				out = append(out, s)
			}
		}
	}
	return out
}

// nextLink reads one link-value: its target, its parameters and what comes behind.
func nextLink(v string) (target, params, rest string, ok bool) {
	v = strings.TrimLeft(v, " \t,")
	if !strings.HasPrefix(v, "<") {
		return "", "", "", false
	}
	end := strings.IndexByte(v, '>')
	if end < 0 {
		return "", "", "", false
	}
	target, v = strings.TrimSpace(v[1:end]), v[end+1:]
	quoted := false
	for i := 0; i < len(v); i++ {
		switch {
		case quoted && v[i] == '\\':
			i++
		case v[i] == '"':
			quoted = !quoted
		case v[i] == ',' && !quoted:
			return target, v[:i], v[i+1:], true
		}
	}
	return target, v, "", true
}

// wanted says whether the parameters hold rel with preload or prefetch; the first rel counts.
func wanted(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(p, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "rel") {
			continue
		}
		for r := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(value), `"`)) {
			if strings.EqualFold(r, "preload") || strings.EqualFold(r, "prefetch") {
				return true
			}
		}
		return false
	}
	return false
}
