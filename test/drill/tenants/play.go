//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/relais-edge/relais/test/peer"
	"github.com/relais-edge/relais/test/proc"
)

// Processors: the edge has one, all else the other.
const (
	edgeCore  = 0
	otherCore = 1
)

// The two sites.
const (
	flooded   = "flooded.example"
	neighbour = "neighbour.example"
)

// contender is a server in front of both sites.
type contender struct {
	name, program string
	write         func(addr, flooded, neighbour, dir, file, program string) (config string, args []string)
}

func relaisEdge(addr, one, other, dir, file, program string) (string, []string) {
	text := fmt.Sprintf("apiVersion: relais/v1\nkind: Listener\nmetadata: {name: web}\nspec: {address: %q}\n", addr)
	for _, t := range []struct{ organization, host, origin string }{{"one", flooded, one}, {"other", neighbour, other}} {
		text += fmt.Sprintf(`---
apiVersion: relais/v1
kind: Site
metadata: {name: shop, organization: %[1]s}
spec: {hostnames: [%[2]s], cache: pages, flood: shield, routes: [{pool: shop}]}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop, organization: %[1]s}
spec: {tiers: [{name: home, origins: [{address: %[3]q}]}]}
---
apiVersion: relais/v1
kind: CachePolicy
metadata: {name: pages, organization: %[1]s}
spec: {}
---
apiVersion: relais/v1
kind: FloodPolicy
metadata: {name: shield, organization: %[1]s}
spec: {warmUp: 5s, steps: [stale, cache, limit, drop]}
`, t.organization, t.host, t.origin)
	}
	return text, []string{program, "serve", "-f", file, "--data", filepath.Join(dir, "data")}
}

func nginxEdge(addr, one, other, dir, file, _ string) (string, []string) {
	n := peer.Nginx{
		Addr: addr, Dir: dir, Connections: 20_000, To: "one",
		HTTP: fmt.Sprintf(`limit_req_zone $binary_remote_addr zone=each:16m rate=20r/s;
  limit_req zone=each burst=60 nodelay; limit_req_status 429;
  proxy_cache_path %[1]s/cache keys_zone=pages:16m max_size=256m;
  proxy_cache pages; proxy_cache_key $host$request_uri;
  upstream one { server %[2]s; keepalive 64; }
  upstream other { server %[3]s; keepalive 64; }
  server { listen %[4]s; server_name %[5]s; location / { proxy_pass http://other; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; } }`,
			dir, one, other, addr, neighbour),
	}
	return n.Config(), n.Args(file)
}

// play plays the rounds before a contender.
func play(ctx context.Context, s settings, c contender) ([]round, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "drill-tenants-"+c.name+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := proc.PinSelf(otherCore); err != nil {
		return nil, err
	}
	a, err := startFlood(s)
	if err != nil {
		return nil, err
	}
	defer a.stop()
	other, closeOther, err := origin(ctx, s.service)
	if err != nil {
		return nil, err
	}
	defer closeOther()
	ports, err := proc.Ports(1)
	if err != nil {
		return nil, err
	}
	addr, file := proc.Addr(ports[0]), filepath.Join(dir, "edge.yaml")
	config, args := c.write(addr, a.origin, other, dir, file, c.program)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := proc.Start(proc.Spec{Name: c.name, Args: args, Log: filepath.Join(dir, "log"), Core: edgeCore})
	if err != nil {
		return nil, err
	}
	defer p.Stop(3 * time.Second)
	up, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	if err := p.WaitListen(up, addr); err != nil {
		return nil, err
	}
	v := &visits{s: s, addr: addr}
	var wg sync.WaitGroup
	wg.Go(func() { v.come(ctx) })
	defer wg.Wait()
	defer cancel()
	rounds := make([]round, s.rounds)
	for i := range rounds {
		if err := v.round(ctx, a, &rounds[i]); err != nil {
			return nil, err
		}
	}
	return rounds, nil
}

// origin answers pages, which nobody may keep and which take a time, and pictures, which are kept for an hour.
func origin(ctx context.Context, service time.Duration) (addr string, stop func(), err error) {
	page := bytes.Repeat([]byte("page "), 800)
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if r.URL.Path == "/picture" {
			w.Header().Set("Cache-Control", "max-age=3600")
		} else if service > 0 {
			time.Sleep(service/2 + time.Duration(rand.ExpFloat64()*float64(service/2)))
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(page)))
		_, _ = w.Write(page)
	})}
	go func() { _ = srv.Serve(ln) }()
	return ln.Addr().String(), func() { _ = srv.Close() }, nil
}

// visits are the neighbour's visitors: they come at their rate, whatever becomes of those before them.
type visits struct {
	s       settings
	addr    string
	mu      sync.Mutex
	pages   []time.Duration
	hits    []time.Duration
	refused int
}

// visitors is how many the neighbour has, each with an address and connections of its own.
const visitors = 50

// home is the address that a visitor comes from.
func home(visitor int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 6, 0, byte(1+visitor))} }

// come sends the visitors until ctx ends.
func (v *visits) come(ctx context.Context) {
	var clients [visitors]*http.Client
	for i := range clients {
		d := net.Dialer{LocalAddr: home(i), Timeout: 10 * time.Second}
		clients[i] = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 6, DialContext: d.DialContext}, Timeout: 20 * time.Second}
		defer clients[i].CloseIdleConnections()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	t := time.NewTicker(time.Duration(float64(time.Second) / v.s.visits))
	defer t.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			wg.Go(func() { v.one(ctx, clients[i/2%visitors], i%2 == 0) })
		}
	}
}

func (v *visits) one(ctx context.Context, client *http.Client, hit bool) {
	path := "/page"
	if hit {
		path = "/picture"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+v.addr+path, http.NoBody)
	if err != nil {
		return
	}
	req.Host = neighbour
	began := time.Now()
	resp, err := client.Do(req)
	good := false
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		good = err == nil && resp.StatusCode == http.StatusOK
	}
	took := time.Since(began)
	if ctx.Err() != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case !good:
		v.refused++
	case hit:
		v.hits = append(v.hits, took)
	default:
		v.pages = append(v.pages, took)
	}
}

// take returns what was seen since the last call.
func (v *visits) take() (page, hit time.Duration, refused int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	page, hit, refused = p99(v.pages), p99(v.hits), v.refused
	v.pages, v.hits, v.refused = v.pages[:0], v.hits[:0], 0
	return page, hit, refused
}

func p99(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)*99/100]
}

// round is a calm, and a flood of which the second half is judged.
func (v *visits) round(ctx context.Context, a *flood, r *round) error {
	wait := func(d time.Duration) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(d):
			return true
		}
	}
	if !wait(time.Second) {
		return ctx.Err()
	}
	v.take()
	if !wait(v.s.calm) {
		return ctx.Err()
	}
	var refused [3]int
	r.calmPage, r.calmHit, refused[0] = v.take()
	if _, _, err := a.tell(v.addr); err != nil {
		return err
	}
	if !wait(v.s.flood / 2) {
		return ctx.Err()
	}
	_, _, refused[1] = v.take()
	sent, served, err := a.tell("count")
	began := time.Now()
	if err != nil || !wait(v.s.flood/2) {
		return errors.Join(err, ctx.Err())
	}
	r.page, r.hit, refused[2] = v.take()
	sent2, served2, err := a.tell("off")
	took := time.Since(began).Seconds()
	r.sent, r.served = float64(sent2-sent)/took, float64(served2-served)/took
	r.refused = refused[0] + refused[1] + refused[2]
	return err
}
