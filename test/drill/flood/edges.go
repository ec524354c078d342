package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/relais-edge/relais/test/peer"
	"github.com/relais-edge/relais/test/proc"
)

// contender is a server in front of the shop.
type contender struct {
	name, program string
	write         func(e edge) (config string, args []string)
}

// edge is what a server is told: where it listens for HTTP/1.1 and for HTTP/2 in clear, and the shop.
type edge struct {
	s             settings
	http1, http2  string
	shop, dir     string
	program, file string
}

func relaisEdge(e edge) (string, []string) {
	r := peer.Relais{
		Program: e.program, Addr: e.http1, Dir: e.dir, Logs: e.s.keep != "",
		Site: `visitor: buyers, cache: pages, flood: shield, routes: [{pool: shop}]`,
		Pool: fmt.Sprintf("  tiers: [{name: home, capacity: {inFlight: %d}, origins: [{address: %q}]}]", e.s.slots, e.shop),
		Further: peer.Buyers + fmt.Sprintf(`---
apiVersion: relais/v1
kind: CachePolicy
metadata: {name: pages}
spec: {staleIfError: 1h}
---
apiVersion: relais/v1
kind: FloodPolicy
metadata: {name: shield}
spec:
  warmUp: %s
  steps: [stale, cache, limit, drop] # the drill's visitors solve no challenge
  cache: {paths: [/c, /p], parameters: [page]}
`, (e.s.calm*2/3).Round(time.Second)),
	}
	return r.Config(), r.Args(e.file)
}

// nginxEdge has limits by address that no visitor reaches, and a cache.
func nginxEdge(e edge) (string, []string) {
	n := peer.Nginx{
		Addr: e.http1, Dir: e.dir, Connections: 40_000, To: "shop",
		HTTP: fmt.Sprintf(`limit_req_zone $binary_remote_addr zone=each:16m rate=20r/s;
  limit_conn_zone $binary_remote_addr zone=conns:16m;
  limit_req zone=each burst=60 nodelay; limit_req_status 429;
  limit_conn conns 32; limit_conn_status 429;
  proxy_cache_path %[1]s/cache keys_zone=pages:16m max_size=256m;
  proxy_cache pages; proxy_cache_lock on; proxy_cache_use_stale error timeout updating http_503;
  upstream shop { server %[2]s max_conns=%[3]d; keepalive 64; }
  server { listen %[4]s http2; location / { proxy_pass http://shop; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; } }`,
			e.dir, e.shop, e.s.slots, e.http2),
	}
	return n.Config(), n.Args(e.file)
}

// haproxyEdge limits by address, queues before the shop, and lets those with a basket's cookie go first.
func haproxyEdge(e edge) (string, []string) {
	h := peer.HAProxy{
		Addr: e.http1, Connections: 40_000, Server: "30s", Connect: "5s",
		Defaults: []string{"timeout queue 5s", "timeout http-request 10s", "timeout http-keep-alive 60s"},
		Frontend: []string{
			"bind " + e.http2 + " proto h2",
			"stick-table type ip size 200k expire 60s store http_req_rate(10s),conn_cur",
			"http-request track-sc0 src",
			"http-request deny deny_status 429 if { sc_http_req_rate(0) gt 200 }",
			"http-request deny deny_status 429 if { sc_conn_cur(0) gt 32 }",
			"http-request set-priority-class int(-10) if { req.cook(basket) -m found }",
			"default_backend shop",
		},
		Sections: fmt.Sprintf("cache pages\n total-max-size 256\n max-object-size 1000000\n max-age 60\nbackend shop\n http-request cache-use pages\n http-response cache-store pages\n server s %s maxconn %d\n", e.shop, e.s.slots),
	}
	return h.Config(), []string{"haproxy", "-f", e.file}
}

// start starts a server and returns it once it listens.
func (c contender) start(ctx context.Context, s settings, shop, dir string) (e edge, stop func(), err error) {
	ports, err := proc.Ports(2)
	if err != nil {
		return e, func() {}, err
	}
	e = edge{s: s, http1: proc.Addr(ports[0]), http2: proc.Addr(ports[1]), shop: shop, dir: dir, program: c.program, file: filepath.Join(dir, "edge.yaml")}
	config, args := c.write(e)
	if c.name == "relais" {
		e.http2 = e.http1
	}
	if err := os.WriteFile(e.file, []byte(config), 0o600); err != nil {
		return e, func() {}, err
	}
	p, err := proc.Start(proc.Spec{Name: c.name, Args: args, Log: filepath.Join(dir, "log"), Core: proc.AnyCore})
	if err != nil {
		return e, func() {}, err
	}
	stop = func() { p.Stop(3 * time.Second) }
	up, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return e, stop, p.WaitListen(up, e.http2)
}
