package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

const cachedShop = `apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "%s"}
---
apiVersion: relais/v1
kind: Site
metadata: {name: s}
spec: {hostnames: ["*"], cache: c, routes: [{pool: o}]}
---
apiVersion: relais/v1
kind: CachePolicy
metadata: {name: c}
spec: {guard: "off", feed: {tags: ["sku-{sku}"]}, trial: {}, purge: {addresses: [127.0.0.0/8], tokens: [0123456789abcdef]}}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: o}
spec: {tiers: [{origins: [{address: "%s"}]}]}
`

func TestTheCacheCommands(t *testing.T) {
	addr := ports(t, 1)[0]
	back := origin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=600")
		w.Header().Set("Cache-Tag", "t1")
		fmt.Fprint(w, r.Header.Get("X-Host"))
	})
	file := filepath.Join(t.TempDir(), "edge.yaml")
	sitemap, events := filepath.Join(t.TempDir(), "sitemap.xml"), filepath.Join(t.TempDir(), "events.ndjson")
	write(t, sitemap, `<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"><url><loc> http://`+addr+`/c?a=1&amp;b=2 </loc></url></urlset>`)
	write(t, events, `{"sku":"1"}`+"\n"+`{"sku":7}`+"\n")
	write(t, file, fmt.Sprintf(cachedShop, addr, back))
	env := "RELAIS_DATA=" + t.TempDir()
	serve(t, addr, file, env)
	status := func() string {
		resp, err := http.Get("http://" + addr + "/a")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Header.Get("Cache-Status")
	}
	status()
	if got := status(); !strings.Contains(got, "; hit") {
		t.Fatal(got)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"cache why http://" + addr + "/a", 0, "RFC 9111 section 4.2"},
		{"cache inspect http://" + addr + "/a", 0, "tags t1"},
		{"cache stats", 0, "default/s"},
		{"cache top", 0, "requests"},
		{"cache purge --site s --tag t1", 0, "purge by tag t1, number "},
		{"cache why http://" + addr + "/a", 0, "purged by tag t1 at "},
		{"cache purge --site s", 1, "say what to purge"},
		{"cache purge --site none --all", 1, "no site default/none"},
		{"cache top --by size", 2, "requests or bytes"},
		{"cache warm --site s http://" + addr + "/b http://" + addr + "/b2", 0, "2 in all, 2 stored"},
		{"cache warm --site s -o json http://" + addr + "/b", 0, `"fresh": 1`},
		{"cache warm --site s http://other.invalid:1/b nonsense", 1, "is no whole URL"},
		{"cache warm --site s -f " + sitemap, 0, "1 in all, 1 stored"},
		{"cache warm --site s", 2, "0 URLs"},
		{"cache warm status --site s", 0, "done in"},
		{"cache purge --site s --tag t1 --warm", 0, "job "},
		{"cache feed --site s -f " + events, 1, "all taken up to line 2"},
		{"cache feed status", 0, "p99"},
		{"cache feed status -o json", 0, `"purged": 1`},
		{"cache feed --site s", 2, "give a file"},
		{"cache trial --site s", 3, "no page was compared yet"},
		{"cache trial --site none", 1, "has a trial"},
		{"cache selftest --site s http://" + addr + "/a", 3, "poisoning with X-Host"},
		{"cache selftest --site other http://" + addr + "/a", 1, "not of other"},
	} {
		code, out := run(t, []string{env}, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("relais %s: code %d, want %d and %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
	for _, token := range []string{"", "0123456789abcdef"} {
		status()
		req, _ := http.NewRequestWithContext(t.Context(), "PURGE", "http://"+addr+"/a", nil)
		want := 403
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
			want = 200
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("PURGE: %d, want %d", resp.StatusCode, want)
		}
		if hit := strings.Contains(status(), "; hit"); hit != (want == 403) {
			t.Errorf("after a PURGE with status %d a hit: %t", resp.StatusCode, hit)
		}
	}
}
