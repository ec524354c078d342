package netlab

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// bed is a fabric in virtual time.
type bed struct {
	t     *testing.T
	f     *fabric
	clock int64
	got   []arrival
	full  bool // devices take nothing
}

type arrival struct {
	at time.Duration
	to *node
	id uint32
}

func newBed(t *testing.T, cfg Config) *bed {
	t.Helper()
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t}
	b.f = newFabric(cfg, func(to *node, p []byte) bool {
		b.got = append(b.got, arrival{time.Duration(b.clock), to, binary.BigEndian.Uint32(p[20:])})
		return !b.full
	})
	return b
}

func (b *bed) host(name string, p Profile) *node {
	b.t.Helper()
	if err := p.check(); err != nil {
		b.t.Fatal(err)
	}
	number := len(b.f.nodes)
	return b.f.add(name, number, p, b.f.cfg.addr4(number), b.f.cfg.addr6(number))
}

// datagram is an IPv4 packet of so many bytes with an id.
func datagram(to netip.Addr, id uint32, size int) []byte {
	p := make([]byte, size)
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(size))
	a := to.As4()
	copy(p[16:], a[:])
	binary.BigEndian.PutUint32(p[20:], id)
	return p
}

func (b *bed) sendRaw(from *node, raw []byte) {
	p := b.f.packets.get()
	if p == nil {
		b.f.refuse(from, len(raw))
		return
	}
	p.n = copy(p.buf, raw)
	b.f.receive(b.clock, from, p)
}

func (b *bed) send(from, to *node, id uint32, size int) {
	b.sendRaw(from, datagram(to.addrs[0], id, size))
}

// until moves the clock from event to event up to a time.
func (b *bed) until(end time.Duration) {
	for {
		due, ok := b.f.queue.next()
		if !ok || due > int64(end) {
			break
		}
		b.clock = max(b.clock, due)
		b.f.run(func() int64 { return b.clock }, math.MaxInt)
	}
	b.clock = int64(end)
}

// row sends n packets at distances from now on and gives the ids that arrived, in their order.
func (b *bed) row(from, to *node, n int, apart time.Duration) (ids []uint32) {
	b.got = nil
	start := time.Duration(b.clock)
	for i := range n {
		b.until(start + time.Duration(i)*apart)
		b.send(from, to, uint32(i), 100)
	}
	b.until(time.Duration(b.clock) + time.Hour)
	for _, a := range b.got {
		ids = append(ids, a.id)
	}
	return ids
}

// conserved holds that no packet is made or lost beside the counters.
func (b *bed) conserved(arrived map[*node]uint64) {
	b.t.Helper()
	var in, out, inside uint64
	for _, n := range b.f.nodes {
		s := b.f.stats().Hosts[n.name]
		in += s.Up.Packets + s.Up.Duplicated + s.Down.Duplicated
		out += s.Up.Lost + s.Up.Full + s.Up.Cut + s.Down.Lost + s.Down.Full + s.Down.Cut + arrived[n]
		inside += uint64(s.Up.Inside + s.Down.Inside)
	}
	for _, c := range b.f.stats().Pairs {
		in += c.Packets + c.Duplicated
		out += c.Lost + c.Full + c.Cut
		inside += uint64(c.Inside)
	}
	if in != out+inside {
		b.t.Errorf("%d came in, %d went out, %d are inside", in, out, inside)
	}
	if inside != uint64(len(b.f.queue.heap)) || int(inside) != b.f.packets.used() {
		b.t.Errorf("%d are inside, %d wait, %d are in use", inside, len(b.f.queue.heap), b.f.packets.used())
	}
}

func TestTheWayTakesBothAccessLinksOrThePairs(t *testing.T) {
	b := newBed(t, Config{})
	a, c, d := b.host("a", Profile{Delay: 10 * time.Millisecond}), b.host("c", Profile{Delay: 5 * time.Millisecond}), b.host("d", Profile{})
	arrives := func(from, to *node, want time.Duration) {
		t.Helper()
		b.got = nil
		start := b.clock
		b.send(from, to, 7, 100)
		b.until(time.Duration(start) + time.Minute)
		if len(b.got) != 1 || b.got[0].to != to || b.got[0].at-time.Duration(start) != want {
			t.Errorf("%s to %s: %v; want one after %v", from.name, to.name, b.got, want)
		}
	}
	arrives(a, c, 15*time.Millisecond)
	arrives(c, a, 15*time.Millisecond)
	arrives(a, d, 10*time.Millisecond)
	b.f.lay(a, c, &Profile{Delay: 80 * time.Millisecond})
	arrives(a, c, 80*time.Millisecond)
	arrives(c, a, 15*time.Millisecond)
	b.f.lay(a, c, &Profile{Delay: 70 * time.Millisecond})
	arrives(a, c, 70*time.Millisecond)
	b.f.lay(a, c, nil)
	arrives(a, c, 15*time.Millisecond)
	c.down.set(Profile{Delay: time.Second})
	arrives(a, c, 1010*time.Millisecond)
	arrives(c, a, 15*time.Millisecond)
	if b.f.late.Max != 0 || b.f.late.Count != 9 {
		t.Errorf("in virtual time nothing is late: %v", b.f.late.String())
	}
}

func TestBeingLateDoesNotAddUp(t *testing.T) {
	b := newBed(t, Config{})
	a, c := b.host("a", Profile{Delay: 10 * time.Millisecond}), b.host("c", Profile{Delay: 5 * time.Millisecond})
	b.send(a, c, 1, 100)
	b.clock = int64(50 * time.Millisecond) // nobody ran until now
	b.until(50 * time.Millisecond)
	if len(b.got) != 1 || b.f.late.Max != 35*time.Millisecond || b.f.late.Count != 1 {
		t.Errorf("%d arrived, late %v; want one, late by 35ms", len(b.got), b.f.late.String())
	}
}

func TestLossIsTheShareAndRepeats(t *testing.T) {
	const n = 20000
	lossy := func(seed uint64, p Profile) []uint32 {
		b := newBed(t, Config{Seed: seed})
		a, c := b.host("a", Profile{}), b.host("c", Profile{})
		a.up.set(p)
		ids := b.row(a, c, n, time.Millisecond)
		if lost := b.f.stats().Hosts["a"].Up.Lost; int(lost)+len(ids) != n {
			t.Errorf("%d counted as lost, %d arrived of %d", lost, len(ids), n)
		}
		b.conserved(map[*node]uint64{c: uint64(len(ids))})
		return ids
	}
	for _, share := range []float64{0, 0.01, 0.3, 1} {
		got := float64(n-len(lossy(1, Profile{Loss: share}))) / n
		if sigma := math.Sqrt(share * (1 - share) / n); math.Abs(got-share) > 5*sigma {
			t.Errorf("%v lost, want %v", got, share)
		}
	}
	first := lossy(1, Profile{Loss: 0.1})
	if !slices.Equal(first, lossy(1, Profile{Loss: 0.1})) {
		t.Error("the same seed loses others")
	}
	if same := lossy(1, Profile{Loss: 0.1, Delay: time.Second, Jitter: time.Second, Rate: 1e9}); !slices.Equal(first, same) {
		t.Error("who is lost depends on more than the place in the row")
	}
	if slices.Equal(first, lossy(2, Profile{Loss: 0.1})) {
		t.Error("another seed loses the same")
	}

	// In bursts: the same share, in runs of the mean length.
	ids := lossy(3, Profile{Loss: 0.1, Burst: 5})
	runs, last := 0, -1
	for _, id := range ids {
		if int(id) != last+1 {
			runs++
		}
		last = int(id)
	}
	lost := n - len(ids)
	if mean := float64(lost) / float64(runs); mean < 4 || mean > 6 || lost < n*7/100 || lost > n*13/100 {
		t.Errorf("%d lost in %d bursts; want 10%% in bursts of 5", lost, runs)
	}
}

func TestJitterVariesAndKeepsTheOrder(t *testing.T) {
	b := newBed(t, Config{Seed: 1})
	a, c := b.host("a", Profile{}), b.host("c", Profile{})
	const delay, jitter = 20 * time.Millisecond, 40 * time.Millisecond
	a.up.set(Profile{Delay: delay, Jitter: jitter})
	const n = 20000
	ids := b.row(a, c, n, 500*time.Microsecond)
	if len(ids) != n || !slices.IsSorted(ids) {
		t.Fatalf("%d arrived in order %v", len(ids), slices.IsSorted(ids))
	}
	least, most, sum := time.Hour, time.Duration(0), time.Duration(0)
	for i, arrived := range b.got {
		took := arrived.at - time.Duration(i)*500*time.Microsecond
		least, most, sum = min(least, took), max(most, took), sum+took
	}
	if mean := sum / n; least < delay || most > delay+jitter || least > delay+jitter/8 || most < delay+jitter*7/8 || mean < delay+jitter/3 || mean > delay+jitter*2/3 {
		t.Errorf("from %v to %v, %v in the mean", least, most, mean)
	}
	if r := b.f.stats().Hosts["a"].Up.Reordered; r != 0 {
		t.Errorf("%d counted as reordered", r)
	}
}

func TestReorderedIsCountedAsItIsSeen(t *testing.T) {
	b := newBed(t, Config{Seed: 1})
	a, c := b.host("a", Profile{}), b.host("c", Profile{})
	a.up.set(Profile{Delay: 10 * time.Millisecond, Reorder: 0.05})
	const n = 10000
	ids := b.row(a, c, n, time.Millisecond)
	seen, highest := 0, uint32(0)
	for _, id := range ids {
		if id < highest {
			seen++
		}
		highest = max(highest, id)
	}
	if got := b.f.stats().Hosts["a"].Up.Reordered; len(ids) != n || int(got) != seen || seen < n/30 || seen > n/10 {
		t.Errorf("%d arrived, %d were overtaken, %d counted; want some 5%%", len(ids), seen, got)
	}
	// With an own detour that is shorter than the distance, nobody overtakes.
	a.up.set(Profile{Reorder: 1, Detour: 500 * time.Microsecond})
	if ids = b.row(a, c, 100, time.Millisecond); !slices.IsSorted(ids) || len(ids) != 100 {
		t.Error("overtaken within half the distance")
	}
}

func TestDoublesArriveBesides(t *testing.T) {
	b := newBed(t, Config{Seed: 1})
	a, c := b.host("a", Profile{}), b.host("c", Profile{})
	a.up.set(Profile{Duplicate: 0.2, Delay: time.Millisecond})
	const n = 5000
	ids := b.row(a, c, n, time.Millisecond)
	doubles := len(ids) - n
	if got := b.f.stats().Hosts["a"].Up.Duplicated; int(got) != doubles || doubles < n*17/100 || doubles > n*23/100 {
		t.Errorf("%d doubles, %d counted; want some 20%%", doubles, got)
	}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != n {
		t.Error("doubles do not stand beside their packets")
	}
	b.conserved(map[*node]uint64{c: uint64(n + doubles)})
}

func TestARateSpacesPacketsAndItsQueueIsBounded(t *testing.T) {
	b := newBed(t, Config{})
	a, c := b.host("a", Profile{}), b.host("c", Profile{})
	// 1,000 bytes take a millisecond; ten find room.
	a.up.set(Profile{Rate: 8_000_000, Queue: 10_000, Delay: 3 * time.Millisecond})
	for i := range 15 {
		b.send(a, c, uint32(i), 1000)
	}
	b.until(time.Second)
	for i, arrived := range b.got {
		if want := time.Duration(i+4) * time.Millisecond; arrived.at != want || arrived.id != uint32(i) {
			t.Errorf("%d arrived at %v, want %v", arrived.id, arrived.at, want)
		}
	}
	if s := b.f.stats().Hosts["a"].Up; len(b.got) != 10 || s.Full != 5 || s.Packets != 15 || s.Bytes != 15000 {
		t.Errorf("%d arrived, %+v", len(b.got), s)
	}
	// Two senders share what the receiver's link carries, in the order in which they come to it.
	d := b.host("d", Profile{Delay: 500 * time.Microsecond})
	a.up.set(Profile{})
	c.down.set(Profile{Rate: 8_000_000})
	b.got = nil
	start := time.Duration(b.clock)
	for i := range 5 {
		b.send(d, c, uint32(100+i), 1000)
		b.send(a, c, uint32(i), 1000)
	}
	b.until(start + time.Second)
	want := []uint32{0, 1, 2, 3, 4, 100, 101, 102, 103, 104}
	for i, arrived := range b.got {
		if at := start + time.Duration(i+1)*time.Millisecond; arrived.at != at || arrived.id != want[i] {
			t.Errorf("%d arrived at %v, want %d at %v", arrived.id, arrived.at, want[i], at)
		}
	}
	if len(b.got) != 10 {
		t.Errorf("%d arrived", len(b.got))
	}
}

func TestCutsTakeWhatIsOnTheWay(t *testing.T) {
	b := newBed(t, Config{})
	p := Profile{Delay: 10 * time.Millisecond}
	a, c, d := b.host("a", p), b.host("c", p), b.host("d", p)
	passes := func(from, to *node, want bool) {
		t.Helper()
		if got := len(b.row(from, to, 1, 0)) == 1; got != want {
			t.Errorf("%s to %s: %v, want %v", from.name, to.name, got, want)
		}
	}
	b.f.cutPath(a, c, true)
	passes(a, c, false)
	passes(c, a, true)
	passes(a, d, true)
	b.f.cutPath(a, c, false)
	passes(a, c, true)
	b.f.cutHost(c, true)
	passes(a, c, false)
	passes(c, d, false)
	passes(a, d, true)
	b.f.lay(a, c, &p) // a link of the pair does not go round the cut
	passes(a, c, false)
	b.f.healAll()
	passes(a, c, true)
	b.f.lay(a, c, nil)

	// On either link, though it is mended before the packet would have arrived.
	for _, after := range []time.Duration{5 * time.Millisecond, 15 * time.Millisecond} {
		b.got = nil
		start := time.Duration(b.clock)
		before := b.f.stats()
		b.send(a, c, 1, 100)
		b.send(a, d, 2, 100)
		b.until(start + after)
		b.f.cutHost(c, true)
		b.f.cutHost(c, false)
		b.until(start + time.Second)
		s := b.f.stats()
		lost := s.Hosts["a"].Up.Cut + s.Hosts["c"].Down.Cut - before.Hosts["a"].Up.Cut - before.Hosts["c"].Down.Cut
		if len(b.got) != 1 || b.got[0].to != d || lost != 1 {
			t.Errorf("cut after %v: %v, %d counted", after, b.got, lost)
		}
	}
}

func TestWhatNobodyCanHaveIsCounted(t *testing.T) {
	b := newBed(t, Config{})
	a, c := b.host("a", Profile{}), b.host("c", Profile{})
	send6 := func(to string) {
		p := make([]byte, 48)
		p[0], p[5] = 0x60, 8
		addr := netip.MustParseAddr(to).As16()
		copy(p[24:], addr[:])
		b.sendRaw(a, p)
	}
	good := datagram(c.addrs[0], 1, 100)
	broken := func(at int, v byte) []byte { p := slices.Clone(good); p[at] = v; return p }
	for _, raw := range [][]byte{
		{},
		{0x45},
		good[:19], good[:99], append(slices.Clone(good), 0), broken(0, 0x55), broken(0, 0x44), broken(0, 0x4f)[:40],
		broken(3, 99), broken(0, 0x65), slices.Concat([]byte{0x60}, make([]byte, 38)), slices.Concat([]byte{0x60, 0, 0, 0, 0, 1}, make([]byte, 34)),
	} {
		b.sendRaw(a, raw)
	}
	b.sendRaw(a, datagram(netip.MustParseAddr("192.0.2.1"), 1, 100))
	b.sendRaw(a, datagram(a.addrs[0], 1, 100))
	b.sendRaw(a, datagram(netip.MustParseAddr("255.255.255.255"), 1, 100))
	b.sendRaw(a, datagram(netip.MustParseAddr("10.77.255.255"), 1, 100))
	b.sendRaw(a, datagram(netip.MustParseAddr("224.0.0.5"), 1, 100))
	send6("ff02::2")
	send6("2001:db8::1")
	send6(c.addrs[1].String())
	b.until(time.Second)
	s := b.f.stats().Hosts["a"]
	if s.Malformed != 12 || s.Unroutable != 3 || s.Multicast != 4 || len(b.got) != 1 || b.got[0].to != c {
		t.Errorf("%+v, %d arrived", s, len(b.got))
	}
	b.full = true
	b.send(a, c, 1, 100)
	b.until(2 * time.Second)
	if got := b.f.stats().Hosts["c"].Refused; got != 1 {
		t.Errorf("%d refused, want 1", got)
	}
	// Bytes of any kind do no harm.
	g := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		raw := make([]byte, g.IntN(200))
		for i := range raw {
			raw[i] = byte(g.Uint32())
		}
		if len(raw) > 4 && g.IntN(2) == 0 {
			raw[0], raw[2], raw[3] = 0x45, 0, byte(len(raw))
		}
		b.sendRaw(a, raw)
	}
	b.until(time.Minute)
	if b.f.packets.used() != 0 {
		t.Errorf("%d packets are kept", b.f.packets.used())
	}
}

func TestQueuesAndMemoryAreBounded(t *testing.T) {
	b := newBed(t, Config{LinkPackets: 50, Packets: 80})
	a, c, d := b.host("a", Profile{Delay: time.Second}), b.host("c", Profile{Duplicate: 1, Delay: time.Second}), b.host("d", Profile{})
	for i := range 100 {
		b.send(a, d, uint32(i), 100)
		b.send(c, d, uint32(i), 100)
	}
	s := b.f.stats()
	up := s.Hosts["c"].Up
	if s.InFlight != 80 || s.Hosts["a"].Up.Inside > 50 || up.Inside > 50 || up.Inside != int(up.Packets-up.Full+up.Duplicated) {
		t.Errorf("%d in flight; a %+v; c %+v", s.InFlight, s.Hosts["a"].Up, up)
	}
	b.until(time.Minute)
	b.conserved(map[*node]uint64{d: uint64(len(b.got))})
	if b.f.packets.made > 80 {
		t.Errorf("%d packets made", b.f.packets.made)
	}
}

func TestAHostThatGoesTakesItsPacketsAlong(t *testing.T) {
	b := newBed(t, Config{})
	a, c := b.host("a", Profile{Delay: time.Second}), b.host("c", Profile{})
	b.f.lay(a, c, &Profile{Delay: time.Minute})
	b.send(a, c, 1, 100)
	b.send(c, a, 2, 100)
	b.f.remove(c)
	next := b.f.add("c2", c.number, Profile{}, c.addrs...)
	b.send(a, next, 3, 100)
	b.until(time.Hour)
	if len(b.got) != 1 || b.got[0].id != 3 || b.got[0].to != next || b.got[0].at != time.Second {
		t.Errorf("%v", b.got)
	}
	if s := b.f.stats(); len(s.Pairs) != 0 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNothingIsLostBesideTheCounters(t *testing.T) {
	for seed := range uint64(20) {
		g := rand.New(rand.NewPCG(seed, 0))
		b := newBed(t, Config{Seed: seed, LinkPackets: 60, Packets: 150})
		profile := func() Profile {
			return Profile{
				Delay: time.Duration(g.IntN(50)) * time.Millisecond, Jitter: time.Duration(g.IntN(20)) * time.Millisecond,
				Loss: g.Float64() / 4, Reorder: g.Float64() / 4, Duplicate: g.Float64() / 4, Rate: int64(g.IntN(2)) * 1_000_000, Queue: g.IntN(5000),
			}
		}
		var nodes []*node
		for i := range 4 {
			nodes = append(nodes, b.host(string(rune('a'+i)), profile()))
		}
		for i := range 3000 {
			x, y := nodes[g.IntN(4)], nodes[g.IntN(4)]
			switch g.IntN(40) {
			case 0:
				b.f.cutHost(x, g.IntN(2) == 0)
			case 1:
				b.f.cutPath(x, y, g.IntN(2) == 0)
			case 2:
				b.f.healAll()
			case 3:
				x.up.set(profile())
			case 4:
				if x != y { // Stats counts links that there are, so none is taken away
					p := profile()
					b.f.lay(x, y, &p)
				}
			default:
				if x != y {
					b.send(x, y, uint32(i), 24+g.IntN(1476))
				}
			}
			b.until(time.Duration(b.clock) + time.Duration(g.IntN(1000))*time.Microsecond)
			arrived := map[*node]uint64{}
			for _, a := range b.got {
				arrived[a.to]++
			}
			if i%50 == 0 {
				b.conserved(arrived)
			}
		}
	}
}

func TestTheQueueGivesTheFirstDueFirst(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 2))
	var q queue
	var last waiting
	for i := range 20000 {
		if g.IntN(5) < 3 || len(q.heap) == 0 {
			q.push(last.due+int64(g.IntN(100)), &packet{n: i})
			continue
		}
		w := q.pop()
		if w.before(last) {
			t.Fatalf("%+v after %+v", w, last)
		}
		last = w
	}
	for len(q.heap) > 0 {
		w := q.pop()
		if w.before(last) {
			t.Fatalf("%+v after %+v", w, last)
		}
		last = w
	}
}
