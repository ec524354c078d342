package access

import (
	"context"
	"net/netip"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// atlas is a database of a few addresses.
type atlas map[string]struct {
	country string
	asn     uint32
}

func (a atlas) Find(ip netip.Addr) (string, uint32) {
	return a[ip.String()].country, a[ip.String()].asn
}

func judge(t *testing.T, cfg Config, spec *v1.AccessPolicySpec, x func(*stage.Exchange)) string {
	t.Helper()
	cfg.Slot = 3
	st := New(cfg, observe.New())
	site := newSite(spec)
	p, err := st.Compile(site, nil)
	if err != nil {
		t.Fatal(err)
	}
	site.Parts[3] = p
	e := exchange(site, 0, "192.0.2.1", "GET", "/")
	x(e)
	_, err = st.Serve(context.Background(), e, &answer{})
	if marks := e.Trail.Marks(); len(marks) != 1 || (err != nil) != (marks[0].Code == "deny") {
		t.Fatalf("marks %v, %v", marks, err)
	}
	return e.Trail.Marks()[0].Detail
}

func TestRulesByCountryAndNetwork(t *testing.T) {
	places := atlas{"192.0.2.1": {"CH", 64496}, "192.0.2.2": {"DE", 64497}, "192.0.2.3": {"", 64496}}
	spec := &v1.AccessPolicySpec{Rules: []v1.AccessRule{
		{Action: "deny", ASNs: []int{64497, 64499}},
		{Action: "allow", Countries: []string{"CH", "AT"}, ASNs: []int{64496}},
		{Action: "allow", Countries: []string{"LI"}},
	}, Default: "deny"}
	for client, want := range map[string]string{"192.0.2.1": "rule 2 of p", "192.0.2.2": "rule 1 of p", "192.0.2.3": "default of p", "192.0.2.4": "default of p"} {
		if got := judge(t, Config{Places: places}, spec, func(x *stage.Exchange) { x.Client = netip.MustParseAddr(client) }); got != want {
			t.Errorf("%s: %s, want %s", client, got, want)
		}
	}
	warned := 0
	if got := judge(t, Config{Report: func(string, ...any) { warned++ }}, spec, func(*stage.Exchange) {}); got != "default of p" || warned != 1 {
		t.Errorf("without a database: %s, %d warnings", got, warned)
	}
}

func TestRulesByClientCertificate(t *testing.T) {
	id := &message.Identity{
		DNSNames: []string{"till-7.Partner.example"}, URIs: []string{"spiffe://partner.example/shop/a"}, Emails: []string{"Bob@partner.example"},
		Subject: "CN=till-7,O=Partner", Issuer: "CN=Partner CA", Fingerprint: "00" + "11223344556677889900aabbccddeeff00112233445566778899aabbccddee",
	}
	for _, c := range []struct {
		name string
		m    v1.ClientCertificateMatch
		ok   bool
	}{
		{"any", v1.ClientCertificateMatch{Any: true}, true},
		{"dns", v1.ClientCertificateMatch{DNSNames: []string{"x", "*.partner.EXAMPLE"}}, true},
		{"another dns", v1.ClientCertificateMatch{DNSNames: []string{"*.partner.example.org"}}, false},
		{"a pattern longer than the name", v1.ClientCertificateMatch{DNSNames: []string{"till-7.partner.*.partner.example"}}, false},
		{"uri", v1.ClientCertificateMatch{URIs: []string{"spiffe://partner.example/*"}}, true},
		{"uris know case", v1.ClientCertificateMatch{URIs: []string{"spiffe://Partner.example/*"}}, false},
		{"email", v1.ClientCertificateMatch{Emails: []string{"*@partner.example"}}, true},
		{"subject and issuer", v1.ClientCertificateMatch{Subjects: []string{"CN=till-*,O=Partner"}, Issuers: []string{"CN=Partner CA"}}, true},
		{"one of two kinds", v1.ClientCertificateMatch{Subjects: []string{"CN=till-*,O=Partner"}, Issuers: []string{"CN=Other CA"}}, false},
		{"fingerprint", v1.ClientCertificateMatch{Fingerprints: []string{"0011223344556677889900AABBCCDDEEFF00112233445566778899AABBCCDDEE"}}, true},
	} {
		spec := &v1.AccessPolicySpec{Rules: []v1.AccessRule{{Action: "allow", ClientCertificate: &c.m}}, Default: "deny"}
		with := func(id *message.Identity) func(*stage.Exchange) {
			return func(x *stage.Exchange) { x.In.Conn = &message.Conn{TLS: &message.TLS{Identity: id}} }
		}
		want := "default of p"
		if c.ok {
			want = "rule 1 of p"
		}
		if got := judge(t, Config{}, spec, with(id)); got != want {
			t.Errorf("%s: %s", c.name, got)
		}
		if got := judge(t, Config{}, spec, with(nil)); got != "default of p" {
			t.Errorf("%s: without a certificate: %s", c.name, got)
		}
		if got := judge(t, Config{}, spec, func(*stage.Exchange) {}); got != "default of p" {
			t.Errorf("%s: in clear: %s", c.name, got)
		}
	}
}
