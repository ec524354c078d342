package route

import (
	"bytes"
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestRFC3986_6_2_2_NormalPath(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{"/", "/"},
		{"/a/b", "/a/b"},
		{"/a/./b/../c", "/a/c"},
		{"/a/%2e%2E/c", "/c"},
		{"/..", "/"},
		{"/../../x", "/x"},
		{"/a/..", "/"},
		{"/a/b/..", "/a/"},
		{"/a/.", "/a/"},
		{"/a//b", "/a//b"},
		{"/a//../b", "/a/b"},
		{"/.hidden/..x", "/.hidden/..x"},
		{"/%7euser/%41", "/~user/A"},
		{"/a%2fb%3Fc", "/a%2Fb%3Fc"},
		{"/é|\\\"", "/%C3%A9%7C%5C%22"},
		{"/%zz", ""},
		{"/%", ""},
		{"/%4", ""},
		{"/a%00b", ""},
	} {
		got, ok := NormalizePath([]byte("kept"), []byte(c.raw))
		if !ok {
			got = []byte("kept")
		}
		if string(got) != "kept"+c.want || ok != (c.want != "") {
			t.Errorf("NormalizePath(%q) = %q, %v; want %q", c.raw, got[4:], ok, c.want)
		}
		if plainPath([]byte(c.raw)) && c.raw != c.want {
			t.Errorf("plainPath(%q), but its normal form is %q", c.raw, c.want)
		}
	}
}

func FuzzNormalizePath(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e/", "/%", "/a%2Fb", "//", "/\x00", "/..%2f.."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		raw = "/" + raw
		got, ok := NormalizePath(nil, []byte(raw))
		if !ok {
			return
		}
		again, ok := NormalizePath(nil, got)
		if !ok || !bytes.Equal(again, got) {
			t.Fatalf("%q: %q is not its own normal form: %q", raw, got, again)
		}
		if plainPath([]byte(raw)) && string(got) != raw {
			t.Fatalf("%q was called plain, but is %q", raw, got)
		}
		for s := range strings.SplitSeq(string(got), "/") {
			if s == "." || s == ".." {
				t.Fatalf("%q: dot segment in %q", raw, got)
			}
		}
		if strings.Contains(raw, "//") || strings.Contains(string(got), "%2F") {
			return // path.Clean joins slashes and the oracle cannot tell %2F from a slash
		}
		u, err := url.PathUnescape(raw)
		if err != nil {
			return
		}
		v, err := url.PathUnescape(string(got))
		if err != nil || path.Clean(u) != path.Clean(v) {
			t.Fatalf("%q names %q, its normal form %q names %q", raw, path.Clean(u), got, path.Clean(v))
		}
	})
}
