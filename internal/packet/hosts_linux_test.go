//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64

package packet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// refusesBPF says whether this kernel takes no XDP program at all.
func refusesBPF() bool { return features.HaveProgramType(ebpf.XDP) != nil }

// host is a network namespace of its own. What is done in it is done on threads that end with it.
type host struct {
	t  testing.TB
	ns int // descriptor
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{t: t, ns: -1}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			h.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		made <- err
	}()
	if err := <-made; err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("a network namespace of its own: ", err)
		}
		t.Skip("this wants root, for a network namespace of its own: ", err)
	}
	t.Cleanup(func() { _ = unix.Close(h.ns) })
	return h
}

// start does something in the namespace, on a thread of its own.
func (h *host) start(do func()) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Setns(h.ns, unix.CLONE_NEWNET); err != nil {
			h.t.Error(err)
			return
		}
		do()
	}()
	return done
}

func (h *host) do(do func()) { <-h.start(do) }

// ip runs ip(8) in the namespace.
func (h *host) ip(args string) {
	h.t.Helper()
	var out []byte
	var err error
	h.do(func() {
		cmd := exec.Command("ip", strings.Fields(args)...)
		out, err = cmd.CombinedOutput()
	})
	if err != nil {
		h.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// Addresses of the two hosts (RFC 5737, RFC 3849).
var (
	server4  = netip.MustParseAddr("198.51.100.1")
	client4  = netip.MustParseAddr("198.51.100.2")
	another4 = netip.MustParseAddr("198.51.100.3")
	server6  = netip.MustParseAddr("2001:db8:64::1")
	client6  = netip.MustParseAddr("2001:db8:64::2")
	another6 = netip.MustParseAddr("2001:db8:64::3")
)

// pair is a server with its filter, and a client, joined by a veth: v0 at the server, v1 at the client.
type pair struct{ server, client *host }

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{newHost(t), newHost(t)}
	var err error
	p.server.do(func() {
		// The client's namespace by the descriptor, which the child has as its third.
		cmd := exec.Command("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", "/proc/self/fd/3")
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup(t, p.client.ns)), "ns")}
		var out []byte
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		_ = cmd.ExtraFiles[0].Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		h     *host
		dev   string
		addrs []netip.Addr
	}{{p.server, "v0", []netip.Addr{server4, server6}}, {p.client, "v1", []netip.Addr{client4, another4, client6, another6}}} {
		s.h.ip("link set lo up")
		for _, a := range s.addrs {
			if a.Is4() {
				s.h.ip("addr add " + a.String() + "/24 dev " + s.dev)
			} else {
				s.h.ip("addr add " + a.String() + "/64 dev " + s.dev + " nodad")
			}
		}
		s.h.ip("link set " + s.dev + " up")
	}
	p.client.receives(t, "v1")
	return p
}

func dup(t testing.TB, fd int) int {
	t.Helper()
	n, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// receives has an end of the veth take what XDP at the other end sends: for that it wants a program
// too, which network cards do not.
func (h *host) receives(t testing.TB, dev string) {
	t.Helper()
	if refusesBPF() {
		return
	}
	h.do(func() {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}})
		if err != nil {
			t.Error(err)
			return
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: index(dev), Flags: link.XDPDriverMode})
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = l.Close(); _ = prog.Close() })
	})
}

// filter runs a filter at the server until the test ends or stop is called.
func (p *pair) filter(t testing.TB, cfg Config) (f *Filter, stop func()) {
	t.Helper()
	cfg.Interfaces = []string{"v0"}
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var ended error
	done := p.server.start(func() { ended = f.Run(ctx) })
	stop = func() {
		cancel()
		<-done
		if ended != nil && !errors.Is(ended, context.Canceled) {
			t.Error(ended)
		}
	}
	t.Cleanup(stop)
	until(t, "the filter attaches", func() bool {
		select {
		case <-done:
			t.Fatal(ended)
		default:
		}
		return f.Status().Mode != Off
	})
	return f, stop
}

// until waits for something to come true.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatal("did not come true: ", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// filters are the kinds of filters that this kernel takes; at least nftables, or the test fails.
func filters(t *testing.T, test func(t *testing.T, m Mode)) {
	t.Helper()
	for _, m := range []Mode{XDP, NFTables} {
		if m == XDP && refusesBPF() {
			t.Log("this kernel takes no XDP program; nftables alone is proved")
			continue
		}
		t.Run(string(m), func(t *testing.T) { test(t, m) })
	}
}
