package document

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
)

const examples = "../../examples"

// example loads one of the examples and compiles it.
func example(t *testing.T, name string, env map[string]string) *Set {
	t.Helper()
	set, problems := Load([]string{filepath.Join(examples, name)}, func(k string) (string, bool) { v, ok := env[k]; return v, ok })
	_, more := set.Compile()
	for _, p := range append(problems, more...) {
		t.Error(p)
	}
	return set
}

func TestExamplesLoadWithAndWithoutEnvironment(t *testing.T) {
	env := map[string]string{
		"LISTEN": "127.1.2.3:18080", "LISTEN_TLS": "[::1]:18443", "ORIGIN": "shop.internal:80",
		"ORIGIN_OVERFLOW": "10.9.0.1:81", "PARANOIA": "3", "CAPACITY": "400",
	}
	names := []string{"acme.yaml", "api.yaml", "cache.yaml", "flood.yaml", "full.yaml", "grpc.yaml", "images.yaml", "overflow.yaml", "protect.yaml", "proxy.yaml", "resilience.yaml", "waf.yaml"}
	entries, err := os.ReadDir(examples)
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".yaml" {
			there = append(there, e.Name())
		}
	}
	there = slices.DeleteFunc(there, func(n string) bool { return n == "services.yaml" || n == "fleet.yaml" }) // which have tests of their own
	if !slices.Equal(names, there) {
		t.Errorf("examples are %v, tested are %v", there, names)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			checkListeners(t, example(t, name, nil), "127.0.0.1:8080", "127.0.0.1:8443")
			checkOrigins(t, example(t, name, nil), []string{"127.0.0.1:9000", "127.0.0.1:9001"}, 40)
			checkListeners(t, example(t, name, env), "127.1.2.3:18080", "[::1]:18443")
			checkOrigins(t, example(t, name, env), []string{"shop.internal:80", "10.9.0.1:81"}, 400)
		})
	}
	paranoia := map[string]int{}
	for _, d := range append(example(t, "waf.yaml", nil).Documents, example(t, "full.yaml", env).Documents...) {
		if w, ok := d.(*v1.WafPolicy); ok {
			if w.Spec.Mode != v1.ModeEnforce {
				t.Errorf("the firewall's mode is %s", w.Spec.Mode)
			}
			paranoia[w.Metadata.Name] = paranoia[w.Metadata.Name]*10 + w.Spec.Paranoia
		}
	}
	if paranoia["core-rules"] != 13 {
		t.Errorf("paranoia is %v, want 1 without environment and 3 with", paranoia)
	}
}

func checkListeners(t *testing.T, set *Set, clear, tls string) {
	t.Helper()
	n := 0
	for _, d := range set.Documents {
		switch d := d.(type) {
		case *v1.Listener:
			n++
			want, protocols := clear, []v1.Protocol{v1.ProtocolHTTP1, v1.ProtocolH2C}
			if d.Spec.TLS != nil {
				want, protocols = tls, []v1.Protocol{v1.ProtocolHTTP1, v1.ProtocolH2, v1.ProtocolH3}
			}
			if d.Spec.Address != want || !slices.Equal(d.Spec.Protocols, protocols) {
				t.Errorf("Listener %s: %s %v, want %s %v", d.Metadata.Name, d.Spec.Address, d.Spec.Protocols, want, protocols)
			}
		case *v1.Site:
			if !slices.Equal(d.Spec.Hostnames, []string{"*"}) && len(d.Spec.Certificates) == 0 {
				t.Errorf("hostnames are %v", d.Spec.Hostnames)
			}
		}
	}
	if n != 2 {
		t.Errorf("%d listeners, want 2", n)
	}
}

func checkOrigins(t *testing.T, set *Set, addresses []string, capacity int) {
	t.Helper()
	for _, d := range set.Documents {
		p, ok := d.(*v1.OriginPool)
		if !ok {
			continue
		}
		for i, tier := range p.Spec.Tiers {
			if tier.Origins[0].Address != addresses[i] {
				t.Errorf("tier %s is at %s, want %s", tier.Name, tier.Origins[0].Address, addresses[i])
			}
		}
		if c := p.Spec.Tiers[0].Capacity; len(p.Spec.Tiers) == 2 && (v1.Value(c.InFlight) != capacity || c.Reserve != 20) {
			t.Errorf("capacity is %+v, want %d with a reserve of 20%%", c, capacity)
		}
	}
}

func TestProxyAndCacheExamplesHaveNothingElseOn(t *testing.T) {
	for name, kinds := range map[string][]v1.Kind{
		"proxy.yaml": {v1.KindListener, v1.KindListener, v1.KindSite, v1.KindOriginPool},
		"cache.yaml": {v1.KindListener, v1.KindListener, v1.KindSite, v1.KindCachePolicy, v1.KindOriginPool},
	} {
		var got []v1.Kind
		for _, d := range example(t, name, nil).Documents {
			k, _ := d.Meta()
			got = append(got, k)
			if c, ok := d.(*v1.CachePolicy); ok && (c.Spec.DefaultTTL != 0 || c.Spec.StaleIfError != 0 || c.Spec.StaleWhileRevalidate != 0) {
				t.Errorf("the cache makes lifetimes up: %+v", c.Spec)
			}
		}
		if !slices.Equal(got, kinds) {
			t.Errorf("%s holds %v, want %v", name, got, kinds)
		}
	}
}

func TestFullExampleUsesEveryPolicyKind(t *testing.T) {
	have := map[v1.Kind]bool{}
	for _, d := range example(t, "full.yaml", nil).Documents {
		k, _ := d.Meta()
		have[k] = true
	}
	for _, k := range []v1.Kind{v1.KindCachePolicy, v1.KindWafPolicy, v1.KindAccessPolicy, v1.KindRateLimit, v1.KindVisitorPolicy, v1.KindFloodPolicy} {
		if !have[k] {
			t.Errorf("no %s", k)
		}
	}
}

func TestServicesExampleHasEveryProtocolOfAService(t *testing.T) {
	var got []string
	for _, d := range example(t, "services.yaml", map[string]string{"LISTEN_TLS": "[::1]:443", "PASSTHROUGH": "raw.test"}).Documents {
		if s, ok := d.(*v1.Service); ok {
			got = append(got, s.Spec.Protocol+" "+s.Spec.Address)
		}
	}
	if want := []string{"tcp 127.0.0.1:8025", "udp 127.0.0.1:8053", "tls-passthrough [::1]:443"}; !slices.Equal(got, want) {
		t.Errorf("services are %v, want %v", got, want)
	}
	example(t, "services.yaml", nil)
}

func TestTheExampleOfAFleetIsOfNoUseToOneEdge(t *testing.T) {
	set := example(t, "fleet.yaml", nil)
	if unused := set.Unused(); len(unused) != 4 || len(set.Documents) != 4 || unused[0] != "Pop fra" {
		t.Errorf("%d documents, unused are %q", len(set.Documents), unused)
	}
}
