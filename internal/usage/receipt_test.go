package usage

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func testKey(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// chain makes receipts of four days, with a continued one and a correction.
func chain(t *testing.T, key ed25519.PrivateKey) (list []*Receipt) {
	t.Helper()
	first := DayOf(time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC))
	former := ""
	for i, k := range []struct {
		kind string
		day  Day
	}{{KindUsage, first}, {KindContinued, first}, {KindUsage, first + 1}, {KindCorrection, first}, {KindUsage, first + 3}} {
		r := &Receipt{Organization: "acme", Number: int64(i + 1), Day: k.day, Kind: k.kind, Made: time.Date(2026, 11, 24, 0, 0, i, 0, time.UTC), Former: former}
		for h := range Hour(3) {
			r.Sums = append(r.Sums, Line{"shop", "fra1", k.day.First() + 2 - h, Counts{Requests: int64(i) + 1, BytesOut: 1000}})
		}
		if err := r.Seal(key); err != nil {
			t.Fatal(err)
		}
		former = r.Hash
		list = append(list, r)
	}
	return list
}

func text(t *testing.T, list []*Receipt) string {
	t.Helper()
	var b strings.Builder
	for _, r := range list {
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	return b.String()
}

func verify(s string, anchors ...Anchor) (Summary, error) {
	return VerifyFile(strings.NewReader(s), NewVerifier([]ed25519.PublicKey{public(testKey(1))}, anchors...))
}

func TestAChainIsVerified(t *testing.T) {
	list := chain(t, testKey(1))
	sum, err := verify(text(t, list), Anchor{3, list[2].Hash})
	if err != nil || sum.Receipts != 5 || sum.Corrections != 1 || sum.Last.Hash != list[4].Hash || sum.Total.Requests != 3*15 || !sum.KeyChecked || sum.First != 1 {
		t.Errorf("%+v, %v", sum, err)
	}
	if sum, err = verify(text(t, list[2:])); err != nil || sum.First != 3 {
		t.Errorf("a part of it: %+v, %v", sum, err)
	}
	list[1].Erase()
	if sum, err = verify(text(t, list)); err != nil || sum.Erased != 1 || sum.Total.Requests != 45 {
		t.Errorf("with one that was erased: %+v, %v", sum, err)
	}
	if sum, err = VerifyFile(strings.NewReader(text(t, list)), NewVerifier(nil)); err != nil || sum.KeyChecked || len(sum.Keys) != 1 {
		t.Errorf("without a key: %+v, %v", sum, err)
	}
}

// Whatever is changed, by whoever does not have the key, is found at the receipt where it was done.
func TestAChangedChainIsFound(t *testing.T) {
	reseal := func(r *Receipt) { // by who knows how hashes are made
		r.LinesHash, _ = hashOf(r.Sums)
		r.Hash, _ = r.hash()
	}
	for name, c := range map[string]struct {
		at    int64
		why   string
		spoil func(l []*Receipt) []*Receipt
	}{
		"a count":          {3, "lines", func(l []*Receipt) []*Receipt { l[2].Sums[1].BytesOut++; l[2].Total.BytesOut++; return l }},
		"a total":          {3, "add up", func(l []*Receipt) []*Receipt { l[2].Total.BytesOut++; return l }},
		"an erased total":  {3, "changed", func(l []*Receipt) []*Receipt { l[2].Erase(); l[2].Total.BytesOut++; return l }},
		"erased, numbered": {3, "changed", func(l []*Receipt) []*Receipt { l[2].Erase(); l[2].Lines--; return l }},
		"the day":          {4, "not on that day", func(l []*Receipt) []*Receipt { l[3].Day++; return l }},
		"the time":         {4, "changed", func(l []*Receipt) []*Receipt { l[3].Made = l[3].Made.Add(1e9); return l }},
		"hashes made anew": {3, "signature", func(l []*Receipt) []*Receipt {
			l[2].Sums[1].BytesOut++
			l[2].Total.BytesOut++
			reseal(l[2])
			return l
		}},
		"another's key": {3, "not the operator's", func(l []*Receipt) []*Receipt {
			if err := l[2].Seal(testKey(2)); err != nil {
				panic(err)
			}
			return l
		}},
		"one is missing":  {4, "receipt 3 is missing", func(l []*Receipt) []*Receipt { return slices.Delete(l, 2, 3) }},
		"one is twice":    {3, "receipt 4 is missing", func(l []*Receipt) []*Receipt { return slices.Insert(l, 3, l[2]) }},
		"two are swapped": {3, "receipt 2 is missing", func(l []*Receipt) []*Receipt { l[1], l[2] = l[2], l[1]; return l }},
		"the end is cut":  {5, "missing", func(l []*Receipt) []*Receipt { return l[:4] }},
		"replaced": {4, "does not follow", func(l []*Receipt) []*Receipt {
			l[2].Sums[0].Requests = 1
			if err := l[2].Seal(testKey(1)); err != nil {
				panic(err)
			}
			return l
		}},
		"a day closed twice": {4, "closed before", func(l []*Receipt) []*Receipt {
			l[3].Kind = KindUsage
			if err := l[3].Seal(testKey(1)); err != nil {
				panic(err)
			}
			return l
		}},
		"of another tenant": {5, "it is of deli", func(l []*Receipt) []*Receipt {
			l[4].Organization = "deli"
			if err := l[4].Seal(testKey(1)); err != nil {
				panic(err)
			}
			return l
		}},
		"lines out of order": {2, "order", func(l []*Receipt) []*Receipt { slices.Reverse(l[1].Sums); return l }},
	} {
		l := chain(t, testKey(1))
		anchor := Anchor{5, l[4].Hash}
		_, err := verify(text(t, c.spoil(l)), anchor)
		var b *BreakError
		if !errors.As(err, &b) || b.Number != c.at || !strings.Contains(b.Why, c.why) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := chain(t, testKey(1))
	if _, err := verify(text(t, good), Anchor{2, "00"}); err == nil {
		t.Error("a chain that is not the one that was noted")
	}
	for name, s := range map[string]string{
		"no JSON":        "receipt\n",
		"another field":  strings.Replace(text(t, good[:1]), `"number":1`, `"number":1,"note":"free"`, 1),
		"more on a line": strings.TrimSpace(text(t, good[:1])) + "{}\n",
		"too long":       strings.Repeat(" ", maxReceiptLine) + "\n",
	} {
		var b *BreakError
		if _, err := verify(s); !errors.As(err, &b) || b.Line != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryFieldOfAReceiptIsSigned(t *testing.T) {
	r := chain(t, testKey(1))[0]
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	for k, v := range fields {
		changed := map[string]any{}
		for k2, v2 := range fields {
			changed[k2] = v2
		}
		switch v := v.(type) {
		case string:
			switch k {
			case "day":
				changed[k] = "2026-11-23"
			case "made":
				changed[k] = "2026-11-24T00:00:09Z"
			default:
				changed[k] = v + "0"
			}
		case float64:
			changed[k] = v + 1
		default:
			delete(changed, k)
		}
		line, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		var b *BreakError
		if _, err := verify(string(line)); !errors.As(err, &b) {
			t.Errorf("%s can be changed: %v", k, err)
		}
	}
}

func FuzzReceipts(f *testing.F) {
	r := &Receipt{Organization: "acme", Number: 1, Day: 20_000, Kind: KindUsage, Sums: []Line{{"shop", "fra1", 480_000, Counts{Requests: 1}}}}
	if err := r.Seal(testKey(1)); err != nil {
		f.Fatal(err)
	}
	line, err := json.Marshal(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(line, '\n'))
	f.Fuzz(func(t *testing.T, data []byte) {
		sum, err := VerifyFile(bytes.NewReader(data), NewVerifier([]ed25519.PublicKey{public(testKey(1))}))
		if err == nil && sum.Receipts > 0 && (sum.Receipts != 1 || sum.Total.Requests != 1 || sum.Last.Hash != r.Hash) {
			t.Errorf("nobody signed this: %+v", sum)
		}
	})
}
