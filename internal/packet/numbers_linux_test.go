//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64

package packet

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// goal is the most that a packet may cost, in ns.
const goal = 150

// numbers prints the table and judges it; without, a short form of it shows that it runs.
var numbers = flag.Bool("numbers", false, "print the table of make test-packet, and fail where a number is short")

// line is one line of the table: the goal is the most that may be, or nothing.
func line(t *testing.T, name string, measured, goal float64, unit, peer string) {
	t.Helper()
	state, want := "ok", "-"
	if goal > 0 {
		want = strconv.FormatFloat(goal, 'f', -1, 64)
		if measured > goal {
			state = "short"
		}
	}
	fmt.Printf("%-52s measured %10.1f %-7s goal %6s  peer %-28s %s\n", name, measured, unit, want, peer, state)
	if state == "short" && *numbers {
		t.Errorf("%s: %.1f %s, the goal is %s", name, measured, unit, want)
	}
}

// manyPrefixes are n different prefixes, none of which holds an address of the tests.
func manyPrefixes(n int) []Rule {
	r := rand.New(rand.NewPCG(5, 6))
	until := time.Now().Add(time.Hour)
	out := make([]Rule, 0, n)
	seen := make(map[netip.Prefix]bool, n)
	for len(out) < n {
		var p netip.Prefix
		if len(out)%4 == 3 {
			var a [16]byte
			binary.BigEndian.PutUint64(a[:], 0x2a00<<48|r.Uint64()>>16)
			p = netip.PrefixFrom(netip.AddrFrom16(a), 40+r.IntN(25)).Masked()
		} else {
			a := r.Uint32()
			if top := a >> 24; top < 11 || top == 127 || top == 169 || top == 192 || top == 198 || top >= 203 {
				continue
			}
			p = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}), 20+r.IntN(13)).Masked()
		}
		if !seen[p] {
			seen[p] = true
			out = append(out, Rule{Prefix: p, Action: Deny, Until: until, Reason: "bench"})
		}
	}
	return out
}

// cost is the median of rounds of the program's time for a packet, in ns.
func cost(t *testing.T, x *xdp, b []byte, rounds, each int) float64 {
	t.Helper()
	var all []float64
	for range rounds {
		if err := x.live(); err != nil { // or it passes everything, quickly
			t.Fatal(err)
		}
		_, d, err := x.obj.RelaisFilter.Benchmark(b, each, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, float64(d.Nanoseconds()))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// TestNumbers is the table of make test-packet.
func TestNumbers(t *testing.T) {
	const prefixes = 100_000
	if refusesBPF() {
		if *numbers {
			t.Fatal("this kernel takes no XDP program, so nothing can be measured")
		}
		t.Log("this kernel takes no XDP program")
		return
	}
	rounds, each := 3, 1000
	if *numbers {
		rounds, each = 101, 20_000
	}
	wide := DefaultPolicy()
	wide.SYN, wide.UDP, wide.Other, wide.Listener = Rate{maxRate, maxRate}, Rate{maxRate, maxRate}, Rate{maxRate, maxRate}, Rate{maxRate, maxRate}
	x, r := loaded(t, wide)
	list := manyPrefixes(prefixes)
	began := time.Now()
	if err := r.Replace(list); err != nil {
		t.Fatal(err)
	}
	line(t, "a list of 100,000 prefixes, checked and swapped in", float64(time.Since(began).Milliseconds()), 0, "ms", "")
	in4, in6 := list[0].Prefix.Addr().String(), list[3].Prefix.Addr().String()
	ranks := []struct {
		name string
		f    frame
		want reason
	}{
		{"malformed TCP", frame{src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, syn|fin)}, malformed},
		{"management", frame{src: "203.0.113.3", dst: here4, proto: 6, upper: tcp(4000, 443, ack)}, passedManage},
		{"denied, IPv4", frame{src: in4, dst: here4, proto: 17, upper: udp(4000, 443, 30)}, denied},
		{"denied, IPv6", frame{src: in6, dst: here6, proto: 17, upper: udp(4000, 443, 30)}, denied},
		{"fragment", frame{src: visitor4, dst: here4, proto: 17, frag: 0x2000, upper: udp(4000, 443, 30)}, fragmented},
		{"reflection, with the look for who asked", frame{src: visitor4, dst: here4, proto: 17, upper: udp(53, 443, 30)}, reflected},
		{"TCP of an open connection, IPv4", frame{src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, ack)}, passed},
		{"TCP of an open connection, IPv6", frame{src: visitor6, dst: here6, proto: 6, upper: tcp(4000, 443, ack)}, passed},
		{"UDP through all ranks, IPv4", frame{src: visitor4, dst: here4, proto: 17, upper: udp(4000, 443, 30)}, passed},
		{"UDP through all ranks, IPv6", frame{src: visitor6, dst: here6, proto: 17, upper: udp(4000, 443, 30)}, passed},
		{"SYN through all ranks, IPv4", frame{src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, syn)}, passedSYN},
		{"SYN through all ranks, IPv6", frame{src: visitor6, dst: here6, proto: 6, upper: tcp(4000, 443, syn)}, passedSYN},
	}
	for _, k := range ranks {
		b := k.f.bytes()
		if err := x.live(); err != nil {
			t.Fatal(err)
		}
		if _, why, _ := x.why(t, b); why != k.want {
			t.Errorf("%s: decided by %s, want %s", k.name, why, k.want)
		}
		line(t, k.name+", 100,000 prefixes", cost(t, x, b, rounds, each), goal, "ns", "")
	}
	madeUpSources(t, rounds, each)
	cookieCost(t, rounds)
	beside(t)
}

// madeUpSources is the cost of packets whose source was never seen: each takes a place of another. A program before
// the filter makes the source of each packet up, and costs what the same program without the filter does.
func madeUpSources(t *testing.T, rounds, each int) {
	t.Helper()
	x, r := loaded(t, DefaultPolicy())
	if err := r.Replace(manyPrefixes(100_000)); err != nil {
		t.Fatal(err)
	}
	next, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	maker, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "MIT", Flags: unix.BPF_F_XDP_HAS_FRAGS, AttachType: ebpf.AttachXDP, Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetPrandomU32.Call(),
		asm.LoadMem(asm.R2, asm.R6, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R6, 4, asm.Word), // its end
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 34),
		asm.JGT.Reg(asm.R4, asm.R3, "out"),
		asm.LSh.Imm(asm.R0, 8),
		asm.Or.Imm(asm.R0, 11), // of 11.0.0.0/8
		asm.StoreMem(asm.R2, 26, asm.R0, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, next.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("out"),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer maker.Close()
	b := frame{src: "11.0.0.1", dst: here4, proto: 17, upper: udp(4000, 443, 30)}.bytes()
	one := func() float64 {
		if err := x.live(); err != nil {
			t.Fatal(err)
		}
		_, d, err := maker.Benchmark(b, each, nil)
		if err != nil {
			t.Fatal(err)
		}
		return float64(d.Nanoseconds())
	}
	var bare, whole []float64
	for range rounds {
		bare = append(bare, one())
		if err := next.Put(uint32(0), x.obj.RelaisFilter); err != nil {
			t.Fatal(err)
		}
		whole = append(whole, one())
		if err := next.Delete(uint32(0)); err != nil {
			t.Fatal(err)
		}
	}
	x.count()
	if n := x.counts[passed].Packets; n < uint64(rounds*each)/2 {
		t.Errorf("%d of the made-up packets passed the filter, of %d", n, rounds*each)
	}
	slices.Sort(bare)
	slices.Sort(whole)
	line(t, "UDP of made-up sources, each another", whole[len(whole)/2]-bare[len(bare)/2], goal, "ns", "")
}

// cookieCost is that of the answer to a SYN. The program makes the frame another, so each run is one.
func cookieCost(t *testing.T, rounds int) {
	t.Helper()
	p := DefaultPolicy()
	p.SYN, p.Listener = Rate{maxRate, maxRate}, Rate{10, 10}
	x, r := loaded(t, p)
	if err := r.Replace(manyPrefixes(100_000)); err != nil {
		t.Fatal(err)
	}
	x.cookies.on, x.cookies.was = true, "2"
	f := frame{src: visitor4, dst: here4, proto: 6, upper: tcp(4000, 443, syn)}.bytes()
	arp := append(make([]byte, 12), 0x08, 0x06, 0, 1)
	var all, none []float64
	for i := range rounds * 100 {
		if i%100 == 0 {
			if err := x.live(); err != nil {
				t.Fatal(err)
			}
		}
		v, d, err := x.obj.RelaisFilter.Benchmark(f, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if v == xdpTx {
			all = append(all, float64(d.Nanoseconds()))
		}
		if _, d, err = x.obj.RelaisFilter.Benchmark(arp, 1, nil); err != nil {
			t.Fatal(err)
		}
		none = append(none, float64(d.Nanoseconds()))
	}
	if len(all) == 0 {
		t.Fatal("no cookie was sent")
	}
	slices.Sort(all)
	slices.Sort(none)
	line(t, "SYN answered with a cookie, one run each, less one of ARP", all[len(all)/2]-none[len(none)/2], goal, "ns", "")
}

// beside sends the same packets to XDP and to nftables, over a veth of the same kind, and shows how many a
// second each drops.
func beside(t *testing.T) {
	if !*numbers {
		return
	}
	rate := map[Mode]float64{}
	for _, m := range []Mode{NFTables, XDP} {
		p := newPair(t)
		if m == NFTables { // frames that are made by XDP want a program at both ends
			p.server.receives(t, "v0")
		}
		policy := DefaultPolicy()
		f, stop := p.filter(t, Config{Mode: m, Policy: policy})
		if err := f.Rules().Replace(append(manyPrefixes(20_000), Rule{
			Prefix: netip.PrefixFrom(client6, 128), Action: Deny, Until: time.Now().Add(time.Hour), Reason: "bench",
		})); err != nil {
			t.Fatal(err)
		}
		rate[m] = p.generate(t, f)
		stop()
	}
	line(t, "drops a second on a veth, one core sends, XDP", rate[XDP]/1000, 0, "kpps", fmt.Sprintf("nftables %.1f kpps", rate[NFTables]/1000))
}

// generate has a denied source send UDP for some seconds, and returns the drops a second. The frames are made
// in the kernel (BPF_F_TEST_XDP_LIVE_FRAMES), as xdp-trafficgen does it: that of Debian 12 (xdp-tools 1.3.1) wants a
// tracepoint that Linux 6.18 does not have.
func (p *pair) generate(t *testing.T, f *Filter) float64 {
	t.Helper()
	b := frame{src: client6.String(), dst: server6.String(), proto: 17, upper: udp(4000, 443, 10)}.bytes()
	copy(b, p.server.mac("v0"))
	copy(b[6:], p.client.mac("v1"))
	var stop atomic.Bool
	done := p.client.start(func() {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpTx), asm.Return()}})
		if err != nil {
			t.Error(err)
			return
		}
		defer prog.Close()
		ctx := struct{ Data, End, Meta, Ingress, Queue, Egress uint32 }{End: uint32(len(b)), Ingress: uint32(index("v1"))}
		for !stop.Load() {
			if _, err := prog.Run(&ebpf.RunOptions{Data: b, Repeat: 1 << 16, Flags: 1 << 1, Context: ctx}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	until(t, "packets are dropped", func() bool { return counted(f, denied) > 0 })
	a, began := counted(f, denied), time.Now()
	time.Sleep(4 * time.Second)
	n, took := counted(f, denied), time.Since(began)
	stop.Store(true)
	<-done
	return float64(n-a) / took.Seconds()
}
