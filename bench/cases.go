package main

import "fmt"

// benchCase is one way to load servers, the same for all of them.
type benchCase struct {
	name   string
	about  string
	path   string
	bytes  int  // of the answer's body
	tls    bool // TLS 1.3, connections kept
	h2     bool // HTTP/2, many streams on few connections; needs tls
	cached bool // the backend must not be asked while it is measured
	rows   []row
}

// row is one server in one role.
type row struct {
	name   string
	server string // a key of servers
	port   string // the name of the port of that role
}

// baseline is the row that ratios are to.
const baseline = "nginx"

// product is the row that the goals are about.
const product = "relais"

func cases() []benchCase {
	proxies := []row{
		{baseline, "nginx", "nginx-proxy"},
		{"haproxy", "haproxy", "haproxy-proxy"},
		{"caddy", "caddy", "caddy-proxy"},
		{"ReverseProxy", "reverseproxy", "reverseproxy"},
		{product, "relais", "relais-clear"},
	}
	return []benchCase{
		{
			name: "hit1k", about: "1 KB from a cache or a file, HTTP/1.1 keep-alive", path: "/hit/1k", bytes: 1 << 10, cached: true,
			rows: []row{
				{baseline, "nginx", "nginx-file"},
				{"nginx proxy_cache", "nginx", "nginx-cache"},
				{"haproxy cache", "haproxy", "haproxy-cache"},
				{"varnish", "varnish", "varnish"},
				{"caddy", "caddy", "caddy-file"},
				{product, "relais", "relais-clear"},
			},
		},
		{name: "proxy1k", about: "1 KB from an origin, HTTP/1.1 keep-alive on both sides", path: "/proxy/1k", bytes: 1 << 10, rows: proxies},
		{name: "proxy64k", about: "64 KB from an origin, HTTP/1.1 keep-alive on both sides", path: "/proxy/64k", bytes: 64 << 10, rows: proxies},
		{
			name: "tls1k", about: "1 KB from a cache or a file, TLS 1.3, HTTP/1.1 keep-alive", path: "/hit/1k", bytes: 1 << 10, cached: true, tls: true,
			rows: []row{
				{baseline, "nginx", "nginx-tls"},
				{"haproxy cache", "haproxy", "haproxy-tls"},
				{"caddy", "caddy", "caddy-tls"},
				{product, "relais", "relais-tls"},
			},
		},
		{
			name: "h2hit1k", about: "1 KB from a cache or a file, TLS 1.3, HTTP/2, 16 connections of 10 streams", path: "/hit/1k", bytes: 1 << 10,
			cached: true, tls: true, h2: true,
			rows: []row{
				{baseline, "nginx", "nginx-tls"},
				{"haproxy cache", "haproxy", "haproxy-tls"},
				{"caddy", "caddy", "caddy-tls"},
				{"relais std", "relais", "relais-std"},
				{product, "relais", "relais-tls"},
			},
		},
	}
}

// url is where a row answers. TLS names localhost, so that clients send a
// server name.
func (c benchCase) url(port int) string {
	if c.tls {
		return fmt.Sprintf("https://localhost:%d%s", port, c.path)
	}
	return fmt.Sprintf("http://127.0.0.1:%d%s", port, c.path)
}

// ports are the names of all ports of the peers' configurations.
func ports() []string {
	return []string{
		"backend", "nginx-file", "nginx-tls", "nginx-cache", "nginx-proxy", "haproxy-cache", "haproxy-tls", "haproxy-proxy",
		"varnish", "caddy-file", "caddy-proxy", "caddy-tls", "reverseproxy", "relais-clear", "relais-tls", "relais-std", "relais-metrics",
	}
}
