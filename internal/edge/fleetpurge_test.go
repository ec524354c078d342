package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/observe"
)

// fleetPurger is what internal/pop asks for.
type fleetPurger interface {
	Purge(ctx context.Context, entries [][]byte) error
	PurgeAll(ctx context.Context) error
}

func (b *bed) fleet() fleetPurger { return b.FleetPurges(b.metrics) }

// stored has a URL stored, and says so.
func (b *bed) stored(target string) {
	b.t.Helper()
	b.get("http1", target)
	if a := b.why(target); a.Result != "hit" {
		b.t.Fatalf("%s is not stored: %+v", target, a)
	}
}

func TestThePurgesOfAControlPlaneHold(t *testing.T) {
	b := newBed(t, tagged, cached(`{key: {query: except, parameters: ["utm_*"]}}`))
	host, _, _ := net.SplitHostPort(strings.TrimPrefix(b.base("http1"), "http://"))
	for _, c := range []struct{ name, entry, want string }{
		{"url", `{"kind":"url","site":"default/shop","host":"` + strings.ToUpper(host) + `","value":"/a%2Db?utm_x=1&q"}`, "purged by url " + host + "/a-b?q at "},
		{"url of another query", `{"kind":"url","site":"default/shop","value":"/a-b"}`, ""},
		{"url of another site", `{"kind":"url","site":"other/shop","value":"/a-b?q"}`, ""},
		{"path", `{"kind":"path","site":"default/shop","value":"/a-b"}`, "purged by path /a-b at "},
		{"prefix", `{"kind":"prefix","site":"default/shop","value":"/a-b"}`, "purged by prefix /a-b at "},
		{"tag", `{"kind":"tag","site":"default/shop","value":"PAGE-a-b"}`, "purged by tag page-a-b at "},
		{"tag of another organization", `{"kind":"tag","site":"other/shop","value":"page-a-b"}`, ""},
		{"host", `{"kind":"host","site":"default/shop","host":"` + host + `"}`, "purged by host " + host + " at "},
		{"site", `{"kind":"site","site":"default/shop"}`, "purged by site at "},
		{"organization", `{"kind":"organization","site":"default"}`, "purged by organization at "},
		{"another organization", `{"kind":"organization","site":"other"}`, ""},
		{"all", `{"kind":"all"}`, "purged by all at "},
		{"soft", `{"kind":"tag","site":"default/shop","value":"all","soft":true}`, "purged softly by tag all at "},
		{"kind of a later version", `{"kind":"colour","site":"default/shop","value":"red","new":[1]}`, "purged by site at "},
		{"soft kind of a later version", `{"kind":"colour","site":"default/shop","soft":true}`, "purged softly by site at "},
		{"kind of a later version, of an organization", `{"kind":"fleet","site":"default"}`, "purged by organization at "},
		{"later version, other site", `{"kind":"colour","site":"other/shop"}`, ""},
		{"a value that is none", `{"kind":"tag","site":"default/shop","value":"a b"}`, "purged by site at "},
		{"a path that is none", `{"kind":"path","site":"default/shop","value":"/%zz"}`, "purged by site at "},
		{"nothing that is known", `{"kind":"colour"}`, "purged softly by all at "},
		{"no JSON", `{"kind":`, "purged softly by all at "},
		{"not an object", `null`, "purged softly by all at "},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.stored("/a-b?q")
			if err := b.fleet().Purge(t.Context(), [][]byte{[]byte(c.entry)}); err != nil {
				t.Fatal(err)
			}
			a := b.why("/a-b?q")
			if c.want == "" && a.Result != "hit" || c.want != "" && (a.Result == "hit" || !strings.Contains(fmt.Sprint(a.Reasons), c.want)) {
				t.Errorf("%s: %v, want %q", a.Result, a.Reasons, c.want)
			}
		})
	}
}

func TestABatchOfTheControlPlaneIsKeptAsAWhole(t *testing.T) {
	folder := t.TempDir()
	b := newBed(t, tagged, cached("{}"), func(c *Config) { c.Data = folder })
	var batch [][]byte
	for i := range 3000 {
		batch = append(batch, fmt.Appendf(nil, `{"kind":"path","site":"default/shop","value":"/p%d"}`, i))
	}
	for _, p := range []string{"/p0", "/p1500", "/p2999"} {
		b.stored(p)
	}
	before := b.purges.State().Entries
	if err := b.fleet().Purge(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if n := b.purges.State().Entries - before; n != len(batch) {
		t.Errorf("%d entries in the log of %d", n, len(batch))
	}
	for _, p := range []string{"/p0", "/p1500", "/p2999"} {
		if b.why(p).Result == "hit" {
			t.Errorf("%s is a hit", p)
		}
	}
	// It is on the disk before Purge returned: a copy of the file, as a crash would leave it, has it all.
	copied := filepath.Join(t.TempDir(), "log")
	data, err := os.ReadFile(filepath.Join(folder, "purge", "log"))
	if err == nil {
		err = os.WriteFile(copied, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := purge.OpenFile(copied, purge.DefaultEntries)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Damaged() || f.State().Entries != before+len(batch) {
		t.Errorf("after a crash: damaged %v, %d entries", f.Damaged(), f.State().Entries)
	}
	if err := b.fleet().Purge(t.Context(), nil); err != nil || b.purges.State().Entries != before+len(batch) {
		t.Error("nothing is something", err)
	}
}

func TestWithoutItsSiteAURLIsPurgedWithEveryQuery(t *testing.T) {
	b := newBed(t, tagged, cached(`{key: {query: except, parameters: ["utm_*"]}}`))
	b.stored("/a?q")
	b.stored("/b?q")
	docs := cached(`{key: {query: except, parameters: ["utm_*"]}}`)
	b.apply(strings.Replace(docs, "metadata: {name: shop}", "metadata: {name: market}", 1)) // the site is out of service, and comes back with what is stored
	if _, err := b.siteOf("default/shop"); err == nil {
		t.Fatal("the site is in service still")
	}
	if err := b.fleet().Purge(t.Context(), [][]byte{[]byte(`{"kind":"url","site":"default/shop","value":"/a?q&utm_x=1"}`)}); err != nil {
		t.Fatal(err)
	}
	b.apply(docs)
	if a := b.why("/a?q"); a.Result == "hit" {
		t.Errorf("%+v", a)
	}
	if a := b.why("/b?q"); a.Result != "hit" {
		t.Errorf("another path: %+v", a)
	}
}

func TestEverythingIsStaleAfterAGapThatNobodyRemembers(t *testing.T) {
	b := newBed(t, tagged, cached("{}"))
	b.stored("/a")
	if err := b.fleet().PurgeAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := b.why("/a"); a.Result == "hit" || !strings.Contains(fmt.Sprint(a.Reasons), "purged softly by all at ") {
		t.Errorf("%s %v", a.Result, a.Reasons)
	}
}

func TestASealedEdgeSaysThatNothingHolds(t *testing.T) {
	b := newBed(t, tagged, cached("{}"))
	b.cache.Seal()
	if b.fleet().Purge(t.Context(), [][]byte{[]byte(`{"kind":"all"}`)}) == nil || b.fleet().PurgeAll(t.Context()) == nil {
		t.Error("another process has taken over, and this one acknowledges")
	}
}

// TestNoEntryIsRefused: what cannot be read as it is meant is taken for something wider, of the same site where it names one.
func TestNoEntryIsRefused(t *testing.T) {
	p := (&Edge{}).FleetPurges(observe.New())
	rapid.Check(t, func(t *rapid.T) {
		var data []byte
		if rapid.Bool().Draw(t, "raw") {
			data = rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		} else {
			data, _ = json.Marshal(map[string]any{
				"kind":  rapid.SampledFrom([]string{"", "all", "organization", "site", "host", "prefix", "path", "url", "tag", "group", "colour"}).Draw(t, "kind"),
				"site":  rapid.SampledFrom([]string{"", "acme", "acme/shop", strings.Repeat("x", 600) + "/y"}).Draw(t, "site"),
				"host":  rapid.SampledFrom([]string{"", "Shop.example", strings.Repeat("h", 600)}).Draw(t, "host"),
				"value": rapid.OneOf(rapid.String(), rapid.Just("/a/../b%2e?x"), rapid.Just(strings.Repeat("/", 100)), rapid.Just("/"+strings.Repeat("v", 17<<10))).Draw(t, "value"),
				"soft":  rapid.Bool().Draw(t, "soft"),
			})
		}
		e := p.read(data)
		if err := e.Check(); err != nil {
			t.Fatalf("%s becomes %+v: %v", data, e, err)
		}
		var in purge.Entry
		if json.Unmarshal(data, &in) == nil && in.Kind == purge.Site && in.Check() == nil && (e.Site != in.Site || e.Kind != purge.Site) {
			t.Fatalf("%s becomes %+v", data, e)
		}
	})
}
