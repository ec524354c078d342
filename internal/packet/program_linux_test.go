//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64

package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"
)

// Verdicts of XDP.
const (
	xdpDrop = 1
	xdpPass = 2
	xdpTx   = 3
)

// loaded loads the program and gives it rules. Where the kernel takes none, its tests say so and end;
// then the tests of both kernels of filters prove nftables, or fail.
func loaded(t testing.TB, p Policy, rules ...Rule) (*xdp, *Rules) {
	t.Helper()
	cfg := &Config{Mode: XDP, Policy: p, ManagementPorts: []uint16{22}, Interfaces: []string{"lo"}}
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	g := &guard{fixed: []protected{{pfx("203.0.113.0/28"), "management"}}, root: t.TempDir()}
	x, err := loadXDP(cfg, g)
	if err != nil {
		if os.Getenv("CI") == "true" && os.Geteuid() == 0 && !refusesBPF() {
			t.Fatal(err)
		}
		t.Skip("this kernel takes no XDP program: ", err)
	}
	t.Cleanup(func() { _ = x.close() })
	r := newRules(g, time.Now)
	if err := r.attach(x); err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules {
		if err := r.put(rule); err != nil {
			t.Fatal(err)
		}
	}
	return x, r
}

// why runs a frame and says what came of it, and under which reason it was counted.
func (x *xdp) why(t testing.TB, b []byte) (verdict uint32, why reason, out []byte) {
	t.Helper()
	x.count()
	before := append([]Count(nil), x.counts...)
	verdict, out, err := x.obj.RelaisFilter.Test(b)
	if err != nil {
		t.Fatal(err)
	}
	x.count()
	why = reasons
	for r := range reasons {
		if x.counts[r].Packets != before[r].Packets {
			if why != reasons {
				t.Errorf("counted twice: %s and %s", why, r)
			}
			why = r
		}
	}
	return verdict, why, out
}

const (
	visitor4, visitor6 = "192.0.2.7", "2001:db8:7::7"
	here4, here6       = "198.51.100.1", "2001:db8:1::1"
)

func TestEachRankDecidesOnItsPackets(t *testing.T) {
	until := time.Now().Add(time.Hour)
	x, _ := loaded(
		t, DefaultPolicy(),
		Rule{Prefix: pfx("192.0.2.64/26"), Action: Deny, Until: until, Reason: "x"},
		Rule{Prefix: pfx("192.0.2.65/32"), Action: Allow, Until: until, Reason: "x"},
		Rule{Prefix: pfx("2001:db8:bad::/48"), Action: Deny, Until: until, Reason: "x"},
		Rule{Prefix: pfx("2001:db8:bad:1::/64"), Action: Allow, Until: until, Reason: "x"},
	)
	v4 := func(src string, proto byte, upper []byte) frame {
		return frame{src: src, dst: here4, proto: proto, upper: upper}
	}
	v6 := func(src string, proto byte, upper []byte) frame {
		return frame{src: src, dst: here6, proto: proto, upper: upper}
	}
	with := func(f frame, change func(*frame)) frame { change(&f); return f }
	plain4, plain6 := v4(visitor4, 6, tcp(4000, 443, ack)), v6(visitor6, 6, tcp(4000, 443, ack))
	cases := []struct {
		name string
		f    frame
		want reason
	}{
		{"TCP", plain4, passed},
		{"TCP, IPv6", plain6, passed},
		{"TCP in a VLAN", with(plain4, func(f *frame) { f.vlans = 1 }), passed},
		{"TCP in two VLANs", with(plain6, func(f *frame) { f.vlans = 2 }), passed},
		{"UDP", v4(visitor4, 17, udp(4000, 443, 30)), passed},
		{"UDP, IPv6", v6(visitor6, 17, udp(4000, 443, 30)), passed},
		{"a SYN", v4(visitor4, 6, tcp(4000, 443, syn)), passedSYN},
		{"a SYN with ECN", v4(visitor4, 6, tcp(4000, 443, syn|0xc0)), passedSYN},
		{"ICMP", v4(visitor4, 1, []byte{8, 0, 0, 0, 0, 0, 0, 0}), passed},
		{"a tunnel that is not known", v4(visitor4, 47, []byte{0, 0, 8, 0}), passed},

		{"cut short", with(plain4, func(f *frame) { f.trim = 30 }), malformed},
		{"longer than its frame, IPv4", with(plain4, func(f *frame) { f.claim = 9 }), malformed},
		{"longer than its frame, IPv6", with(plain6, func(f *frame) { f.claim = 9 }), malformed},
		{"IP options before TCP (RFC 7126)", with(plain4, func(f *frame) { f.options = []byte{7, 4, 4, 0} }), malformed},
		{"a TCP header that says it is longer", v4(visitor4, 6, patched(tcp(1, 2, ack), 12, 15<<4)), malformed},
		{"a TCP header that says it is shorter", v4(visitor4, 6, patched(tcp(1, 2, ack), 12, 4<<4)), malformed},
		{"TCP to port 0", v4(visitor4, 6, tcp(1, 0, ack)), malformed},
		{"UDP to port 0", v4(visitor4, 17, udp(4000, 0, 1)), malformed},
		{"UDP shorter than its header", v4(visitor4, 17, patched(udp(4000, 443, 9), 4, 0, 7)), malformed},
		{"UDP longer than its packet", v6(visitor6, 17, patched(udp(4000, 443, 9), 4, 0, 99)), malformed},
		{"routing header 0 (RFC 5095)", with(plain6, func(f *frame) { f.next, f.ext = 43, []byte{6, 0, 0, 0, 0, 0, 0, 0} }), malformed},
		{"five extension headers", with(plain6, func(f *frame) {
			f.next, f.ext = 60, append(append([]byte{60, 0, 1, 4, 0, 0, 0, 0, 60, 0, 1, 4, 0, 0, 0, 0}, 60, 0, 1, 4, 0, 0, 0, 0, 60, 0, 1, 4, 0, 0, 0, 0), 6, 0, 1, 4, 0, 0, 0, 0)
		}), malformed},
		{"an extension header longer than its packet", with(plain6, func(f *frame) { f.next, f.ext = 60, []byte{6, 200, 1, 4, 0, 0, 0, 0} }), malformed},
		{"neighbour discovery from afar (RFC 4861)", with(v6(visitor6, 58, []byte{135, 0, 0, 0}), func(f *frame) { f.hops = 64 }), malformed},

		{"neighbour discovery", with(v6("fe80::1", 58, []byte{135, 0, 0, 0}), func(f *frame) { f.hops = 255 }), passedLink},
		{"an address that is tried out (RFC 4862)", with(v6("::", 58, []byte{135, 0, 0, 0}), func(f *frame) { f.hops = 255 }), passedLink},
		{"destination options", with(plain6, func(f *frame) { f.next, f.ext = 60, []byte{6, 0, 1, 4, 0, 0, 0, 0} }), passed},

		{"management", v4("203.0.113.3", 6, tcp(4000, 9999, ack)), passedManage},
		{"fragments of management", with(v4("203.0.113.3", 17, udp(53, 9, 9)), func(f *frame) { f.frag = 0x2000 }), passedManage},
		{"denied", v4("192.0.2.70", 6, tcp(4000, 443, ack)), denied},
		{"denied, at the management port", v4("192.0.2.70", 6, tcp(4000, 22, ack)), passed},
		{"denied, UDP at the management port", v4("192.0.2.70", 17, udp(4000, 22, 1)), denied},
		{"denied, IPv6", v6("2001:db8:bad::1", 17, udp(4000, 443, 1)), denied},
		{"beside the denied", v4("192.0.2.63", 6, tcp(4000, 443, ack)), passed},
		{"allowed in the denied", v4("192.0.2.65", 17, udp(53, 443, 1)), passedAllowed},
		{"allowed in the denied, IPv6", v6("2001:db8:bad:1::9", 6, tcp(4000, 443, syn)), passedAllowed},

		{"from this machine", v4("127.0.0.1", 6, tcp(4000, 443, ack)), martian},
		{"from a group", v4("224.0.0.9", 17, udp(4000, 443, 1)), martian},
		{"from nowhere", v4("0.0.0.0", 6, tcp(4000, 443, syn)), martian},
		{"who asks for an address (DHCP)", v4("0.0.0.0", 17, udp(68, 67, 30)), passed},
		{"from its destination", v4(here4, 6, tcp(443, 443, syn)), martian},
		{"from its destination, IPv6", v6(here6, 6, tcp(443, 443, syn)), martian},
		{"from this machine, IPv6", v6("::1", 6, tcp(4000, 443, syn)), martian},
		{"from IPv4 as IPv6", v6("::ffff:192.0.2.1", 6, tcp(4000, 443, syn)), martian},
		{"from a group, IPv6", v6("ff02::1", 17, udp(4000, 443, 1)), martian},

		{"the first fragment", with(plain4, func(f *frame) { f.frag = 0x2000 }), fragmented},
		{"the last fragment", with(plain4, func(f *frame) { f.frag = 0x0010 }), fragmented},
		{"a fragment, IPv6", with(plain6, func(f *frame) { f.next, f.ext = 44, []byte{6, 0, 0, 8, 0, 0, 0, 1} }), fragmented},
		{"an atomic fragment (RFC 6946)", with(plain6, func(f *frame) { f.next, f.ext = 44, []byte{6, 0, 0, 0, 0, 0, 0, 1} }), passed},
		{"from a resolver that was not asked", v4(visitor4, 17, udp(53, 40000, 30)), reflected},
		{"from memcached, IPv6", v6(visitor6, 17, udp(11211, 443, 30)), reflected},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			verdict, why, _ := x.why(t, c.f.bytes())
			want := uint32(xdpPass)
			if c.want.drops() {
				want = xdpDrop
			}
			if verdict != want || why != c.want {
				t.Errorf("verdict %d by %s, want %d by %s", verdict, why, want, c.want)
			}
		})
	}
	arp := append(make([]byte, 12), 0x08, 0x06, 0, 1)
	if v, why, _ := x.why(t, arp); v != xdpPass || why != passedOther {
		t.Errorf("ARP: verdict %d by %s", v, why)
	}
}

func TestImpossibleFlagsOfTCPAreDropped(t *testing.T) {
	p := DefaultPolicy()
	p.SYN = Rate{}
	x, _ := loaded(t, p)
	for flags := range byte(64) {
		f := func(bits byte) bool { return flags&bits == bits }
		possible := flags&(syn|rst|ack) != 0 && !f(syn|fin) && !f(syn|rst) && !f(fin|rst) && (!f(fin) || f(ack))
		verdict, _, _ := x.why(t, frame{src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, flags)}.bytes())
		if (verdict == xdpPass) != possible {
			t.Errorf("flags %06b: verdict %d, possible %v", flags, verdict, possible)
		}
	}
}

func TestASourceIsLimitedByClassAndByItself(t *testing.T) {
	p := DefaultPolicy()
	p.SYN, p.UDP, p.Other = Rate{1, 5}, Rate{1, 7}, Rate{1, 3}
	x, _ := loaded(t, p)
	for _, c := range []struct {
		name  string
		f     frame
		other string // of another bucket
		same  string // of the same bucket
		burst int
		drops reason
	}{
		{"SYN", frame{src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, syn)}, "192.0.2.8", visitor4, 5, sourceSYN},
		{"UDP", frame{src: visitor4, dst: here4, proto: 17, upper: udp(4000, 443, 3)}, "192.0.2.8", visitor4, 7, sourceUDP},
		{"ICMP", frame{src: visitor4, dst: here4, proto: 1, upper: []byte{8, 0, 0, 0}}, "192.0.2.8", visitor4, 3, sourceOther},
		{"UDP, a /64", frame{src: visitor6, dst: here6, proto: 17, upper: udp(4000, 443, 3)}, "2001:db8:8::7", "2001:db8:7::8", 7, sourceUDP},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range c.burst {
				if v, why, _ := x.why(t, c.f.bytes()); v != xdpPass {
					t.Fatalf("packet %d of a burst of %d: %s", i, c.burst, why)
				}
			}
			c.f.src = c.same
			if v, why, _ := x.why(t, c.f.bytes()); v != xdpDrop || why != c.drops {
				t.Errorf("beyond the burst: verdict %d by %s", v, why)
			}
			c.f.src = c.other
			if v, why, _ := x.why(t, c.f.bytes()); v != xdpPass {
				t.Errorf("another source: %s", why)
			}
		})
	}
}

func TestADenialEndsInTheKernelWithoutUs(t *testing.T) {
	x, r := loaded(t, DefaultPolicy())
	f := frame{src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, ack)}.bytes()
	if err := r.Deny(pfx("192.0.2.0/24"), time.Now().Add(200*time.Millisecond), "x"); err != nil {
		t.Fatal(err)
	}
	if v, _, _ := x.why(t, f); v != xdpDrop {
		t.Fatal("passed")
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		if v, _, _ := x.why(t, f); v == xdpPass {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("dropped after its end")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestAfterItsLeaseTheProgramPassesEverything(t *testing.T) {
	x, _ := loaded(t, DefaultPolicy(), Rule{Prefix: pfx("192.0.2.0/24"), Action: Deny, Until: time.Now().Add(time.Hour), Reason: "x"})
	f := frame{src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, ack)}.bytes()
	if v, _, _ := x.why(t, f); v != xdpDrop {
		t.Fatal("passed")
	}
	if err := x.obj.State.Put(uint32(0), state{Lease: monotonic() - uint64(time.Second)}); err != nil {
		t.Fatal(err)
	}
	if v, _, _ := x.why(t, f); v != xdpPass {
		t.Fatal("a process that is gone still drops packets")
	}
	if err := x.live(); err != nil {
		t.Fatal(err)
	}
	if v, _, _ := x.why(t, f); v != xdpDrop {
		t.Fatal("a process that lives again does not filter")
	}
}

func TestUnderPressureASYNIsAnsweredWithACookie(t *testing.T) {
	p := DefaultPolicy()
	p.SYN, p.Listener = Rate{}, Rate{10, 10}
	x, _ := loaded(t, p)
	x.cookies.on, x.cookies.was = true, "2"
	if err := x.live(); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]frame{
		"IPv4":             {src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, syn)},
		"IPv4 in a VLAN":   {src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, syn), vlans: 1},
		"IPv4, TCP header": {src: visitor4, dst: here4, proto: 6, upper: patched(tcp(4000, 443, syn)[:20], 12, 5<<4)},
		"IPv6":             {src: visitor6, dst: here6, proto: 6, upper: tcp(4000, 443, syn)},
		"IPv4 with data":   {src: visitor4, dst: here4, proto: 6, upper: append(tcp(4000, 443, syn), make([]byte, 300)...)},
	} {
		t.Run(name, func(t *testing.T) {
			var out []byte
			var verdict uint32
			for range 100 { // more than the listener gets
				verdict, _, out = x.why(t, f.bytes())
				if verdict == xdpTx {
					break
				}
			}
			if verdict != xdpTx {
				t.Fatalf("verdict %d", verdict)
			}
			checkAnswer(t, &f, out)
		})
	}
	other := frame{src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 22, syn)}
	for range 100 {
		if v, why, _ := x.why(t, other.bytes()); v != xdpPass {
			t.Fatalf("a SYN for management: verdict %d by %s", v, why)
		}
	}
}

// checkAnswer looks at a SYN-ACK as its receiver would (RFC 9293 section 3.5).
func checkAnswer(t *testing.T, f *frame, out []byte) {
	t.Helper()
	src, dst := netip.MustParseAddr(f.src), netip.MustParseAddr(f.dst)
	at := 14 + 4*f.vlans
	ip := out[at:]
	var from, to, rest []byte
	if src.Is4() {
		if sum16(ip[:20]) != 0xffff || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) {
			t.Errorf("IP header % x of %d bytes", ip[:20], len(ip))
		}
		from, to, rest = ip[12:16], ip[16:20], ip[20:]
	} else {
		if int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 {
			t.Errorf("IP header % x of %d bytes", ip[:40], len(ip))
		}
		from, to, rest = ip[8:24], ip[24:40], ip[40:]
	}
	if fmt.Sprint(from) != fmt.Sprint(dst.AsSlice()) || fmt.Sprint(to) != fmt.Sprint(src.AsSlice()) {
		t.Errorf("from % x to % x", from, to)
	}
	pseudo := append(append(append([]byte{}, from...), to...), 0, 6, byte(len(rest)>>8), byte(len(rest)))
	if sum16(append(pseudo, rest...)) != 0xffff {
		t.Errorf("checksum of % x", rest)
	}
	if rest[13] != syn|ack || binary.BigEndian.Uint16(rest) != 443 || binary.BigEndian.Uint16(rest[2:]) != 4000 || binary.BigEndian.Uint32(rest[8:]) != 1001 {
		t.Errorf("TCP header % x", rest)
	}
	if string(out[:6]) != "\x02\x00\x00\x00\x00\x02" || string(out[6:12]) != "\x02\x00\x00\x00\x00\x01" {
		t.Errorf("Ethernet header % x", out[:12])
	}
}

func TestHitsAreCountedByRule(t *testing.T) {
	until := time.Now().Add(time.Hour)
	x, r := loaded(t, DefaultPolicy(), Rule{Prefix: pfx("192.0.2.0/24"), Action: Deny, Until: until, Reason: "x"}, Rule{Prefix: pfx("192.0.2.9/32"), Action: Deny, Until: until, Reason: "x"})
	for range 3 {
		x.why(t, frame{src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, ack)}.bytes())
	}
	x.why(t, frame{src: "192.0.2.9", dst: here4, proto: 6, upper: tcp(4000, 443, ack)}.bytes())
	if l := r.List(); l[0].Packets != 3 || l[1].Packets != 1 {
		t.Errorf("counted %v", l)
	}
}

func TestSamplesShowWhatWasDroppedAndAreBounded(t *testing.T) {
	p := DefaultPolicy()
	p.Sample = 1
	cfg := &Config{Mode: XDP, Policy: p, Interfaces: []string{"lo"}}
	var got []Sample
	cfg.Sampled = func(s Sample) { s.Head = append([]byte{}, s.Head...); got = append(got, s) }
	if _, r := loaded(t, p); r == nil { // says why not, where it cannot be
		return
	}
	x, err := loadXDP(cfg, &guard{root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.close() })
	f := frame{src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, fin)}.bytes()
	if _, _, err := x.obj.RelaisFilter.Test(f); err != nil {
		t.Fatal(err)
	}
	x.drain(time.Now())
	if len(got) != 1 || got[0].Reason != "malformed" || got[0].Bytes != len(f) || string(got[0].Head) != string(f) || time.Since(got[0].At) > time.Minute {
		t.Fatalf("sampled %v", got)
	}
	if _, _, err := x.obj.RelaisFilter.Benchmark(f, 10_000, nil); err != nil {
		t.Fatal(err)
	}
	x.count()
	if n := x.counts[samplesLost].Packets; n == 0 {
		t.Error("ten thousand samples had room")
	}
	got = got[:0]
	x.drain(time.Now())
	if len(got) == 0 || len(got) > maxDrain {
		t.Errorf("%d samples at once", len(got))
	}
}
