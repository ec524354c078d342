package e2e

import (
	"bytes"
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
	"syscall"
	"testing"
	"time"

	"github.com/relais-edge/relais/test/proc"
)

// binary is bin/relais, which `make e2e` builds first.
func binary(t *testing.T) string {
	t.Helper()
	p, err := filepath.Abs("../../bin/relais")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%v; run make build", err)
	}
	return p
}

// ports finds free addresses on loopback.
func ports(t *testing.T, n int) []string {
	t.Helper()
	list, err := proc.Ports(n)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, n)
	for i, p := range list {
		out[i] = proc.Addr(p)
	}
	return out
}

// write writes a file into dir by rename, as editors and Kubernetes do.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".tmp", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}

// start starts bin/relais with arguments and waits until addr accepts connections.
func start(t *testing.T, addr string, env []string, args ...string) (p *proc.Process, log string) {
	t.Helper()
	return startProgram(t, binary(t), addr, env, args...)
}

// startProgram is start for a copy of bin/relais.
func startProgram(t *testing.T, program, addr string, env []string, args ...string) (p *proc.Process, log string) {
	t.Helper()
	dir := t.TempDir()
	log = filepath.Join(dir, "log")
	p, err := proc.Start(proc.Spec{
		Name: "relais " + args[0], Args: append([]string{program}, args...), Env: append([]string{"RELAIS_DATA=" + filepath.Join(dir, "data")}, env...),
		Log: log, Core: proc.AnyCore,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop(10 * time.Second)
		if t.Failed() {
			b, _ := os.ReadFile(log)
			t.Logf("log of relais %s:\n%s", strings.Join(args, " "), tail(b, 6000))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.WaitListen(ctx, addr); err != nil {
		t.Fatal(err)
	}
	return p, log
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// serve starts `relais serve -f file`.
func serve(t *testing.T, addr, file string, env ...string) (p *proc.Process, log string) {
	t.Helper()
	return start(t, addr, env, "serve", "-f", file)
}

// shopCluster starts one cluster of the shop.
func shopCluster(t *testing.T, name, addr, data string, capacity int, service time.Duration) *proc.Process {
	t.Helper()
	p, _ := start(t, addr, nil, "shop", "--cluster", name, "--listen", addr, "--data", data,
		"--capacity", fmt.Sprint(capacity), "--service-time", service.String())
	return p
}

// run runs bin/relais to its end.
func run(t *testing.T, env []string, args ...string) (code int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(t), args...)
	cmd.Env = append(os.Environ(), env...)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), b.String()
}

// get asks once and returns the whole answer.
func get(t *testing.T, url string, fields ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// eventually waits until ok, for as long as a slow machine may need.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func logHas(t *testing.T, log, text string) bool {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(text))
}

// origin is an HTTP server of the test's own.
func origin(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true) // for pools with protocol: h2c
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return ln.Addr().String()
}

func signal(t *testing.T, p *proc.Process, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(p.Pid(), s); err != nil {
		t.Fatal(err)
	}
}
