//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64

package packet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
)

func index(name string) int {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0
	}
	return i.Index
}

// echo serves TCP at the server: what comes goes back.
func (p *pair) echo(t testing.TB, port uint16) {
	t.Helper()
	p.server.do(func() {
		l, err := net.Listen("tcp", fmt.Sprint(":", port))
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.Copy(c, c)
				}()
			}
		}()
	})
}

// connect opens a connection at the client, and has a line echoed.
func (p *pair) connect(from, to netip.Addr, port uint16, patience time.Duration) (err error) {
	p.client.do(func() {
		d := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		var c net.Conn
		if c, err = d.Dial("tcp", netip.AddrPortFrom(to, port).String()); err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err = io.WriteString(c, "hello"); err == nil {
			_, err = io.ReadFull(c, make([]byte, 5))
		}
	})
	return err
}

const (
	refused = 300 * time.Millisecond // long enough to see that nothing comes
	patient = 20 * time.Second
)

func TestADeniedSourceIsDroppedUntilTheEndOfItsRule(t *testing.T) {
	filters(t, func(t *testing.T, m Mode) {
		p := newPair(t)
		p.echo(t, 443)
		f, _ := p.filter(t, Config{Mode: m, Policy: DefaultPolicy(), ManagementPorts: []uint16{22}})
		p.echo(t, 22)
		for _, c := range []struct{ from, to, other netip.Addr }{{client4, server4, another4}, {client6, server6, another6}} {
			one := netip.PrefixFrom(c.from, c.from.BitLen())
			if err := p.connect(c.from, c.to, 443, patient); err != nil {
				t.Fatal("before: ", err)
			}
			if err := f.Rules().Deny(one, time.Now().Add(time.Hour), "flood"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * tickEvery) // nftables is told by the next tick
			if err := p.connect(c.from, c.to, 443, refused); err == nil {
				t.Error("a denied source connects")
			}
			if err := p.connect(c.other, c.to, 443, patient); err != nil {
				t.Error("its neighbour does not: ", err)
			}
			if err := p.connect(c.from, c.to, 22, patient); err != nil {
				t.Error("a denied source does not reach the management port: ", err)
			}
			if err := f.Rules().Deny(one, time.Now().Add(500*time.Millisecond), "flood"); err != nil {
				t.Fatal(err)
			}
			if err := p.connect(c.from, c.to, 443, patient); err != nil {
				t.Error("after the end of the rule: ", err)
			}
		}
		until(t, "drops are counted", func() bool { return counted(f, denied) > 0 })
		if s := f.Status(); s.Mode != m || s.Rules != 0 || s.Expired != 2 {
			t.Errorf("status %+v", s)
		}
	})
}

// counted is how many packets a reason has decided on.
func counted(f *Filter, r reason) uint64 {
	for _, c := range f.Status().Counts {
		if c.Reason == r.String() {
			return c.Packets
		}
	}
	return 0
}

func TestTCPIsUnharmed(t *testing.T) {
	filters(t, func(t *testing.T, m Mode) {
		p := newPair(t)
		p.echo(t, 443)
		p.filter(t, Config{Mode: m, Policy: DefaultPolicy()})
		for _, to := range []netip.Addr{server4, server6} {
			p.client.do(func() {
				c, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, 443).String(), patient)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				const size = 24 << 20
				sent := sha256.New()
				go func() {
					block := make([]byte, 64<<10)
					for i := range size / len(block) {
						block[i%len(block)] = byte(i)
						sent.Write(block)
						if _, err := c.Write(block); err != nil {
							return
						}
					}
					_ = c.(*net.TCPConn).CloseWrite()
				}()
				got := sha256.New()
				n, err := io.Copy(got, c)
				if err != nil || n != size || string(got.Sum(nil)) != string(sent.Sum(nil)) {
					t.Errorf("%d of %d bytes came back: %v", n, size, err)
				}
			})
		}
	})
}

// datagrams answers UDP at the server, and counts what came from a source.
func (p *pair) datagrams(t testing.TB, port uint16, from netip.Addr) (fromIt *atomic.Uint64) {
	t.Helper()
	fromIt = new(atomic.Uint64)
	p.server.do(func() {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			b := make([]byte, 2048)
			for {
				n, a, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				if a.Addr().Unmap() == from {
					fromIt.Add(1)
					continue
				}
				_, _ = c.WriteToUDPAddrPort(b[:n], a)
			}
		}()
	})
	return fromIt
}

func TestASwapOfTheListUnderTrafficLosesNothingAndLetsNothingThrough(t *testing.T) {
	filters(t, func(t *testing.T, m Mode) {
		p := newPair(t)
		through := p.datagrams(t, 443, another4)
		policy := DefaultPolicy()
		policy.UDP = Rate{}
		f, _ := p.filter(t, Config{Mode: m, Policy: policy})
		list := func(n int) (out []Rule) {
			until := time.Now().Add(time.Hour)
			for i := range n {
				a := netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
				out = append(out, Rule{Prefix: netip.PrefixFrom(a, 32), Action: Deny, Until: until, Reason: "x"})
			}
			return append(out, Rule{Prefix: netip.PrefixFrom(another4, 32), Action: Deny, Until: until, Reason: "x"})
		}
		if err := f.Rules().Replace(list(1)); err != nil {
			t.Fatal(err)
		}
		var stop atomic.Bool
		var asked, answered, denied atomic.Uint64
		good := p.client.start(func() { ask(t, client4, &stop, &asked, &answered) })
		bad := p.client.start(func() { ask(t, another4, &stop, &denied, new(atomic.Uint64)) })
		swaps := 200
		if m == NFTables {
			swaps = 40
		}
		for i := range swaps {
			if err := f.Rules().Replace(list(1 + i%200)); err != nil {
				t.Error(err)
			}
		}
		stop.Store(true)
		<-good
		<-bad
		t.Logf("%d swaps, %d of %d answered, %d sent by the denied", swaps, answered.Load(), asked.Load(), denied.Load())
		if asked.Load() != answered.Load() || asked.Load() == 0 {
			t.Errorf("%d of %d packets were lost", asked.Load()-answered.Load(), asked.Load())
		}
		if through.Load() != 0 || denied.Load() == 0 {
			t.Errorf("%d of %d packets of a denied source came through", through.Load(), denied.Load())
		}
	})
}

// ask sends datagrams from an address and waits for each answer, until stop; who gets no answer to the
// first goes on without waiting.
func ask(t testing.TB, from netip.Addr, stop *atomic.Bool, asked, answered *atomic.Uint64) {
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(server4, 443)))
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	b := make([]byte, 64)
	for !stop.Load() {
		asked.Add(1)
		if _, err := c.Write(b); err != nil {
			t.Error(err)
			return
		}
		if from == another4 {
			time.Sleep(200 * time.Microsecond)
			continue
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(b); err == nil {
			answered.Add(1)
		}
	}
}

func TestReflectionsAreDroppedAndAnswersToOurOwnQuestionsAreNot(t *testing.T) {
	filters(t, func(t *testing.T, m Mode) {
		p := newPair(t)
		through := p.datagrams(t, 443, client4)
		f, _ := p.filter(t, Config{Mode: m, Policy: DefaultPolicy()})
		p.client.do(func() { // the reflector
			for _, port := range []int{53, 123, 11211} {
				c, err := net.ListenUDP("udp", &net.UDPAddr{IP: client4.AsSlice(), Port: port})
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				for range 50 {
					_, _ = c.WriteToUDPAddrPort(make([]byte, 400), netip.AddrPortFrom(server4, 443))
				}
			}
		})
		until(t, "reflections are counted", func() bool { return counted(f, reflected) >= 150 })
		if n := through.Load(); n != 0 {
			t.Errorf("%d reflections came through", n)
		}
		if m == NFTables {
			return // there only resolvers and management may answer, which Status says
		}
		p.client.do(func() {
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: client4.AsSlice(), Port: 53})
			if err != nil {
				t.Error(err)
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 100)
				_ = c.SetReadDeadline(time.Now().Add(patient))
				if n, a, err := c.ReadFromUDPAddrPort(b); err == nil {
					_, _ = c.WriteToUDPAddrPort(b[:n], a)
				}
			}()
		})
		p.server.do(func() {
			c, err := net.Dial("udp", netip.AddrPortFrom(client4, 53).String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patient))
			_, _ = c.Write([]byte("a question"))
			if _, err := c.Read(make([]byte, 100)); err != nil {
				t.Error("the answer to a question of this machine: ", err)
			}
		})
	})
}

func TestAStopTakesTheFilterAway(t *testing.T) {
	filters(t, func(t *testing.T, m Mode) {
		p := newPair(t)
		p.echo(t, 443)
		f, stop := p.filter(t, Config{Mode: m, Policy: DefaultPolicy()})
		if err := f.Rules().Deny(netip.PrefixFrom(client4, 32), time.Now().Add(time.Hour), "x"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * tickEvery)
		if err := p.connect(client4, server4, 443, refused); err == nil {
			t.Fatal("a denied source connects")
		}
		stop()
		if err := p.connect(client4, server4, 443, patient); err != nil {
			t.Error("after the stop: ", err)
		}
		if s := f.Status(); s.Mode != Off {
			t.Errorf("status %+v", s)
		}
	})
}

func TestAKilledProcessLeavesNobodyCutOff(t *testing.T) {
	// XDP goes with its process: TestAfterItsLeaseTheProgramPassesEverything has the rest.
	p := newPair(t)
	p.echo(t, 443)
	cfg := &Config{Mode: NFTables, Policy: DefaultPolicy(), Interfaces: []string{"v0"}}
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	var k kernel
	var err error
	p.server.do(func() {
		k, err = openNFTables(cfg, &guard{root: t.TempDir()})
		if err == nil {
			err = k.replace([]*entry{{Rule: Rule{Prefix: netip.PrefixFrom(client4, 32), Action: Deny, Until: time.Now().Add(time.Hour)}}})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.connect(client4, server4, 443, refused); err == nil {
		t.Fatal("a denied source connects")
	}
	p.server.do(func() { // another process of ours sees that this one lives
		if _, err := openNFTables(cfg, &guard{root: t.TempDir()}); !errors.Is(err, errBusy) {
			t.Errorf("a table that is in use is taken: %v", err)
		}
	})
	if err := p.connect(client4, server4, 443, patient); err != nil {
		t.Error("after the lease: ", err)
	}
	p.server.do(func() {
		k, err := openNFTables(cfg, &guard{root: t.TempDir()})
		if err != nil {
			t.Fatal("a table that was left is not taken: ", err)
		}
		if err := k.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhereXDPCannotAttachAutoTakesNFTables(t *testing.T) {
	p := newPair(t)
	if !refusesBPF() {
		p.server.do(func() { // somebody else's program is there already
			x, err := loadXDP(&Config{Policy: DefaultPolicy()}, &guard{root: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			l, err := link.AttachXDP(link.XDPOptions{Program: x.obj.RelaisFilter, Interface: index("v0")})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close(); _ = x.close() })
		})
	}
	p.echo(t, 443)
	f, _ := p.filter(t, Config{Mode: Auto, Policy: DefaultPolicy()})
	s := f.Status()
	if s.Mode != NFTables || len(s.Unprotected) == 0 || !strings.HasPrefix(s.Unprotected[0], "xdp: ") && !strings.Contains(strings.Join(s.Unprotected, " "), "SYN floods") {
		t.Errorf("status %+v", s)
	}
	if err := p.connect(client4, server4, 443, patient); err != nil {
		t.Error(err)
	}
}

func TestWhereNothingCanFilterItIsSaid(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		mode Mode
		ends bool
	}{{Auto, false}, {XDP, true}, {NFTables, true}} {
		f, err := New(Config{Mode: c.mode, Policy: DefaultPolicy(), Interfaces: []string{"none0"}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var ended error
		done := h.start(func() { ended = f.Run(ctx) })
		until(t, "it is said", func() bool { return len(f.Status().Unprotected) > 0 })
		if s := f.Status(); s.Mode != Off || !strings.Contains(s.Unprotected[0], "none0") {
			t.Errorf("%s: status %+v", c.mode, s)
		}
		if c.ends {
			<-done
			if ended == nil || !strings.Contains(ended.Error(), "none0") {
				t.Errorf("%s: ended with %v", c.mode, ended)
			}
		}
		cancel()
		<-done
	}
}

func TestWhoIsConnectedToTheManagementPortCannotBeDenied(t *testing.T) {
	filters(t, func(t *testing.T, m Mode) {
		p := newPair(t)
		p.echo(t, 22)
		f, _ := p.filter(t, Config{Mode: m, Policy: DefaultPolicy(), ManagementPorts: []uint16{22}})
		var c net.Conn
		p.client.do(func() {
			var err error
			if c, err = net.DialTimeout("tcp", netip.AddrPortFrom(server4, 22).String(), patient); err != nil {
				t.Fatal(err)
			}
		})
		defer c.Close()
		until(t, "the connection is seen", func() bool {
			for _, p := range f.Status().Management {
				if p.Contains(client4) || p.Contains(another4) {
					return true
				}
			}
			return false
		})
		if err := f.Rules().Deny(pfx("198.51.100.0/24"), time.Now().Add(time.Hour), "x"); !errors.Is(err, ErrCutsOff) {
			t.Errorf("the operator's network is denied: %v", err)
		}
	})
}

func TestTheKernelsSettingOfSYNCookiesIsAsBeforeAfterAStop(t *testing.T) {
	h := newHost(t)
	h.do(func() {
		read := func() string {
			b, err := os.ReadFile(synCookies)
			if err != nil {
				t.Error(err)
			}
			return strings.TrimSpace(string(b))
		}
		was := read()
		var c cookies
		now := time.Now()
		c.look(now, 0, 0)
		if read() != was || c.String() != "ready" {
			t.Errorf("%s %s without pressure", read(), &c)
		}
		c.look(now, 1, 0)
		if read() != "2" || !c.on {
			t.Errorf("%s %s under pressure", read(), &c)
		}
		c.look(now.Add(calm), 1, 9)
		c.look(now.Add(2*calm), 1, 9)
		if !c.on {
			t.Error("ends within a minute of the last cookie")
		}
		c.look(now.Add(2*calm+time.Second), 1, 9)
		if read() != was || c.on {
			t.Errorf("%s %s after the pressure, was %s", read(), &c, was)
		}
	})
}
