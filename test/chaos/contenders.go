package main

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/relais-edge/relais/test/peer"
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
			r := peer.Relais{
				Program: relais, Addr: b.addr, Dir: b.dir, Logs: true, Site: peer.ShopSite, Further: peer.Buyers,
				Pool: "  tiers: [{name: home, origins: [" + b.list("{address: %q}", ", ") + "]}]\n  health: {path: /healthz, interval: 1s, timeout: 1s}",
			}
			return r.Config(), r.Args(b.file())
		}, hup},
		{"nginx", func(b *bed) (string, []string) {
			n := peer.Nginx{
				Addr: b.addr, Dir: b.dir, Connections: 4000, Logs: true, To: "shop",
				HTTP:     "upstream shop { least_conn; " + b.list("server %s max_fails=3 fail_timeout=5s;", " ") + " keepalive 64; }",
				Location: "proxy_connect_timeout 1s; proxy_read_timeout 5s; proxy_next_upstream error timeout http_502 http_503 http_504; proxy_next_upstream_tries 3;",
			}
			return n.Config(), n.Args(b.file())
		}, hup},
		{"haproxy", func(b *bed) (string, []string) {
			var s strings.Builder
			s.WriteString(haproxyShop)
			for i, p := range b.proxies {
				fmt.Fprintf(&s, " server s%d %s\n", i+1, p.Listen)
			}
			h := peer.HAProxy{
				Addr: b.addr, Connections: 4000, Server: "5s", Connect: "1s",
				Defaults: []string{"option redispatch 1", "retries 3", "balance leastconn"},
				Frontend: []string{"default_backend shop"}, Sections: s.String(),
			}
			return h.Config(), []string{"haproxy", "-W", "-f", b.file()}
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

const haproxyShop = `backend shop
 option httpchk GET /healthz
 timeout check 1s
 default-server check inter 1s fall 3 rise 2 observe layer7 error-limit 5 on-error mark-down
`
