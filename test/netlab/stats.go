package netlab

import (
	"fmt"
	"math/bits"
	"time"
)

// Counters are what one direction of a link has seen. Each of Packets was lost, found no place, ran into a cut, is
// still inside, or arrived; doubles arrive besides.
type Counters struct {
	Packets, Bytes uint64 // that came to it
	Lost           uint64 // by Profile.Loss
	Full           uint64 // the queue of Profile.Queue, the link (Config.LinkPackets) or the lab (Config.Packets) was full
	Cut            uint64 // came to a cut, or were on the way when it came
	Duplicated     uint64 // doubles made
	Reordered      uint64 // arrived after one that came to the link later
	Inside         int    // on the way now, doubles included
}

// HostStats are what the access link and the device of a host have seen.
type HostStats struct {
	Up, Down   Counters
	Unroutable uint64 // sent to an address that no host has
	Multicast  uint64 // sent to a multicast or broadcast address, mostly the kernel's own IPv6 chatter
	Malformed  uint64 // sent, but no IP packet
	Refused    uint64 // arrived, but the device did not take them, for example because it was down
	Overrun    uint64 // sent, but dropped by the kernel because the lab did not read them in time
}

// Pair is the direction from one host to another, by their names.
type Pair struct{ From, To string }

// Stats are counters since New.
type Stats struct {
	Hosts    map[string]HostStats
	Pairs    map[Pair]Counters // of links laid with Link
	InFlight int               // packets
	// Late is how much later than their links ask for packets were handed to their host.
	Late Histogram
	// Stall is how late the lab itself got to run, looked at a hundred times a second at least. So long may packets
	// have waited before they were read, which Late does not know.
	Stall Histogram
}

// Histogram counts durations in steps of powers of two.
type Histogram struct {
	Steps [26]uint64 // Steps[i] counts those under 2^i µs that are in none before; the last all others
	Count uint64
	Max   time.Duration
}

func (h *Histogram) add(d time.Duration) {
	h.Count++
	h.Max = max(h.Max, d)
	i := bits.Len64(uint64(max(d, 0) / time.Microsecond))
	h.Steps[min(i, len(h.Steps)-1)]++
}

// Quantile is a bound that the share q of the durations keeps; at most Max.
func (h *Histogram) Quantile(q float64) time.Duration {
	var sum uint64
	for i, n := range h.Steps {
		sum += n
		if sum > 0 && float64(sum) >= q*float64(h.Count) && i < len(h.Steps)-1 {
			return min(h.Max, time.Microsecond<<i)
		}
	}
	return h.Max
}

// String gives the quantiles that people ask for.
func (h *Histogram) String() string {
	return fmt.Sprintf("n=%d p50<=%v p99<=%v p99.9<=%v max=%v", h.Count, h.Quantile(0.5), h.Quantile(0.99), h.Quantile(0.999), h.Max)
}
