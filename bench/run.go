package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/relais-edge/relais/test/proc"
)

// bench is one run: the servers that are up and how they are loaded.
type bench struct {
	site    *site
	running map[string]*running
	missing map[string]error // servers that did not start, and why
	backend *proc.Process
	client  *http.Client
	sink    *syslogSink
	conns   int
	rounds  int
	seconds int
	out     io.Writer // progress
}

// startAll starts the backend and the servers that the rows need. A server
// that does not start is noted as missing. stop must be called in any case.
func (b *bench) startAll(ctx context.Context, sink *syslogSink, needed []string) (stop func(), err error) {
	b.running, b.missing = map[string]*running{}, map[string]error{}
	stop = func() {
		for _, r := range b.running {
			r.stop()
		}
		if b.backend != nil {
			b.backend.Stop(time.Second)
		}
	}
	for _, name := range []string{"report.lua", "many.lua"} {
		lua, err := peerFiles.ReadFile("peers/" + name)
		if err != nil {
			return stop, err
		}
		if err := os.WriteFile(filepath.Join(b.site.Dir, name), lua, 0o644); err != nil {
			return stop, err
		}
	}
	b.backend, err = proc.Start(proc.Spec{
		Name: "backend", Args: []string{b.site.binary("backend"), "-port", fmt.Sprint(b.site.BackendPort())},
		Log: filepath.Join(b.site.Dir, "logs", "backend.output"), Core: loadCore,
	})
	if err != nil {
		return stop, err
	}
	if err := b.backend.WaitListen(ctx, b.site.Backend); err != nil {
		return stop, err
	}
	all := servers(b.site)
	for _, name := range needed {
		r, err := all[name].start(ctx, b.site, sink)
		b.running[name] = r
		if err != nil {
			b.missing[name] = err
			fmt.Fprintf(b.out, "left out: %v\n", err)
		}
		if ctx.Err() != nil {
			return stop, context.Cause(ctx)
		}
	}
	return stop, nil
}

// measure runs one case: every round visits every row once, each time in an
// order that starts one row later.
func (b *bench) measure(ctx context.Context, c benchCase, rows []row) (*caseResult, error) {
	result := &caseResult{About: c.about, When: time.Now().UTC().Format(time.RFC3339), Rounds: b.rounds, Seconds: b.seconds, Conns: b.conns}
	for _, r := range rows {
		result.Rows = append(result.Rows, rowResult{Name: r.name})
	}
	for i, r := range rows {
		if err := b.missing[r.server]; err != nil {
			result.Rows[i].Void = "did not start"
			if errors.Is(err, errNotInstalled) {
				result.Rows[i].Void = "not installed"
			}
			continue
		}
		if err := b.prepare(ctx, c, r); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			result.Rows[i].Void = err.Error()
			fmt.Fprintf(b.out, "%s: %s is void: %v\n", c.name, r.name, err)
		}
	}
	for round := range b.rounds {
		for n := range rows {
			i := (n + round) % len(rows)
			if result.Rows[i].Void != "" {
				continue
			}
			s, err := b.visit(ctx, c, rows[i])
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err == nil {
				result.Rows[i].Samples = append(result.Rows[i].Samples, s)
				result.Rows[i].Void = c.verdict(s)
			} else {
				result.Rows[i].Void = err.Error()
			}
			fmt.Fprintf(b.out, "%s round %d/%d  %-18s %7.2f us  %7.0f/s  %s\n", c.name, round+1, b.rounds, rows[i].name, s.CPUMicros, s.PerSecond, result.Rows[i].Void)
		}
	}
	for i := range result.Rows {
		result.Rows[i].Median = median(result.Rows[i].Samples)
	}
	return result, nil
}

// prepare checks a row's answers and warms it up.
func (b *bench) prepare(ctx context.Context, c benchCase, r row) error {
	if err := b.probe(ctx, c, r); err != nil {
		return err
	}
	if c.idle {
		return nil
	}
	if c.urls > 0 {
		if err := b.fill(ctx, c, r); err != nil {
			return err
		}
	}
	_, err := c.loader()(ctx, b.site, c.address(r, b.site.ports[r.port]), b.conns, 1)
	return err
}

// fill asks for every URL of a case, so that it is stored.
func (b *bench) fill(ctx context.Context, c benchCase, r row) error {
	client := client()
	tr := client.Transport.(*http.Transport)
	tr.DisableKeepAlives = false
	defer client.CloseIdleConnections()
	for n := range c.urls {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s?%d", c.address(r, b.site.ports[r.port]), n+1), nil)
		if err != nil {
			return err
		}
		req.Host = b.site.host()
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("fill: %w", err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return fmt.Errorf("fill: %w", err)
		}
	}
	return nil
}

// rowsOf are the rows of a case that are wanted.
func rowsOf(c benchCase, wanted func(string) bool) []row {
	return slices.DeleteFunc(slices.Clone(c.rows), func(r row) bool { return !wanted(r.name) })
}

// serversOf are the servers that the rows of the cases need, without repeats.
func serversOf(chosen []benchCase, wanted func(string) bool) []string {
	var names []string
	for _, c := range chosen {
		for _, r := range rowsOf(c, wanted) {
			if !slices.Contains(names, r.server) {
				names = append(names, r.server)
			}
		}
	}
	return names
}
