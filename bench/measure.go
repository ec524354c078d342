package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/relais-edge/relais/test/proc"
)

// sample is one visit of the load generator to one row.
type sample struct {
	Requests     int64   `json:"requests"`
	PerSecond    float64 `json:"perSecond"`
	CPUMicros    float64 `json:"cpuMicros"` // of the server, per request
	Busy         float64 `json:"busy"`      // share of the server's core that it used
	P50Micros    float64 `json:"p50Micros"`
	MemoryMiB    float64 `json:"memoryMiB"`
	ConnKiB      float64 `json:"connKiB,omitempty"` // of an idle connection
	LogBytes     float64 `json:"logBytes"`          // access log per request
	OriginShare  float64 `json:"originShare"`       // requests that reached the backend, per request
	BadStatus    int64   `json:"badStatus"`         // answers of 400 and more
	SocketErrors int64   `json:"socketErrors"`      // connect, read, write, timeout
}

// loadResult is what wrk says.
type loadResult struct {
	requests, errors, badStatus int64
	elapsed                     time.Duration
	p50                         float64 // microseconds
}

// http3Streams is how many requests are under way at once on a connection of HTTP/3.
const http3Streams = 10

// loadHTTP3 runs h3load on the core of this program: a quarter of the connections, each with
// several requests at once.
func loadHTTP3(ctx context.Context, s *site, url string, conns, seconds int) (loadResult, error) {
	conns = max(1, conns/4) // 16 by default, as many requests at once as wrk has, and more
	cmd := exec.CommandContext(ctx, s.binary("h3load"), "-url", url, "-c", strconv.Itoa(conns), "-m", strconv.Itoa(http3Streams), "-d", fmt.Sprintf("%ds", seconds))
	cmd.Env = append(cmd.Environ(), "GOMAXPROCS=1")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return loadResult{}, fmt.Errorf("h3load %s: %w\n%s", url, err, out)
	}
	return parseLoad(out)
}

// load runs wrk, one thread, on the core of this program.
func load(ctx context.Context, s *site, url string, conns, seconds int) (loadResult, error) {
	return wrk(ctx, s, "report.lua", conns, seconds, url)
}

// loadMany does so with a number at the end of each request's URL, at random.
func loadMany(urls int) loader {
	return func(ctx context.Context, s *site, url string, conns, seconds int) (loadResult, error) {
		return wrk(ctx, s, "many.lua", conns, seconds, url, "--", strconv.Itoa(urls))
	}
}

func wrk(ctx context.Context, s *site, script string, conns, seconds int, url string, args ...string) (loadResult, error) {
	cmd := exec.CommandContext(ctx, "wrk", append([]string{
		"-t1", "-c" + strconv.Itoa(conns), fmt.Sprintf("-d%ds", seconds), "--latency", "-H", "Host: " + s.host(), "-s", filepath.Join(s.Dir, script), url,
	}, args...)...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return loadResult{}, fmt.Errorf("wrk %s: %w\n%s", url, err, out)
	}
	return parseLoad(out)
}

// parseLoad reads the line that peers/report.lua and h3load print.
func parseLoad(out []byte) (loadResult, error) {
	at := bytes.LastIndex(out, []byte("\nresult "))
	if at < 0 {
		return loadResult{}, fmt.Errorf("wrk printed no result:\n%s", out)
	}
	var n [9]int64
	f := strings.Fields(string(out[at:]))[1:]
	if len(f) < len(n) {
		return loadResult{}, fmt.Errorf("wrk printed half a result:\n%s", out)
	}
	for i := range n {
		v, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return loadResult{}, fmt.Errorf("result of wrk: %w", err)
		}
		n[i] = v
	}
	r := loadResult{requests: n[0], elapsed: time.Duration(n[1]) * time.Microsecond, errors: n[3] + n[4] + n[5] + n[6], badStatus: n[7], p50: float64(n[8])}
	if r.requests == 0 || r.elapsed <= 0 {
		return r, errors.New("wrk got no answer")
	}
	return r, nil
}

func (c benchCase) loader() loader {
	if c.load != nil {
		return c.load
	}
	if c.urls > 0 {
		return loadMany(c.urls)
	}
	return load
}

// visit measures one row once.
func (b *bench) visit(ctx context.Context, c benchCase, r row) (sample, error) {
	if c.idle {
		return b.visitIdle(ctx, c, r)
	}
	v := b.running[r.server]
	if err := v.access.Empty(); err != nil {
		return sample{}, fmt.Errorf("empty the access log of %s: %w", v.name, err)
	}
	asked, err := b.backendCount(ctx)
	if err != nil {
		return sample{}, err
	}
	before, err := proc.CPU(v.pids()...)
	if err != nil {
		return sample{}, err
	}
	l, err := c.loader()(ctx, b.site, c.address(r, b.site.ports[r.port]), b.conns, b.seconds)
	if err != nil {
		return sample{}, err
	}
	after, err := proc.CPU(v.pids()...)
	if err != nil {
		return sample{}, err
	}
	if err := v.dead(); err != nil {
		return sample{}, err
	}
	askedAfter, err := b.backendCount(ctx)
	if err != nil {
		return sample{}, err
	}
	n := float64(l.requests)
	return sample{
		Requests:  l.requests,
		PerSecond: n / l.elapsed.Seconds(), P50Micros: l.p50,
		CPUMicros:   float64((after - before).Nanoseconds()) / 1e3 / n,
		Busy:        (after - before).Seconds() / l.elapsed.Seconds(),
		MemoryMiB:   float64(proc.Memory(v.pids()...)) / (1 << 20),
		LogBytes:    float64(v.access.Written()) / n,
		OriginShare: float64(askedAfter-asked) / n,
		BadStatus:   l.badStatus, SocketErrors: l.errors,
	}, nil
}

// verdict says why a sample is void, or "".
func (c benchCase) verdict(s sample) string {
	switch {
	case s.BadStatus > 0:
		return fmt.Sprintf("%d answers of 400 or more", s.BadStatus)
	case s.SocketErrors > 0:
		return fmt.Sprintf("%d socket errors", s.SocketErrors)
	case c.cached && s.OriginShare > 0.01:
		return fmt.Sprintf("%.0f %% of the requests reached the backend, which is no cache hit", 100*s.OriginShare)
	case !c.cached && s.OriginShare < 0.99:
		return fmt.Sprintf("only %.0f %% of the requests reached the backend", 100*s.OriginShare)
	case s.LogBytes < 10:
		return fmt.Sprintf("the access log grew by %.1f bytes a request, so it is not on", s.LogBytes)
	}
	return ""
}

// client is a plain HTTP/1.1 client that takes any certificate of TLS 1.3.
func client() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			Protocols: protocols, DisableCompression: true, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13},
		},
	}
}

// client3 is a client of HTTP/3 that takes any certificate.
func client3() (*http.Client, func()) {
	tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true}
	return &http.Client{Timeout: 10 * time.Second, Transport: tr}, func() { _ = tr.Close() }
}

// probe asks a row a few times before it is measured: the right status, every
// byte of the body, over the right HTTP. A row that answers wrongly is void, not fast.
func (b *bench) probe(ctx context.Context, c benchCase, r row) error {
	want := strings.Repeat("x", c.bytes)
	ask, major, minor := b.client, 1, 1
	if c.http3 {
		client, done := client3()
		defer done()
		ask, major, minor = client, 3, 0
	}
	for range 3 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.address(r, b.site.ports[r.port]), nil)
		if err != nil {
			return err
		}
		if !c.http3 {
			req.Host = b.site.host()
		}
		resp, err := ask.Do(req)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(io.LimitReader(resp.Body, int64(c.bytes)+1))
		_ = resp.Body.Close()
		switch {
		case err != nil:
			return fmt.Errorf("body: %w", err)
		case resp.StatusCode != http.StatusOK:
			return fmt.Errorf("answers %s", resp.Status)
		case resp.ProtoMajor != major || resp.ProtoMinor != minor:
			return fmt.Errorf("answers with %s", resp.Proto)
		case string(got) != want:
			return fmt.Errorf("answers %d bytes that are not the %d expected", len(got), len(want))
		}
	}
	return nil
}

// backendCount is how many answers the backend has given.
func (b *bench) backendCount(ctx context.Context) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.site.Backend+"/count", nil)
	if err != nil {
		return 0, err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("backend: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err != nil {
		return 0, fmt.Errorf("backend: %w", err)
	}
	return strconv.ParseInt(string(text), 10, 64)
}
