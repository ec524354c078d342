package auth

import (
	"net/netip"
	"sync"
	"time"
)

// Attempt is somebody who tries to log in.
type Attempt struct {
	Account string
	Source  netip.Addr
	Device  string // of a device that this account logged in from before, and that proved it; else empty
}

// ThrottleConfig says how guessing is slowed down. A zero field takes its default.
type ThrottleConfig struct {
	Free     int           // wrong tries of one source at one account before it waits; 5
	Longest  time.Duration // wait between a source's tries; 15 min
	Window   time.Duration // after which wrong tries are forgotten; 1 h
	Attacked int           // wrong tries at an account in a window, of all unknown devices, from which each source has one try in Longest; 50
	Spray    int           // wrong tries of a source at all accounts in a window from which it waits; 100
	Pause    time.Duration // that it waits then; 30 s
	Strict   bool          // an account that is attacked takes no try of unknown devices until the window ends
	Entries  int           // of each table; 65,536
}

// Throttle slows down guessing. It counts by account and source, so that who guesses locks out nobody but himself: a
// try from elsewhere, and one from a device that is known, is judged by its own past. It is safe for many goroutines.
type Throttle struct {
	cfg ThrottleConfig

	mu      sync.Mutex
	pairs   map[pair]*tries // account and source, or account and device
	account map[string]*tries
	source  map[netip.Prefix]*tries
	evicted uint64
}

type pair struct {
	account, device string
	source          netip.Prefix
}

// tries are wrong ones, and those under way.
type tries struct {
	n     int
	since time.Time
	last  time.Time
}

// NewThrottle makes a throttle.
func NewThrottle(c ThrottleConfig) *Throttle {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	defTime := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.Free, 5)
	def(&c.Attacked, 50)
	def(&c.Spray, 100)
	def(&c.Entries, 1<<16)
	defTime(&c.Longest, 15*time.Minute)
	defTime(&c.Window, time.Hour)
	defTime(&c.Pause, 30*time.Second)
	return &Throttle{cfg: c, pairs: map[pair]*tries{}, account: map[string]*tries{}, source: map[netip.Prefix]*tries{}}
}

// network is what one guesser has many addresses of: a /24 of IPv4, the /56 that a home has of IPv6.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 24
	if a.Is6() {
		bits = 56
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: all of them together
	}
	return p
}

func (a Attempt) pair() pair {
	if a.Device != "" {
		return pair{account: a.Account, device: a.Device}
	}
	return pair{account: a.Account, source: network(a.Source)}
}

// Begin says how long to wait before the try may be made; 0: it may be made now, and counts as a wrong one until Passed.
func (t *Throttle) Begin(a Attempt, now time.Time) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := get(t, t.pairs, a.pair(), now, latest)
	wait = t.pause(own, t.cfg.Free, now)
	if a.Device != "" {
		return t.count(wait, now, own)
	}
	account, source := get(t, t.account, a.Account, now, first), get(t, t.source, network(a.Source), now, first)
	if account.n >= t.cfg.Attacked {
		if t.cfg.Strict {
			wait = max(wait, account.since.Add(t.cfg.Window).Sub(now))
		} else if own.n > 0 {
			wait = max(wait, own.last.Add(t.cfg.Longest).Sub(now))
		}
	}
	if source.n >= t.cfg.Spray {
		wait = max(wait, source.last.Add(t.cfg.Pause).Sub(now))
	}
	return t.count(wait, now, own, account, source)
}

// pause doubles with each wrong try beyond the free ones.
func (t *Throttle) pause(own *tries, free int, now time.Time) time.Duration {
	if own.n < free {
		return 0
	}
	wait := t.cfg.Longest
	if over := own.n - free; over < 20 {
		wait = min(wait, time.Second<<over)
	}
	return max(own.last.Add(wait).Sub(now), 0)
}

func (t *Throttle) count(wait time.Duration, now time.Time, all ...*tries) time.Duration {
	if wait > 0 {
		return wait // refused tries are not made, so they count for nothing
	}
	for _, x := range all {
		x.n++
		x.last = now
	}
	return 0
}

// Passed says that the try was right: what its source got wrong is forgotten.
func (t *Throttle) Passed(a Attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.pairs, a.pair())
	if a.Device != "" {
		return
	}
	for _, x := range []*tries{t.account[a.Account], t.source[network(a.Source)]} {
		if x != nil && x.n > 0 {
			x.n--
		}
	}
}

// Wrong is how often the account's source, or device, was wrong.
func (t *Throttle) Wrong(a Attempt) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x := t.pairs[a.pair()]; x != nil {
		return x.n
	}
	return 0
}

// Evicted counts what was forgotten for want of room.
func (t *Throttle) Evicted() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.evicted
}

// get finds or makes an entry. It begins anew when a window has gone by: since its first wrong try where rates are
// counted, and since its last one for a pair, so that who goes on is never given his free tries again. Where the table is
// full, of a few entries the one goes that was used longest ago.
func get[K comparable](t *Throttle, m map[K]*tries, k K, now time.Time, from func(*tries) time.Time) *tries {
	x := m[k]
	if x != nil {
		if age := now.Sub(from(x)); age >= 0 && age < t.cfg.Window {
			return x
		}
	} else if len(m) >= t.cfg.Entries {
		evict(t, m)
	}
	x = &tries{since: now, last: now}
	m[k] = x
	return x
}

func first(x *tries) time.Time  { return x.since }
func latest(x *tries) time.Time { return x.last }

func evict[K comparable](t *Throttle, m map[K]*tries) {
	var oldest K
	var last time.Time
	seen := 0
	for k, x := range m { // the order of a map is by chance
		if seen == 0 || x.last.Before(last) {
			oldest, last = k, x.last
		}
		if seen++; seen == 16 {
			break
		}
	}
	delete(m, oldest)
	t.evicted++
}
