package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// maxSpans bounds the intervals that nftables is given: it takes a list whole.
const maxSpans = 1 << 16

// netfilter is the filter in nftables' netdev hook, which is the first behind XDP.
type netfilter struct {
	cfg    *Config
	guard  *guard
	conn   *nftables.Conn
	table  *nftables.Table
	chains []*nftables.Chain
	index  []uint32 // of the interfaces
	alive  *nftables.Set
	fresh  time.Time // when alive was last filled
	counts []Count

	mu    sync.Mutex
	list  map[netip.Prefix]*entry
	dirty bool
	round int
	sets  []*nftables.Set // of the rules in service
}

// openNFTables makes a table of our own with a chain for each interface.
func openNFTables(cfg *Config, g *guard) (kernel, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, err
	}
	n := &netfilter{cfg: cfg, guard: g, conn: conn, list: map[netip.Prefix]*entry{}}
	if err := n.open(); err != nil {
		return nil, errors.Join(err, conn.CloseLasting())
	}
	return n, nil
}

func (n *netfilter) open() error {
	cfg := n.cfg
	n.table = &nftables.Table{Name: "relais_" + cfg.Interfaces[0], Family: nftables.TableFamilyNetdev}
	if err := n.held(); err != nil {
		return err
	}
	n.conn.AddTable(n.table) // what a process left that was killed goes in the same breath
	n.conn.DelTable(n.table)
	n.conn.AddTable(n.table)
	for i, name := range cfg.Interfaces {
		dev, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("network interface %s: %w; `ip link` lists them", name, err)
		}
		n.index = append(n.index, uint32(dev.Index))
		n.chains = append(n.chains, n.conn.AddChain(&nftables.Chain{
			Name: "filter" + strconv.Itoa(i), Table: n.table, Type: nftables.ChainTypeFilter, Device: name,
			Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityRef(-500),
		}))
	}
	if err := n.fixed(); err != nil {
		return err
	}
	if err := n.conn.Flush(); err != nil {
		return fmt.Errorf("the kernel takes no rules (root, or CAP_NET_ADMIN, and Linux 5.8 or later are needed): %w", err)
	}
	return nil
}

// held says whether another process of ours keeps a table of this name alive.
func (n *netfilter) held() error {
	sets, err := n.conn.GetSets(n.table)
	if err != nil {
		return nil // there is no such table
	}
	for _, s := range sets {
		if s.Name != "alive" {
			continue
		}
		if e, err := n.conn.GetSetElements(s); err == nil && len(e) > 0 {
			return fmt.Errorf("%w: the nftables table %s is kept by another process, or was until %s ago", errBusy, n.table.Name, lease)
		}
	}
	return nil
}

// netCounted are the reasons that nftables counts.
var netCounted = []reason{passed, passedLink, passedManage, passedAllowed, malformed, martian, fragmented, denied, reflected, sourceSYN, sourceUDP, sourceOther}

// The names of sets that stay.
const (
	setAlive   = "alive"
	setPorts   = "reflectors"
	setManaged = "management"
)

// fixed adds what does not change: counters, the ports, the buckets.
func (n *netfilter) fixed() error {
	for _, r := range netCounted {
		n.conn.AddObj(&nftables.CounterObj{Table: n.table, Name: r.String()})
		n.counts = append(n.counts, Count{Reason: r.String(), Dropped: r.drops()})
	}
	n.alive = &nftables.Set{Table: n.table, Name: setAlive, KeyType: nftables.TypeIFIndex, HasTimeout: true}
	if err := n.conn.AddSet(n.alive, n.living()); err != nil {
		return err
	}
	n.fresh = time.Now()
	for name, list := range map[string][]uint16{setPorts: n.cfg.Policy.Reflectors, setManaged: n.cfg.ManagementPorts} {
		var e []nftables.SetElement
		for _, p := range list {
			e = append(e, nftables.SetElement{Key: binary.BigEndian.AppendUint16(nil, p)})
		}
		if err := n.conn.AddSet(&nftables.Set{Table: n.table, Name: name, KeyType: nftables.TypeInetService}, e); err != nil {
			return err
		}
	}
	for _, b := range n.buckets() {
		if b.rate.PerSecond == 0 {
			continue
		}
		s := &nftables.Set{Table: n.table, Name: b.set, KeyType: b.family.key, Dynamic: true, HasTimeout: true, Timeout: time.Minute, Size: 1 << 18}
		if err := n.conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	return nil
}

// living are the interfaces as elements that end by themselves: a packet from an interface that is
// not among them passes, so that a process that was killed leaves nobody cut off.
func (n *netfilter) living() (out []nftables.SetElement) {
	for _, i := range n.index {
		out = append(out, nftables.SetElement{Key: binary.NativeEndian.AppendUint32(nil, i), Timeout: lease})
	}
	return out
}

// family is what differs between IPv4 and IPv6.
type family struct {
	name   string
	proto  uint16
	source *expr.Payload // into register 1
	key    nftables.SetDatatype
	bits   int
}

func families() [2]family {
	return [2]family{
		{"4", unix.ETH_P_IP, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, nftables.TypeIPAddr, 32},
		{"6", unix.ETH_P_IPV6, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16}, nftables.TypeIP6Addr, 128},
	}
}

// of says whether a prefix is of the family.
func (f *family) of(p netip.Prefix) bool { return p.Addr().BitLen() == f.bits }

// bucket is a limit of each source.
type bucket struct {
	set    string
	family family
	rate   Rate
	reason reason
	match  []expr.Any
}

func (n *netfilter) buckets() (out []bucket) {
	p := &n.cfg.Policy
	for _, f := range families() {
		out = append(
			out,
			bucket{"syn" + f.name, f, p.SYN, sourceSYN, slices.Concat(upperIs(unix.IPPROTO_TCP), tcpFlags(0x12, 0x02))},
			bucket{"udp" + f.name, f, p.UDP, sourceUDP, upperIs(unix.IPPROTO_UDP)},
			bucket{"other" + f.name, f, p.Other, sourceOther, slices.Concat(upperIsNot(unix.IPPROTO_TCP), upperIsNot(unix.IPPROTO_UDP))},
		)
	}
	return out
}

func (n *netfilter) put(e *entry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list[e.Prefix], n.dirty = e, true
	return nil
}

func (n *netfilter) remove(p netip.Prefix) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.list, p)
	n.dirty = true
	return nil
}

func (n *netfilter) replace(list []*entry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.list)
	for _, e := range list {
		n.list[e.Prefix] = e
	}
	n.dirty = true
	return n.write()
}

// packets is not known: nftables would have to be asked for each element.
func (n *netfilter) packets(uint32) uint64 { return 0 }

func (n *netfilter) tick(now time.Time) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	if now.Sub(n.fresh) >= lease/5 {
		e := n.living()
		// An element that is there keeps its end, so it goes and comes in one transaction.
		errs = append(errs, n.conn.SetDeleteElements(n.alive, withoutEnds(e)), n.conn.SetAddElements(n.alive, e))
		if err := n.conn.Flush(); err != nil {
			errs = append(errs, n.conn.SetAddElements(n.alive, e), n.conn.Flush()) // it had ended
		}
		n.fresh = now
	}
	if n.dirty {
		errs = append(errs, n.write())
	}
	if objs, err := n.conn.GetObjects(n.table); err == nil {
		for _, o := range objs {
			c, ok := o.(*nftables.CounterObj)
			if !ok {
				continue
			}
			if i := slices.IndexFunc(n.counts, func(k Count) bool { return k.Reason == c.Name }); i >= 0 {
				n.counts[i].Packets, n.counts[i].Bytes = c.Packets, c.Bytes
			}
		}
	}
	return errors.Join(errs...)
}

func withoutEnds(e []nftables.SetElement) []nftables.SetElement {
	out := slices.Clone(e)
	for i := range out {
		out[i].Timeout = 0
	}
	return out
}

func (n *netfilter) about(s *Status) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.Mode, s.How, s.Counts, s.Cookies = NFTables, "netdev", slices.Clone(n.counts), "kernel"
	s.Unprotected = append(s.Unprotected,
		"nftables drops a packet only after the kernel has made a buffer of it, so a flood costs more than with XDP",
		"SYN floods are left to the kernel's own cookies (net.ipv4.tcp_syncookies)",
		"an answer from a port of reflectors passes only from the resolvers and management addresses",
		"no samples, and no packets counted by rule")
}

func (n *netfilter) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer func() { _ = n.conn.CloseLasting() }()
	n.conn.DelTable(n.table)
	if err := n.conn.Flush(); err != nil {
		return fmt.Errorf("the table %s stays, and passes everything in %s: %w", n.table.Name, lease, err)
	}
	return nil
}
