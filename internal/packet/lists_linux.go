//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64

package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// of4 and of6 are prefixes as the tries want them.
func of4(p netip.Prefix) key4 {
	a := p.Addr().As4()
	return key4{uint32(p.Bits()), binary.LittleEndian.Uint32(a[:])}
}

func of6(p netip.Prefix) key6 {
	a := p.Addr().As16()
	w := func(i int) uint32 { return binary.LittleEndian.Uint32(a[i:]) }
	return key6{uint32(p.Bits()), w(0), w(4), w(8), w(12)}
}

// of is a rule as the tries hold it. Its end is on the kernel's clock, so that it ends without us.
func of(e *entry, now time.Time, mono uint64) verdict {
	v := verdict{Until: mono + uint64(max(e.Until.Sub(now), 0)), Slot: e.slot, Action: actDeny}
	if e.Action == Allow {
		v.Action = actAllow
	}
	return v
}

func (x *xdp) put(e *entry) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if slices.Contains(x.manage, e.Prefix) {
		return nil // passes already, whatever else is said
	}
	v := of(e, time.Now(), monotonic())
	if e.Prefix.Addr().Is4() {
		return x.list4.Put(of4(e.Prefix), v)
	}
	return x.list6.Put(of6(e.Prefix), v)
}

func (x *xdp) remove(p netip.Prefix) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if slices.Contains(x.manage, p) {
		return nil
	}
	var err error
	if p.Addr().Is4() {
		err = x.list4.Delete(of4(p))
	} else {
		err = x.list6.Delete(of6(p))
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// replace fills new tries and puts each in the place of the old one by one store.
func (x *xdp) replace(list []*entry) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	manage := x.guard.prefixes()
	now, mono := time.Now(), monotonic()
	var k4 []key4
	var k6 []key6
	var v4, v6 []verdict
	add := func(p netip.Prefix, v verdict) {
		if p.Addr().Is4() {
			k4, v4 = append(k4, of4(p)), append(v4, v)
		} else {
			k6, v6 = append(k6, of6(p)), append(v6, v)
		}
	}
	for _, e := range list {
		if !slices.Contains(manage, e.Prefix) {
			add(e.Prefix, of(e, now, mono))
		}
	}
	for _, p := range manage {
		add(p, verdict{Until: ^uint64(0), Action: actManage})
	}
	list4, err := fill(x.spec.Maps["empty4"], k4, v4)
	if err != nil {
		return err
	}
	list6, err := fill(x.spec.Maps["empty6"], k6, v6)
	if err != nil {
		return errors.Join(err, list4.Close())
	}
	if err := x.obj.Lists4.Put(uint32(0), list4); err != nil {
		return errors.Join(err, list4.Close(), list6.Close())
	}
	list4, x.list4 = x.list4, list4
	if err := x.obj.Lists6.Put(uint32(0), list6); err != nil {
		return errors.Join(err, list6.Close()) // the list of IPv4 is the new one; it is tried again
	}
	list6, x.list6 = x.list6, list6
	x.manage = manage
	for _, old := range []*ebpf.Map{list4, list6} {
		if old != nil {
			_ = old.Close()
		}
	}
	return nil
}

// fill makes a trie.
func fill[K key4 | key6](spec *ebpf.MapSpec, keys []K, values []verdict) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(spec.Copy())
	if err != nil {
		return nil, fmt.Errorf("a new list: %w", err)
	}
	if len(keys) > 0 {
		if _, err := m.BatchUpdate(keys, values, nil); err != nil {
			return nil, errors.Join(fmt.Errorf("a new list of %d: %w", len(keys), err), m.Close())
		}
	}
	return m, nil
}

// packets adds up a rule's counter of all CPUs.
func (x *xdp) packets(slot uint32) (n uint64) {
	var of []uint64
	if x.obj.Hits.Lookup(slot, &of) != nil {
		return 0
	}
	for _, c := range of {
		n += c
	}
	return n
}
