package admission

import (
	"math"
	"sync/atomic"
)

// Share is what one tenant has of the log, and how much it may have. Its zero value has nothing
// and no quota. Who stores keeps one for each tenant; the number of tenants bounds them.
//
// A tenant above its quota meets a threshold of its own, higher than the others' by a pressure
// that follows what it has: so it keeps what is worth most to it. Beyond a margin above the
// quota nothing is stored or kept. Both work where the log's tail moves: in a log that is
// not full who stores asks Spare of the tenant's objects while a share is over its quota (Over).
type Share struct {
	bytes    atomic.Int64
	objects  atomic.Int64
	quota    atomic.Int64
	pressure atomic.Uint64 // bits of a float64, less 1
}

const (
	quotaMargin  = 20 // a twentieth above the quota is where all is refused
	pressureStep = 0.002
	maxPressure  = 64 // four times the range of frequencies
)

// SetQuota bounds the tenant's bytes; 0 is no bound.
func (s *Share) SetQuota(bytes int64) { s.quota.Store(max(bytes, 0)) }

// Quota is the bound of the tenant's bytes, or 0.
func (s *Share) Quota() int64 { return s.quota.Load() }

// Add counts a record that was written to the log: a new one, not one written again.
func (s *Share) Add(size int64) {
	s.bytes.Add(size)
	s.objects.Add(1)
}

// Remove counts a record that is no longer in the log.
func (s *Share) Remove(size int64) {
	s.bytes.Add(-size)
	s.objects.Add(-1)
}

// Bytes is what the tenant has in the log.
func (s *Share) Bytes() int64 { return s.bytes.Load() }

// Objects is how many records the tenant has in the log.
func (s *Share) Objects() int64 { return s.objects.Load() }

// Over says that the tenant has more than its quota.
func (s *Share) Over() bool {
	q := s.quota.Load()
	return q > 0 && s.bytes.Load() > q
}

// Pressure is by how much the tenant's threshold is higher than the others'; 1 is not at all.
func (s *Share) Pressure() float64 {
	return math.Float64frombits(s.pressure.Load()) + 1
}

// beyond says whether the tenant is above the margin with size bytes more.
func (s *Share) beyond(size int64) bool {
	q := s.quota.Load()
	return q > 0 && s.bytes.Load()+size > q+q/quotaMargin
}

// press moves the pressure by one object at the tail.
func (s *Share) press() (pressure float64) {
	old := s.pressure.Load()
	pressure = math.Float64frombits(old) + 1
	switch {
	case s.Over():
		pressure = min(pressure*(1+pressureStep), maxPressure)
	case s.Quota() == 0:
		pressure = 1
	default:
		pressure = max(pressure*(1-pressureStep), 1)
	}
	if now := math.Float64bits(pressure - 1); now != old {
		s.pressure.CompareAndSwap(old, now)
	}
	return pressure
}

// AdmitOf is Admit for a tenant.
func (p *Policy) AdmitOf(s *Share, hash uint64, size int64) bool {
	if s.beyond(size) {
		p.refused.Add(1)
		return false
	}
	return p.admit(p.value(hash, size), s.Pressure())
}

// Spare says whether a tenant with a quota keeps an object while there is room in the log, so that others need not
// give anything up: all while it is not above. It does not move their threshold.
func (p *Policy) Spare(s *Share, hash uint64, size int64) bool {
	pressure := s.press()
	if !s.Over() {
		return true
	}
	t := math.Float64frombits(p.threshold.Load())
	if t == 0 {
		t = float64(p.weights[sizeClass(size)]) // as if it was asked for once
	}
	if s.beyond(0) || p.value(hash, size) < t*pressure {
		p.dropped.Add(1)
		return false
	}
	p.kept.Add(1)
	return true
}

// KeepOf is Keep for a tenant. What goes because of a quota does not move the others' threshold.
func (p *Policy) KeepOf(s *Share, hash uint64, size int64) bool {
	pressure, value := s.press(), p.value(hash, size)
	t := math.Float64frombits(p.threshold.Load())
	if s.beyond(0) || pressure > 1 && value < t*pressure {
		p.dropped.Add(1)
		return false
	}
	return p.keep(value, float64(p.weights[sizeClass(size)]))
}
