package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// write puts the rules in the place of the old ones: new sets are filled, then one transaction has
// the chains use them. It is called with the lock held.
func (n *netfilter) write() error {
	n.round++
	sets, err := n.fill()
	if err != nil {
		return errors.Join(err, n.drop(sets))
	}
	for _, c := range n.chains {
		n.conn.FlushChain(c)
		n.chain(c, sets)
	}
	for _, s := range n.sets {
		n.conn.DelSet(s)
	}
	if err := n.conn.Flush(); err != nil {
		return errors.Join(fmt.Errorf("nftables does not take the rules: %w", err), n.drop(sets))
	}
	n.sets, n.dirty = sets, false
	return nil
}

// drop takes sets away that were not put in service.
func (n *netfilter) drop(sets []*nftables.Set) error {
	for _, s := range sets {
		n.conn.DelSet(s)
	}
	return n.conn.Flush()
}

// fill makes the sets of the round: for each family those who manage, those who are allowed, and those
// who are denied, in this order.
func (n *netfilter) fill() (sets []*nftables.Set, err error) {
	manage := n.guard.prefixes()
	now := time.Now()
	for _, f := range families() {
		var rules, managed []*entry
		for _, e := range n.list {
			if f.of(e.Prefix) && e.Until.After(now) {
				rules = append(rules, e)
			}
		}
		for _, p := range manage {
			if f.of(p) {
				managed = append(managed, &entry{Rule: Rule{Prefix: p, Action: Allow}})
			}
		}
		all := spans(rules)
		if len(all) > maxSpans {
			return sets, fmt.Errorf("%d intervals of addresses, nftables is given %d at most; deny wider prefixes", len(all), maxSpans)
		}
		for _, k := range []struct {
			name string
			list []span
			act  Action
		}{{"manage", spans(managed), Allow}, {"allow", all, Allow}, {"deny", all, Deny}} {
			s := &nftables.Set{
				Table: n.table, Name: k.name + f.name + "_" + strconv.Itoa(n.round), KeyType: f.key, Interval: true, HasTimeout: true,
			}
			if err := n.conn.AddSet(s, nil); err != nil {
				return sets, err
			}
			sets = append(sets, s)
			if err := n.elements(s, k.list, k.act, now); err != nil {
				return sets, err
			}
		}
	}
	return sets, nil
}

// atOnce is how many elements one message to the kernel holds: its socket has a buffer of some 200 KiB.
const atOnce = 500

func (n *netfilter) elements(s *nftables.Set, list []span, act Action, now time.Time) error {
	var e []nftables.SetElement
	flush := func() error {
		if err := n.conn.SetAddElements(s, e); err != nil {
			return err
		}
		e = e[:0]
		return n.conn.Flush()
	}
	for _, k := range list {
		if k.action != act {
			continue
		}
		first := nftables.SetElement{Key: k.first.AsSlice()}
		if !k.until.IsZero() {
			first.Timeout = max(k.until.Sub(now), time.Millisecond)
		}
		e = append(e, first)
		if next := k.last.Next(); next.IsValid() {
			e = append(e, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
		}
		if len(e) >= atOnce {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// chain writes the ranks, in the order of the XDP program.
func (n *netfilter) chain(c *nftables.Chain, sets []*nftables.Set) {
	add := func(r reason, v expr.VerdictKind, match ...[]expr.Any) {
		e := slices.Concat(match...)
		if r < reasons {
			e = append(e, &expr.Objref{Type: 1, Name: r.String()})
		}
		n.conn.AddRule(&nftables.Rule{Table: n.table, Chain: c, Exprs: append(e, &expr.Verdict{Kind: v})})
	}
	in := func(set string) []expr.Any { return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: set}} }
	add(reasons, expr.VerdictAccept, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: setAlive, Invert: true},
	})
	for _, bad := range [][2]byte{{0x3f, 0}, {0x03, 0x03}, {0x06, 0x06}, {0x05, 0x05}, {0x11, 0x01}, {0x16, 0}} {
		add(malformed, expr.VerdictDrop, upperIs(unix.IPPROTO_TCP), tcpFlags(bad[0], bad[1]))
	}
	add(passedLink, expr.VerdictAccept, upperIs(unix.IPPROTO_ICMPV6), network(7, 1), equal(255), transport(0, 1), within(133, 137))
	for i, f := range families() {
		from := slices.Concat(isProto(f.proto), []expr.Any{f.source})
		manage, allow, deny := sets[3*i].Name, sets[3*i+1].Name, sets[3*i+2].Name
		add(passedManage, expr.VerdictAccept, from, in(manage))
		add(passedAllowed, expr.VerdictAccept, from, in(allow))
		// A management port passes denials.
		add(denied, expr.VerdictDrop, from, in(deny), upperIsNot(unix.IPPROTO_TCP))
		add(denied, expr.VerdictDrop, from, in(deny), upperIs(unix.IPPROTO_TCP), transport(2, 2), []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: setManaged, Invert: true}})
	}
	for _, p := range []string{"127.0.0.0/8", "224.0.0.0/3"} {
		p := netip.MustParsePrefix(p)
		add(martian, expr.VerdictDrop, isProto(unix.ETH_P_IP), network(12, 4), masked(4, prefixMask(p)), equal(p.Addr().AsSlice()...))
	}
	add(martian, expr.VerdictDrop, isProto(unix.ETH_P_IPV6), network(8, 1), equal(0xff))
	if n.cfg.Policy.Fragments == DropFragments {
		add(fragmented, expr.VerdictDrop, isProto(unix.ETH_P_IP), network(6, 2), masked(2, []byte{0x3f, 0xff}), differs(0, 0))
		add(fragmented, expr.VerdictDrop, isProto(unix.ETH_P_IPV6), []expr.Any{
			&expr.Exthdr{DestRegister: 1, Type: unix.IPPROTO_FRAGMENT, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6},
		}, equal(1))
	}
	add(reflected, expr.VerdictDrop, upperIs(unix.IPPROTO_UDP), transport(0, 2), in(setPorts))
	for _, b := range n.buckets() {
		if b.rate.PerSecond == 0 {
			continue
		}
		source := []expr.Any{b.family.source}
		if b.family.bits == 128 {
			source = slices.Concat(source, masked(16, slices.Concat(slices.Repeat([]byte{0xff}, 8), make([]byte, 8))))
		}
		over := &expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(b.rate.PerSecond), Unit: expr.LimitTimeSecond, Burst: b.rate.Burst, Over: true}
		add(b.reason, expr.VerdictDrop, isProto(b.family.proto), b.match, source, []expr.Any{
			&expr.Dynset{SrcRegKey: 1, SetName: b.set, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{over}},
		})
	}
	add(passed, expr.VerdictAccept)
}

// The parts of a match; each leaves what it looks at in register 1.

func isProto(p uint16) []expr.Any {
	return slices.Concat([]expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}}, equal(binary.BigEndian.AppendUint16(nil, p)...))
}

func upperIs(p byte) []expr.Any {
	return slices.Concat([]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}}, equal(p))
}

func upperIsNot(p byte) []expr.Any {
	return slices.Concat([]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}}, differs(p))
}

func network(offset, size uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}}
}

func transport(offset, size uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: size}}
}

func tcpFlags(mask, value byte) []expr.Any {
	return slices.Concat(transport(13, 1), masked(1, []byte{mask}), equal(value))
}

func masked(size uint32, mask []byte) []expr.Any {
	return []expr.Any{&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: mask, Xor: make([]byte, size)}}
}

func equal(b ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b}}
}

func differs(b ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: b}}
}

func within(from, to byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{from}}, &expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{to}}}
}

func prefixMask(p netip.Prefix) []byte {
	m := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}
