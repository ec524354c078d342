package compile_test

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/compile"
)

// made draws a document of few names, so that documents meet: they name each other, clash and miss.
func made(t *rapid.T, organization string) v1.Document {
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	m := v1.Metadata{Name: pick("name", "a", "b", "c"), Organization: organization}
	var d v1.Document
	switch pick("kind", "site", "site", "site", "pool", "pool", "certificate", "cache", "flood", "listener") {
	case "site":
		s := &v1.Site{Metadata: m}
		s.Spec.Hostnames = []string{m.Name + ".example"}
		if pick("clash", "", "", "", "yes") != "" {
			s.Spec.Hostnames = append(s.Spec.Hostnames, "a.example")
			s.Spec.Hostnames = slices.Compact(s.Spec.Hostnames)
		}
		s.Spec.Cache, s.Spec.Flood = pick("cache", "", "", "a", "b"), pick("flood", "", "", "a")
		if c := pick("certificate", "", "", "a", "b"); c != "" {
			s.Spec.Certificates = []string{c}
		}
		if l := pick("listener", "", "", "", "a", "tls"); l != "" {
			s.Spec.Listeners = []string{l}
		}
		s.Spec.HTTPS.Redirect = pick("redirect", "", "", "yes") != ""
		s.Spec.Routes = []v1.Route{{Pool: pick("pool", "a", "b", "c")}}
		d = s
	case "pool":
		p := &v1.OriginPool{Metadata: m}
		p.Spec.Tiers = []v1.Tier{{Origins: []v1.Origin{{Address: pick("origin", "192.0.2.1:80", "192.0.2.2:80", "127.0.0.1:80")}}}}
		if c := pick("client", "", "", "a"); c != "" {
			p.Spec.Connection.TLS = &v1.OriginTLS{ClientCertificate: c}
		}
		d = p
	case "certificate":
		c := &v1.Certificate{Metadata: m}
		c.Spec.Internal = &v1.InternalCertificate{}
		if h := pick("of", "", "x.example", "y.example"); h != "" {
			c.Spec.Internal.Hostnames = []string{h}
		}
		d = c
	case "cache":
		d = &v1.CachePolicy{Metadata: m}
	case "flood":
		d = &v1.FloodPolicy{Metadata: m}
	case "listener":
		d = aListener(organization, m.Name, pick("address", ":80", ":81"), false)
	}
	v1.Default(d)
	return d
}

func aListener(organization, name, address string, tls bool) *v1.Listener {
	l := &v1.Listener{Metadata: v1.Metadata{Name: name, Organization: organization}, Spec: v1.ListenerSpec{Address: address}}
	if tls {
		l.Spec.TLS = &v1.ListenerTLS{}
	}
	v1.Default(l)
	return l
}

// TestIncrementalIsTheFullCompile changes documents at random and compares each bundle, and each list
// of problems, with what Tenant makes of the same documents.
func TestIncrementalIsTheFullCompile(t *testing.T) {
	platforms := [][]*v1.Listener{
		{aListener("default", "tls", ":443", true)},
		{aListener("default", "tls", ":443", true), aListener("default", "a", ":80", false)},
		nil,
	}
	good, bad := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		organization := rapid.SampledFrom([]string{"shop", "default"}).Draw(r, "organization")
		p := compile.Platform{Organization: "default", Listeners: platforms[0]}
		c := compile.NewIncremental(organization, p)
		type id struct {
			kind v1.Kind
			name string
		}
		there := map[id]v1.Document{}
		var order []id
		for step := range rapid.IntRange(1, 40).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"put", "put", "put", "put", "delete", "platform"}).Draw(r, "step") {
			case "put":
				d := made(r, organization)
				kind, m := d.Meta()
				k := id{kind, m.Name}
				if there[k] == nil {
					order = append(order, k)
				}
				there[k] = d
				c.Put(d, int64(step+1))
				if c.Revision(kind, m.Name) != int64(step+1) {
					r.Fatal("the revision is not kept")
				}
			case "delete":
				if len(order) > 0 {
					i := rapid.IntRange(0, len(order)-1).Draw(r, "which")
					k := order[i]
					order = slices.Delete(order, i, i+1)
					delete(there, k)
					c.Delete(k.kind, k.name)
				}
			case "platform":
				p.Listeners = rapid.SampledFrom(platforms).Draw(r, "platform")
				c.SetListeners(p.Listeners)
			}
			if rapid.Bool().Draw(r, "later") {
				continue
			}
			var docs []v1.Document
			for _, k := range order {
				docs = append(docs, there[k])
			}
			want, problems := compile.Tenant(organization, docs, p)
			got, found := c.Compile()
			if len(problems) > 0 {
				bad++
			} else {
				good++
			}
			a, b := encode(t, golden{want, sorted(problems)}), encode(t, golden{got, sorted(found)})
			if !bytes.Equal(a, b) {
				r.Fatalf("full:\n%s\nincremental:\n%s", a, b)
			}
		}
	})
	if good == 0 || bad == 0 {
		t.Errorf("%d good and %d bad bundles: nothing was proved", good, bad)
	}
}

func sorted(problems []compile.Problem) []string {
	out := texts(problems)
	slices.Sort(out)
	return out
}

func TestIncrementalCompilesOnlyWhatAChangeReaches(t *testing.T) {
	c := compile.NewIncremental("shop", compile.Platform{Organization: "default"})
	put := func(d v1.Document) {
		v1.Default(d)
		c.Put(d, 1)
	}
	pool := func(name, origin string) *v1.OriginPool {
		p := &v1.OriginPool{Metadata: v1.Metadata{Name: name, Organization: "shop"}}
		p.Spec.Tiers = []v1.Tier{{Origins: []v1.Origin{{Address: origin}}}}
		return p
	}
	for _, name := range []string{"a", "b", "c"} {
		put(pool(name, "192.0.2.1:80"))
		s := &v1.Site{Metadata: v1.Metadata{Name: name, Organization: "shop"}}
		s.Spec.Hostnames, s.Spec.Routes = []string{name + ".example"}, []v1.Route{{Pool: name}}
		put(s)
	}
	before, problems := c.Compile()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	put(pool("b", "192.0.2.2:80"))
	after, problems := c.Compile()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for i, same := range []bool{true, false, true} {
		if (before.Sites[i] == after.Sites[i]) != same {
			t.Errorf("site %s: taken over %v, want %v", after.Sites[i].Key, !same, same)
		}
	}
}
