package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/observe"
)

// openSides opens the sockets that are not for visitors, or takes those of the process before.
func (in *instance) openSides(ctx context.Context) (err error) {
	path := filepath.Join(in.flags.data, adminSocket)
	in.admin, err = in.inherited.Listener("unix", path, "")
	if in.admin == nil && err == nil {
		in.admin, err = admin.Open(ctx, path)
	}
	if err != nil {
		in.admin = nil
		in.logger.Warn("this edge cannot be asked to explain", "err", err)
	}
	if addr := in.flags.metrics; addr != "" {
		in.scrape, err = in.inherited.Listener("tcp", addr, metricsKey)
		if in.scrape == nil && err == nil {
			in.scrape, err = new(net.ListenConfig).Listen(ctx, "tcp", addr)
		}
		if err != nil {
			in.scrape = nil
			return fmt.Errorf("metrics: %w; choose another address with --metrics", err)
		}
	}
	return nil
}

func (in *instance) adminConfig(started time.Time) admin.Config {
	c := admin.Config{
		Listener: in.admin, Explain: in.edge, Metrics: in.metrics,
		Status: func() admin.Status { return in.status(started) },
		Pools:  func() any { return in.edge.Pools() },
		Load:   func(key string) any { return in.edge.Load(key) },
		Cache:  in.edge.CacheDoor(),
		WAF:    in.edge.WAFDoor(),
		Packet: in.packet.Door(),
		Flood:  in.edge.FloodDoor(),
		Bundle: func() any { return in.edge.Bundle() },
		Endpoints: func(site string) (any, bool) {
			found, ok := in.edge.Endpoints(site)
			return found, ok
		},
	}
	if in.flags.record.share != "off" {
		c.Record = in.edge.ExportRecord
	}
	if in.upgrades != nil {
		c.Upgrade = in.askUpgrade
	}
	return c
}

func (in *instance) status(started time.Time) admin.Status {
	s := in.source.State()
	st := admin.Status{Version: version, Pid: os.Getpid(), Started: started, Revision: s.Revision, Applied: s.Applied, Sites: s.Sites, Problem: s.Problem}
	for _, a := range in.edge.Addresses() {
		st.Listeners = append(st.Listeners, bundle.Key(a))
	}
	if list := in.edge.WAFDoubts(); len(list) > 0 {
		st.WAFDoubts = list
	}
	if list := in.edge.WAFCandidates(); len(list) > 0 {
		st.WAFCandidates = list
	}
	return st
}

func serveMetrics(ctx context.Context, ln net.Listener, m *observe.Registry) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return context.Cause(ctx)
}
