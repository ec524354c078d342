//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64

package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target bpfel -go-package packet -no-global-types -cflags "-O2 -g -Wall -Werror -Wno-logical-op-parentheses -mcpu=v3" filter bpf/filter.c -- -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu

// Actions in the maps.
const (
	actDeny = iota + 1
	actAllow
	actManage
)

// The forms of keys and values in the maps, as in bpf/parse.h.
type (
	key4    struct{ Bits, Addr uint32 }
	key6    struct{ Bits, A, B, C, D uint32 }
	verdict struct {
		Until  uint64
		Slot   uint32
		Action uint8
		_      [3]uint8
	}
	state struct {
		Lease   uint64
		Cookies uint32
		_       uint32
	}
	count struct{ Packets, Bytes uint64 }
)

// xdp is the filter in the kernel's XDP hook.
type xdp struct {
	cfg    *Config
	guard  *guard
	spec   *ebpf.CollectionSpec
	obj    filterObjects
	links  []attachment
	reader *ringbuf.Reader
	record ringbuf.Record

	mu     sync.Mutex // of the lists, which Rules and close use
	list4  *ebpf.Map  // in service
	list6  *ebpf.Map
	manage []netip.Prefix // in the lists

	served  []uint16
	counts  []Count
	cookies cookies
}

// attachment is the program on one interface.
type attachment struct {
	name string
	how  string // native or generic
	link link.Link
}

// openXDP loads the program and attaches it to the interfaces: in the driver where that has XDP, else behind it.
func openXDP(cfg *Config, g *guard) (kernel, error) {
	x, err := loadXDP(cfg, g)
	if err != nil {
		return nil, err
	}
	for _, name := range cfg.Interfaces {
		a, err := x.attachTo(name)
		if err != nil {
			_ = x.close()
			return nil, err
		}
		x.links = append(x.links, a)
	}
	return x, nil
}

// loadXDP loads the program and attaches it to nothing.
func loadXDP(cfg *Config, g *guard) (*xdp, error) {
	spec, err := loadFilter()
	if err != nil {
		return nil, err
	}
	x := &xdp{cfg: cfg, guard: g, spec: spec}
	if err := x.constants(); err != nil {
		return nil, err
	}
	if err := spec.LoadAndAssign(&x.obj, nil); err != nil {
		var v *ebpf.VerifierError
		if errors.As(err, &v) {
			return nil, fmt.Errorf("the kernel's verifier refuses the program (Linux 6.0 or later is needed): %w", err)
		}
		return nil, fmt.Errorf("the kernel takes no XDP program (root, or CAP_BPF and CAP_NET_ADMIN, and Linux 6.0 or later are needed): %w", err)
	}
	if err := x.start(); err != nil {
		_ = x.close()
		return nil, err
	}
	return x, nil
}

// constants puts the policy into the program, where the kernel's compiler sees it.
func (x *xdp) constants() error {
	p := &x.cfg.Policy
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		cpus = runtime.NumCPU()
	}
	// A listener's SYNs come on all CPUs, each with a bucket of its own.
	share := Rate{PerSecond: max(p.Listener.PerSecond/uint32(cpus), 1), Burst: max(p.Listener.Burst/uint32(cpus), 1)}
	if p.Listener.PerSecond == 0 {
		share = Rate{}
	}
	mtu := 1500
	for _, name := range x.cfg.Interfaces {
		if i, err := net.InterfaceByName(name); err == nil {
			mtu = min(mtu, i.MTU)
		}
	}
	flag := func(b bool) (v uint8) {
		if b {
			v = 1
		}
		return v
	}
	for name, v := range map[string]any{
		"period":            [classes]uint64{p.SYN.step(), p.UDP.step(), p.Other.step()},
		"tolerance":         [classes]uint64{p.SYN.ahead(), p.UDP.ahead(), p.Other.ahead()},
		"syn_period":        share.step(),
		"syn_tolerance":     share.ahead(),
		"fragments_dropped": flag(p.Fragments == DropFragments),
		"sampling":          flag(p.Sample > 0 && x.cfg.Sampled != nil),
		"sample_mask":       sampleMask(p.Sample),
		"mss4":              uint16(max(mtu-40, 536)),
		"mss6":              uint16(max(mtu-60, 1220)),
	} {
		variable := x.spec.Variables[name]
		if variable == nil {
			return fmt.Errorf("the program has no variable %s", name)
		}
		if err := variable.Set(v); err != nil {
			return fmt.Errorf("variable %s: %w", name, err)
		}
	}
	return nil
}

// sampleMask makes of a share a mask: the next power of two, less one.
func sampleMask(n uint32) uint32 {
	m := uint32(1)
	for m < n && m < 1<<30 {
		m <<= 1
	}
	return m - 1
}

// start fills the maps.
func (x *xdp) start() (err error) {
	if x.reader, err = ringbuf.NewReader(x.obj.Samples); err != nil {
		return fmt.Errorf("the ring of samples: %w", err)
	}
	x.reader.SetDeadline(time.Unix(1, 0)) // never waits
	for _, p := range x.cfg.Policy.Reflectors {
		if err := x.port(p, portReflects, true); err != nil {
			return err
		}
	}
	for _, p := range x.cfg.ManagementPorts {
		if err := x.port(p, portManage, true); err != nil {
			return err
		}
	}
	if err := x.serve(); err != nil {
		return err
	}
	x.counts = make([]Count, reasons)
	for r := range reasons {
		x.counts[r] = Count{Reason: r.String(), Dropped: r.drops()}
	}
	return x.live()
}

// port sets or clears bits of a port.
func (x *xdp) port(port uint16, bits uint8, on bool) error {
	k, v := uint32(port), uint8(0)
	if err := x.obj.Ports.Lookup(k, &v); err != nil {
		return fmt.Errorf("port %d: %w", port, err)
	}
	if v &^= bits; on {
		v |= bits
	}
	return x.obj.Ports.Put(k, v)
}

// serve tells the program which ports serve visitors.
func (x *xdp) serve() error {
	now := []uint16{80, 443}
	if x.cfg.Served != nil {
		now = x.cfg.Served()
	}
	if slices.Equal(now, x.served) {
		return nil
	}
	for _, p := range x.served {
		if err := x.port(p, portServed, false); err != nil {
			return err
		}
	}
	for _, p := range now {
		if err := x.port(p, portServed, true); err != nil {
			return err
		}
	}
	x.served = slices.Clone(now)
	return nil
}

func (x *xdp) attachTo(name string) (attachment, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return attachment{}, fmt.Errorf("network interface %s: %w; `ip link` lists them", name, err)
	}
	var why []error
	for _, try := range []struct {
		how  string
		flag link.XDPAttachFlags
	}{{"native", link.XDPDriverMode}, {"generic", link.XDPGenericMode}} {
		l, err := link.AttachXDP(link.XDPOptions{Program: x.obj.RelaisFilter, Interface: i.Index, Flags: try.flag})
		if err == nil {
			return attachment{name, try.how, l}, nil
		}
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
			return attachment{}, fmt.Errorf("%w: an XDP program is on %s already; `ip link show %s` names it", errBusy, name, name)
		}
		why = append(why, fmt.Errorf("%s: %w", try.how, err))
	}
	return attachment{}, fmt.Errorf("XDP on %s: %w", name, errors.Join(why...))
}

// monotonic is the kernel's clock as the program reads it, which is a tick behind at most.
func monotonic() uint64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // fails for no clock that there is
	return uint64(t.Nano())
}

// live says to the program that its process lives.
func (x *xdp) live() error {
	s := state{Lease: monotonic() + uint64(lease)}
	if x.cookies.on {
		s.Cookies = 1
	}
	if err := x.obj.State.Put(uint32(0), s); err != nil {
		return fmt.Errorf("the lease of the packet filter: %w", err)
	}
	return nil
}

func (x *xdp) tick(now time.Time) error {
	x.count()
	x.cookies.look(now, x.counts[pressedSYN].Packets, x.counts[cookieSent].Packets)
	x.drain(now)
	return errors.Join(x.live(), x.serve(), x.attached())
}

// attached looks whether the program is still on each interface, and attaches it again where one
// went away and came back.
func (x *xdp) attached() error {
	var lost []error
	for i := range x.links {
		a := &x.links[i]
		info, err := a.link.Info()
		if err == nil && info.XDP() != nil && info.XDP().Ifindex != 0 {
			continue
		}
		again, err := x.attachTo(a.name)
		if err != nil {
			lost = append(lost, fmt.Errorf("%s is not filtered: %w", a.name, err))
			continue
		}
		_ = a.link.Close()
		*a = again
	}
	return errors.Join(lost...)
}

// count adds up the counters of all CPUs.
func (x *xdp) count() {
	var of []count
	for r := range reasons {
		if err := x.obj.Counts.Lookup(uint32(r), &of); err != nil {
			continue
		}
		c := &x.counts[r]
		c.Packets, c.Bytes = 0, 0
		for _, n := range of {
			c.Packets += n.Packets
			c.Bytes += n.Bytes
		}
	}
}

// maxDrain bounds the samples of a tick; the ring itself holds hardly more.
const maxDrain = 4096

// drain shows samples to whoever wants them.
func (x *xdp) drain(now time.Time) {
	if x.cfg.Sampled == nil {
		return
	}
	mono := monotonic()
	for range maxDrain {
		if x.reader.ReadInto(&x.record) != nil { // nothing more
			return
		}
		b := x.record.RawSample
		if len(b) < 16+96 {
			continue
		}
		at := binary.LittleEndian.Uint64(b)
		n := min(int(binary.LittleEndian.Uint16(b[14:])), 96)
		x.cfg.Sampled(Sample{
			At: now.Add(-time.Duration(mono - at)), Bytes: int(binary.LittleEndian.Uint32(b[8:])),
			Reason: reason(binary.LittleEndian.Uint16(b[12:])).String(), Head: b[16 : 16+n],
		})
	}
}

func (x *xdp) about(s *Status) {
	how := ""
	for _, a := range x.links {
		if how == "" {
			how = a.how
		} else if how != a.how {
			how = "native and generic"
		}
	}
	s.Mode, s.How, s.Counts = XDP, how, slices.Clone(x.counts)
	s.Cookies = x.cookies.String()
	if x.cfg.Policy.Listener.PerSecond == 0 {
		s.Cookies = "off"
	}
	if x.cookies.err != nil {
		s.Unprotected = append(s.Unprotected, "SYN floods are left to the kernel's own cookies: "+x.cookies.err.Error())
	}
}

func (x *xdp) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	for _, a := range x.links {
		errs = append(errs, a.link.Close())
	}
	x.cookies.end()
	if x.reader != nil {
		errs = append(errs, x.reader.Close())
	}
	for _, m := range []*ebpf.Map{x.list4, x.list6} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(append(errs, x.obj.Close())...)
}
