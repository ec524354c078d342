package edge

import (
	"io"
	"net/http"
	"testing"
)

// slashes has a protection of each kind that matches a path.
const slashes = `
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop}
spec: {tiers: [{name: a, origins: [{address: "${ORIGIN}"}]}]}
---
apiVersion: relais/v1
kind: RateLimit
metadata: {name: login}
spec: {requests: 1, per: 1h, burst: 1, path: /login}
---
apiVersion: relais/v1
kind: RateLimit
metadata: {name: each-path}
spec: {requests: 1, per: 1h, burst: 1, key: {on: path}, path: /each}
---
apiVersion: relais/v1
kind: AccessPolicy
metadata: {name: access}
spec:
  default: allow
  rules:
    - {action: deny, path: /denied}
    - {action: allow, path: /lounge/open}
    - {action: deny, path: /lounge}
---
apiVersion: relais/v1
kind: WafPolicy
metadata: {name: waf}
spec:
  rules:
    - {name: hidden, path: /hidden}
    - {name: asked, when: [{target: path, prefix: [/asked]}]}
    - {name: outside, path: /desk, when: [{target: path, prefix: [/desk/open], not: true}]}
  exclusions:
    - {path: /pay, tags: [attack-sqli]}
---
apiVersion: relais/v1
kind: Site
metadata: {name: shop}
spec:
  hostnames: ["127.0.0.1"]
  routes:
    - {name: all, pool: shop, access: access, rateLimits: [login, each-path], waf: waf}
`

func TestTwoSlashesShedNoProtectionAndObtainNoRelaxation(t *testing.T) {
	var path string
	b := newBed(t, func(_ http.ResponseWriter, r *http.Request) {
		path = r.URL.EscapedPath()
		_, _ = io.Copy(io.Discard, r.Body)
	}, slashes)
	const attack = "?id=1%27%20UNION%20SELECT%20password%20FROM%20users--%20"
	for _, c := range []struct {
		path string
		want int
	}{
		{"/login", 200},
		{"//login", 429},
		{"/%2Flogin", 429},
		{"//login//a", 429},
		{"/each/a", 200},
		{"/each//a", 429},
		{"/each/b", 200},
		{"/denied", 403},
		{"//denied", 403},
		{"/lounge/open", 200},
		{"/lounge//open", 403},
		{"//lounge/open", 403},
		{"/hidden", 403},
		{"//hidden", 403},
		{"/asked", 403},
		{"//asked", 403},
		{"/desk/open", 200},
		{"//desk/open", 403},
		{"/pay" + attack, 200},
		{"//pay" + attack, 403},
		{"/shop//a", 200},
	} {
		resp, body := b.send("http1", "GET", c.path, nil)
		if resp.StatusCode != c.want {
			t.Errorf("%s: %d, want %d: %.200s", c.path, resp.StatusCode, c.want, body)
		}
	}
	if path != "/shop//a" {
		t.Errorf("the origin was asked for %q", path)
	}
}
