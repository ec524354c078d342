package price

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

func TestDecimals(t *testing.T) {
	for s, want := range map[string]Amount{
		"0": 0, "1": One, "0.085": 85_000_000, "-3.5": -3_500_000_000, "0.000000001": 1, "9223372036.854775807": math.MaxInt64, "12.30": 12_300_000_000,
	} {
		if a, err := Parse(s); err != nil || a != want {
			t.Errorf("%s: %d, %v", s, a, err)
		}
	}
	for _, s := range []string{"", "-", ".5", "1.", "1e3", "01", "0.0000000001", "+1", "1,5", " 1", "--1", "0x1", "１"} {
		if a, err := Parse(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %s, %v", s, a, err)
		}
	}
	if _, err := Parse("9223372036.854775808"); !errors.Is(err, ErrRange) {
		t.Error(err)
	}
	for _, s := range []string{"0", "-0.1", "1.000000001", "-9223372036.854775808", "100"} {
		if s == "-9223372036.854775808" {
			if Amount(math.MinInt64).String() != s {
				t.Error(Amount(math.MinInt64).String())
			}
			continue
		}
		if a, err := Parse(s); err != nil || a.String() != s {
			t.Errorf("%s: %s, %v", s, a, err)
		}
	}
}

func TestRounding(t *testing.T) {
	for _, c := range []struct {
		in   string
		to   int
		want string
	}{
		{"1.005", 2, "1.01"},
		{"1.0049", 2, "1"},
		{"-1.005", 2, "-1.01"},
		{"-1.0049", 2, "-1"},
		{"0.5", 0, "1"},
		{"-0.5", 0, "-1"},
		{"1.23456", 3, "1.235"},
		{"1.234567891", 9, "1.234567891"},
		{"9223372036.854775807", 2, "9223372036.85"},
	} {
		a, err := Parse(c.in)
		if err != nil || a.Round(c.to).String() != c.want {
			t.Errorf("%s to %d: %s, %v", c.in, c.to, a.Round(c.to), err)
		}
	}
}

// Of and Add against arithmetic without bounds.
func TestProductsAndSums(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	wide := func() int64 { return int64(rng.Uint64()) >> rng.IntN(64) }
	for range 20_000 {
		a, b := Amount(wide()), Amount(wide())
		n := int64(rng.Uint64N(1<<52)) >> rng.IntN(52)
		per := []int64{1, 2, 3, 1_000_000, 1_000_000_000}[rng.IntN(5)]
		q, r := new(big.Int).QuoRem(new(big.Int).Mul(new(big.Int).Abs(big.NewInt(int64(a))), big.NewInt(n)), big.NewInt(per), new(big.Int))
		switch c := new(big.Int).Add(r, r).Cmp(big.NewInt(per)); {
		case c > 0, c == 0 && q.Bit(0) == 1:
			q.Add(q, big.NewInt(1))
		}
		if a < 0 {
			q.Neg(q)
		}
		got, err := a.Of(n, per)
		fits := q.CmpAbs(big.NewInt(math.MaxInt64)) <= 0
		if fits != (err == nil) || fits && got != Amount(q.Int64()) {
			t.Fatalf("%s for %d of %d: %s, %v; want %s", a, n, per, got, err, q)
		}
		sum := new(big.Int).Add(big.NewInt(int64(a)), big.NewInt(int64(b)))
		if s, err := a.Add(b); sum.IsInt64() != (err == nil) || err == nil && int64(s) != sum.Int64() {
			t.Fatalf("%s + %s: %s, %v", a, b, s, err)
		}
	}
}

func TestLists(t *testing.T) {
	l := List{Currency: "EUR", Gigabyte: 3, Regions: map[string]Amount{"eu": 2}, Pops: map[string]Amount{"fra1": 1}}
	if err := l.Check(); err != nil || l.Traffic("fra1", "eu") != 1 || l.Traffic("vie1", "eu") != 2 || l.Traffic("nyc1", "") != 3 {
		t.Error(err)
	}
	for name, bad := range map[string]List{
		"currency": {Currency: "eur"}, "negative": {Currency: "EUR", Base: -1}, "large": {Currency: "EUR", Order: maxPrice + 1},
		"pop": {Currency: "EUR", Pops: map[string]Amount{"": 1}}, "included": {Currency: "EUR", Included: Included{Bytes: -1}},
	} {
		if err := bad.Check(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if Places("JPY") != 0 || Places("KWD") != 3 || Places("EUR") != 2 {
		t.Error("minor units")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "-1.5", "9223372036.854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		if b, err := Parse(a.String()); err != nil || b != a {
			t.Errorf("%q: %s, then %s, %v", s, a, b, err)
		}
	})
}
