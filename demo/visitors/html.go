package visitors

import (
	"bytes"
	"html"
	"slices"
	"strings"
)

// maxLinks bounds what is taken from one page.
const maxLinks = 200

// safeTarget reports whether a link can be a request target: a path on this site, of
// printable ASCII and sane length.
func safeTarget(t string) bool {
	if len(t) == 0 || len(t) > 2000 || t[0] != '/' || strings.HasPrefix(t, "//") {
		return false
	}
	for _, c := range []byte(t) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// links returns the different targets of one attribute ("href" or "src") on a page, in
// their order. It is no HTML parser: it reads double-quoted attributes, which is what
// shops' templates write.
func links(page []byte, attribute string) []string {
	mark := []byte(" " + attribute + `="`)
	var found []string
	for len(found) < maxLinks {
		_, rest, ok := bytes.Cut(page, mark)
		if !ok {
			break
		}
		value, after, ok := bytes.Cut(rest, []byte(`"`))
		if !ok {
			break
		}
		page = after
		target := string(value)
		if bytes.IndexByte(value, '&') >= 0 {
			target = html.UnescapeString(target)
		}
		target, _, _ = strings.Cut(target, "#")
		if safeTarget(target) && !slices.Contains(found, target) {
			found = append(found, target)
		}
	}
	return found
}

// stylesheets returns the targets of a page's style sheets.
func stylesheets(page []byte) []string {
	return slices.DeleteFunc(links(page, "href"), func(t string) bool {
		path, _, _ := strings.Cut(t, "?")
		return !strings.HasSuffix(path, ".css")
	})
}

// under keeps the targets that begin with prefix.
func under(targets []string, prefix string) []string {
	var kept []string
	for _, t := range targets {
		if strings.HasPrefix(t, prefix) {
			kept = append(kept, t)
		}
	}
	return kept
}

// field returns the value of the form field of that name on a page.
func field(page []byte, name string) string {
	_, rest, ok := bytes.Cut(page, []byte(` name="`+name+`" value="`))
	if !ok {
		return ""
	}
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return html.UnescapeString(string(value))
}
