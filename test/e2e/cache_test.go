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
spec: {guard: "off", purge: {addresses: [127.0.0.0/8], tokens: [0123456789abcdef]}}
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
