package compile_test

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/compile"
)

// whole are documents for every name that made draws, so that what it changes is mostly good.
func whole(organization string) []v1.Document {
	var docs []v1.Document
	for _, name := range []string{"a", "b", "c"} {
		m := v1.Metadata{Name: name, Organization: organization}
		p := &v1.OriginPool{Metadata: m}
		p.Spec.Tiers = []v1.Tier{{Origins: []v1.Origin{{Address: "192.0.2.1:80"}}}}
		cert := &v1.Certificate{Metadata: m, Spec: v1.CertificateSpec{Internal: &v1.InternalCertificate{Hostnames: []string{"x.example"}}}}
		docs = append(docs, p, cert, &v1.CachePolicy{Metadata: m}, &v1.FloodPolicy{Metadata: m})
	}
	if organization == "default" {
		docs = append(docs, aListener(organization, "tls", ":443", true))
	}
	return docs
}

// made draws a document of few names, so that documents meet: they name each other, clash and miss.
func made(t *rapid.T, organization string) v1.Document {
	if organization != "default" && rapid.IntRange(0, 9).Draw(t, "a port") > 0 {
		return makeOf(t, organization, "site", "site", "site", "pool", "pool", "certificate", "cache", "flood")
	}
	return makeOf(t, organization, "site", "site", "site", "pool", "certificate", "cache", "listener")
}

func makeOf(t *rapid.T, organization string, kinds ...string) v1.Document {
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	m := v1.Metadata{Name: pick("name", "a", "b", "c"), Organization: organization}
	var d v1.Document
	switch pick("kind", kinds...) {
	case "site":
		s := &v1.Site{Metadata: m}
		s.Spec.Hostnames = []string{m.Name + ".example"}
		if pick("clash", "", "", "", "", "", "yes") != "" {
			s.Spec.Hostnames = append(s.Spec.Hostnames, "a.example")
			s.Spec.Hostnames = slices.Compact(s.Spec.Hostnames)
		}
		s.Spec.Cache, s.Spec.Flood = pick("cache", "", "", "a", "b"), pick("flood", "", "", "a")
		if c := pick("certificate", "", "", "a", "b"); c != "" {
			s.Spec.Certificates = []string{c}
		}
		if l := pick("listener", "", "", "", "tls", "tls", "a"); l != "" {
			s.Spec.Listeners = []string{l}
		}
		s.Spec.HTTPS.Redirect = pick("redirect", "", "", "yes") != ""
		s.Spec.Routes = []v1.Route{{Pool: pick("pool", "a", "b", "c")}}
		d = s
	case "pool":
		p := &v1.OriginPool{Metadata: m}
		p.Spec.Tiers = []v1.Tier{{Origins: []v1.Origin{{Address: pick("origin", "192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80", "127.0.0.1:80")}}}}
		if c := pick("client", "", "", "a"); c != "" {
			p.Spec.Connection.TLS = &v1.OriginTLS{ClientCertificate: c}
		}
		d = p
	case "certificate":
		c := &v1.Certificate{Metadata: m}
		c.Spec.Internal = &v1.InternalCertificate{}
		if h := pick("of", "", "x.example", "y.example", "z.example"); h != "" {
			c.Spec.Internal.Hostnames = []string{h}
		}
		d = c
	case "cache":
		d = &v1.CachePolicy{Metadata: m}
	case "flood":
		d = &v1.FloodPolicy{Metadata: m}
	case "listener":
		d = aListener(organization, m.Name, pick("address", ":80", ":81", ":82", ":83"), pick("tls", "", "yes") != "")
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
		put := func(d v1.Document, revision int64) {
			v1.Default(d)
			kind, m := d.Meta()
			k := id{kind, m.Name}
			if there[k] == nil {
				order = append(order, k)
			}
			there[k] = d
			c.Put(d, revision)
			if c.Revision(kind, m.Name) != revision {
				r.Fatal("the revision is not kept")
			}
		}
		for _, d := range whole(organization) {
			put(d, 1)
		}
		for step := range rapid.IntRange(1, 25).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"put", "put", "put", "put", "put", "put", "delete", "platform"}).Draw(r, "step") {
			case "put":
				put(made(r, organization), int64(step+2))
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
	t.Logf("%d good and %d bad bundles", good, bad)
	if good < 100 || bad < 100 {
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

func TestIncrementalFindsWhatAChangeBreaksElsewhere(t *testing.T) {
	m := func(name string) v1.Metadata { return v1.Metadata{Name: name, Organization: "default"} }
	begin := func() *compile.Incremental {
		c := compile.NewIncremental("default", compile.Platform{Organization: "default"})
		pool := &v1.OriginPool{Metadata: m("a")}
		pool.Spec.Tiers = []v1.Tier{{Origins: []v1.Origin{{Address: "127.0.0.1:80"}}}}
		pool.Spec.Connection.TLS = &v1.OriginTLS{ClientCertificate: "a"}
		site := &v1.Site{Metadata: m("a"), Spec: v1.SiteSpec{Hostnames: []string{"a.example"}, Routes: []v1.Route{{Pool: "a"}}}}
		cert := &v1.Certificate{Metadata: m("a"), Spec: v1.CertificateSpec{Internal: &v1.InternalCertificate{Hostnames: []string{"x.example"}}}}
		for _, d := range []v1.Document{pool, site, cert} {
			v1.Default(d)
			c.Put(d, 1)
		}
		if _, problems := c.Compile(); len(problems) > 0 {
			t.Fatal(texts(problems))
		}
		return c
	}
	nameless := &v1.Certificate{Metadata: m("a"), Spec: v1.CertificateSpec{Internal: &v1.InternalCertificate{}}}
	for _, d := range []v1.Document{nameless, aListener("default", "circle", ":80", false)} {
		c := begin()
		c.Put(d, 2)
		if _, problems := c.Compile(); len(problems) != 1 {
			t.Errorf("%T: problems %v, want one", d, texts(problems))
		}
		kind, meta := d.Meta()
		if c.Delete(kind, meta.Name); kind == v1.KindListener {
			if _, problems := c.Compile(); len(problems) > 0 {
				t.Error("the circle is gone, and still there is", texts(problems))
			}
		}
	}
}
