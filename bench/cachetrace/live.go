package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/test/proc"
)

// The trace that whole servers are asked for is shorter: each request is one over HTTP.
const (
	liveRequests = 200_000
	liveCatalog  = 20_000
	goalFewer    = 0.20 // of Varnish's fetches
)

const liveDocuments = `apiVersion: relais/v1
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
spec: {}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: o}
spec: {tiers: [{origins: [{address: "%s"}]}]}
`

// origin answers /ID/SIZE with that many bytes, and counts.
type origin struct {
	fetches, bytes atomic.Int64
	block          []byte
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var id, size int
	if _, err := fmt.Sscanf(r.URL.Path, "/%d/%d", &id, &size); err != nil || size > len(o.block) {
		http.NotFound(w, r)
		return
	}
	o.fetches.Add(1)
	o.bytes.Add(int64(size))
	w.Header().Set("Cache-Control", "public, max-age=86400")
	w.Header().Set("Content-Type", "image/jpeg")
	w.Header().Set("Content-Length", fmt.Sprint(size))
	_, _ = w.Write(o.block[:size])
}

// fetched is what a server asked its origin for, of what it was asked for.
type fetched struct{ requests, bytes float64 }

// live sends the trace that has a goal to whole servers with the same memory, one request at a time, and compares what they
// fetch. Program is the product's.
func live(ctx context.Context, program string, s settings, w io.Writer) error {
	sh := shapes[0]
	sh.requests, sh.catalog = liveRequests, liveCatalog
	t := generate(sh)
	memory := int64(float64(t.footprint) * s.share)
	dir, err := os.MkdirTemp("", "cachetrace-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o := &origin{block: make([]byte, 4<<20)}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: o, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	fmt.Fprintf(w, "%d requests over HTTP for %d objects of %.1f GB in all; %.0f MB of memory each; the first quarter is warm-up\n",
		len(t.requests), t.unique, float64(t.footprint)/1e9, float64(memory)/1e6)
	results := map[string]fetched{}
	for name, start := range map[string]func(dir, addr, origin string, memory int64) (proc.Spec, error){
		"relais": func(dir, addr, origin string, memory int64) (proc.Spec, error) {
			return relaisServer(program, dir, addr, origin, memory)
		},
		"varnish": varnishServer,
	} {
		f, err := o.ask(ctx, filepath.Join(dir, name), ln.Addr().String(), memory, t.requests, start)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		results[name] = f
		fmt.Fprintf(w, "%-8s fetches %.2f %% of the requests, %.2f %% of the bytes\n", name, 100*f.requests, 100*f.bytes)
	}
	ours, peer := results["relais"], results["varnish"]
	fewer, word := 1-ours.requests/peer.requests, "ok"
	if fewer < goalFewer {
		word = "short"
	}
	fmt.Fprintf(w, "bench-cache/fetches fewer than varnish  measured %.1f %%  goal %.0f %%  peer varnish %.2f %% vs %.2f %%  %s\n", 100*fewer, 100*goalFewer, 100*peer.requests, 100*ours.requests, word)
	if word == "short" {
		return errors.New("fetches are short of the goal")
	}
	return nil
}

func relaisServer(program, dir, addr, origin string, memory int64) (proc.Spec, error) {
	file := filepath.Join(dir, "edge.yaml")
	return proc.Spec{
		Name: "relais", Core: proc.AnyCore, Log: filepath.Join(dir, "log"),
		Args: []string{program, "serve", "-f", file, "--data", filepath.Join(dir, "data"), "--cache-memory", fmt.Sprintf("%dKiB", memory>>10)},
	}, os.WriteFile(file, fmt.Appendf(nil, liveDocuments, addr, origin), 0o600)
}

func varnishServer(dir, addr, origin string, memory int64) (proc.Spec, error) {
	if _, err := exec.LookPath("varnishd"); err != nil {
		return proc.Spec{}, errors.New("no varnishd here: apt-get install varnish")
	}
	file := filepath.Join(dir, "vcl")
	host, port, _ := strings.Cut(origin, ":")
	return proc.Spec{Name: "varnish", Core: proc.AnyCore, Log: filepath.Join(dir, "log"), Args: []string{
		"varnishd", "-F", "-j", "none", "-a", addr, "-f", file, "-s", fmt.Sprintf("malloc,%dk", memory>>10), "-n", filepath.Join(dir, "work"), "-T", "none",
		"-p", "nuke_limit=100000", // else a large object finds no room among small ones
	}}, os.WriteFile(file, fmt.Appendf(nil, "vcl 4.1;\nbackend default { .host = %q; .port = %q; }\n", host, port), 0o600)
}

// ask starts a server and asks it for the trace.
func (o *origin) ask(ctx context.Context, dir, at string, memory int64, requests []request, start func(dir, addr, origin string, memory int64) (proc.Spec, error)) (fetched, error) {
	ports, err := proc.Ports(1)
	if err != nil {
		return fetched{}, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fetched{}, err
	}
	spec, err := start(dir, proc.Addr(ports[0]), at, memory)
	if err != nil {
		return fetched{}, err
	}
	p, err := proc.Start(spec)
	if err != nil {
		return fetched{}, err
	}
	defer p.Stop(5 * time.Second)
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := p.WaitListen(wait, proc.Addr(ports[0])); err != nil {
		return fetched{}, err
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	var asked, bytes float64
	for i, r := range requests {
		if i == len(requests)/4 {
			o.fetches.Store(0)
			o.bytes.Store(0)
		}
		if i >= len(requests)/4 {
			asked++
			bytes += float64(r.size)
		}
		if err := get(ctx, client, fmt.Sprintf("http://%s/%d/%d", proc.Addr(ports[0]), r.id, r.size), int64(r.size)); err != nil {
			return fetched{}, err
		}
	}
	return fetched{float64(o.fetches.Load()) / asked, float64(o.bytes.Load()) / bytes}, nil
}

func get(ctx context.Context, client *http.Client, url string, size int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %d bytes of %d, %w", url, resp.Status, n, size, err)
	}
	return nil
}
