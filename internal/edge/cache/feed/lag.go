package feed

import (
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/observe"
)

// change is an event that purged: how long its old price could be had.
type change struct {
	first, last uint64 // numbers of its purges
	at          time.Time
	held        time.Time // from when nothing that is found is older
	left        time.Time // when the last older answer left; zero when none did after held
	label       string
	name        uint64 // hash of what it is about
	before      int64  // sequence of the change before, of the same name; -1 when there is none that is kept
}

// lag is for how long the old price left the edge after it had changed.
func (c *change) lag() time.Duration {
	end := c.held
	if c.left.After(end) {
		end = c.left
	}
	return max(end.Sub(c.at), 0)
}

// departed is an answer that left before its purge was noted here.
type departed struct {
	number, born uint64
	at           time.Time
}

const (
	keepChanges   = 4096 // of each site
	maxDepartures = 1024
	// recent is how far back the oldest price is looked for.
	recent = 5 * time.Minute
)

// lags are the last changes of a site, in the order of their numbers.
type lags struct {
	mu      sync.Mutex
	ring    []change
	next    int64 // sequence of the next change
	byName  map[uint64]int64
	early   []departed
	late    int64 // answers that left after their purge held
	missed  int64 // of which it is not known to which change they belong
	highest uint64
	count   observe.Counter // of late
}

func newLags(late observe.Counter) *lags { return &lags{byName: map[uint64]int64{}, count: late} }

// at lends the change of a sequence; nil when it is gone.
func (l *lags) at(seq int64) *change {
	if seq < 0 || seq >= l.next || seq < l.next-int64(len(l.ring)) {
		return nil
	}
	return &l.ring[seq%keepChanges]
}

// add notes changes, which have rising numbers.
func (l *lags) add(list []change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range list {
		c.before = -1
		if seq, ok := l.byName[c.name]; ok {
			c.before = seq
		}
		if len(l.ring) < keepChanges {
			l.ring = append(l.ring, c)
		} else {
			p := &l.ring[l.next%keepChanges]
			if l.byName[p.name] == l.next-keepChanges {
				delete(l.byName, p.name)
			}
			*p = c
		}
		l.byName[c.name] = l.next
		l.next++
		l.highest = max(l.highest, c.last)
	}
	early := l.early
	l.early = nil
	for _, d := range early {
		l.note(d)
	}
}

// depart notes that an answer from before a purge left after it.
func (l *lags) depart(d departed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(d)
}

func (l *lags) note(d departed) {
	if d.number > l.highest {
		if len(l.early) < maxDepartures {
			l.early = append(l.early, d)
		} else {
			l.missed++
		}
		return
	}
	first := l.next - int64(len(l.ring))
	i := sort.Search(len(l.ring), func(i int) bool { return l.at(first+int64(i)).last >= d.number })
	c := l.at(first + int64(i))
	if c == nil || c.first > d.number {
		return // it was no event that purged it
	}
	l.late++
	l.count.Inc()
	for c != nil && c.last > d.born { // also the changes of the same price in between
		if d.at.After(c.left) {
			c.left = d.at
		}
		c = l.at(c.before)
	}
}

// Oldest is the oldest price that still left the edge.
type Oldest struct {
	Name string `json:"name"`
	// Seconds that its price was old when its last answer left, or could have left.
	Seconds float64   `json:"seconds"`
	Changed time.Time `json:"changed"`
	// Seen is true when such an answer was seen to leave, false when it is the time until the purge held.
	Seen bool `json:"seen"`
}

// Lag is how long prices could be had that were no longer true, in seconds: from the event's own time until
// its purge held or, where that was later, until the last older answer left.
type Lag struct {
	Changes int     `json:"changes"` // that the numbers are of
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
	// Late are answers that left after their purge held: under way before, or stale after a soft purge.
	Late int64 `json:"late"`
	// Missed are those of which it was not kept which event they belong to.
	Missed int64 `json:"missed,omitempty"`
	// Oldest is of the events of the last five minutes; nil when there was none.
	Oldest *Oldest `json:"oldest,omitempty"`
}

// summary tells the lags. Now is the time.
func (l *lags) summary(now time.Time) Lag {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := Lag{Changes: len(l.ring), Late: l.late, Missed: l.missed}
	if len(l.ring) == 0 {
		return out
	}
	all := make([]float64, len(l.ring))
	for i := range l.ring {
		c := &l.ring[i]
		all[i] = c.lag().Seconds()
		end := c.at.Add(c.lag())
		if now.Sub(end) < recent && (out.Oldest == nil || all[i] > out.Oldest.Seconds) {
			out.Oldest = &Oldest{Name: c.label, Seconds: all[i], Changed: c.at, Seen: c.left.After(c.held)}
		}
	}
	slices.Sort(all)
	rank := func(share float64) float64 { return all[min(int(share*float64(len(all))), len(all)-1)] }
	out.P50, out.P99, out.Max = rank(0.50), rank(0.99), all[len(all)-1]
	return out
}
