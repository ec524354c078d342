package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/relais-edge/relais/test/proc"
)

const upgradable = `apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "%s"}
---
apiVersion: relais/v1
kind: Listener
metadata: {name: secure}
spec: {address: "%s", tls: {}}
---
apiVersion: relais/v1
kind: Site
metadata: {name: s}
spec:
  hostnames: ["*"]
  routes: [{pool: o, filters: {responseHeaders: {set: [{name: X-Revision, value: "1"}]}}}]
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: o}
spec: {tiers: [{origins: [{address: "%s"}]}]}
`

// lateBytes are so many that an answer needs what its client says meanwhile.
const lateBytes = 4 << 20

// upgradeBed is an edge that can be upgraded, before an origin that counts orders.
type upgradeBed struct {
	clear, secure string
	program, file string
	pidFile, data string
	log           string
	first         *proc.Process
	mu            sync.Mutex
	orders        map[string]int
	asked, gate   chan struct{} // of a request for /late
}

func newUpgradeBed(t *testing.T, args ...string) *upgradeBed {
	t.Helper()
	dir, a := t.TempDir(), ports(t, 2)
	b := &upgradeBed{
		clear: a[0], secure: a[1], program: filepath.Join(dir, "relais"), file: filepath.Join(dir, "edge.yaml"),
		pidFile: filepath.Join(dir, "pid"), data: filepath.Join(dir, "data"), orders: map[string]int{},
		asked: make(chan struct{}, 1), gate: make(chan struct{}),
	}
	back := origin(t, func(w http.ResponseWriter, r *http.Request) {
		if key := r.Header.Get("Idempotency-Key"); key != "" {
			if body, err := io.ReadAll(r.Body); err != nil || string(body) != key {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			b.mu.Lock()
			b.orders[key]++
			b.mu.Unlock()
		}
		if r.URL.Path == "/late" {
			b.asked <- struct{}{}
			<-b.gate
			_, _ = w.Write(make([]byte, lateBytes))
			return
		}
		time.Sleep(5 * time.Millisecond) // so that an upgrade meets requests under way
		fmt.Fprint(w, "ok")
	})
	write(t, b.file, fmt.Sprintf(upgradable, b.clear, b.secure, back))
	b.install(t)
	b.first, b.log = startProgram(t, b.program, b.clear, []string{"RELAIS_DATA=" + b.data},
		append([]string{"serve", "-f", b.file, "--pid-file", b.pidFile}, args...)...)
	eventually(t, "the process id is kept", func() bool { return b.pid(t) == b.first.Pid() })
	return b
}

// install puts a good program on disk, as a new file.
func (b *upgradeBed) install(t *testing.T) {
	t.Helper()
	content, err := os.ReadFile(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	b.place(t, content)
}

func (b *upgradeBed) place(t *testing.T, content []byte) {
	t.Helper()
	if err := os.WriteFile(b.program+".new", content, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(b.program+".new", b.program); err != nil {
		t.Fatal(err)
	}
}

func (b *upgradeBed) pid(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(b.pidFile)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// status asks the admin socket.
func (b *upgradeBed) status(t *testing.T) (pid int) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(b.data, "admin.sock"))
	}}}
	resp, err := c.Get("http://relais/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var st struct{ Pid int }
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		t.Fatal(err)
	}
	return st.Pid
}

// load sends orders by all protocols, on connections that are kept and on fresh ones, until
// its context ends. A client does not send an order again, except on HTTP/2 when the server
// said that it had not looked at it (RFC 9113 section 6.8).
type load struct {
	wg        sync.WaitGroup
	good, bad atomic.Int64
}

func (l *load) start(ctx context.Context, t *testing.T, b *upgradeBed) {
	for name, client := range clients() {
		fresh := client.Transport.(*http.Transport).Clone()
		fresh.DisableKeepAlives = true
		for i, c := range []*http.Client{client, client, {Transport: fresh, Timeout: client.Timeout}} {
			url := "http://" + b.clear + "/order"
			if strings.HasPrefix(name, "tls") {
				url = "https://" + b.secure + "/order"
			}
			l.wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					if i == 1 { // this one's connection is idle most of the time
						time.Sleep(rand.N(100 * time.Millisecond))
					}
					key := fmt.Sprintf("%s-%d-%d", name, i, n)
					if err := order(c, url, key, strings.HasSuffix(name, "h2") || name == "h2c"); err != nil {
						l.bad.Add(1)
						t.Errorf("%s: %v", key, err)
						continue
					}
					l.good.Add(1)
				}
			})
		}
	}
}

func order(c *http.Client, url, key string, again bool) error {
	var body io.Reader = strings.NewReader(key)
	if !again {
		body = io.MultiReader(body) // which package net/http cannot rewind
	}
	req, err := http.NewRequest(http.MethodPost, url, body)
	if err != nil {
		return err
	}
	req.ContentLength = int64(len(key))
	req.Header.Set("Idempotency-Key", key)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(text) != "ok" {
		return fmt.Errorf("%s %q %w", resp.Status, text, err)
	}
	return nil
}

func TestAnUpgradeUnderLoadFailsNoRequestAndServesNoneTwice(t *testing.T) {
	b := newUpgradeBed(t)
	ctx, cancel := context.WithCancel(t.Context())
	var l load
	l.start(ctx, t, b)
	more := func() {
		t.Helper()
		before := l.good.Load()
		eventually(t, "orders go on", func() bool { return l.good.Load() > before+200 })
	}
	more()
	for i := range 3 {
		b.install(t)
		before := b.pid(t)
		if i%2 == 0 {
			if err := syscall.Kill(before, syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
		} else if code, out := run(t, nil, "upgrade", "--data", b.data); code != 0 || !strings.Contains(out, "serves") {
			t.Fatalf("relais upgrade: %d %s", code, out)
		}
		eventually(t, "another process serves", func() bool { return b.pid(t) != before })
		now := b.pid(t)
		eventually(t, "the admin socket is the new process's", func() bool { return b.status(t) == now })
		more()
		eventually(t, "the process before has ended", func() bool { return gone(before) })
		more()
	}
	cancel()
	l.wg.Wait()
	if err := b.first.Err(); err != nil {
		t.Errorf("the first process: %v", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, n := range b.orders {
		if n != 1 {
			t.Errorf("order %s came to the origin %d times", key, n)
		}
	}
	t.Logf("%d orders, %d at the origin, %d failed", l.good.Load(), len(b.orders), l.bad.Load())
	if int(l.good.Load()) != len(b.orders) {
		t.Errorf("%d orders were answered, %d came to the origin", l.good.Load(), len(b.orders))
	}
}

// gone says whether a process has ended; one that nobody has waited for has.
func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := bytes.Cut(text, []byte(") "))
	return bytes.HasPrefix(rest, []byte("Z"))
}

func TestAnUpgradeThatFailsLeavesTheOldProcessServingAndSaysWhy(t *testing.T) {
	b := newUpgradeBed(t, "--upgrade-within", "5s")
	good, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	documents := func(s string) func() { return func() { write(t, b.file, s) } }
	program := func(s string) func() { return func() { b.place(t, []byte(s)) } }
	tests := []struct {
		name string
		do   func()
		want string
	}{
		{"no program", func() { _ = os.Remove(b.program) }, "cannot be started"},
		{"not a program", program("nonsense"), "cannot be started"},
		{"a program that ends", program("#!/bin/sh\nexit 3\n"), "exit status 3"},
		{"a program that hangs", program("#!/bin/sh\nexec sleep 60\n"), "not ready within 5s"},
		{"a bad document", documents(strings.Replace(string(good), "pool: o,", "pool: oo,", 1)), "did you mean"},
		{"no documents", func() { _ = os.Remove(b.file) }, "edge.yaml"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.do()
			code, out := run(t, nil, "upgrade", "--data", b.data)
			if code != 1 || !strings.Contains(out, tt.want) {
				t.Errorf("relais upgrade: %d %s; want %q", code, out, tt.want)
			}
			if !logHas(t, b.log, "the upgrade has failed") {
				t.Error("nothing in the log")
			}
			if resp, body := get(t, "http://"+b.clear+"/"); resp.StatusCode != 200 || body != "ok" {
				t.Errorf("%s %s", resp.Status, body)
			}
			if pid := b.status(t); pid != b.first.Pid() || b.pid(t) != pid {
				t.Errorf("process %d answers, %d is in the file, want %d", pid, b.pid(t), b.first.Pid())
			}
			b.install(t)
			write(t, b.file, string(good))
		})
	}
	if code, out := run(t, nil, "upgrade", "--data", b.data); code != 0 {
		t.Errorf("after all those, a good program: %d %s", code, out)
	}
	if resp, body := get(t, "http://"+b.clear+"/"); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// A QUIC connection of the process before goes on through two upgrades: the processes after it
// pass its datagrams back.
func TestAnUpgradeLetsARequestOverHTTP3End(t *testing.T) {
	b := newUpgradeBed(t)
	newClient := func() *http.Client {
		tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		t.Cleanup(func() { _ = tr.Close() })
		return &http.Client{Transport: tr, Timeout: 20 * time.Second}
	}
	old := newClient()
	type answer struct {
		text string
		err  error
	}
	fetch := func(c *http.Client, path string) (a answer) {
		resp, err := c.Get("https://" + b.secure + path)
		if err != nil {
			return answer{err: err}
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return answer{string(text), err}
	}
	late := make(chan answer, 1)
	go func() { late <- fetch(old, "/late") }()
	<-b.asked
	for range 2 {
		if code, out := run(t, nil, "upgrade", "--data", b.data); code != 0 {
			t.Fatalf("%d %s", code, out)
		}
		if a := fetch(newClient(), "/"); a.err != nil || a.text != "ok" {
			t.Errorf("a new connection: %q %v", a.text, a.err)
		}
	}
	if gone(b.first.Pid()) {
		t.Error("the first process has ended before its request")
	}
	close(b.gate)
	if a := <-late; a.err != nil || len(a.text) != lateBytes {
		t.Errorf("the request under way: %d bytes, %v", len(a.text), a.err)
	}
	eventually(t, "the first process ends", func() bool { return gone(b.first.Pid()) })
	if a := fetch(old, "/"); a.err != nil || a.text != "ok" {
		t.Errorf("the client's next request: %q %v", a.text, a.err)
	}
}
