package bots

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// asker challenges, and counts.
type asker struct{ asked int }

func (a *asker) Passed(x *stage.Exchange) bool { return x.Visitor.Exempt() }
func (a *asker) Challenge(x *stage.Exchange, _ int) *message.Response {
	a.asked++
	r := &x.Response
	r.Reset()
	r.Status = 403
	return r
}

type site struct{ seen stage.Visitor }

func (s *site) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	s.seen = x.Visitor
	r := &x.Response
	r.Reset()
	r.Status = 200
	return r, nil
}

type rig struct {
	st    *Stage
	asker *asker
	site  *snapshot.Site
	next  site
}

func newRig(t testing.TB, spec *v1.BotPolicySpec, r Resolver) *rig {
	t.Helper()
	g := &rig{asker: &asker{}}
	g.st = New(6, g.asker, r, observe.New())
	if spec.HoneypotTime == 0 {
		spec.HoneypotTime = v1.Duration(time.Hour)
	}
	g.site = &snapshot.Site{Key: "o/shop", Spec: &bundle.Site{Bots: map[string]*v1.BotPolicySpec{"b": spec}}, Routes: []snapshot.Route{{Spec: &v1.Route{Policies: v1.Policies{Bots: "b"}}}}, Parts: make([]any, stage.Slots)}
	p, err := g.st.Compile(g.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.site.Parts[6] = p
	return g
}

const chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"

// request makes an exchange of lines such as "User-Agent: x".
func (g *rig) request(path, addr string, lines ...string) *stage.Exchange {
	in := &message.Request{Secure: true, Proto: message.HTTP2}
	in.SetMethod([]byte("GET"))
	in.SetPath([]byte(path))
	in.SetAuthority([]byte("Shop.test:443"))
	for _, l := range lines {
		n, v, _ := strings.Cut(l, ": ")
		in.AddLine([]byte(n), []byte(v))
	}
	in.Conn = &message.Conn{TLS: &message.TLS{Version: 0x0304, JA4: "t13d1516h2_8daaf6152771_e5627efa2ab1"}}
	return &stage.Exchange{In: in, Path: []byte(path), Site: g.site, Route: &g.site.Routes[0], Start: time.Now(), Client: netip.MustParseAddr(addr)}
}

func (g *rig) do(x *stage.Exchange) (*message.Response, error) {
	return g.st.Serve(context.Background(), x, &g.next)
}

func browserLines() []string {
	return []string{"User-Agent: " + chrome, "Accept-Language: de", "Accept-Encoding: gzip", "Sec-Fetch-Mode: navigate", "Sec-CH-UA: x"}
}

func TestScores(t *testing.T) {
	g := newRig(t, &v1.BotPolicySpec{Fingerprints: []string{"t13d9999*"}}, nil)
	for _, c := range []struct {
		name   string
		lines  []string
		change func(*stage.Exchange)
		want   uint8
		mark   string
	}{
		{"a browser", browserLines(), nil, 0, ""},
		{"no name", nil, nil, scoreNoAgent, "no-agent"},
		{"a tool", []string{"User-Agent: Python-Requests/2.32"}, nil, scoreTool, "tool"},
		{"a browser that nobody sees", []string{"User-Agent: " + strings.Replace(chrome, "Chrome/", "HeadlessChrome/", 1), "Accept-Language: de", "Accept-Encoding: gzip", "Sec-Fetch-Mode: navigate", "Sec-CH-UA: x"}, nil, scoreTool, "tool"},
		{"a browser's name and nothing else", []string{"User-Agent: " + chrome}, nil, scoreNoLanguage + scoreNoEncoding + scoreNoFetch + scoreNoHints, "no-fetch"},
		{"in clear no Sec-Fetch is expected", []string{"User-Agent: " + chrome, "Accept-Language: de", "Accept-Encoding: gzip"}, func(x *stage.Exchange) { x.In.Secure, x.In.Conn = false, nil }, 0, ""},
		{"TLS 1.2", browserLines(), func(x *stage.Exchange) { x.In.Conn.TLS.Version = 0x0303 }, scoreOldTLS, "old-tls"},
		{"no ALPN", browserLines(), func(x *stage.Exchange) { x.In.Conn.TLS.JA4 = "t13d151600_8daaf6152771_e5627efa2ab1" }, scoreNoALPN, "no-alpn"},
		{"a fingerprint of the list", browserLines(), func(x *stage.Exchange) { x.In.Conn.TLS.JA4 = "t13d9999h2_8daaf6152771_e5627efa2ab1" }, scorePrint, "fingerprint"},
		{"never more than 100", []string{"User-Agent: " + chrome}, func(x *stage.Exchange) { x.Visitor.Score = 90 }, 100, ""},
	} {
		x := g.request("/", "192.0.2.1", c.lines...)
		if c.change != nil {
			c.change(x)
		}
		if _, err := g.do(x); err != nil || g.next.seen.Score != c.want {
			t.Errorf("%s: %d, want %d (%v): %v", c.name, g.next.seen.Score, c.want, err, x.Trail.Marks())
		}
		found := c.mark == ""
		sum := 0
		for _, m := range x.Trail.Marks() {
			found = found || m.Code == c.mark
			n, _ := strconv.Atoi(m.Detail[strings.LastIndexByte(m.Detail, ' ')+1:])
			sum += n
		}
		if !found || c.name != "never more than 100" && sum != int(c.want) {
			t.Errorf("%s: explained as %v, which is %d in all", c.name, x.Trail.Marks(), sum)
		}
	}
}

func TestWhatIsDoneForAScore(t *testing.T) {
	for _, c := range []struct {
		mode  v1.Mode
		lines []string
		class stage.Class
		want  string
	}{
		{v1.ModeEnforce, browserLines(), 0, "served"},
		{v1.ModeEnforce, nil, 0, "challenged"},
		{v1.ModeEnforce, []string{"User-Agent: " + chrome}, 0, "denied"},
		{v1.ModeEnforce, []string{"User-Agent: " + chrome}, stage.Protected, "served"},
		{v1.ModeShadow, []string{"User-Agent: " + chrome}, 0, "served"},
		{v1.ModeShadow, nil, 0, "served"},
	} {
		g := newRig(t, &v1.BotPolicySpec{Protection: v1.Protection{Mode: c.mode}, ChallengeFrom: 40, DenyFrom: 70}, nil)
		x := g.request("/", "192.0.2.1", c.lines...)
		x.Visitor.Class = c.class
		_, err := g.do(x)
		got := "served"
		switch {
		case errors.Is(err, errDenied):
			got = "denied"
		case g.asker.asked > 0:
			got = "challenged"
		}
		if got != c.want {
			t.Errorf("%s, %d fields, %s: %s, want %s", c.mode, len(c.lines), c.class, got, c.want)
		}
		if c.mode == v1.ModeShadow && !x.Noted {
			t.Error("what would have been is not noted")
		}
	}
}

func TestAHoneypotMarksTheProgramAndNotItsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, &v1.BotPolicySpec{Honeypots: []string{"/trap"}}, nil)
		bot := append(browserLines()[1:], "User-Agent: "+chrome+" x")
		if _, err := g.do(g.request("/trap/x", "192.0.2.1", bot...)); !errors.Is(err, errHoneypot) {
			t.Errorf("%v", err)
		}
		if _, err := g.do(g.request("/trapper", "192.0.2.9", browserLines()...)); err != nil {
			t.Errorf("a path that only begins alike: %v", err)
		}
		if _, _ = g.do(g.request("/", "192.0.2.1", bot...)); g.next.seen.Score != scoreHoneypot {
			t.Errorf("%d after the trap", g.next.seen.Score)
		}
		if _, _ = g.do(g.request("/", "192.0.2.1", browserLines()...)); g.next.seen.Score != 0 {
			t.Error("who shares the address is scored")
		}
		time.Sleep(time.Hour)
		if _, _ = g.do(g.request("/", "192.0.2.1", bot...)); g.next.seen.Score != 0 {
			t.Error("it never ends")
		}
	})
}

func TestBotsProveThemselvesByAddress(t *testing.T) {
	dir := t.TempDir()
	plain, published := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := os.WriteFile(plain, []byte("# comment\n198.51.100.0/24 # x\n\n2001:db8::/32\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(published, []byte(`{"creationTime":"x","prefixes":[{"ipv4Prefix":"203.0.113.0/27"},{"ipv6Prefix":"2001:db8:ff::/48"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	g := newRig(t, &v1.BotPolicySpec{ChallengeFrom: 30, Verified: []v1.VerifiedBot{{Name: "searcher", UserAgent: "SearchBot", Addresses: []string{"192.0.2.7"}, AddressFiles: []string{plain, published}}}}, nil)
	for _, c := range []struct {
		addr, agent string
		bot         string
		score       uint8
	}{
		{"192.0.2.7", "Mozilla/5.0 (compatible; searchbot/2.1)", "searcher", 0},
		{"198.51.100.9", "SearchBot", "searcher", 0},
		{"203.0.113.31", "SearchBot", "searcher", 0},
		{"203.0.113.32", "SearchBot", "", scoreImpostor},
		{"2001:db8::1", "SearchBot", "searcher", 0},
		{"192.0.2.7", "curl/8", "", scoreTool},
	} {
		x := g.request("/", c.addr, "User-Agent: "+c.agent)
		_, _ = g.do(x)
		if x.Visitor.Bot != c.bot || x.Visitor.Score != c.score || c.bot != "" && !x.Visitor.Exempt() {
			t.Errorf("%s %s: %+v", c.addr, c.agent, x.Visitor)
		}
	}
	for _, text := range []string{"", "x", `{"prefixes":[]}`, `{`, `{"prefixes":[{"ipv4Prefix":"a"}]}`} {
		if err := os.WriteFile(plain, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readAddresses(plain); err == nil || !strings.Contains(err.Error(), plain) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// zone is a DNS for tests.
type zone struct {
	names map[string][]string
	addrs map[string][]string
	asked int
}

func (z *zone) LookupAddr(_ context.Context, a string) ([]string, error) {
	z.asked++
	return z.names[a], nil
}

func (z *zone) LookupNetIP(_ context.Context, _, host string) (out []netip.Addr, err error) {
	for _, a := range z.addrs[host] {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, nil
}

func TestBotsProveThemselvesByTheirNameInDNSBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{
			names: map[string][]string{
				"192.0.2.1": {"crawl-1.search.test."}, "192.0.2.2": {"crawl-1.search.test."}, "192.0.2.3": {"search.test.evil.test."}, "192.0.2.4": {"xsearch.test."},
			},
			addrs: map[string][]string{"crawl-1.search.test": {"192.0.2.1"}, "search.test.evil.test": {"192.0.2.3"}, "xsearch.test": {"192.0.2.4"}},
		}
		g := newRig(t, &v1.BotPolicySpec{Verified: []v1.VerifiedBot{{Name: "searcher", UserAgent: "SearchBot", Domains: []string{"search.test"}}}}, z)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { _ = g.st.Run(ctx); close(done) }()
		for _, c := range []struct {
			addr string
			good bool
		}{{"192.0.2.1", true}, {"192.0.2.2", false}, {"192.0.2.3", false}, {"192.0.2.4", false}, {"192.0.2.5", false}} {
			x := g.request("/", c.addr, "User-Agent: SearchBot")
			if _, _ = g.do(x); x.Visitor.Bot != "" || x.Visitor.Score >= scoreImpostor {
				t.Errorf("%s before DNS has answered: %+v", c.addr, x.Visitor)
			}
			synctest.Wait()
			for range 3 {
				x = g.request("/", c.addr, "User-Agent: SearchBot")
				_, _ = g.do(x)
			}
			if (x.Visitor.Bot == "searcher") != c.good || (x.Visitor.Score >= scoreImpostor) == c.good {
				t.Errorf("%s: %+v", c.addr, x.Visitor)
			}
		}
		if z.asked != 5 {
			t.Errorf("DNS was asked %d times for 5 addresses", z.asked)
		}
		cancel()
		<-done
	})
}

func TestBotsProveThemselvesBySignature(t *testing.T) {
	public, private, _ := ed25519.GenerateKey(nil)
	other, _, _ := ed25519.GenerateKey(nil)
	x64 := base64.RawURLEncoding.EncodeToString(public)
	id := thumbprint(x64)
	g := newRig(t, &v1.BotPolicySpec{Verified: []v1.VerifiedBot{{Name: "agent", Keys: []string{x64}}}}, nil)
	now := time.Now().Unix()
	params := func(created, expires int64, keyid, tag string) string {
		return `("@authority" "signature-agent");created=` + strconv.FormatInt(created, 10) + `;expires=` + strconv.FormatInt(expires, 10) + `;keyid="` + keyid + `";alg="ed25519";nonce="abc";tag="` + tag + `"`
	}
	sign := func(authority, p string) string {
		base := "\"@authority\": " + authority + "\n\"signature-agent\": \"https://agent.test\"\n\"@signature-params\": " + p
		return "sig1=:" + base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte(base))) + ":"
	}
	good := params(now-5, now+60, id, webBotAuth)
	for _, c := range []struct {
		name, params, signature string
		want                    bool
	}{
		{"a good signature", good, sign("shop.test", good), true},
		{"for another host", good, sign("other.test", good), false},
		{"of another tag", params(now-5, now+60, id, "x"), sign("shop.test", params(now-5, now+60, id, "x")), false},
		{"of another key", params(now-5, now+60, thumbprint(base64.RawURLEncoding.EncodeToString(other)), webBotAuth), sign("shop.test", good), false},
		{"expired", params(now-50, now-1, id, webBotAuth), sign("shop.test", params(now-50, now-1, id, webBotAuth)), false},
		{"from the future", params(now+600, now+660, id, webBotAuth), sign("shop.test", params(now+600, now+660, id, webBotAuth)), false},
		{"for a day", params(now-5, now+86400, id, webBotAuth), sign("shop.test", params(now-5, now+86400, id, webBotAuth)), false},
		{"changed after signing", params(now-5, now+61, id, webBotAuth), sign("shop.test", good), false},
		{"no signature", good, "sig2=:AAAA:", false},
		{"nonsense", "((", "((", false},
		{"without the authority", `("signature-agent")` + good[strings.IndexByte(good, ';'):], sign("shop.test", good), false},
		{"a component that is not known", `("@authority" "@status")` + good[strings.IndexByte(good, ';'):], sign("shop.test", good), false},
	} {
		x := g.request("/", "192.0.2.1", "User-Agent: agent", `Signature-Agent: "https://agent.test"`, "Signature-Input: sig1="+c.params, "Signature: "+c.signature)
		_, _ = g.do(x)
		if got := x.Visitor.Bot == "agent"; got != c.want {
			t.Errorf("%s: verified is %v: %v", c.name, got, x.Trail.Marks())
		}
	}
}

// The example of RFC 8037 appendix A.3.
func TestThumbprintIsThatOfRFC8037AppendixA3(t *testing.T) {
	if got := thumbprint("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"); got != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Error(got)
	}
}

func TestScoringAllocatesNothing(t *testing.T) {
	g := newRig(t, &v1.BotPolicySpec{Honeypots: []string{"/trap"}, Fingerprints: []string{"t13d9999*"}, Verified: []v1.VerifiedBot{{Name: "s", UserAgent: "searchbot", Addresses: []string{"198.51.100.0/24"}}}}, nil)
	x := g.request("/", "192.0.2.1", "User-Agent: "+chrome)
	ctx, next := context.Background(), stage.Handler(&g.next)
	run := func() {
		x.Trail, x.Visitor = stage.Trail{}, stage.Visitor{}
		_, _ = g.st.Serve(ctx, x, next)
	}
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
