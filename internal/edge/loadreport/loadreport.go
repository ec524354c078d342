// Package loadreport reads what an origin says about its load on an answer: ORCA's
// endpoint-load-metrics (JSON and TEXT) and our own Relais-Load.
//
// An origin may be wrong or lie. What does not parse to its end, is negative, not a number, or
// beyond a bound is refused as a whole.
package loadreport

import (
	"errors"
	"math"
)

// Bounds of a report.
const (
	// MaxLength is the longest value that is read, in bytes.
	MaxLength = 4 << 10
	// MaxRequests bounds InFlight and Limit.
	MaxRequests = 10_000_000
	// MaxUtilization bounds Utilization: a hundred times of what the origin takes.
	MaxUtilization = 100
	// MaxRate bounds Rate, requests a second.
	MaxRate = 1e9
	// maxNames bounds the numbers of a report.
	maxNames = 128
	// maxDepth bounds how deep JSON is nested.
	maxDepth = 4
)

// Why a report was refused.
var (
	ErrSyntax = errors.New("the load report is not written as documented")
	ErrBounds = errors.New("the load report has a number that no origin can have")
	ErrEmpty  = errors.New("the load report says nothing that is known")
)

// Report is what an origin said. A negative number was not said.
type Report struct {
	// InFlight is the number of requests that the origin has at once, from everybody, those that wait and the
	// one that is answered among them.
	InFlight int64
	// Limit is the number of requests that it works on at once.
	Limit int64
	// Utilization is the share of what it can do that is in use; it may be above 1.
	Utilization float64
	// Rate is the number of requests a second that it gets, from everybody.
	Rate float64
}

// none is a report in which nothing was said.
func none() Report { return Report{-1, -1, -1, -1} }

// Relais reads a Relais-Load value, a Dictionary of RFC 9651 section 3.2 such as
//
//	inflight=37, limit=200, utilization=0.18
//
// Members with other names are ignored; all values must be numbers.
func Relais(value []byte) (Report, error) {
	return pairs(value, false)
}

// ORCA reads an endpoint-load-metrics value: "JSON {...}" or "TEXT name=number, ...". Of the fields of
// xds.data.orca.v3.OrcaLoadReport it knows application_utilization (cpu_utilization in its
// absence), rps_fractional, and inflight and limit among named_metrics. The binary forms are not read.
func ORCA(value []byte) (Report, error) {
	value = trim(value)
	var r Report
	var err error
	switch {
	case len(value) > MaxLength:
		return none(), ErrSyntax
	case hasWord(value, "JSON"):
		r, err = parseJSON(value[5:])
	case hasWord(value, "TEXT"):
		r, err = pairs(value[5:], true)
	default:
		return none(), ErrSyntax
	}
	return r, err
}

func hasWord(v []byte, word string) bool {
	return len(v) > len(word) && string(v[:len(word)]) == word && (v[len(word)] == ' ' || v[len(word)] == '\t')
}

// own takes a member of Relais-Load.
func (r *Report) own(name []byte, n float64) error {
	switch string(name) {
	case "inflight":
		return whole(&r.InFlight, n)
	case "limit":
		return whole(&r.Limit, n)
	case "utilization":
		return share(&r.Utilization, n)
	}
	return nil
}

// orca takes a field of ORCA, by its name or the one that protobuf's JSON gives it; those of
// named_metrics have that in front.
func (r *Report) orca(name []byte, n float64) error {
	switch string(name) {
	case "application_utilization", "applicationUtilization":
		if n == 0 { // that is "not set" in proto3
			return nil
		}
		return share(&r.Utilization, n)
	case "cpu_utilization", "cpuUtilization":
		var cpu float64
		if err := share(&cpu, n); err != nil || r.Utilization >= 0 {
			return err
		}
		r.Utilization = cpu
	case "rps_fractional", "rpsFractional":
		if !(n >= 0 && n <= MaxRate) {
			return ErrBounds
		}
		r.Rate = n
	case "named_metrics.inflight":
		return whole(&r.InFlight, n)
	case "named_metrics.limit":
		return whole(&r.Limit, n)
	}
	return nil
}

func whole(to *int64, n float64) error {
	if !(n >= 0 && n <= MaxRequests) || n != math.Trunc(n) {
		return ErrBounds
	}
	*to = int64(n)
	return nil
}

func share(to *float64, n float64) error {
	if !(n >= 0 && n <= MaxUtilization) {
		return ErrBounds
	}
	*to = n
	return nil
}

// finish judges a report as a whole.
func (r Report) finish() (Report, error) {
	switch {
	case r.Limit == 0:
		return none(), ErrBounds // nobody works on no request at once, and answers one
	case r.InFlight < 0 && r.Limit < 0 && r.Utilization < 0:
		return none(), ErrEmpty
	}
	return r, nil
}

// pairs reads name=number, separated by commas: fields of ORCA, or our own.
func pairs(v []byte, orca bool) (Report, error) {
	if len(v) > MaxLength {
		return none(), ErrSyntax
	}
	r := none()
	for n := 0; ; n++ {
		v = trim(v)
		i := 0
		for i < len(v) && isName(v[i]) {
			i++
		}
		if i == 0 || i == len(v) || v[i] != '=' || n == maxNames {
			return none(), ErrSyntax
		}
		name := v[:i]
		f, rest, err := number(v[i+1:])
		if err != nil {
			return none(), err
		}
		if orca {
			err = r.orca(name, f)
		} else {
			err = r.own(name, f)
		}
		if err != nil {
			return none(), err
		}
		if v = trim(rest); len(v) == 0 {
			return r.finish()
		}
		if v[0] != ',' {
			return none(), ErrSyntax
		}
		v = v[1:]
	}
}

func isName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' || c == '*' || c == '/'
}

func trim(v []byte) []byte {
	for len(v) > 0 && isSpace(v[0]) {
		v = v[1:]
	}
	for len(v) > 0 && isSpace(v[len(v)-1]) {
		v = v[:len(v)-1]
	}
	return v
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// number reads a number as JSON writes it, without allocating. 17 digits are enough for what is told.
func number(v []byte) (f float64, rest []byte, err error) {
	i, negative := 0, false
	if i < len(v) && v[i] == '-' {
		negative, i = true, i+1
	}
	start, scale, digits := i, 0, 0
	mantissa := uint64(0)
	digit := func(c byte, fraction bool) {
		if mantissa < 1e17 {
			mantissa = mantissa*10 + uint64(c-'0')
			if fraction {
				scale--
			}
		} else if !fraction {
			scale++
		}
		digits++
	}
	for ; i < len(v) && v[i] >= '0' && v[i] <= '9'; i++ {
		digit(v[i], false)
	}
	if i == start || i-start > 1 && v[start] == '0' {
		return 0, nil, ErrSyntax
	}
	if i < len(v) && v[i] == '.' {
		i++
		from := i
		for ; i < len(v) && v[i] >= '0' && v[i] <= '9'; i++ {
			digit(v[i], true)
		}
		if i == from {
			return 0, nil, ErrSyntax
		}
	}
	if i < len(v) && (v[i] == 'e' || v[i] == 'E') {
		e, n, err := exponent(v[i+1:])
		if err != nil {
			return 0, nil, err
		}
		scale, i = scale+e, i+1+n
	}
	switch f = float64(mantissa); {
	case mantissa == 0:
	case scale < 0:
		f /= math.Pow10(min(-scale, 400))
	default:
		f *= math.Pow10(min(scale, 400))
	}
	if negative && f != 0 {
		return 0, nil, ErrBounds
	}
	return f, v[i:], nil
}

func exponent(v []byte) (e, n int, err error) {
	sign := 1
	if n < len(v) && (v[n] == '+' || v[n] == '-') {
		if v[n] == '-' {
			sign = -1
		}
		n++
	}
	start := n
	for ; n < len(v) && v[n] >= '0' && v[n] <= '9'; n++ {
		e = min(e*10+int(v[n]-'0'), 10_000)
	}
	if n == start {
		return 0, 0, ErrSyntax
	}
	return sign * e, n, nil
}
