package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/relais-edge/relais/test/peer"
	"github.com/relais-edge/relais/test/proc"
)

// contender is one way to stand in front of the two clusters.
type contender struct {
	name  string
	edges int  // processes that share the visitors, 40, 30, 20 and 10 in a hundred when there are four
	told  bool // knows the slots
	write func(f *field, addr, dir string) (config string, args []string)
}

// shares is how much of the visitors each of n edges gets.
func shares(n int) []float64 {
	if n == 4 {
		return []float64{.4, .3, .2, .1}
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = 1 / float64(n)
	}
	return out
}

func contenders(relais string) []contender {
	return []contender{
		{"relais, 4 edges, untold", 4, false, relaisEdge(relais, false)},
		{"relais, told the slots", 1, true, relaisEdge(relais, true)},
		{"nginx, told the slots", 1, true, nginxEdge},
		{"haproxy, told the slots", 1, true, haproxyEdge},
		{"haproxy, by health", 1, false, healthEdge},
	}
}

func relaisEdge(program string, told bool) func(*field, string, string) (string, []string) {
	return func(f *field, addr, dir string) (string, []string) {
		file, capacity := filepath.Join(dir, "edge.yaml"), ""
		if told {
			capacity = fmt.Sprintf("      capacity: {inFlight: %d}\n", f.home.each*len(f.home.origins))
		}
		list := func(c *cluster) string {
			var b []string
			for _, o := range c.origins {
				b = append(b, fmt.Sprintf("{address: %q}", o.addr))
			}
			return strings.Join(b, ", ")
		}
		r := peer.Relais{
			Program: program, Addr: addr, Dir: dir, Logs: true, Site: peer.ShopSite, Further: peer.Buyers,
			Pool: fmt.Sprintf(`  tiers:
    - name: home
%s      origins: [%s]
    - name: overflow
      origins: [%s]
  health: {path: /healthz, interval: 2s, timeout: 1s}`, capacity, list(f.home), list(f.overflow)),
		}
		return r.Config(), r.Args(file)
	}
}

// nginxEdge knows the slots of each origin, and uses the overflow when all are taken.
func nginxEdge(f *field, addr, dir string) (string, []string) {
	var b strings.Builder
	for _, o := range f.home.origins {
		fmt.Fprintf(&b, "    server %s max_conns=%d;\n", o.addr, f.home.each)
	}
	for _, o := range f.overflow.origins {
		fmt.Fprintf(&b, "    server %s max_conns=%d backup;\n", o.addr, f.overflow.each)
	}
	n := peer.Nginx{
		Addr: addr, Dir: dir, Connections: 8000, Logs: true, To: "shop",
		HTTP: "upstream shop {\n    zone shop 1m; least_conn;\n" + b.String() + "  }",
	}
	return n.Config(), n.Args(filepath.Join(dir, "edge.yaml"))
}

// haproxy is what the two have in common.
func haproxy(addr string, frontend []string, sections string) string {
	return peer.HAProxy{
		Addr: addr, Connections: 8000, Server: "30s", Connect: "5s", Frontend: frontend, Sections: sections,
		Defaults: []string{"timeout queue 5s", "option redispatch", "balance leastconn"},
	}.Config()
}

// haproxyEdge knows the slots, and sends on what finds none free at home.
func haproxyEdge(f *field, addr, dir string) (string, []string) {
	var b strings.Builder
	for _, c := range []*cluster{f.home, f.overflow} {
		fmt.Fprintf(&b, "backend %s\n option httpchk GET /healthz\n default-server check inter 2s fall 3 rise 2\n", c.name)
		for i, o := range c.origins {
			fmt.Fprintf(&b, " server s%d %s maxconn %d\n", i, o.addr, c.each)
		}
	}
	text := haproxy(addr, []string{"use_backend home if { be_conn_free(home) gt 0 }", "default_backend overflow"}, b.String())
	return text, []string{"haproxy", "-f", filepath.Join(dir, "edge.yaml")}
}

// healthEdge spills when probes fail, as balancers do that go by health alone.
func healthEdge(f *field, addr, dir string) (string, []string) {
	var b strings.Builder
	b.WriteString("backend shop\n option httpchk GET /healthz\n option allbackups\n timeout check 1s\n default-server check inter 2s fall 3 rise 2\n")
	for i, o := range f.home.origins {
		fmt.Fprintf(&b, " server h%d %s\n", i, o.addr)
	}
	for i, o := range f.overflow.origins {
		fmt.Fprintf(&b, " server o%d %s backup\n", i, o.addr)
	}
	return haproxy(addr, []string{"default_backend shop"}, b.String()), []string{"haproxy", "-f", filepath.Join(dir, "edge.yaml")}
}

// start starts the processes of a contender and returns their addresses.
func (c contender) start(ctx context.Context, f *field, dir string) (addrs []string, stop func(), err error) {
	var running []*proc.Process
	stop = func() {
		for _, p := range running {
			p.Stop(3 * time.Second)
		}
	}
	ports, err := proc.Ports(c.edges)
	if err != nil {
		return nil, stop, err
	}
	for i, port := range ports {
		addr, own := proc.Addr(port), filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(own, 0o700); err != nil {
			return nil, stop, err
		}
		config, args := c.write(f, addr, own)
		if err := os.WriteFile(filepath.Join(own, "edge.yaml"), []byte(config), 0o600); err != nil {
			return nil, stop, err
		}
		p, err := proc.Start(proc.Spec{Name: c.name, Args: args, Log: filepath.Join(own, "log"), Core: proc.AnyCore})
		if err != nil {
			return nil, stop, err
		}
		running, addrs = append(running, p), append(addrs, addr)
		up, cancel := context.WithTimeout(ctx, time.Minute)
		err = p.WaitListen(up, addr)
		cancel()
		if err != nil {
			return nil, stop, err
		}
	}
	return addrs, stop, nil
}
