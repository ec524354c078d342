package manifest

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func signer(t testing.TB) *Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return NewSigner(key)
}

func ring(t testing.TB, number uint64, signers ...*Signer) *Keyring {
	t.Helper()
	set := KeySet{Number: number}
	for _, s := range signers {
		set.Keys = append(set.Keys, Key{Public: s.Public()})
	}
	k, err := NewKeyring(set)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func head(epoch, revision uint64) *Head {
	return &Head{Format: Format, Pop: "fra1", Position: Position{epoch, revision}, Issued: time.Unix(1, 0).UTC(), Table: Of(nil)}
}

func TestOnlyWhatIsSignedNewerAndOursIsTaken(t *testing.T) {
	now := time.Now()
	a, b := signer(t), signer(t)
	k := ring(t, 1, a)
	sign := func(s *Signer, h *Head) *Signed {
		signed, err := s.Sign(h)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	if h, err := k.Open(sign(a, head(1, 5)), "fra1", Position{1, 4}, now); err != nil || h.Revision != 5 {
		t.Fatalf("%+v, %v", h, err)
	}
	if _, err := k.Open(sign(a, head(2, 1)), "fra1", Position{1, 900}, now); err != nil {
		t.Errorf("a later epoch: %v", err)
	}
	tampered := sign(a, head(1, 5))
	tampered.Head = append([]byte(nil), tampered.Head...)
	tampered.Head[len(tampered.Head)-3] ^= 1
	keys, err := a.SignKeys(&KeySet{Number: 9, Keys: []Key{{Public: a.Public()}}})
	if err != nil {
		t.Fatal(err)
	}
	next := head(1, 5)
	next.Format = 2
	for name, c := range map[string]struct {
		signed *Signed
		want   error
	}{
		"replayed":            {sign(a, head(1, 4)), ErrOlder},
		"older":               {sign(a, head(1, 3)), ErrOlder},
		"older epoch":         {sign(a, head(0, 99)), ErrOlder},
		"another key":         {sign(b, head(1, 5)), ErrKey},
		"unsigned":            {&Signed{Head: sign(a, head(1, 5)).Head, Key: a.id}, ErrForm},
		"tampered":            {tampered, ErrSignature},
		"another PoP's":       {sign(a, &Head{Format: Format, Pop: "ams1", Position: Position{1, 5}}), ErrForeign},
		"another format":      {sign(a, next), ErrFormat},
		"oversized":           {&Signed{Head: make([]byte, MaxHead+1), Key: a.id, Signature: make([]byte, ed25519.SignatureSize)}, ErrForm},
		"signed as a key set": {&Signed{Head: keys.Set, Key: keys.Key, Signature: keys.Signature}, ErrSignature},
	} {
		if _, err := k.Open(c.signed, "fra1", Position{1, 4}, now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysAreChangedWithoutAGap(t *testing.T) {
	now := time.Now()
	old, fresh, thief := signer(t), signer(t), signer(t)
	k := ring(t, 1, old)
	both := &KeySet{Number: 2, Keys: []Key{{Public: old.Public(), Until: now.Add(time.Hour)}, {Public: fresh.Public()}}}
	signed, err := old.SignKeys(both)
	if err != nil {
		t.Fatal(err)
	}
	k2, err := k.Renew(signed, now)
	if err != nil || len(k2.IDs()) != 2 || k2.Set().Number != 2 {
		t.Fatalf("%v, %v", k2, err)
	}
	for _, s := range []*Signer{old, fresh} {
		h, err := s.Sign(head(1, 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k2.Open(h, "fra1", Position{}, now); err != nil {
			t.Errorf("while both are trusted: %v", err)
		}
	}
	h, _ := old.Sign(head(1, 1))
	if _, err := k2.Open(h, "fra1", Position{}, now.Add(2*time.Hour)); !errors.Is(err, ErrKey) {
		t.Errorf("after its end: %v", err)
	}
	if _, err := k2.Renew(signed, now); !errors.Is(err, ErrOlder) {
		t.Errorf("the same set again: %v", err)
	}
	stolen, _ := thief.SignKeys(&KeySet{Number: 3, Keys: []Key{{Public: thief.Public()}}})
	if _, err := k2.Renew(stolen, now); !errors.Is(err, ErrKey) {
		t.Errorf("a set of a stranger: %v", err)
	}
	asHead, _ := fresh.Sign(head(1, 1))
	if _, err := k2.Renew(&SignedKeys{Set: asHead.Head, Key: asHead.Key, Signature: asHead.Signature}, now); !errors.Is(err, ErrSignature) {
		t.Errorf("a head as a set: %v", err)
	}
	empty, _ := fresh.SignKeys(&KeySet{Number: 3})
	if _, err := k2.Renew(empty, now); !errors.Is(err, ErrForm) {
		t.Errorf("a set without keys: %v", err)
	}
}

func tenants(t *rapid.T, label string) []Tenant {
	n := rapid.IntRange(0, 8).Draw(t, label)
	list := make([]Tenant, n)
	for i := range list {
		list[i] = Tenant{fmt.Sprint("org", rapid.IntRange(0, 10).Draw(t, label)), int64(rapid.IntRange(1, 3).Draw(t, label)), Ref{Of([]byte{byte(rapid.IntRange(0, 2).Draw(t, label))}), 1}}
	}
	return list
}

func TestADeltaLeadsFromOneTableToTheOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := NewTable(tenants(t, "from")), NewTable(tenants(t, "to"))
		data, err := json.Marshal(Between(a, b))
		if err != nil {
			t.Fatal(err)
		}
		var d Delta
		if err := json.Unmarshal(data, &d); err != nil {
			t.Fatal(err)
		}
		got, err := a.Apply(&d)
		if err != nil || got.Digest() != b.Digest() || len(got.Tenants()) != len(b.Tenants()) {
			t.Fatalf("%v, %v", got, err)
		}
		for _, e := range b.Tenants() {
			if f, there := got.Find(e.Organization); !there || f != e {
				t.Fatalf("%s: %+v", e.Organization, f)
			}
		}
		if same := a.Digest() == b.Digest(); same != (len(d.Changed)+len(d.Removed) == 0) {
			t.Fatalf("equal digests: %v, and %+v", same, d)
		}
		if a.Digest() != b.Digest() {
			if _, err := b.Apply(&d); !errors.Is(err, ErrBase) {
				t.Fatalf("a delta for another table: %v", err)
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	s := signer(f)
	k := ring(f, 1, s)
	good, _ := s.Sign(head(1, 5))
	data, _ := json.Marshal(good)
	f.Add(data)
	f.Add([]byte(`{"head":"e30=","key":"","signature":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var in Signed
		if json.Unmarshal(data, &in) != nil {
			return
		}
		h, err := k.Open(&in, "fra1", Position{}, time.Now())
		if err == nil && string(in.Head) != string(good.Head) {
			t.Fatalf("%+v was never signed", h)
		}
	})
}

func FuzzDelta(f *testing.F) {
	base := NewTable([]Tenant{{"a", 1, Ref{}}, {"b", 1, Ref{}}})
	data, _ := json.Marshal(Between(base, NewTable([]Tenant{{"b", 2, Ref{}}, {"c", 1, Ref{}}})))
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var d Delta
		if json.Unmarshal(data, &d) != nil {
			return
		}
		d.From = base.Digest()
		got, err := base.Apply(&d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := base.Apply(Between(base, got))
		if err != nil || again.Digest() != got.Digest() {
			t.Fatalf("%v, %v", again, err)
		}
	})
}
