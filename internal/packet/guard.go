package packet

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// guard knows who manages this machine. Nothing that would cut them off becomes a rule.
type guard struct {
	fixed []protected // from the configuration, and what no machine can do without
	ports []uint16    // of the machine, on which it is managed
	root  string      // of the files of the network namespace; tests read others

	mu   sync.Mutex
	live []netip.Addr // the far ends of established connections to the ports
	next time.Time    // when to look again
}

// protected is a prefix with the words for it in an error.
type protected struct {
	netip.Prefix
	what string
}

// maxLive bounds the far ends that are kept; a machine is managed by few.
const maxLive = 1024

// lookEvery is how often established connections are looked at, at most; and a look may cost a
// fiftieth of the time at most, as the table of a busy machine is long.
const (
	lookEvery = 2 * time.Second
	lookShare = 50
)

// always is what no rule may deny: a machine's own, and what neighbours on its link speak.
var always = []protected{
	{netip.MustParsePrefix("127.0.0.0/8"), "this machine"},
	{netip.MustParsePrefix("::1/128"), "this machine"},
	{netip.MustParsePrefix("169.254.0.0/16"), "addresses of the link, with the metadata service of clouds"},
	{netip.MustParsePrefix("fe80::/10"), "addresses of the link, which IPv6 needs"},
}

// newGuard protects prefixes, the resolvers of this machine, and whoever is connected to one of
// the ports.
func newGuard(prefixes []netip.Prefix, ports []uint16) *guard {
	g := &guard{fixed: slices.Clone(always), ports: ports, root: "/proc/thread-self/net"}
	for _, p := range prefixes {
		if p, err := oneForm(p); err == nil {
			g.fixed = append(g.fixed, protected{p, "management address " + p.String()})
		}
	}
	if f, err := os.Open("/etc/resolv.conf"); err == nil {
		for _, a := range resolvers(f) {
			g.fixed = append(g.fixed, protected{netip.PrefixFrom(a, a.BitLen()), "the resolver " + a.String()})
		}
		_ = f.Close()
	}
	if from, _, ok := strings.Cut(os.Getenv("SSH_CONNECTION"), " "); ok {
		if a, err := netip.ParseAddr(from); err == nil {
			a = a.Unmap().WithZone("")
			g.fixed = append(g.fixed, protected{netip.PrefixFrom(a, a.BitLen()), "the SSH client " + a.String() + " that started this process"})
		}
	}
	return g
}

// resolvers reads at most eight name servers of a resolv.conf.
func resolvers(r io.Reader) (out []netip.Addr) {
	s := bufio.NewScanner(io.LimitReader(r, 64<<10))
	for s.Scan() && len(out) < 8 {
		f := strings.Fields(s.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	return out
}

// hit says whom of those who manage this machine a prefix holds, or who holds it.
func (g *guard) hit(p netip.Prefix) (what string, hit bool) {
	for _, f := range g.fixed {
		if f.Overlaps(p) {
			return f.what, true
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range g.live {
		if p.Contains(a) {
			return "the client " + a.String() + ", connected to a management port", true
		}
	}
	return "", false
}

// prefixes returns all that is protected, for the kernel.
func (g *guard) prefixes() []netip.Prefix {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]netip.Prefix, 0, len(g.fixed)+len(g.live))
	for _, f := range g.fixed {
		out = append(out, f.Prefix)
	}
	for _, a := range g.live {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// look finds who is connected to the management ports, and says whether that has changed.
func (g *guard) look(now time.Time) (changed bool) {
	g.mu.Lock()
	due := !now.Before(g.next) && len(g.ports) > 0
	g.mu.Unlock()
	if !due {
		return false
	}
	began := time.Now()
	var live []netip.Addr
	for _, name := range []string{"/tcp", "/tcp6"} {
		f, err := os.Open(g.root + name)
		if err != nil {
			continue
		}
		live = peers(f, g.ports, live)
		_ = f.Close()
	}
	slices.SortFunc(live, netip.Addr.Compare)
	live = slices.Compact(live)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next = now.Add(max(lookEvery, time.Since(began)*lookShare))
	changed = !slices.Equal(live, g.live)
	g.live = live
	return changed
}

// now has the next look be due at once, and looks.
func (g *guard) now() {
	g.mu.Lock()
	g.next = time.Time{}
	g.mu.Unlock()
	g.look(time.Now())
}

// peers adds the far ends of established connections to local ports, from the kernel's table of
// TCP sockets (proc(5), /proc/net/tcp).
func peers(r io.Reader, ports []uint16, to []netip.Addr) []netip.Addr {
	s := bufio.NewScanner(r)
	for s.Scan() && len(to) < maxLive {
		// "  0: 0100007F:0016 0200007F:D431 01 ..."
		f := bytes.Fields(s.Bytes())
		if len(f) < 4 || string(f[3]) != "01" {
			continue
		}
		if _, port, ok := socketEnd(f[1]); !ok || !slices.Contains(ports, port) {
			continue
		}
		if a, _, ok := socketEnd(f[2]); ok && !a.IsLoopback() {
			to = append(to, a)
		}
	}
	return to
}

// socketEnd reads an address and a port of the kernel's table: words of four bytes in the
// machine's order, which is little endian where our objects run.
func socketEnd(b []byte) (a netip.Addr, port uint16, ok bool) {
	i := bytes.IndexByte(b, ':')
	if i != 8 && i != 32 || len(b) != i+5 {
		return a, 0, false
	}
	var raw [18]byte
	if _, err := hex.Decode(raw[:i/2], b[:i]); err != nil {
		return a, 0, false
	}
	if _, err := hex.Decode(raw[16:], b[i+1:]); err != nil {
		return a, 0, false
	}
	for w := 0; w < i/2; w += 4 {
		slices.Reverse(raw[w : w+4])
	}
	a, _ = netip.AddrFromSlice(raw[:i/2])
	return a.Unmap(), uint16(raw[16])<<8 | uint16(raw[17]), true
}
