// Package usage is what tenants used, as data: records per site and hour, batches of them on their way from a PoP to the
// control plane, and the signed receipts that a tenant can check without asking anybody.
package usage

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Bounds of a record and of a batch.
const (
	MaxName    = 63    // bytes of the name of a PoP, an organization or a site, as documents have it
	MaxRecords = 1_000 // of a batch
	MaxBatch   = 1 << 20
	// MaxCount bounds a single counter of a record, so that a thousand records can be added without a look.
	MaxCount = 1 << 52
)

// Hours of use: from the year 2000 to 2200.
const (
	firstHour = Hour(262_968)
	lastHour  = Hour(2_016_192)
)

// ErrInvalid says that a record, a batch or a receipt is not well formed.
var ErrInvalid = errors.New("not well formed")

// Hour is an hour of UTC, counted from the beginning of 1970.
type Hour int64

// HourOf is the hour that t is in.
func HourOf(t time.Time) Hour {
	s := t.Unix()
	h := s / 3600
	if s%3600 < 0 {
		h--
	}
	return Hour(h)
}

// Time is when the hour begins.
func (h Hour) Time() time.Time { return time.Unix(int64(h)*3600, 0).UTC() }

// Day is the day of UTC that the hour is in.
func (h Hour) Day() Day { return DayOf(h.Time()) }

// Valid says whether it is a time at which anything can have been used.
func (h Hour) Valid() bool { return h >= firstHour && h <= lastHour }

// MarshalText writes the hour's beginning as RFC 3339.
func (h Hour) MarshalText() ([]byte, error) { return []byte(h.Time().Format(time.RFC3339)), nil }

// UnmarshalText reads what MarshalText wrote, and nothing else.
func (h *Hour) UnmarshalText(b []byte) error {
	t, err := time.Parse(time.RFC3339, string(b))
	if err != nil {
		return fmt.Errorf("%w: hour %q is no time of RFC 3339", ErrInvalid, b)
	}
	*h = HourOf(t)
	if again, _ := h.MarshalText(); string(again) != string(b) || !h.Valid() {
		return fmt.Errorf("%w: %q is no beginning of an hour in UTC", ErrInvalid, b)
	}
	return nil
}

// Day is a day of UTC, counted from the beginning of 1970.
type Day int64

// DayOf is the day that t is in.
func DayOf(t time.Time) Day {
	s := t.Unix()
	d := s / 86400
	if s%86400 < 0 {
		d--
	}
	return Day(d)
}

// Time is when the day begins.
func (d Day) Time() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// First is the day's first hour.
func (d Day) First() Hour { return Hour(d * 24) }

// MarshalText writes the day as 2026-11-24.
func (d Day) MarshalText() ([]byte, error) { return []byte(d.Time().Format(time.DateOnly)), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Day) UnmarshalText(b []byte) error {
	t, err := time.Parse(time.DateOnly, string(b))
	if err != nil {
		return fmt.Errorf("%w: %q is no day", ErrInvalid, b)
	}
	*d = DayOf(t)
	if !d.First().Valid() {
		return fmt.Errorf("%w: day %q is out of range", ErrInvalid, b)
	}
	return nil
}

// Counts are what is counted. Bytes are those of bodies, as the access log has them, so that a tenant can add them up
// himself.
type Counts struct {
	Requests  int64 `json:"requests,omitempty"`  // served: all but those that were refused
	BytesIn   int64 `json:"bytesIn,omitempty"`   // of their bodies, received from visitors
	BytesOut  int64 `json:"bytesOut,omitempty"`  // of their answers' bodies, sent to visitors
	CacheHits int64 `json:"cacheHits,omitempty"` // of the requests, those answered from the cache alone
	Fetches   int64 `json:"fetches,omitempty"`   // tries sent to origins, for visitors and for the cache
	Orders    int64 `json:"orders,omitempty"`    // baskets that ended in an order
	// Refused are the requests that a protection refused or challenged. They and their bytes are never billed.
	Refused         int64 `json:"refused,omitempty"`
	RefusedBytesIn  int64 `json:"refusedBytesIn,omitempty"`
	RefusedBytesOut int64 `json:"refusedBytesOut,omitempty"`
}

// Fields is how many counters there are.
const Fields = 9

// List gives the counters in their order.
func (c *Counts) List() [Fields]int64 {
	return [...]int64{c.Requests, c.BytesIn, c.BytesOut, c.CacheHits, c.Fetches, c.Orders, c.Refused, c.RefusedBytesIn, c.RefusedBytesOut}
}

// CountsOf is the way back from List.
func CountsOf(v [Fields]int64) Counts {
	return Counts{v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]}
}

// Add adds d. A sum that has no room stays at the largest number.
func (c *Counts) Add(d *Counts) {
	a, b := c.List(), d.List()
	for i := range a {
		if a[i] > math.MaxInt64-b[i] {
			a[i] = math.MaxInt64
		} else {
			a[i] += b[i]
		}
	}
	*c = CountsOf(a)
}

// Zero says that nothing was counted.
func (c *Counts) Zero() bool { return *c == Counts{} }

// Check says what is wrong with counts of a record.
func (c *Counts) Check() error {
	for _, n := range c.List() {
		if n < 0 || n > MaxCount {
			return fmt.Errorf("%w: a count of %d is not between 0 and 2^52", ErrInvalid, n)
		}
	}
	return nil
}

// Slot is what is counted apart: a site's hour at a PoP. A service of layer 4 stands as service/NAME, which no site is called.
type Slot struct {
	Organization string `json:"organization"`
	Site         string `json:"site"`
	Hour         Hour   `json:"hour"`
}

// Record is what a site used in an hour at a PoP, or a part of it: all records of a slot add up.
type Record struct {
	Sequence int64 `json:"sequence"` // 1, 2, 3 ... of the PoP's spool; 0 before it is in one
	Slot
	Counts
}

// Check says what is wrong with a record.
func (r *Record) Check() error {
	switch {
	case r.Sequence < 0 || r.Sequence > MaxCount:
		return fmt.Errorf("%w: sequence %d", ErrInvalid, r.Sequence)
	case !name(r.Organization):
		return fmt.Errorf("%w: organization %q", ErrInvalid, r.Organization)
	case !siteName(r.Site):
		return fmt.Errorf("%w: site %q", ErrInvalid, r.Site)
	case !r.Hour.Valid():
		return fmt.Errorf("%w: hour %d is out of range", ErrInvalid, r.Hour)
	}
	return r.Counts.Check()
}

// ServicePrefix is before the name of a service of layer 4.
const ServicePrefix = "service/"

func siteName(s string) bool {
	if len(s) > len(ServicePrefix) && s[:len(ServicePrefix)] == ServicePrefix {
		s = s[len(ServicePrefix):]
	}
	return name(s)
}

// name holds a name against what documents allow.
func name(s string) bool {
	if s == "" || len(s) > MaxName || !letter(s[0]) || !letter(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !letter(s[i]) && s[i] != '-' && s[i] != '.' {
			return false
		}
	}
	return true
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
