package main

import (
	"context"
	"fmt"
)

// benchCase is one way to load servers, the same for all of them.
type benchCase struct {
	name   string
	about  string
	path   string
	bytes  int  // of the answer's body
	tls    bool // TLS 1.3, connections kept
	http3  bool // HTTP/3, with another load generator
	cached bool // the backend must not be asked while it is measured
	urls   int  // that many URLs are asked for, at random; 0 is one
	idle   bool // connections are held, and memory is measured
	rows   []row
	load   loader // nil is wrk
}

// loader asks a server for some seconds.
type loader func(ctx context.Context, s *site, address string, conns, seconds int) (loadResult, error)

// row is one server in one role.
type row struct {
	name   string
	server string // a key of servers
	port   string // the name of the port of that role
	tls    bool   // TLS in this row only
}

// baseline is the row that ratios are to.
const baseline = "nginx"

// cacheBaseline is the row that a cache is compared with.
const cacheBaseline = "nginx proxy_cache"

// product is the row that the goals are about.
const product = "relais"

func cases() []benchCase {
	proxies := []row{
		{baseline, "nginx", "nginx-proxy", false},
		{"haproxy", "haproxy", "haproxy-proxy", false},
		{"caddy", "caddy", "caddy-proxy", false},
		{"ReverseProxy", "reverseproxy", "reverseproxy", false},
		{product, "relais", "relais-clear", false},
	}
	disks := []row{
		{cacheBaseline, "nginx", "nginx-cache", false},
		{product, "relais disk", "relais-disk", false},
	}
	return []benchCase{
		{
			name: "hit1k", about: "1 KB from a cache or a file, HTTP/1.1 keep-alive", path: "/hit/1k", bytes: 1 << 10, cached: true,
			rows: []row{
				{baseline, "nginx", "nginx-file", false},
				{cacheBaseline, "nginx", "nginx-cache", false},
				{"haproxy cache", "haproxy", "haproxy-cache", false},
				{"varnish", "varnish", "varnish", false},
				{"caddy", "caddy", "caddy-file", false},
				{product, "relais", "relais-clear", false},
			},
		},
		{
			name: "hit64k", about: "64 KB from a cache's memory, HTTP/1.1 keep-alive", path: "/hit/64k", bytes: 64 << 10, cached: true,
			rows: []row{
				{cacheBaseline, "nginx", "nginx-cache", false},
				{"haproxy cache", "haproxy", "haproxy-cache", false},
				{"varnish", "varnish", "varnish", false},
				{product, "relais", "relais-clear", false},
			},
		},
		{name: "disk1k", about: "1 KB from a cache's files in the page cache, 20,000 URLs, HTTP/1.1 keep-alive", path: "/hit/1k", bytes: 1 << 10, cached: true, urls: 20_000, rows: disks},
		{name: "disk64k", about: "64 KB from a cache's files in the page cache, 2,000 URLs, HTTP/1.1 keep-alive", path: "/hit/64k", bytes: 64 << 10, cached: true, urls: 2000, rows: disks},
		{name: "proxy1k", about: "1 KB from an origin, HTTP/1.1 keep-alive on both sides", path: "/proxy/1k", bytes: 1 << 10, rows: proxies},
		{name: "proxy64k", about: "64 KB from an origin, HTTP/1.1 keep-alive on both sides", path: "/proxy/64k", bytes: 64 << 10, rows: proxies},
		{
			name: "tls1k", about: "1 KB from a cache or a file, TLS 1.3, HTTP/1.1 keep-alive", path: "/hit/1k", bytes: 1 << 10, cached: true, tls: true,
			rows: []row{
				{baseline, "nginx", "nginx-tls", false},
				{"haproxy cache", "haproxy", "haproxy-tls", false},
				{"caddy", "caddy", "caddy-tls", false},
				{product, "relais", "relais-tls", false},
			},
		},
		{
			name: "handshake", about: "A full TLS 1.3 handshake (X25519, ECDSA P-256, no resumption) and 1 KB, a connection each", path: "/hit/1k",
			bytes: 1 << 10, cached: true, tls: true, load: loadHandshakes,
			rows: []row{
				{baseline, "nginx", "nginx-tls", false},
				{"haproxy cache", "haproxy", "haproxy-tls", false},
				{"caddy", "caddy", "caddy-tls", false},
				{product, "relais", "relais-tls", false},
			},
		},
		{
			name: "idle", about: "Resident memory of an idle keep-alive connection after one request, 10,000 held", path: "/hit/1k",
			bytes: 1 << 10, cached: true, idle: true,
			rows: []row{
				{baseline, "nginx", "nginx-file", false},
				{"nginx TLS", "nginx", "nginx-tls", true},
				{product, "relais", "relais-clear", false},
				{"relais TLS", "relais", "relais-tls", true},
			},
		},
		{
			name: "h2hit1k", about: "1 KB from a cache or a file, TLS 1.3, HTTP/2, 16 connections of 10 streams", path: "/hit/1k", bytes: 1 << 10,
			cached: true, tls: true, load: loadH2,
			rows: []row{
				{baseline, "nginx", "nginx-tls", false},
				{"haproxy cache", "haproxy", "haproxy-tls", false},
				{"caddy", "caddy", "caddy-tls", false},
				{"relais std", "relais", "relais-std", false},
				{product, "relais", "relais-tls", false},
			},
		},
		{
			// The nginx, HAProxy and Varnish of Debian 12 have no HTTP/3.
			name: "h3hit1k", about: "1 KB from a cache, memory or a file, HTTP/3, 10 requests at once on each connection", path: "/hit/1k", bytes: 1 << 10, cached: true, http3: true, load: loadHTTP3,
			rows: []row{
				{"caddy respond", "caddy", "caddy-h3-memory", true},
				{"caddy", "caddy", "caddy-h3", true},
				{"relais, engine std", "relais", "relais-h3-std", true},
				{product, "relais", "relais-h3", true},
			},
		},
	}
}

// address is where a row answers. TLS names localhost, so that clients send a
// server name.
func (c benchCase) address(r row, port int) string {
	if c.tls || r.tls {
		return fmt.Sprintf("https://localhost:%d%s", port, c.path)
	}
	return fmt.Sprintf("http://127.0.0.1:%d%s", port, c.path)
}

// ports are the names of all ports of the peers' configurations.
func ports() []string {
	return []string{
		"backend", "nginx-file", "nginx-tls", "nginx-cache", "nginx-proxy", "haproxy-cache", "haproxy-tls", "haproxy-proxy",
		"varnish", "caddy-file", "caddy-proxy", "caddy-tls", "reverseproxy", "relais-clear", "relais-tls", "relais-std", "relais-metrics", "relais-disk",
		"caddy-h3", "caddy-h3-memory", "relais-h3", "relais-h3-std",
	}
}
