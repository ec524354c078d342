package route

import (
	"bytes"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
)

// What a pattern makes of a path in normal form is refused, or is a path in normal form.
func FuzzRewriteByPattern(f *testing.F) {
	f.Add("/dl/.-./secret", "^/dl/(.*)-(.*)$", "/files/$1$2")
	f.Add("/a/%2F/b", "a", "$0$0$$")
	f.Add("/a", "", "%")
	f.Add("/%25/2e/", "/", "")
	f.Fuzz(func(t *testing.T, raw, expr, replacement string) {
		if len(expr) > 64 || len(raw) > 256 || !strings.HasPrefix(raw, "/") {
			return
		}
		path, ok := NormalizePath(nil, []byte(raw))
		p, err := compilePattern(&v1.RegexRewrite{Pattern: expr, Replacement: replacement})
		if !ok || err != nil {
			return
		}
		got, err := p.rewritePath(&local{}, path)
		if err != nil {
			return
		}
		if again, ok := NormalizePath(nil, got); !ok || !bytes.Equal(again, got) || got[0] != '/' || len(got) > 3*(maxRewritten+len(path)+len(replacement)) {
			t.Errorf("%q with %q -> %q became %q", path, expr, replacement, got)
		}
	})
}

// No parameter that was to be removed is left, as an origin reads it, and no other is lost.
func FuzzRewriteOfTheQuery(f *testing.F) {
	f.Add("a=1&utm_x=2&%75tm_y&b")
	f.Add("&&=&a&a=1;b")
	f.Add("%zz=1&a%3d=2")
	q := compileQuery(&v1.QueryRewrite{Remove: []string{"utm_*", "gone"}, Set: []v1.Parameter{{Name: "a", Value: "é&="}}})
	f.Fuzz(func(t *testing.T, query string) {
		var out message.Request
		out.SetQuery([]byte(query))
		q.apply(&local{}, &out)
		kept := 0
		for p := range strings.SplitSeq(string(out.Query()), "&") {
			name, value, _ := strings.Cut(p, "=")
			n := string(decodeForm([]byte(name)))
			if strings.HasPrefix(n, "utm_") || n == "gone" || n == "a" && value != "%C3%A9%26%3D" {
				t.Errorf("%q became %q", query, out.Query())
			}
			kept++
		}
		want := 1
		for p := range strings.SplitSeq(query, "&") {
			if p != "" && !q.drops([]byte(p)) {
				want++
			}
		}
		if kept != want {
			t.Errorf("%q became %q: %d parameters, want %d", query, out.Query(), kept, want)
		}
	})
}
