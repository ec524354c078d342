package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/relais-edge/relais/test/conformance/caching"
	"github.com/relais-edge/relais/test/proc"
)

// cachingSuite is the table of what RFC 9111 and its neighbours ask of a shared cache, on relais with
// examples/cache.yaml: alone, or with tiers of it one behind the other, which must be as good.
type cachingSuite struct {
	root, relais string
	tiers        int
}

// Name implements Suite.
func (c cachingSuite) Name() string {
	if c.tiers > 1 {
		return fmt.Sprintf("caching-%d-tiers", c.tiers)
	}
	return "caching"
}

// Run implements Suite. It starts its own relais, whatever the subject.
func (c cachingSuite) Run(ctx context.Context, _ *Subject, only []string) ([]Outcome, error) {
	work, err := os.MkdirTemp("", "relais-caching-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	backend := caching.NewBackend()
	server := &http.Server{Handler: backend, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	behind := l.Addr().String()
	for i := range c.tiers {
		p, addr, err := c.start(ctx, filepath.Join(work, fmt.Sprint(i)), behind)
		if p != nil {
			defer p.Stop(3 * time.Second)
		}
		if err != nil {
			return nil, err
		}
		behind = addr
	}
	results := caching.Run(ctx, "http://"+behind, backend, func(k caching.Case) bool {
		return len(only) == 0 || slices.Contains(only, k.Name)
	})
	all := make([]Outcome, 0, len(results))
	for _, r := range results {
		o := Outcome{Case: r.Name, Verdict: Pass}
		if r.Why != "" {
			o.Verdict, o.Detail = Fail, fmt.Sprintf("%s (%s, %s)", r.Why, r.Need, r.Says)
		}
		all = append(all, o)
	}
	return all, nil
}

// start runs one tier in front of an address, and gives the address where it listens.
func (c cachingSuite) start(ctx context.Context, dir, origin string) (*proc.Process, string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, "", err
	}
	ports, err := proc.Ports(2)
	if err != nil {
		return nil, "", err
	}
	d := launch{
		dir: dir, origin: origin, root: c.root, relais: c.relais, doc: filepath.Join(c.root, "examples", "cache.yaml"),
		lane: Lane{HTTP1: proc.Addr(ports[0]), TLS: proc.Addr(ports[1])},
	}
	spec, err := relaisSpec(d)
	if err != nil {
		return nil, "", err
	}
	spec.Name, spec.Log, spec.Core = "relais", filepath.Join(dir, "output.log"), proc.AnyCore
	p, err := proc.Start(spec)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return p, d.lane.HTTP1, p.WaitListen(ctx, d.lane.HTTP1)
}
