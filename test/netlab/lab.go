package netlab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Config is what a lab is made of. The zero Config is good.
type Config struct {
	// Seed of everything that is left to chance.
	Seed uint64
	// Network4 and Network6 are where addresses of hosts come from: 10.77.0.0/16 and fd6e:6574:6c61::/64 unless given.
	Network4, Network6 netip.Prefix
	// MTU of all devices, from 1280 to 9000; 1500 unless given.
	MTU int
	// Grain is the time in which packets that become due share a wake-up, which makes them late by so much at most;
	// 250 µs unless given.
	Grain time.Duration
	// Hosts is how many there may be at a time, up to 4,096; 256 unless given.
	Hosts int
	// LinkPackets is how many packets may be on one direction of a link; 8,192 unless given.
	LinkPackets int
	// Packets is how many there may be in the lab, which take their MTU of memory each; 65,536 unless given.
	Packets int

	broadcast netip.Addr // of Network4
}

func (c *Config) complete() error {
	c.Network4 = cmp.Or(c.Network4, netip.MustParsePrefix("10.77.0.0/16")).Masked()
	c.Network6 = cmp.Or(c.Network6, netip.MustParsePrefix("fd6e:6574:6c61::/64")).Masked()
	c.MTU = cmp.Or(c.MTU, 1500)
	c.Grain = cmp.Or(c.Grain, 250*time.Microsecond)
	c.Hosts = cmp.Or(c.Hosts, 256)
	c.LinkPackets = cmp.Or(c.LinkPackets, 8192)
	c.Packets = cmp.Or(c.Packets, 65536)
	for _, f := range []struct {
		bad  bool
		text string
	}{
		{!c.Network4.Addr().Is4() || c.Network4.Bits() > 24 || c.Network4.Bits() < 8, fmt.Sprintf("Network4 is %v; it is an IPv4 prefix from /8 to /24", c.Network4)},
		{!c.Network6.Addr().Is6() || c.Network6.Bits() > 112, fmt.Sprintf("Network6 is %v; it is an IPv6 prefix of at most /112", c.Network6)},
		{c.MTU < 1280 || c.MTU > 9000, fmt.Sprintf("MTU is %d; it goes from 1280 to 9000", c.MTU)},
		{c.Grain < time.Microsecond || c.Grain > time.Second, fmt.Sprintf("Grain is %v; it goes from 1µs to 1s", c.Grain)},
		{c.Hosts < 1 || c.Hosts > 4096, fmt.Sprintf("Hosts is %d; it goes from 1 to 4096", c.Hosts)},
		{c.LinkPackets < 1 || c.LinkPackets > 1<<20, fmt.Sprintf("LinkPackets is %d; it goes from 1 to 1048576", c.LinkPackets)},
		{c.Packets < 1 || c.Packets > 1<<20, fmt.Sprintf("Packets is %d; it goes from 1 to 1048576", c.Packets)},
	} {
		if f.bad {
			return errors.New("netlab: " + f.text)
		}
	}
	if room := 254 << max(0, 24-c.Network4.Bits()); c.Hosts > room {
		c.Hosts = room
	}
	a := c.Network4.Addr().As4()
	for bit := c.Network4.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	c.broadcast = netip.AddrFrom4(a)
	return nil
}

// Lab is a network of hosts. Its methods may be called from any goroutine.
type Lab struct {
	cfg     Config
	nsenter string
	loop    *loop
	forget  func() bool // no longer closes with the context

	mu     sync.Mutex // before loop.mu
	hosts  []*Host    // by number; nil where one went
	byName map[string]*Host
	closed bool
}

// New makes a lab without hosts. It is closed by Close, or when ctx ends. The error says what this machine lacks:
// Linux with TUN devices, root, nsenter.
func New(ctx context.Context, cfg Config) (*Lab, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return nil, fmt.Errorf("netlab: %w; install util-linux", err)
	}
	if err := probe(); err != nil {
		return nil, err
	}
	lp, err := newLoop(cfg)
	if err != nil {
		return nil, err
	}
	l := &Lab{cfg: cfg, nsenter: nsenter, loop: lp, byName: map[string]*Host{}}
	l.mu.Lock()
	l.forget = context.AfterFunc(ctx, func() { _ = l.Close() })
	l.mu.Unlock()
	return l, nil
}

// probe finds out what the machine lacks before anything is made.
func probe() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return noTUN(err)
	}
	_ = unix.Close(fd)
	ns, err := newNamespace()
	if err != nil {
		return err
	}
	return ns.Close()
}

// Close ends all processes that are still in the lab's namespaces with SIGKILL, and removes devices and namespaces.
// Sockets that were made in a namespace keep it until they are closed, but nothing comes through them any more.
// It may be called more than once.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.forget()
	l.loop.stop()
	inodes := map[string]bool{}
	for _, h := range l.hosts {
		if h != nil {
			inodes[h.inode] = true
		}
	}
	err := leftovers(inodes)
	for _, h := range l.hosts {
		if h != nil {
			err = errors.Join(err, h.free())
		}
	}
	return err
}

var errClosed = errors.New("netlab: the lab is closed")

// Host adds a host whose access link has this profile in both directions. The name is its own in the lab.
func (l *Lab) Host(name string, p Profile) (*Host, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if name == "" {
		return nil, errors.New("netlab: a host wants a name")
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return nil, fmt.Errorf("netlab: host %s: a name that is an address is ambiguous; choose another", name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if l.byName[name] != nil {
		return nil, fmt.Errorf("netlab: there is a host %s already", name)
	}
	number := 0
	for number < len(l.hosts) && l.hosts[number] != nil {
		number++
	}
	if number >= l.cfg.Hosts {
		return nil, fmt.Errorf("netlab: host %s: there are %d hosts already; raise Config.Hosts, or take a wider Config.Network4", name, number)
	}
	h, err := l.newHost(name, number, p)
	if err != nil {
		return nil, fmt.Errorf("netlab: host %s: %w", name, err)
	}
	if number == len(l.hosts) {
		l.hosts = append(l.hosts, nil)
	}
	l.hosts[number], l.byName[name] = h, h
	return h, nil
}

func (l *Lab) newHost(name string, number int, p Profile) (h *Host, err error) {
	h = &Host{lab: l, name: name, addr: l.cfg.addr4(number), addr6: l.cfg.addr6(number)}
	if h.ns, err = newNamespace(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = h.free()
		}
	}()
	no, err := inode(h.ns)
	if err != nil {
		return nil, err
	}
	h.inode = "[" + strconv.FormatUint(no, 10) + "]"
	addrs := []netip.Prefix{netip.PrefixFrom(h.addr, l.cfg.Network4.Bits())}
	err = inside(h.ns, func() error {
		if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
			h.addr6 = netip.Addr{} // a kernel without IPv6
		} else {
			addrs = append(addrs, netip.PrefixFrom(h.addr6, l.cfg.Network6.Bits()))
		}
		h.dev, err = newDevice(l.cfg.MTU, addrs)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.loop.mu.Lock()
	defer l.loop.mu.Unlock()
	list := []netip.Addr{h.addr}
	if h.addr6.IsValid() {
		list = append(list, h.addr6)
	}
	h.node = l.loop.fabric.add(name, number, p, list...)
	h.node.dev = h.dev
	if err = l.loop.add(h.node); err != nil {
		l.loop.fabric.remove(h.node)
	}
	return h, err
}

// addr4 is the address of a host by its number: never one that ends in 0 or 255, which look like a network's own.
func (c *Config) addr4(number int) netip.Addr {
	a := c.Network4.Addr().As4()
	block := number / 254
	a[1] += byte(block >> 8)
	a[2] += byte(block)
	a[3] = byte(number%254 + 1)
	return netip.AddrFrom4(a)
}

func (c *Config) addr6(number int) netip.Addr {
	a := c.Network6.Addr().As16()
	a[14], a[15] = byte((number+1)>>8), byte(number+1)
	return netip.AddrFrom16(a)
}

// Named is the host of that name.
func (l *Lab) Named(name string) (*Host, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.byName[name]
	return h, h != nil
}
