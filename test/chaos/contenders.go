package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
)

// contender is an edge.
type contender struct {
	name   string
	write  func(b *bed) (config string, args []string)
	reload func(b *bed) error
}

func contenders(relais string) []contender {
	hup := func(b *bed) error { return b.signal(syscall.SIGHUP) }
	return []contender{
		{"relais", func(b *bed) (string, []string) {
			return fmt.Sprintf(relaisConfig, b.addr, b.list("{address: %q}", ", ")),
				[]string{relais, "serve", "-f", b.file(), "--data", filepath.Join(b.dir, "data"), "--access-log", filepath.Join(b.dir, "access.log")}
		}, hup},
		{"nginx", func(b *bed) (string, []string) {
			return fmt.Sprintf(nginxConfig, b.addr, b.list("server %s max_fails=3 fail_timeout=5s;", " "), b.dir),
				[]string{"nginx", "-c", b.file(), "-e", filepath.Join(b.dir, "error.log")}
		}, hup},
		{"haproxy", func(b *bed) (string, []string) {
			n := 0
			var s strings.Builder
			for _, p := range b.proxies {
				n++
				fmt.Fprintf(&s, " server s%d %s\n", n, p.Listen)
			}
			return fmt.Sprintf(haproxyConfig, b.addr, s.String()), []string{"haproxy", "-W", "-f", b.file()}
		}, func(b *bed) error { return b.signal(syscall.SIGUSR2) }},
	}
}

// list names the origins' proxies.
func (b *bed) list(form, between string) string {
	var s []string
	for _, p := range b.proxies {
		s = append(s, fmt.Sprintf(form, p.Listen))
	}
	return strings.Join(s, between)
}

const relaisConfig = `apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "%s"}
---
apiVersion: relais/v1
kind: Site
metadata: {name: shop}
spec: {hostnames: ["*"], visitor: buyers, routes: [{pool: shop}]}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop}
spec:
  tiers: [{name: home, origins: [%s]}]
  health: {path: /healthz, interval: 1s, timeout: 1s}
---
apiVersion: relais/v1
kind: VisitorPolicy
metadata: {name: buyers}
spec:
  basket: [{path: /basket, methods: [POST]}]
  ordered: [{path: /checkout, methods: [POST]}]
`

const nginxConfig = `daemon off; pid %[3]s/nginx.pid; error_log %[3]s/error.log; worker_processes 1; user root;
events { worker_connections 4000; }
http {
  access_log %[3]s/access.log combined;
  client_body_temp_path %[3]s/body; proxy_temp_path %[3]s/proxy; fastcgi_temp_path %[3]s/fcgi; uwsgi_temp_path %[3]s/uwsgi; scgi_temp_path %[3]s/scgi;
  upstream shop { least_conn; %[2]s keepalive 64; }
  server { listen %[1]s; location / {
    proxy_pass http://shop; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    proxy_connect_timeout 1s; proxy_read_timeout 5s; proxy_next_upstream error timeout http_502 http_503 http_504; proxy_next_upstream_tries 3; } }
}
`

const haproxyConfig = `global
 maxconn 4000
 nbthread 1
defaults
 mode http
 timeout client 30s
 timeout server 5s
 timeout connect 1s
 option redispatch 1
 retries 3
 balance leastconn
frontend web
 bind %[1]s
 default_backend shop
backend shop
 option httpchk GET /healthz
 timeout check 1s
 default-server check inter 1s fall 3 rise 2 observe layer7 error-limit 5 on-error mark-down
%[2]s
`
