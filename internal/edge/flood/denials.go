package flood

import (
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// Denier drops the packets of addresses before anything else is spent on them; the rules of package packet do.
type Denier interface {
	// Propose drops what comes from prefix until then, unless somebody else decided about it. The same reason again
	// moves the end.
	Propose(prefix netip.Prefix, until time.Time, reason string) error
	// Withdraw ends what Propose began, and says whether it did.
	Withdraw(prefix netip.Prefix, reason string) bool
}

const (
	// denyReason is the reason of the rules.
	denyReason = "flood"
	// denyFor is how long an address is denied; who goes on after that is denied again.
	denyFor = time.Minute
	// denyAfter is how many requests of an address step drop refuses, within a minute or so, before it is denied, and
	// fineShare how many times as many they must be as those that are no suspect's: behind an address that many share
	// one attacker cuts nobody off.
	denyAfter = 40
	fineShare = 16
	// maxDenials bounds the addresses that are denied at once; denialsATick those that are told in a tick.
	maxDenials   = 1 << 15
	denialsATick = 256
	denySalt     = 0x94d049bb133111eb
)

// What became of a denial, as counted.
const (
	denied    = iota
	notTaken  // the filter took no rule: it would cut somebody off, or is full
	noRoom    // too many at once
	withdrawn // by a person
	denialCount
)

var denialNames = [denialCount]string{"denied", "not-taken", "no-room", "withdrawn"}

// denials are the addresses whose packets are dropped.
type denials struct {
	counters [denialCount]observe.Counter

	mu    sync.Mutex
	queue []denial // to be told at the next tick

	live sync.Mutex // what follows; the filter is told with it held
	list map[netip.Prefix]denial
}

type denial struct {
	prefix netip.Prefix
	site   bundle.Key
	until  time.Time
}

func (d *denials) open(r *observe.Registry) {
	f := r.Counters("relais_flood_denials_total", "Addresses that the packet filter was to deny in step drop, by what became of it.", int(denialCount), "outcome")
	for i := range d.counters {
		d.counters[i] = f.With(denialNames[i])
	}
	d.list = map[netip.Prefix]denial{}
}

// fine notes that somebody behind the address of x is no suspect. Known says that it has signed state, on whatever
// site: its address is not denied for some minutes, whatever others do behind it.
func (s *Stage) fine(x *stage.Exchange, n uint32, known bool) {
	if s.cfg.Denier != nil && own(x) {
		s.sources.vouch(s.denyHash(x.Client), n, known)
	}
}

// offend notes that step drop refused x.
func (s *Stage) offend(x *stage.Exchange, site bundle.Key, n uint32) {
	if s.cfg.Denier == nil || !own(x) || !s.sources.offend(s.denyHash(x.Client), n) {
		return
	}
	prefix, err := x.Client.Unmap().Prefix(bitsOf(x.Client))
	if err != nil {
		return
	}
	d := &s.denials
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) < denialsATick {
		d.queue = append(d.queue, denial{prefix: prefix, site: site})
	} else {
		d.counters[noRoom].Inc()
	}
}

// own says whether the packets of x come from its visitor, and not from a proxy that others come through too.
func own(x *stage.Exchange) bool {
	return !x.PeerTrusted && x.In.Conn != nil && x.In.Conn.Peer.Addr().Unmap() == x.Client.Unmap()
}

// bitsOf is how much of an address is its owner's: all of IPv4, a /64 of IPv6.
func bitsOf(a netip.Addr) int {
	if a.Is4() || a.Is4In6() {
		return 32
	}
	return 64
}

func (s *Stage) denyHash(a netip.Addr) uint64 {
	h, _ := addresses(s.seed, a, denySalt)
	return h
}

// tell tells the filter of the last tick's offenders, and forgets those whose time has passed.
func (d *denials) tell(filter Denier, now time.Time) {
	if filter == nil {
		return
	}
	d.live.Lock()
	defer d.live.Unlock()
	d.mu.Lock()
	queue := d.queue
	d.queue = nil
	d.mu.Unlock()
	maps.DeleteFunc(d.list, func(_ netip.Prefix, l denial) bool { return !now.Before(l.until) })
	for _, l := range queue {
		if _, again := d.list[l.prefix]; !again && len(d.list) >= maxDenials {
			d.counters[noRoom].Inc()
			continue
		}
		l.until = now.Add(denyFor)
		if filter.Propose(l.prefix, l.until, denyReason) != nil { // the filter counts why
			d.counters[notTaken].Inc()
			continue
		}
		d.counters[denied].Inc()
		d.list[l.prefix] = l
	}
}

// withdraw ends the denials that a person no longer wants.
func (d *denials) withdraw(filter Denier, unwanted func(denial) bool) {
	if filter == nil {
		return
	}
	d.live.Lock()
	defer d.live.Unlock()
	d.mu.Lock()
	kept := d.queue[:0]
	for _, l := range d.queue {
		if !unwanted(l) {
			kept = append(kept, l)
		}
	}
	d.queue = kept
	d.mu.Unlock()
	for p, l := range d.list {
		if unwanted(l) {
			filter.Withdraw(p, denyReason)
			delete(d.list, p)
			d.counters[withdrawn].Inc()
		}
	}
}

// count says how many addresses are denied for a site.
func (d *denials) count() map[bundle.Key]int {
	out := map[bundle.Key]int{}
	d.live.Lock()
	defer d.live.Unlock()
	for _, l := range d.list {
		out[l.site]++
	}
	return out
}
