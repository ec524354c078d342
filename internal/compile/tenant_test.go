package compile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/compile"
)

// split gives the documents of an organization, and the listeners of the platform "default".
func split(docs []v1.Document, organization string) (own []v1.Document, p compile.Platform) {
	p.Organization = "default"
	for _, d := range docs {
		_, m := d.Meta()
		if m.Organization == organization {
			own = append(own, d)
		}
		if l, ok := d.(*v1.Listener); ok && m.Organization == "default" {
			p.Listeners = append(p.Listeners, l)
		}
	}
	return own, p
}

func tenantResult(organization string, docs []v1.Document, p compile.Platform) golden {
	b, problems := compile.Tenant(organization, docs, p)
	return golden{Bundle: b, Problems: texts(problems)}
}

func texts(problems []compile.Problem) (out []string) {
	for _, p := range problems {
		kind, m := p.Document.Meta()
		out = append(out, string(kind)+" "+m.Organization+"/"+m.Name+" "+p.Problem.String())
	}
	return out
}

func TestTenantGivesTheGoldenBundlesAndProblems(t *testing.T) {
	paths, err := filepath.Glob("testdata/tenant/*.yaml")
	if err != nil || len(paths) < 2 {
		t.Fatal("testdata is missing", err)
	}
	for _, path := range paths {
		for _, organization := range []string{"default", "shop"} {
			own, p := split(load(t, path), organization)
			got := encode(t, tenantResult(organization, own, p))
			file := strings.TrimSuffix(path, ".yaml") + "." + organization + ".golden.json"
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; got:\n%s", file, got)
			}
		}
	}
}

func TestATenantsBundleStaysWhenThePlatformsListenersChange(t *testing.T) {
	own, p := split(load(t, "testdata/tenant/good.yaml"), "shop")
	want := encode(t, tenantResult("shop", own, p))
	for _, l := range p.Listeners {
		l.Spec.Address = "192.0.2.7" + l.Spec.Address[strings.LastIndexByte(l.Spec.Address, ':'):] + "1"
	}
	another := v1.Listener{Metadata: v1.Metadata{Name: "another", Organization: "default"}, Spec: v1.ListenerSpec{Address: ":9443", TLS: &v1.ListenerTLS{}}}
	p.Listeners = append(p.Listeners, &another)
	if got := encode(t, tenantResult("shop", own, p)); !bytes.Equal(got, want) {
		t.Errorf("the bundle follows listeners that no document names; got:\n%s", got)
	}
}

func TestTenantRefusesDocumentsOfOthers(t *testing.T) {
	docs := load(t, "testdata/tenant/good.yaml")
	_, p := split(docs, "shop")
	b, problems := compile.Tenant("shop", docs, p)
	if b != nil || len(problems) == 0 || !strings.Contains(problems[0].String(), `among the documents of "shop"`) {
		t.Error(b, problems)
	}
}

func TestATenantWithoutDocumentsIsEmpty(t *testing.T) {
	b, problems := compile.Tenant("shop", nil, compile.Platform{Organization: "default"})
	if len(problems) > 0 || b.Organization != "shop" || b.Format != bundle.Format || len(b.Sites) > 0 {
		t.Error(b, problems)
	}
}
