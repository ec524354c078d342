package netlab

import (
	"net/netip"
	"time"
)

// fabric is the lab without devices and clocks: hosts, the links between them, and the packets on those. Its owner
// holds a lock around each call.
type fabric struct {
	cfg     Config
	nodes   []*node // by number; nil where a host went
	byAddr  map[netip.Addr]*node
	packets pool
	queue   queue
	late    Histogram
	// out hands a packet to a host; false when its device does not take it.
	out func(to *node, b []byte) bool
}

// node is a host as the fabric sees it.
type node struct {
	name     string
	number   int
	addrs    []netip.Addr
	up, down *link
	paths    []*path // to others, by their number; nil until used
	isCut    bool
	cuts     uint64
	gone     bool
	counted  HostStats
	dev      *device
}

// path is the direction from one host to another.
type path struct {
	link  *link // laid for the pair, in place of both access links; or nil
	isCut bool
	cuts  uint64
}

func newFabric(cfg Config, out func(to *node, b []byte) bool) *fabric {
	return &fabric{
		cfg: cfg, out: out, byAddr: map[netip.Addr]*node{},
		packets: pool{most: cfg.Packets, size: cfg.MTU + 36},
	}
}

// add joins a host under the first number that is free.
func (f *fabric) add(name string, number int, p Profile, addrs ...netip.Addr) *node {
	n := &node{name: name, number: number, addrs: addrs}
	n.up = newLink(f.cfg.Seed, name+" up", f.cfg.LinkPackets, p)
	n.down = newLink(f.cfg.Seed, name+" down", f.cfg.LinkPackets, p)
	for len(f.nodes) <= number {
		f.nodes = append(f.nodes, nil)
	}
	f.nodes[number] = n
	for _, a := range addrs {
		f.byAddr[a] = n
	}
	return n
}

// remove takes a host away, and all links of pairs that it was part of.
func (f *fabric) remove(n *node) {
	n.gone = true
	n.cuts++
	f.nodes[n.number] = nil
	for _, a := range n.addrs {
		delete(f.byAddr, a)
	}
	for _, other := range f.nodes {
		if other != nil && n.number < len(other.paths) {
			other.paths[n.number] = nil
		}
	}
}

func (f *fabric) path(from, to *node) *path {
	for len(from.paths) <= to.number {
		from.paths = append(from.paths, nil)
	}
	p := from.paths[to.number]
	if p == nil {
		p = &path{}
		from.paths[to.number] = p
	}
	return p
}

// lay puts a link of its own under the direction of a pair, or takes it away when p is nil. Packets that are on a link
// taken away arrive as they would have.
func (f *fabric) lay(from, to *node, p *Profile) {
	way := f.path(from, to)
	switch {
	case p == nil:
		way.link = nil
	case way.link != nil:
		way.link.set(*p)
	default:
		way.link = newLink(f.cfg.Seed, from.name+" to "+to.name, f.cfg.LinkPackets, *p)
	}
}

// cutHost cuts or mends the host's connection to all others.
func (f *fabric) cutHost(n *node, cut bool) {
	n.isCut = cut
	if cut {
		n.cuts++
	}
}

// cutPath cuts or mends the direction of a pair.
func (f *fabric) cutPath(from, to *node, cut bool) {
	way := f.path(from, to)
	way.isCut = cut
	if cut {
		way.cuts++
	}
}

func (f *fabric) healAll() {
	for _, n := range f.nodes {
		if n == nil {
			continue
		}
		n.isCut = false
		for _, way := range n.paths {
			if way != nil {
				way.isCut = false
			}
		}
	}
}

// receive takes what a host sent. The packet is the fabric's from then on.
func (f *fabric) receive(now int64, from *node, p *packet) {
	dst, ok := destination(p.buf[:p.n])
	if !ok {
		from.counted.Malformed++
		f.packets.put(p)
		return
	}
	to := f.byAddr[dst]
	if to == nil || to == from {
		if dst.IsMulticast() || dst == broadcast || dst == f.cfg.broadcast {
			from.counted.Multicast++
		} else {
			from.counted.Unroutable++
		}
		f.packets.put(p)
		return
	}
	p.from, p.to, p.path = from, to, f.path(from, to)
	p.mark = p.cuts()
	first := p.path.link
	if first == nil {
		first = from.up
	}
	f.enter(now, p, first)
}

// refuse counts a packet for which the lab has no memory left.
func (f *fabric) refuse(from *node, size int) {
	from.up.counted.Packets++
	from.up.counted.Bytes += uint64(size)
	from.up.counted.Full++
}

func (p *packet) cuts() uint64 { return p.from.cuts + p.to.cuts + p.path.cuts }

// cutBy says whether a link carries nothing for this packet: the pair's, or the access links of either host.
func (p *packet) cutBy(l *link) bool {
	switch l {
	case p.from.up:
		return p.from.isCut || p.path.isCut
	case p.to.down:
		return p.to.isCut
	}
	return p.from.isCut || p.to.isCut || p.path.isCut
}

func (f *fabric) enter(now int64, p *packet, l *link) {
	due, twice, ok := l.admit(now, p.n, p.cutBy(l))
	if !ok {
		f.packets.put(p)
		return
	}
	p.link, p.place = l, l.enter()
	f.queue.push(due, p)
	if !twice || l.inside >= l.limit {
		return
	}
	if double := f.packets.get(); double != nil {
		buf := double.buf
		copy(buf, p.buf[:p.n])
		*double = *p
		double.buf = buf
		l.inside++
		l.counted.Duplicated++
		f.queue.push(due, double)
	}
}

// run moves packets that are due, at most so many, and says how many it moved.
func (f *fabric) run(clock func() int64, most int) (moved int) {
	for moved < most {
		due, ok := f.queue.next()
		if !ok {
			return moved
		}
		now := clock()
		if due > now {
			return moved
		}
		f.arrive(now, f.queue.pop())
		moved++
	}
	return moved
}

// arrive has a packet leave its link: into the next one, at the time it was due so that nothing adds up, or to its host.
func (f *fabric) arrive(now int64, w waiting) {
	p := w.p
	l := p.link
	l.leave(p.place)
	if p.cuts() != p.mark {
		l.counted.Cut++
		f.packets.put(p)
		return
	}
	if l == p.from.up {
		f.enter(w.due, p, p.to.down)
		return
	}
	if !f.out(p.to, p.buf[:p.n]) {
		p.to.counted.Refused++
	}
	f.late.add(time.Duration(now - w.due))
	f.packets.put(p)
}
