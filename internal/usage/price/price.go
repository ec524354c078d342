// Package price is money and price lists: decimals of nine places in integer arithmetic, bounded, and never floats.
package price

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Amount is a decimal with nine places: of money in a currency, or of a quantity. It is between -9,223,372,036 and that.
type Amount int64

// One is 1.
const One Amount = 1_000_000_000

const places = 9

var (
	// ErrRange says that a sum or product has no room.
	ErrRange = errors.New("the amount is too large")
	// ErrInvalid says that a text is no decimal, or a price list not well formed.
	ErrInvalid = errors.New("not well formed")
)

// Parse reads a decimal such as 12, 0.085 or -3.5, with nine places at most and no exponent.
func Parse(s string) (Amount, error) {
	bad := func() (Amount, error) {
		return 0, fmt.Errorf("%w: %q is no decimal; write one such as 0.085, with at most nine places", ErrInvalid, s)
	}
	digits, negative := strings.CutPrefix(s, "-")
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" || len(whole) > 10 || len(fraction) > places || point && fraction == "" || len(whole) > 1 && whole[0] == '0' {
		return bad()
	}
	for _, r := range whole + fraction {
		if r < '0' || r > '9' {
			return bad()
		}
	}
	n, err := strconv.ParseUint(whole+fraction+strings.Repeat("0", places-len(fraction)), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", ErrRange, s)
	}
	if negative {
		return -Amount(n), nil
	}
	return Amount(n), nil
}

// String writes the decimal without needless noughts.
func (a Amount) String() string {
	sign, n := "", uint64(a)
	if a < 0 {
		sign, n = "-", -n
	}
	s := fmt.Sprintf("%s%d.%09d", sign, n/uint64(One), n%uint64(One))
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// MarshalText is String.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is Parse.
func (a *Amount) UnmarshalText(b []byte) (err error) {
	*a, err = Parse(string(b))
	return err
}

// Add adds, or says that there is no room.
func (a Amount) Add(b Amount) (Amount, error) {
	c := a + b
	if (a > 0 && b > 0 && c <= 0) || (a < 0 && b < 0 && c >= 0) {
		return 0, fmt.Errorf("%w: %s and %s", ErrRange, a, b)
	}
	return c, nil
}

// Of is what n cost where per of them cost a, rounded to nine places, half to even. N is not negative, per at least 1.
func (a Amount) Of(n, per int64) (Amount, error) {
	if n < 0 || per < 1 {
		return 0, fmt.Errorf("%w: %d for each %d", ErrInvalid, n, per)
	}
	u := uint64(a)
	if a < 0 {
		u = -u
	}
	hi, lo := bits.Mul64(u, uint64(n))
	if hi >= uint64(per) {
		return 0, fmt.Errorf("%w: %s for %d of %d", ErrRange, a, n, per)
	}
	q, r := bits.Div64(hi, lo, uint64(per))
	if twice := uint64(per) - r; r > twice || r == twice && q&1 == 1 {
		q++
	}
	if q > math.MaxInt64 {
		return 0, fmt.Errorf("%w: %s for %d of %d", ErrRange, a, n, per)
	}
	if a < 0 {
		return -Amount(q), nil
	}
	return Amount(q), nil
}

// Round rounds to so many places, half away from nought, as invoices do.
func (a Amount) Round(to int) Amount {
	step := Amount(1)
	for range places - to {
		step *= 10
	}
	rest := a % step
	a -= rest
	switch {
	case rest >= 0 && step > 1 && rest >= step-rest && a <= math.MaxInt64-step:
		a += step
	case rest < 0 && -rest >= step+rest && a >= math.MinInt64+step:
		a -= step
	}
	return a
}

// Bounds of a price list.
const (
	maxPops     = 1_000
	maxName     = 63
	maxPrice    = 1_000_000 * One
	maxIncluded = int64(1) << 52
)

// List is what an organization pays for. A price that is missing is nought.
type List struct {
	Currency string `json:"currency"` // ISO 4217
	// Base is for each month, used or not.
	Base Amount `json:"base,omitempty"`
	// Requests is for a million of them, Order for one order.
	Requests Amount `json:"requestsPerMillion,omitempty"`
	Order    Amount `json:"order,omitempty"`
	// Gigabyte is for 10^9 bytes sent to visitors; Regions and Pops have prices of their own, the PoP's before the region's.
	Gigabyte Amount            `json:"gigabyte,omitempty"`
	Regions  map[string]Amount `json:"regions,omitempty"`
	Pops     map[string]Amount `json:"pops,omitempty"`
	// Included is what a month has without further payment.
	Included Included `json:"included,omitzero"`
}

// Included is what the base price of a month pays for.
type Included struct {
	Requests int64 `json:"requests,omitempty"`
	Bytes    int64 `json:"bytes,omitempty"`
	Orders   int64 `json:"orders,omitempty"`
}

// Check says what is wrong with a list.
func (l *List) Check() error {
	if len(l.Currency) != 3 || strings.Trim(l.Currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return fmt.Errorf("%w: prices: currency %q; write three capital letters, such as EUR", ErrInvalid, l.Currency)
	}
	for what, a := range map[string]Amount{"base": l.Base, "requestsPerMillion": l.Requests, "order": l.Order, "gigabyte": l.Gigabyte} {
		if err := checkPrice(what, a); err != nil {
			return err
		}
	}
	for what, m := range map[string]map[string]Amount{"regions": l.Regions, "pops": l.Pops} {
		if len(m) > maxPops {
			return fmt.Errorf("%w: prices: %d %s; at most %d", ErrInvalid, len(m), what, maxPops)
		}
		for name, a := range m {
			if name == "" || len(name) > maxName {
				return fmt.Errorf("%w: prices: %s: the name %q", ErrInvalid, what, name)
			}
			if err := checkPrice(what+"."+name, a); err != nil {
				return err
			}
		}
	}
	for _, n := range []int64{l.Included.Requests, l.Included.Bytes, l.Included.Orders} {
		if n < 0 || n > maxIncluded {
			return fmt.Errorf("%w: prices: included: %d is not between 0 and 2^52", ErrInvalid, n)
		}
	}
	return nil
}

func checkPrice(what string, a Amount) error {
	if a < 0 || a > maxPrice {
		return fmt.Errorf("%w: prices: %s: %s is not between 0 and 1000000", ErrInvalid, what, a)
	}
	return nil
}

// Traffic is the price of a gigabyte at a PoP of a region.
func (l *List) Traffic(pop, region string) Amount {
	if a, ok := l.Pops[pop]; ok {
		return a
	}
	if a, ok := l.Regions[region]; ok && region != "" {
		return a
	}
	return l.Gigabyte
}

// Places is how many decimals invoices in a currency have (ISO 4217, minor units).
func Places(currency string) int {
	switch currency {
	case "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF":
		return 0
	case "BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND":
		return 3
	}
	return 2
}
