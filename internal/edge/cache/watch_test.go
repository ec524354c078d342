package cache

import (
	"hash/maphash"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
)

const token = "8f14e45fceea167a5a36dedd4bea2543"

func TestWhatRepeatsItsRequestIsNotStored(t *testing.T) {
	except := v1.CachePolicySpec{Key: v1.CacheKey{Query: "except", Parameters: []string{"@marketing"}}}
	const click = "EAIaIQobChMI1234567890abcdef"
	html := func(body string, more ...string) reply {
		return reply{headers: append([]string{"Cache-Control: public, max-age=60", "Content-Type: text/html; charset=utf-8"}, more...), body: body}
	}
	for _, c := range []struct {
		name    string
		spec    v1.CachePolicySpec
		line    string
		headers []string
		reply   reply
		echo    string // what is reported
	}{
		{"a session's token", v1.CachePolicySpec{}, "GET /a", []string{"Cookie: theme=dark; sid=" + token}, html("<input name=csrf value=" + token + ">"), "cookie sid"},
		{"a quoted one", v1.CachePolicySpec{}, "GET /a", []string{`Cookie: sid="` + token + `"`}, html(token), "cookie sid"},
		{"a parameter that does not count", except, "GET /a?gclid=" + click, nil, html("<a href='/b?gclid=" + click + "'>"), "parameter gclid"},
		{"one in a redirection", except, "GET /a?gclid=" + click, nil, reply{status: 301, headers: []string{"Cache-Control: max-age=60", "Location: /b?gclid=" + click}}, "parameter gclid"},
		{"markup", except, "GET /a?utm_content=%22%3E%3Cscript%3E", nil, html(`<b title=""><script>">`), "parameter utm_content"},
		{"a host", except, "GET /a?utm_source=//evil.example", nil, html(`<script src="//evil.example/x.js">`), "parameter utm_source"},
		{"a field of nobody's", v1.CachePolicySpec{}, "GET /a", []string{"X-Theme-Base: //evil.example"}, html(`<script src="//evil.example/x.js">`), "header X-Theme-Base"},
		{"a credential", v1.CachePolicySpec{}, "GET /a", []string{"X-Session-Id: " + token}, html(token), "header X-Session-Id"},
		{"behind two pieces", v1.CachePolicySpec{}, "GET /a", []string{"Cookie: sid=" + token}, html(strings.Repeat("x", 984) + token + strings.Repeat("x", 984)), "cookie sid"},

		{"a parameter that counts", v1.CachePolicySpec{}, "GET /a?gclid=" + click, nil, html(click), ""},
		{"a word of a campaign", except, "GET /a?utm_campaign=summer-sale-2026-newsletter", nil, html("summer-sale-2026-newsletter"), ""},
		{"a preference", v1.CachePolicySpec{}, "GET /a", []string{"Cookie: experiment=checkout-2026-variant-b"}, html("checkout-2026-variant-b"), ""},
		{"a cookie in the key", v1.CachePolicySpec{Key: v1.CacheKey{Cookies: []string{"sid"}}}, "GET /a", []string{"Cookie: sid=" + token}, html(token), ""},
		{"a cookie in Vary", v1.CachePolicySpec{}, "GET /a", []string{"Cookie: sid=" + token}, html(token, "Vary: Cookie"), ""},
		{"a field in Vary", v1.CachePolicySpec{}, "GET /a", []string{"X-Theme-Base: //b.example"}, html("//b.example", "Vary: x-theme-base"), ""},
		{"a trace", v1.CachePolicySpec{}, "GET /a", []string{"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, html("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ""},
		{"a number of the request", v1.CachePolicySpec{}, "GET /a", []string{"Test-ID: " + token}, html(token), ""},
		{"what is in the path, too", v1.CachePolicySpec{}, "GET /a/" + token, []string{"X-Session-Id: " + token, "Cookie: sid=" + token}, html(token), ""},
		{"a picture", v1.CachePolicySpec{}, "GET /a", []string{"Cookie: sid=" + token}, reply{headers: []string{"Cache-Control: max-age=60", "Content-Type: image/png"}, body: token}, ""},
		{"the guard off", v1.CachePolicySpec{Guard: "off"}, "GET /a", []string{"Cookie: sid=" + token}, html(token), ""},
	} {
		r := newRig(t, c.spec, c.reply)
		if g := r.do(c.line, c.headers...); g.err != nil || g.body != c.reply.body {
			t.Errorf("%s: its own visitor got %q, %v", c.name, g.body, g.err)
		}
		stored := r.do("GET /a"+strings.TrimPrefix(c.line, "GET /a"), append([]string{"Cache-Control: only-if-cached"}, c.headers...)...).cache == "hit"
		if stored != (c.echo == "") {
			t.Errorf("%s: stored %v", c.name, stored)
		}
		var echoes []string
		for _, k := range r.s.Keys("acme/shop") {
			for _, e := range k.Echoes {
				echoes = append(echoes, e.Kind+" "+e.Name)
				if e.Times != 1 || e.Path != "/a" || !e.Last.Equal(r.now) {
					t.Errorf("%s: %+v", c.name, e)
				}
			}
		}
		if strings.Join(echoes, ",") != c.echo {
			t.Errorf("%s: %q came back, want %q", c.name, echoes, c.echo)
		}
	}
}

// FuzzWatch: what is looked for is found wherever a body is cut, as long as it is among the bytes that are searched.
func FuzzWatch(f *testing.F) {
	f.Add([]byte("xx"+token+"yy"), []byte{3, 20, 1})
	f.Add([]byte(token), []byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
	f.Add([]byte(token[:31]+" "+token[1:]), []byte{31, 1})
	f.Add([]byte(strings.Repeat("8f14e45f", 40)), []byte{47, 48, 49})
	seed := maphash.MakeSeed()
	f.Fuzz(func(t *testing.T, body, cuts []byte) {
		var in message.Request
		in.AddString(message.Cookie, "sid="+token)
		var w watch
		w.arm(&rule{keyer: &keyer{}, guarded: true}, seed, &in)
		var sum maphash.Hash
		sum.SetSeed(seed)
		_, _ = sum.Write(body)
		rest := body
		for i := 0; len(rest) > 0; i++ {
			n := len(rest)
			if i < len(cuts) {
				n = min(n, int(cuts[i]))
			}
			w.write(rest[:n])
			rest = rest[n:]
		}
		if found, want := w.echo != nil, strings.Contains(string(body), token); found != want {
			t.Fatalf("found %v in %q cut at %v", found, body, cuts)
		}
		if w.sum.Sum64() != sum.Sum64() {
			t.Fatal("another sum")
		}
	})
}
