package v1

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, written as Go does: 250ms, 10s, 1h30m.
type Duration time.Duration

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes d as Go does, without units that count nothing: 5m, not 5m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration; write a number and a unit, such as 250ms, 10s or 1h30m", b)
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes, written as 512, 16KiB, 4MiB, 2GiB (or kB, MB, GB by thousands).
type Size int64

// String writes s with the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if u.binary && s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(b []byte) error { return s.parse(string(b)) }

// UnmarshalJSON takes a text, or a number of bytes, as the schema allows.
func (s *Size) UnmarshalJSON(b []byte) error {
	var text string
	if len(b) > 0 && b[0] != '"' {
		text = string(b)
	} else if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	return s.parse(text)
}

func (s *Size) parse(b string) error {
	text, factor := b, int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(text, u.name); ok {
			text, factor = strings.TrimSpace(n), u.bytes
			break
		}
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 || v > math.MaxInt64/factor {
		return fmt.Errorf("%q is not a size; write a number of bytes or a unit, such as 512, 16KiB or 4MiB", b)
	}
	*s = Size(v * factor)
	return nil
}

type sizeUnit struct {
	name   string
	bytes  int64
	binary bool
}

var sizeUnits = [...]sizeUnit{
	{"TiB", 1 << 40, true},
	{"GiB", 1 << 30, true},
	{"MiB", 1 << 20, true},
	{"KiB", 1 << 10, true},
	{"TB", 1e12, false},
	{"GB", 1e9, false},
	{"MB", 1e6, false},
	{"kB", 1e3, false},
	{"B", 1, true},
}

// Percent is a share, written 20% or 12.5%.
type Percent float64

// Fraction returns p between 0 and 1.
func (p Percent) Fraction() float64 { return float64(p) / 100 }

// String writes p with its sign.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

// MarshalText implements encoding.TextMarshaler.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Percent) UnmarshalText(b []byte) error {
	n, ok := strings.CutSuffix(string(b), "%")
	v, err := strconv.ParseFloat(n, 64)
	if !ok || err != nil || v < 0 || v > 100 || math.IsNaN(v) || math.Signbit(v) {
		return fmt.Errorf("%q is not a share; write a number from 0 to 100 and a percent sign, such as 20%%", b)
	}
	*p = Percent(v)
	return nil
}

// Time is an instant, written as RFC 3339 does: 2027-01-31T00:00:00Z.
type Time struct{ time.Time }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Time) UnmarshalText(b []byte) error {
	v, err := time.Parse(time.RFC3339, string(b))
	if err != nil {
		return fmt.Errorf("%q is not an instant; write it as RFC 3339 does, such as 2027-01-31T00:00:00Z", b)
	}
	t.Time = v
	return nil
}

// Value returns what p points to; zero for nil, which no field with a default is once Default
// has seen the document.
func Value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
