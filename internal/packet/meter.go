package packet

import "github.com/relais-edge/relais/internal/observe"

// meter passes the kernel's counters on to the metrics, by their growth.
type meter struct {
	family *observe.Family[observe.Counter] // nil without metrics
	last   map[string]uint64
}

func newMeter(r *observe.Registry) *meter {
	m := &meter{last: map[string]uint64{}}
	if r != nil {
		m.family = r.Counters("relais_packet_packets_total", "Packets that the packet filter decided on, by reason.", int(reasons), "reason", "verdict")
	}
	return m
}

// add is called by one goroutine.
func (m *meter) add(counts []Count) {
	if m.family == nil {
		return
	}
	for _, c := range counts {
		grown := c.Packets - m.last[c.Reason]
		if c.Packets < m.last[c.Reason] { // the kernel began anew
			grown = c.Packets
		}
		m.last[c.Reason] = c.Packets
		if grown == 0 {
			continue
		}
		verdict := "passed"
		if c.Dropped {
			verdict = "dropped"
		}
		m.family.With(c.Reason, verdict).Add(float64(grown))
	}
}
