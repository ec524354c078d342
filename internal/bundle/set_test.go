package bundle_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/compile"
	"github.com/relais-edge/relais/internal/document"
)

func site(org, name string, hosts ...string) *bundle.Site {
	return &bundle.Site{Key: bundle.NewKey(org, name), Hostnames: hosts}
}

func of(org string, sites ...*bundle.Site) *bundle.Bundle {
	return &bundle.Bundle{Format: bundle.Format, Organization: org, Sites: sites}
}

func on(s *bundle.Site, listeners ...bundle.Key) *bundle.Site {
	s.Listeners = listeners
	return s
}

func replace(t testing.TB, s *bundle.Set, bundles ...*bundle.Bundle) {
	t.Helper()
	for _, b := range bundles {
		if err := s.Replace(b.Organization, b); err != nil {
			t.Fatal(err)
		}
	}
}

// served tells which sites a merged bundle has, each with its host names.
func served(b *bundle.Bundle) string {
	var words []string
	for _, s := range b.Sites {
		words = append(words, fmt.Sprint(s.Key, s.Hostnames))
	}
	return strings.Join(words, " ")
}

func TestMergeGivesWhatCompileDoes(t *testing.T) {
	for _, path := range []string{"../compile/testdata/tenant/good.yaml", "../compile/testdata/delivery.yaml", "../compile/testdata/inherit.yaml", "../compile/testdata/resilience.yaml"} {
		set, problems := document.Load([]string{path}, func(string) (string, bool) { return "127.0.0.1:1", true })
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		want, wrong := compile.Compile(set.Documents)
		if len(wrong) > 0 {
			t.Fatal(path, wrong[0].Problem)
		}
		s, p := bundle.NewSet("default"), compile.Platform{Organization: "default"}
		own := map[string][]v1.Document{}
		for _, d := range set.Documents {
			_, m := d.Meta()
			own[m.Organization] = append(own[m.Organization], d)
			if l, is := d.(*v1.Listener); is {
				p.Listeners = append(p.Listeners, l)
			}
		}
		for org, docs := range own {
			b, wrong := compile.Tenant(org, docs, p)
			if len(wrong) > 0 {
				t.Fatal(path, wrong[0].Problem)
			}
			replace(t, s, b)
		}
		got, conflicts := s.Merge()
		if len(conflicts) > 0 || text(t, got) != text(t, want) {
			t.Errorf("%s: %v\ngot  %s\nwant %s", path, conflicts, text(t, got), text(t, want))
		}
	}
}

func text(t testing.TB, x any) string {
	t.Helper()
	b, err := json.MarshalIndent(x, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWhoHadAHostNameFirstKeepsIt(t *testing.T) {
	s := bundle.NewSet("default")
	replace(t, s, of("b", site("b", "s", "x", "b")), of("a", site("a", "s", "x", "a")), of("c", site("c", "s", "x")))
	b, conflicts := s.Merge()
	if got := served(b); got != "a/s[a] b/s[x b] c/s[]" {
		t.Error(got)
	}
	if want := []bundle.Conflict{{"x", "a/s", "b/s"}, {"x", "c/s", "b/s"}}; !slices.Equal(conflicts, want) {
		t.Error(conflicts)
	}
	// It moves to another site of the organization, which keeps it.
	replace(t, s, of("b", site("b", "s", "b"), site("b", "t", "x")))
	b, _ = s.Merge()
	if got := served(b); got != "a/s[a] b/s[b] b/t[x] c/s[]" {
		t.Error(got)
	}
	// Free, it is the next one's in the line.
	replace(t, s, of("b", site("b", "s", "b")))
	b, conflicts = s.Merge()
	if got := served(b); got != "a/s[x a] b/s[b] c/s[]" || len(conflicts) != 1 {
		t.Error(got, conflicts)
	}
	if err := s.Replace("a", nil); err != nil {
		t.Fatal(err)
	}
	b, conflicts = s.Merge()
	if got := served(b); got != "b/s[b] c/s[x]" || len(conflicts) != 0 || s.Len() != 2 {
		t.Error(got, conflicts)
	}
}

func TestAHostNameOnListenersApartIsNoConflict(t *testing.T) {
	s := bundle.NewSet("default")
	replace(t, s, of("a", on(site("a", "s", "x"), "default/one")), of("b", on(site("b", "s", "x"), "default/two")))
	b, conflicts := s.Merge()
	if got := served(b); got != "a/s[x] b/s[x]" || len(conflicts) != 0 {
		t.Error(got, conflicts)
	}
	// Who wants more takes nothing from who has it.
	replace(t, s, of("a", site("a", "s", "x")))
	b, conflicts = s.Merge()
	if got := served(b); got != "a/s[] b/s[x]" || len(conflicts) != 1 {
		t.Error(got, conflicts)
	}
	// Who wants less keeps his place.
	replace(t, s, of("c", site("c", "s", "y")), of("d", on(site("d", "s", "y"), "default/one")), of("c", on(site("c", "s", "y"), "default/one")))
	b, _ = s.Merge()
	if got := served(b); got != "a/s[] b/s[x] c/s[y] d/s[]" {
		t.Error(got)
	}
}

func platform(addresses ...string) *bundle.Bundle {
	b := of("default")
	for i, a := range addresses {
		b.Listeners = append(b.Listeners, bundle.Listener{Key: bundle.NewKey("default", fmt.Sprint("l", i)), Spec: v1.ListenerSpec{Address: a, TLS: &v1.ListenerTLS{}}})
	}
	return b
}

func TestListenersGivePortsAndShowCertificates(t *testing.T) {
	redirect := func(s *bundle.Site) *bundle.Site { s.HTTPS.Redirect = true; return s }
	a := of("a", redirect(site("a", "s", "x", "y")), on(redirect(site("a", "t", "z")), "default/l1"))
	a.Hosts = []bundle.CertificateHosts{
		{Site: "a/s", Hostnames: []string{"x", "y"}, Certificates: []bundle.Key{"a/c"}},
		{Site: "a/t", Listeners: []bundle.Key{"default/l1"}, Hostnames: []string{"z"}, Certificates: []bundle.Key{"a/d"}},
	}
	s := bundle.NewSet("default")
	replace(t, s, of("b", site("b", "s", "x")), a, platform(":443", ":8443"))
	b, _ := s.Merge()
	if b.Sites[0].HTTPS.Port != 443 || b.Sites[1].HTTPS.Port != 8443 || a.Sites[0].HTTPS.Port != 0 {
		t.Error(b.Sites[0].HTTPS, b.Sites[1].HTTPS, a.Sites[0].HTTPS)
	}
	// The certificate is not shown for the name that another has.
	got := fmt.Sprint(b.Listeners[0].Hosts, b.Listeners[1].Hosts)
	if want := "[{ [] [y] [a/c]}] [{ [] [y] [a/c]} { [] [z] [a/d]}]"; got != want {
		t.Error(got)
	}
	replace(t, s, platform(":444"))
	c, _ := s.Merge()
	if c.Sites[0].HTTPS.Port != 444 || c.Sites[1].HTTPS.Port != 0 {
		t.Error(c.Sites[0].HTTPS, c.Sites[1].HTTPS)
	}
}

func TestWhatDidNotChangeKeepsItsPointers(t *testing.T) {
	made := func() *bundle.Bundle {
		r := site("a", "s", "x", "y")
		r.HTTPS.Redirect = true
		return of("a", r, site("a", "t", "z"))
	}
	s := bundle.NewSet("default")
	replace(t, s, platform(":443"), of("b", site("b", "s", "x")), made())
	b, _ := s.Merge()
	s = s.Clone()
	replace(t, s, made()) // equal, and all pointers are new
	c, _ := s.Merge()
	if !slices.Equal(b.Sites, c.Sites) {
		t.Error("sites that did not change have new pointers")
	}
	changed := made()
	changed.Sites[1].Hostnames = []string{"w"}
	replace(t, s, changed)
	d, _ := s.Merge()
	if d.Sites[0] != b.Sites[0] || d.Sites[1] == b.Sites[1] || d.Sites[2] != b.Sites[2] {
		t.Error("the change of one site is not that of one site")
	}
}

func TestASetTakesNothingOfOthers(t *testing.T) {
	s := bundle.NewSet("default")
	ports := platform(":1")
	ports.Organization, ports.Listeners[0].Key = "a", "a/l"
	for name, b := range map[string]*bundle.Bundle{
		"opens ports":         ports,
		"is of organization":  of("b", site("b", "s", "x")),
		"no name of organiza": of("a", site("b", "s", "x")),
	} {
		if err := s.Replace("a", b); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, _ := s.Merge(); s.Len() != 0 || len(b.Sites)+len(b.Listeners) != 0 {
		t.Error("what was refused is in the set")
	}
}

// TestASetIsWhatItsHistorySays holds sets against a model that keeps each host name's line in a list.
func TestASetIsWhatItsHistorySays(t *testing.T) {
	type want struct{ org, site string }
	rapid.Check(t, func(t *rapid.T) {
		s := bundle.NewSet("default")
		line := map[string][]want{}
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			org := rapid.SampledFrom([]string{"a", "a-b", "b", "c"}).Draw(t, "organization")
			hosts := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"u", "v", "w", "*.x", "*"}), rapid.ID).Draw(t, "hosts")
			var b *bundle.Bundle
			if rapid.IntRange(0, 5).Draw(t, "none") > 0 {
				b = of(org, site(org, "s", hosts...))
			} else {
				hosts = nil
			}
			next := s.Clone()
			before, _ := s.Merge()
			if err := next.Replace(org, b); err != nil {
				t.Fatal(err)
			}
			_, _ = next.Merge()
			if after, _ := s.Merge(); served(after) != served(before) {
				t.Fatal("a clone changes the set")
			}
			s = next
			for _, h := range []string{"u", "v", "w", "*.x", "*"} {
				at := slices.IndexFunc(line[h], func(w want) bool { return w.org == org })
				wants := slices.Contains(hosts, h)
				switch {
				case wants && at < 0:
					line[h] = append(line[h], want{org, "s"})
				case !wants && at >= 0:
					line[h] = slices.Delete(line[h], at, at+1)
				}
			}
			merged, conflicts := s.Merge()
			told := 0
			for h, l := range line {
				told += max(0, len(l)-1)
				for i, w := range l {
					has := false
					for _, m := range merged.Sites {
						has = has || m.Key == bundle.NewKey(w.org, w.site) && slices.Contains(m.Hostnames, h)
					}
					if has != (i == 0) {
						t.Fatalf("%s: %s is at %d in the line, and has it: %v; %s", h, w.org, i, has, served(merged))
					}
				}
			}
			if told != len(conflicts) {
				t.Fatalf("%d conflicts, and %d are told", told, len(conflicts))
			}
			if !slices.IsSortedFunc(merged.Sites, func(x, y *bundle.Site) int { return strings.Compare(string(x.Key), string(y.Key)) }) {
				t.Fatal("the sites are not in order:", served(merged))
			}
		}
	})
}
