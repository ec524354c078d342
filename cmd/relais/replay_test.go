package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/replay"
)

func TestWhatIsAllowedIsNotOver(t *testing.T) {
	s := &replay.Summary{Requests: 1000, Kinds: []replay.Count{
		{Kind: replay.KindWAF, Count: 1, Share: 0.001}, {Kind: replay.KindCache, Count: 20, Share: 0.02}, {Kind: replay.KindStatus, Count: 1, Share: 0.001},
	}}
	for _, c := range []struct{ allow, over string }{
		{"", "waf cache status"},
		{"waf", "cache status"},
		{"waf cache=20 status=1", ""},
		{"waf=0 cache=19 status=0.1%", "waf cache"},
		{"waf cache=2% status", ""},
		{"waf cache=1.9% status", "cache"},
	} {
		a, err := parseAllow(strings.Fields(c.allow))
		if err != nil {
			t.Fatal(err)
		}
		over := a.over(s)
		want := strings.Fields(c.over)
		if len(over) != len(want) || slices.ContainsFunc(want, func(k string) bool {
			return !slices.ContainsFunc(over, func(o string) bool { return strings.Contains(o, "in "+k) })
		}) {
			t.Errorf("--allow %s: %q", c.allow, over)
		}
	}
	for _, bad := range []string{"nothing", "waf=x", "waf=-1", "cache=0.5", "cache=200%", "waf="} {
		if _, err := parseAllow([]string{bad}); err == nil {
			t.Errorf("--allow %s is taken", bad)
		}
	}
}

func TestRecordFlags(t *testing.T) {
	good := recordFlags{share: "2.5%", memory: "1MiB", organization: "1MiB", body: "1KiB", file: "off", clients: "hashed"}
	c, err := good.config("data", nil)
	if err != nil || c.Share != 0.025 || c.Bytes != 1<<20 || c.BodyBytes != 1<<10 || c.FileBytes != 0 {
		t.Errorf("%+v %v", c, err)
	}
	off := recordFlags{share: "off"}
	if c, err := off.config("data", nil); c != nil || err != nil {
		t.Errorf("%+v %v", c, err)
	}
	for name, change := range map[string]func(*recordFlags){
		"share": func(f *recordFlags) { f.share = "101%" }, "body": func(f *recordFlags) { f.body = "2MiB" }, "memory": func(f *recordFlags) { f.memory = "1KiB" },
		"file": func(f *recordFlags) { f.file = "1KiB" }, "clients": func(f *recordFlags) { f.clients = "some" }, "size": func(f *recordFlags) { f.organization = "much" },
	} {
		bad := good
		change(&bad)
		if _, err := bad.config("data", nil); err == nil {
			t.Errorf("%s: %+v is taken", name, bad)
		}
	}
}
