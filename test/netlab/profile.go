package netlab

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Profile is what one direction of a link does to its packets. The zero Profile is a link that does nothing.
type Profile struct {
	// Delay is what each packet takes at least, up to an hour.
	Delay time.Duration
	// Jitter is the most that is added to Delay. It drifts up and down over several times its size, as a queue on the
	// way would that fills and empties, so it does not reorder.
	Jitter time.Duration
	// Loss is the share of packets that vanish, from 0 to 1.
	Loss float64
	// Burst is the mean number of packets lost in a row (Gilbert's model); up to 1, losses are independent.
	Burst float64
	// Reorder is the share of packets that take Detour longer, so that those behind may overtake them.
	Reorder float64
	// Detour is how much longer; 0 is half of Delay, at least a millisecond.
	Detour time.Duration
	// Duplicate is the share of packets that arrive twice.
	Duplicate float64
	// Rate is in bits a second of IP packets, at least 1,000; 0 is as fast as it goes.
	Rate int64
	// Queue is how many bytes may wait for Rate, those of the packet on the wire included; more are dropped. 0 is what
	// Rate carries in 100 ms, at least 32 KiB.
	Queue int
}

const (
	maxDelay = time.Hour
	minRate  = 1_000
	maxRate  = 100_000_000_000
	maxQueue = 256 << 20
)

func (p Profile) check() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"Delay", p.Delay}, {"Jitter", p.Jitter}, {"Detour", p.Detour}} {
		fault(d.d < 0 || d.d > maxDelay, "%s is %v; it goes from 0 to %v", d.name, d.d, maxDelay)
	}
	for _, s := range []struct {
		name  string
		share float64
	}{{"Loss", p.Loss}, {"Reorder", p.Reorder}, {"Duplicate", p.Duplicate}} {
		fault(!(s.share >= 0 && s.share <= 1), "%s is %v; it is a share, from 0 to 1", s.name, s.share)
	}
	fault(!(p.Burst >= 0 && p.Burst <= 1e6), "Burst is %v; it is a number of packets, from 0 to a million", p.Burst)
	if p.Burst > 1 && p.Loss < 1 {
		most := p.Burst / (p.Burst + 1)
		fault(p.Loss > most, "Loss is %v; bursts of %v packets with one good packet between them lose %.3f at most", p.Loss, p.Burst, most)
	}
	fault(p.Rate != 0 && (p.Rate < minRate || p.Rate > maxRate), "Rate is %d bits a second; it is 0 or goes from %d to %d", p.Rate, int64(minRate), int64(maxRate))
	fault(p.Queue < 0 || p.Queue > maxQueue, "Queue is %d bytes; it goes from 0 to %d", p.Queue, maxQueue)
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("netlab: the profile of a link: %w", errors.Join(faults...))
}

// detour is how much longer a packet takes that is reordered.
func (p Profile) detour() time.Duration {
	if p.Detour > 0 {
		return p.Detour
	}
	return max(p.Delay/2, time.Millisecond)
}

// queue is how many bytes may wait for the rate.
func (p Profile) queue() int {
	if p.Queue > 0 {
		return p.Queue
	}
	return int(min(max(p.Rate/80, 32<<10), maxQueue))
}

// String is as people speak of links: "20ms, 5ms jitter, 1% loss in bursts of 3, 10Mbit/s with 128000 bytes of queue".
func (p Profile) String() string {
	var s []string
	say := func(is bool, format string, args ...any) {
		if is {
			s = append(s, fmt.Sprintf(format, args...))
		}
	}
	say(p.Delay > 0, "%v", p.Delay)
	say(p.Jitter > 0, "%v jitter", p.Jitter)
	burst := ""
	if p.Burst > 1 {
		burst = " in bursts of " + strconv.FormatFloat(p.Burst, 'g', 4, 64)
	}
	say(p.Loss > 0, "%s loss%s", percent(p.Loss), burst)
	say(p.Reorder > 0, "%s late by %v", percent(p.Reorder), p.detour())
	say(p.Duplicate > 0, "%s twice", percent(p.Duplicate))
	say(p.Rate > 0, "%s with %d bytes of queue", inUnits(p.Rate), p.queue())
	if len(s) == 0 {
		return "perfect"
	}
	return strings.Join(s, ", ")
}

func percent(share float64) string { return strconv.FormatFloat(share*100, 'g', 4, 64) + "%" }

func inUnits(rate int64) string {
	for _, u := range []struct {
		unit string
		of   int64
	}{{"Gbit/s", 1e9}, {"Mbit/s", 1e6}, {"kbit/s", 1e3}} {
		if rate >= u.of {
			return strconv.FormatFloat(float64(rate)/float64(u.of), 'g', 6, 64) + u.unit
		}
	}
	return strconv.FormatInt(rate, 10) + "bit/s"
}
