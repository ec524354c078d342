package v1

import (
	"slices"
	"strings"
	"testing"
)

func TestValidateTakesWhatIsRight(t *testing.T) {
	exact := "1"
	docs := []Document{
		&Site{Metadata: Metadata{Name: "shop"}, Spec: SiteSpec{
			Hostnames: []string{"shop.example.com", "*.shop.example.com", "xn--bcher-kva.example", "localhost", "127.0.0.1"},
			Routes: []Route{
				{Match: []RouteMatch{{Path: &PathMatch{Regex: `/p/[0-9]{1,9}`}, Headers: []ValueMatch{{Name: "X-A", Exact: &exact}}}}, Pool: "a"},
				{Match: []RouteMatch{{Path: &PathMatch{Prefix: "/old/"}}}, Redirect: &Redirect{Prefix: new("/new")}},
				{Pools: []WeightedPool{{Pool: "a", Weight: new(0)}, {Pool: "b"}}, Filters: Filters{RequestHeaders: &HeaderFilter{Set: []HeaderValue{{Name: "X-B", Value: "c"}}}}},
				{Respond: &Respond{Status: 404, Body: "gone"}},
			},
		}},
		&Listener{Metadata: Metadata{Name: "web"}, Spec: ListenerSpec{Address: "[::]:0"}},
		&Listener{Metadata: Metadata{Name: "tls"}, Spec: ListenerSpec{Address: ":443", TLS: &ListenerTLS{}}},
		&RateLimit{Metadata: Metadata{Name: "r"}, Spec: RateLimitSpec{Requests: 5, Key: RateLimitKey{On: "header", Name: "X-Api-Key"}}},
		&AccessPolicy{Metadata: Metadata{Name: "a"}, Spec: AccessPolicySpec{Rules: []AccessRule{{Action: "deny", Addresses: []string{"10.0.0.0/8", "::1", "2001:db8::/32"}}}}},
		&AccessPolicy{Metadata: Metadata{Name: "b"}, Spec: AccessPolicySpec{Rules: []AccessRule{
			{Action: "deny", Countries: []string{"CH"}},
			{Action: "deny", ASNs: []int{64496}},
			{Action: "allow", ClientCertificate: &ClientCertificateMatch{DNSNames: []string{"*.a.test"}, Fingerprints: []string{strings.Repeat("0f", 32)}}},
		}}},
		&JwtPolicy{Metadata: Metadata{Name: "j"}, Spec: JwtPolicySpec{
			Issuers: []JwtIssuer{
				{Issuer: "a", JWKS: &JwtKeys{URL: "https://a.test/keys"}, Algorithms: []string{"RS256", "EdDSA"}},
				{Issuer: "b", Secret: strings.Repeat("x", 32), Algorithms: []string{"HS512"}, Forward: []JwtForward{{Claim: "sub", Header: "X-User"}}},
			},
			Sources: []JwtSource{{Header: "Authorization", Prefix: "Bearer"}, {Cookie: "s"}, {Query: "t"}},
		}},
		&ApiPolicy{Metadata: Metadata{Name: "i"}},
		&ApiPolicy{Metadata: Metadata{Name: "o"}, Spec: ApiPolicySpec{Mode: ModeEnforce, Document: &ApiDocument{File: "openapi.yaml"}, Unknown: "refuse"}},
		&Certificate{Metadata: Metadata{Name: "c"}, Spec: CertificateSpec{Internal: &InternalCertificate{Hostnames: []string{"*.a.test"}}}},
		&VisitorPolicy{Metadata: Metadata{Name: "v"}, Spec: VisitorPolicySpec{Secret: strings.Repeat("x", 16), Basket: []StageMatch{{Path: "/basket"}}}},
		&VisitorPolicy{Metadata: Metadata{Name: "v"}, Spec: VisitorPolicySpec{Callbacks: []Callback{
			{Name: "a", Path: "/a", Addresses: []string{"192.0.2.0/24"}},
			{Name: "b", Path: "/b", Certificates: []string{strings.Repeat("aB:", 31) + "00"}},
			{Name: "c", Path: "/c", Signature: &CallbackSignature{Scheme: "stripe", Secrets: []string{"whsec_12345"}}},
		}}},
		&WaitingRoom{Metadata: Metadata{Name: "w"}},
		&WaitingRoom{Metadata: Metadata{Name: "w"}, Spec: WaitingRoomSpec{When: "always", Page: Page{HTML: "${room.position} ${room.wait} ${room.refresh} ${request.id} ${x}"}}},
		&BotPolicy{Metadata: Metadata{Name: "b"}, Spec: BotPolicySpec{ChallengeFrom: 40, DenyFrom: 90, Verified: []VerifiedBot{{Name: "a", Addresses: []string{"::1"}}}}},
		&CachePolicy{Metadata: Metadata{Name: "c"}, Spec: CachePolicySpec{Key: CacheKey{Query: "listed", Parameters: []string{"id", "utm_*"}}}},
		&WafPolicy{Metadata: Metadata{Name: "w"}, Spec: WafPolicySpec{Exclusions: []WafExclusion{{Rules: []string{"942100-942199", "1"}, Target: "ARGS:text"}}}},
		&WafPolicy{Metadata: Metadata{Name: "w"}, Spec: WafPolicySpec{Candidate: &WafCandidate{Exclusions: []WafExclusion{}}}},
		&Service{Metadata: Metadata{Name: "s"}, Spec: ServiceSpec{Protocol: "tls-passthrough", Address: ":443", Hostnames: []string{"*"}, Pool: "p"}},
		&OriginPool{Metadata: Metadata{Name: "p"}, Spec: OriginPoolSpec{Tiers: []Tier{{Origins: []Origin{{Address: "[::1]:80"}}}}}},
	}
	for _, d := range docs {
		Default(d)
		for _, p := range Validate(d) {
			k, _ := d.Meta()
			t.Errorf("%s: %s", k, p)
		}
	}
}

func TestValidateBoundsWhatItSays(t *testing.T) {
	d := &AccessPolicy{Metadata: Metadata{Name: "a"}}
	for range 1000 {
		d.Spec.Rules = append(d.Spec.Rules, AccessRule{Action: "maybe"})
	}
	Default(d)
	if n := len(Validate(d)); n != maxProblems {
		t.Errorf("%d problems, want %d", n, maxProblems)
	}
}

func TestValidateNeverShowsSecrets(t *testing.T) {
	docs := []Document{
		&VisitorPolicy{Metadata: Metadata{Name: "v"}, Spec: VisitorPolicySpec{Secret: "hunter2"}},
		&VisitorPolicy{Metadata: Metadata{Name: "v"}, Spec: VisitorPolicySpec{Secret: strings.Repeat("hunter2", 100)}},
		&WaitingRoom{Metadata: Metadata{Name: "w"}, Spec: WaitingRoomSpec{Secret: "hunter2", PreviousSecrets: []string{"hunter2"}}},
		&Certificate{Metadata: Metadata{Name: "c"}, Spec: CertificateSpec{Inline: &CertificateInline{Certificate: "x", Key: "hunter2"}}},
	}
	for _, d := range docs {
		Default(d)
		problems := Validate(d)
		if len(problems) == 0 {
			t.Error("nothing is said")
		}
		for _, p := range problems {
			if strings.Contains(p.String(), "hunter2") {
				t.Errorf("the secret is in %q", p)
			}
		}
	}
}

func TestHostnamesOfOtherScriptsAreOfferedAsALabels(t *testing.T) {
	// The pairs are from RFC 3492 section 7.1 and from the registry of test names.
	for u, a := range map[string]string{
		"bücher.example":    "xn--bcher-kva.example",
		"München.de":        "xn--mnchen-3ya.de",
		"例え.テスト":            "xn--r8jz45g.xn--zckzah",
		"пример.испытание":  "xn--e1afmkfd.xn--80akhbyknj4f",
		"他们为什么不说中文.example": "xn--ihqwcrb4cv8a8dqg056pqjye.example",
		"faß.de":            "xn--fa-hia.de",
	} {
		what, fix := checkHostname(u, false)
		if what == "" || fix != "write "+a {
			t.Errorf("%s: %q, %q; want to be offered %s", u, what, fix, a)
		}
		if what, _ := checkHostname(a, false); what != "" {
			t.Errorf("%s is what was offered, and refused: %s", a, what)
		}
	}
}

func TestSuggestFindsWhatWasMeant(t *testing.T) {
	words := []string{"hostnames", "listeners", "routes", "pool", "pools"}
	for word, want := range map[string]string{
		"hostname": "hostnames", "Hostnames": "hostnames", "listners": "listeners", "route": "routes", "polo": "pool",
		"colour": "", "x": "", "": "", strings.Repeat("a", 500): "",
	} {
		for range 3 {
			slices.Reverse(words)
			if got := Suggest(word, slices.Values(words)); got != want {
				t.Errorf("%q: %q, want %q", word, got, want)
			}
		}
	}
}

func FuzzFormats(f *testing.F) {
	for _, s := range []string{"a.test", "*.bücher.de", "[::1]:80", ":0", "10.0.0.1/8", "/a%2", "(a{10}){10}", "a..b", "", "-", "::1", "ß"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, format := range formats {
			what, _ := checkFormat(format, s)
			if what == "" && format == "hostname" && (s != strings.ToLower(s) || strings.ContainsAny(s, "/ *:\n")) {
				t.Errorf("%q was taken for a host name", s)
			}
		}
	})
}

func TestACandidateIsCheckedAsItsPolicy(t *testing.T) {
	for _, c := range []struct {
		name   string
		is     WafCandidate
		fields []string
	}{
		{"nothing else", WafCandidate{}, []string{"spec.candidate"}},
		{"a level that there is not", WafCandidate{Paranoia: 5}, []string{"spec.candidate.paranoia"}},
		{
			"rules and exclusions",
			WafCandidate{Rules: []WafRule{{Name: "a"}}, Exclusions: []WafExclusion{{Path: "/x"}, {Rules: []string{"x"}}}},
			[]string{"spec.candidate.exclusions[0]", "spec.candidate.exclusions[1].rules[0]", "spec.candidate.rules[0]"},
		},
	} {
		d := &WafPolicy{Metadata: Metadata{Name: "w"}, Spec: WafPolicySpec{Candidate: &c.is}}
		Default(d)
		var got []string
		for _, p := range Validate(d) {
			got = append(got, p.Field)
		}
		slices.Sort(got)
		if !slices.Equal(got, c.fields) {
			t.Errorf("%s: %v, want %v", c.name, got, c.fields)
		}
	}
}
