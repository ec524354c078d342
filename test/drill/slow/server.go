package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/relais-edge/relais/test/peer"
	"github.com/relais-edge/relais/test/proc"
	"github.com/relais-edge/relais/test/slow"
)

const cachePolicy = `apiVersion: relais/v1
kind: CachePolicy
metadata: {name: c}
spec: {}
`

const haproxySections = `backend o
 server s1 %s
cache c
 total-max-size 64
 max-object-size 8000000
 max-age 600
`

// configured writes what a server is told, and how it is started with that in a file.
func configured(name, relais, addr, back, dir, file string) (text string, args []string, err error) {
	switch name {
	case "relais":
		r := peer.Relais{
			Program: relais, Addr: addr, Dir: dir, Site: "routes: [{pool: shop, cache: c}]", Further: cachePolicy,
			Pool: fmt.Sprintf("  tiers: [{origins: [{address: %q}]}]", back),
		}
		return r.Config(), r.Args(file), nil
	case "nginx":
		n := peer.Nginx{
			Addr: addr, Dir: dir, Connections: 16000, To: back, Location: "proxy_cache c;",
			HTTP: "proxy_cache_path " + dir + "/cache keys_zone=c:10m;",
		}
		return n.Config(), n.Args(file), nil
	case "haproxy":
		h := peer.HAProxy{
			Addr: addr, Connections: 15000, Server: "30s", Connect: "5s",
			Defaults: []string{"timeout http-request 10s", "option http-buffer-request"},
			Frontend: []string{"http-request cache-use c", "http-response cache-store c", "default_backend o"},
			Sections: fmt.Sprintf(haproxySections, back),
		}
		return h.Config(), []string{"haproxy", "-f", file}, nil
	}
	return "", nil, errors.New("no such peer; there are nginx and haproxy")
}

// bigBytes is what slow readers ask for: more than the kernel's buffers hold.
const bigBytes = 6 << 20

// origin answers / and /big, which may be cached, and /own, which may not.
func origin(ctx context.Context) (string, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	big := make([]byte, bigBytes)
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/big":
			w.Header().Set("Cache-Control", "max-age=600")
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			_, _ = w.Write(big)
		case "/own":
			w.Header().Set("Cache-Control", "no-store")
			_, _ = io.WriteString(w, "yours")
		default:
			w.Header().Set("Cache-Control", "max-age=600")
			_, _ = io.WriteString(w, "all's")
		}
	})}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() { _ = srv.Serve(ln) }()
	return ln.Addr().String(), nil
}

// start starts a server on the first core.
func start(ctx context.Context, s settings, name, dir string) (*proc.Process, string, error) {
	back, err := origin(ctx)
	if err != nil {
		return nil, "", err
	}
	ports, err := proc.Ports(1)
	if err != nil {
		return nil, "", err
	}
	addr, file := proc.Addr(ports[0]), filepath.Join(dir, "config.yaml")
	text, args, err := configured(name, s.relais, addr, back, dir, file)
	if err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, "", err
	}
	p, err := proc.Start(proc.Spec{Name: name, Args: args, Log: filepath.Join(dir, name+".log"), Core: 0})
	if err != nil {
		return nil, "", err
	}
	up, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := p.WaitListen(up, addr); err != nil {
		p.Stop(time.Second)
		return nil, "", err
	}
	return p, addr, nil
}

// measure runs one attack against one server.
func measure(ctx context.Context, s settings, name string, mode slow.Mode) (m measured, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "drill-slow")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(dir)
	p, addr, err := start(ctx, s, name, dir)
	if err != nil {
		return m, err
	}
	defer p.Stop(5 * time.Second)
	client := slow.Ordinary{
		From: "127.0.0.2", Rate: 50, Timeout: 10 * time.Second,
		URLs: []string{"http://" + addr + "/", "http://" + addr + "/own"},
	}
	warm, end := context.WithTimeout(ctx, 2*time.Second)
	client.Run(warm)
	end()
	idle, end := context.WithTimeout(ctx, 15*time.Second)
	m.idle = client.Run(idle)
	end()
	count := make(chan held)
	under, end := context.WithTimeout(ctx, s.length)
	go func() { count <- watch(under, addr) }()
	err = attack(under, s, slow.Attack{Mode: mode, Target: addr}, dir)
	if err == nil {
		m.under = client.Run(under)
	}
	end()
	h := <-count
	m.most, m.usual = h.most, h.usual
	return m, errors.Join(err, h.err, ctx.Err())
}

// attack has slow clients come until ctx ends, and returns at once. A server ends slow clients after a while, and
// slowhttptest ends with its last connection: it is started anew then. The processes begin one after the other,
// so that they do not end together. They yield to the ordinary client, which shares their core: what it waits for is the
// server, not them.
func attack(ctx context.Context, s settings, a slow.Attack, dir string) error {
	a.Connections = s.connections * 11 / 10 / s.processes
	for i := range s.processes {
		spec := proc.Spec{
			Name: "slowhttptest", Args: append([]string{"nice", "-n", "19"}, slow.Command(a, s.length)...),
			Log: filepath.Join(dir, fmt.Sprintf("slowhttptest.%d.log", i)), Core: proc.AnyCore,
		}
		p, err := proc.Start(spec)
		if err != nil {
			return err
		}
		go func() {
			for {
				select {
				case <-ctx.Done():
					p.Stop(time.Second)
					return
				case <-p.Done():
				}
				next, err := proc.Start(spec)
				if err != nil {
					return
				}
				p = next
			}
		}()
	}
	return nil
}

// held is how many connections a server has accepted, the ordinary client's few among them.
type held struct {
	most, usual int
	err         error
}

// watch counts once a second until ctx ends.
func watch(ctx context.Context, addr string) (h held) {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return held{err: err}
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return held{err: err}
	}
	var all []int
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			slices.Sort(all)
			if k := len(all); k > 0 {
				h.most, h.usual = all[k-1], all[k/2]
			}
			return h
		case <-tick.C:
		}
		n, _, err := slow.Held(port)
		if err != nil {
			h.err = err
			return h
		}
		all = append(all, n)
	}
}
