package packet

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/observe"
)

// Mode is what filters.
type Mode string

// The modes. Auto is XDP where the kernel takes it, else nftables.
const (
	Off      Mode = "off"
	Auto     Mode = "auto"
	XDP      Mode = "xdp"
	NFTables Mode = "nftables"
)

// Fragments says what happens to fragments of IP packets that nobody has allowed.
type Fragments string

// The policies for fragments.
const (
	DropFragments  Fragments = "drop"  // web traffic has none: TCP and QUIC avoid them
	LimitFragments Fragments = "limit" // they share the bucket of a source's other packets
)

// Rate is a token bucket: packets a second, and how many may come at once. A zero rate is no limit.
type Rate struct {
	PerSecond uint32 `json:"perSecond"`
	Burst     uint32 `json:"burst"`
}

// Policy is what is done to everybody's packets.
type Policy struct {
	Fragments Fragments
	// SYN, UDP and Other bound what one IPv4 address or IPv6 /64 may send: openings of TCP connections, UDP, and
	// what is neither TCP nor UDP. Packets of open TCP connections have no bound here.
	SYN, UDP, Other Rate
	// Listener is how many SYNs a second each listener gets; beyond it they are answered with SYN cookies.
	Listener Rate
	// Reflectors are UDP ports whose packets are dropped, but for answers to what this machine asked.
	Reflectors []uint16
	// Sample is of how many packets of a reason one is shown to Config.Sampled; 0 is none.
	Sample uint32
}

// DefaultPolicy is generous to addresses that many people share.
func DefaultPolicy() Policy {
	return Policy{
		Fragments: DropFragments, SYN: Rate{500, 2000}, UDP: Rate{20_000, 40_000}, Other: Rate{100, 200},
		Listener: Rate{4000, 1000}, Reflectors: slices.Clone(reflectors), Sample: 1024,
	}
}

// Config of a Filter.
type Config struct {
	Mode       Mode
	Interfaces []string // at least one, of this network namespace
	Policy     Policy
	// Management are the prefixes from which this machine is managed, and ManagementPorts its TCP ports for
	// that. The prefixes pass always; the ports pass denials, and who is connected to them cannot be denied.
	Management      []netip.Prefix
	ManagementPorts []uint16
	// Served lists the TCP ports that serve visitors; only they get SYN cookies. Nil is 80 and 443.
	Served func() []uint16
	// Sampled gets a sample of packets; it must not block. Nil is nobody.
	Sampled func(Sample)
	// Waits has Run wait where another process filters on the interface still, as in an upgrade, and go on
	// without a filter rather than end.
	Waits   bool
	Logger  *slog.Logger      // nil is silence
	Metrics *observe.Registry // nil is none
}

// Sample is the head of a packet and why it was dropped or passed.
type Sample struct {
	At     time.Time
	Reason string
	Bytes  int    // of the frame
	Head   []byte // at most the first 96, lent until the call ends
}

// Bounds of the configuration.
const (
	maxInterfaces = 16
	maxManagement = 1024
	maxPorts      = 256
	maxRate       = 100_000_000
)

// check says what is wrong with a configuration, and fills what was left out.
func (c *Config) check() error {
	switch c.Mode {
	case Off, "":
		c.Mode = Off
		return nil
	case Auto, XDP, NFTables:
	default:
		return fmt.Errorf("the packet filter %q is unknown: auto, xdp, nftables or off", c.Mode)
	}
	if len(c.Interfaces) == 0 || len(c.Interfaces) > maxInterfaces {
		return fmt.Errorf("the packet filter wants 1 to %d network interfaces, as eth0; `ip link` lists them", maxInterfaces)
	}
	for i, n := range c.Interfaces {
		if n == "" || len(n) > 15 || slices.Contains(c.Interfaces[:i], n) {
			return fmt.Errorf("the network interface %q is empty, too long or named twice", n)
		}
	}
	if len(c.Management) > maxManagement {
		return fmt.Errorf("%d management prefixes, the most is %d; write wider ones", len(c.Management), maxManagement)
	}
	for _, p := range c.Management {
		p, err := oneForm(p)
		if err != nil {
			return fmt.Errorf("management: %w", err)
		}
		if p.Bits() == 0 {
			return fmt.Errorf("management: %s is everybody, so the filter would drop nothing", p)
		}
	}
	if len(c.ManagementPorts) > maxPorts || len(c.Policy.Reflectors) > maxPorts {
		return fmt.Errorf("too many ports: the most is %d management ports, and %d reflectors", maxPorts, maxPorts)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return c.Policy.check()
}

func (p *Policy) check() error {
	switch p.Fragments {
	case "":
		p.Fragments = DropFragments
	case DropFragments, LimitFragments:
	default:
		return fmt.Errorf("fragments %q: drop or limit", p.Fragments)
	}
	for _, r := range []Rate{p.SYN, p.UDP, p.Other, p.Listener} {
		if r.PerSecond > maxRate || r.Burst > maxRate {
			return fmt.Errorf("a rate of %d with a burst of %d: the most is %d", r.PerSecond, r.Burst, maxRate)
		}
	}
	if p.Listener.PerSecond != 0 && p.Listener.PerSecond < 10 {
		return errors.New("a listener's SYNs: 10 a second at least, or 0 for no SYN cookies")
	}
	return nil
}

// step and ahead are a rate as the program wants it, in ns: a packet's share of time, and how far a
// source may be ahead of it.
func (r Rate) step() uint64 {
	if r.PerSecond == 0 {
		return 0
	}
	return uint64(time.Second) / uint64(r.PerSecond)
}

func (r Rate) ahead() uint64 { return r.step() * uint64(max(r.Burst, 1)-1) }
