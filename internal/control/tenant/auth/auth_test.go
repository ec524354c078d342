package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func cheap() Cost { return Cost{Passes: 1, MemoryKiB: 64, Lanes: 1} }

func TestPasswords(t *testing.T) {
	h, ctx := NewHasher(cheap(), 2), t.Context()
	kept, err := h.Hash(ctx, "correct horse battery")
	if err != nil {
		t.Fatal(err)
	}
	again, _ := h.Hash(ctx, "correct horse battery")
	if again == kept || !strings.HasPrefix(kept, "$argon2id$v=19$m=64,t=1,p=1$") || strings.Contains(kept, "horse") {
		t.Errorf("kept %s and %s", kept, again)
	}
	for _, c := range []struct {
		kept, password string
		ok, outdated   bool
	}{
		{kept, "correct horse battery", true, false},
		{kept, "correct horse batterz", false, false},
		{kept, "", false, false},
		{kept, strings.Repeat("x", 1<<20), false, false},
		{"", "correct horse battery", false, false},
		{"", "", false, false},
	} {
		ok, outdated, err := h.Verify(ctx, c.kept, c.password)
		if ok != c.ok || outdated != c.outdated || err != nil {
			t.Errorf("%q is %v, %v, %v", c.password[:min(len(c.password), 30)], ok, outdated, err)
		}
	}
	dearer := NewHasher(Cost{Passes: 2, MemoryKiB: 64, Lanes: 1}, 1)
	if ok, outdated, err := dearer.Verify(ctx, kept, "correct horse battery"); !ok || !outdated || err != nil {
		t.Errorf("a hash of a lesser cost: %v, %v, %v", ok, outdated, err)
	}
	for _, bad := range []string{
		"x", "$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", strings.Replace(kept, "m=64", "m=99999999", 1),
		strings.Replace(kept, "p=1", "p=0", 1), strings.Replace(kept, "t=1", "t=0", 1), kept[:len(kept)-30], strings.Replace(kept, "v=19", "v=18", 1),
	} {
		if ok, _, err := h.Verify(ctx, bad, "correct horse battery"); ok || err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestWhatPasswordMayBeChosen(t *testing.T) {
	for _, p := range []string{"short", strings.Repeat("a", 20), "xx-ann-of-acme-xx", strings.Repeat("ab", 600), "abcdefghijkl\xff", "ééééé"} {
		if err := CheckPassword(p, "ann"); !errors.Is(err, ErrPassword) {
			t.Errorf("%q: %v", p, err)
		}
	}
	if err := CheckPassword("correct horse battery", "ann"); err != nil {
		t.Error(err)
	}
}

func TestOnlySoManyPasswordsAtATime(t *testing.T) {
	h := NewHasher(cheap(), 1)
	leave, err := h.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	for range 32 {
		go func() {
			_, err := h.enter(gone)
			waiting <- err
		}()
	}
	for len(h.line) < 33 {
		time.Sleep(time.Millisecond)
	}
	if _, err := h.enter(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("the line has no end: %v", err)
	}
	cancel()
	for range 32 {
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	leave()
	if leave, err = h.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	leave()
	if len(h.line) != 0 || len(h.slots) != 0 {
		t.Error("places were not given back")
	}
}

// RFC 6238, appendix B, for SHA-1.
func TestOneTimeCodesAreThoseOfTheRFC(t *testing.T) {
	secret := []byte("12345678901234567890")
	for at, want := range map[int64]string{
		59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924", 2000000000: "69279037", 20000000000: "65353130",
	} {
		if got := totp(secret, at/30, 8); got != want {
			t.Errorf("at %d: %s, not %s", at, got, want)
		}
	}
}

func TestOneTimeCodesAreTakenOnce(t *testing.T) {
	secret, now := NewTOTP(), time.Unix(1_800_000_000, 0)
	step := now.Unix() / 30
	code := func(s int64) string { return totp(secret, s, 6) }
	if s, ok := CheckTOTP(secret, code(step), now, 0); !ok || s != step {
		t.Error("the code of now was not taken")
	}
	if _, ok := CheckTOTP(secret, code(step), now, step); ok {
		t.Error("a code was taken twice")
	}
	if _, ok := CheckTOTP(secret, code(step-1), now, step); ok {
		t.Error("a code from before the last was taken")
	}
	if s, ok := CheckTOTP(secret, code(step+1), now, step); !ok || s != step+1 {
		t.Error("a clock that is half a minute fast was not borne")
	}
	for _, c := range []string{code(step - 2), code(step + 2), "", "12345", code(step) + "0"} {
		if _, ok := CheckTOTP(secret, c, now, 0); ok {
			t.Errorf("%q was taken", c)
		}
	}
	if uri := TOTPURI("Relais", "ann", []byte("12345678901234567890")); uri != "otpauth://totp/Relais:ann?issuer=Relais&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" {
		t.Error(uri)
	}
}

func TestRecoveryCodes(t *testing.T) {
	codes, hashes := NewRecoveryCodes()
	if len(codes) != RecoveryCodes || len(hashes) != RecoveryCodes {
		t.Fatal(codes)
	}
	for i, c := range codes {
		if len(c) != 19 || strings.Contains(strings.Join(hashes, ""), c) {
			t.Errorf("code %q", c)
		}
		typed := " " + strings.ToUpper(strings.ReplaceAll(strings.ReplaceAll(c, "-", " "), "o", "0"))
		if at := CheckRecoveryCode(hashes, typed); at != i {
			t.Errorf("%q is code %d, not %d", typed, at, i)
		}
	}
	for _, c := range []string{"", "----", "aaaa-aaaa-aaaa-aaaa"} {
		if CheckRecoveryCode(hashes, c) != -1 {
			t.Errorf("%q was taken", c)
		}
	}
}

func TestTokens(t *testing.T) {
	made := NewToken("acme.shop-1")
	text := made.String()
	got, err := ParseToken(text)
	if err != nil || got != made || !strings.HasPrefix(text, "relais_acme.shop-1_") {
		t.Errorf("%s is %+v, %v", text, got, err)
	}
	if NewToken("acme") == NewToken("acme") {
		t.Error("two tokens are the same")
	}
	for i := range text {
		b := []byte(text)
		b[i] ^= 1
		if got, err := ParseToken(string(b)); err == nil {
			t.Errorf("with another byte %d it is %+v", i, got)
		}
	}
	for _, bad := range []string{"", "relais_", "relais___", strings.Repeat("_", 300), text + "0", text[1:], text[:len(text)-1]} {
		if _, err := ParseToken(bad); !errors.Is(err, ErrToken) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if kept := HashSecret(made.Secret); !SameSecret(kept, made.Secret) || SameSecret(kept, made.Secret+"x") || SameSecret("", "") {
		t.Error("secrets are not told apart")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(NewToken("acme").String())
	f.Add("relais_a_b_c")
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := ParseToken(s); err == nil && tok.String() != s {
			t.Errorf("%q is written %q", s, tok)
		}
	})
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// try gives the wait, and takes a refused try for one that was not made.
func fail(t *testing.T, th *Throttle, a Attempt, now time.Time, times int) {
	t.Helper()
	for i := range times {
		if w := th.Begin(a, now); w != 0 {
			t.Fatalf("try %d of %d waits %s", i+1, times, w)
		}
	}
}

func TestWhoGuessesWaitsAndNobodyElse(t *testing.T) {
	th, now := NewThrottle(ThrottleConfig{}), time.Unix(1_800_000_000, 0)
	guesser := Attempt{Account: "ann", Source: addr("192.0.2.1")}
	fail(t, th, guesser, now, 5)
	if w := th.Begin(guesser, now); w != time.Second {
		t.Errorf("the sixth try waits %s", w)
	}
	neighbour := Attempt{Account: "ann", Source: addr("192.0.2.200")}
	if w := th.Begin(neighbour, now); w == 0 {
		t.Error("another address of the guesser's network is free")
	}
	for _, a := range []Attempt{
		{Account: "ann", Source: addr("198.51.100.1")},
		{Account: "ann", Source: addr("2001:db8::1")},
		{Account: "ann", Source: addr("192.0.2.1"), Device: "known"},
		{Account: "bob", Source: addr("192.0.2.1")},
	} {
		if w := th.Begin(a, now); w != 0 {
			t.Errorf("%+v waits %s", a, w)
		}
	}
	wait, tries := time.Duration(0), 0
	for now.Before(time.Unix(1_800_000_000, 0).Add(24 * time.Hour)) {
		if w := th.Begin(guesser, now); w > 0 {
			wait = max(wait, w)
			now = now.Add(w)
			continue
		}
		tries++
	}
	if wait != 15*time.Minute || tries > 150 || tries < 50 {
		t.Errorf("in a day a guesser has %d tries and waits %s at most", tries, wait)
	}
	th.Passed(guesser)
	if w := th.Begin(guesser, now); w != 0 {
		t.Errorf("after a right one it waits %s", w)
	}
}

// Ten thousand sources that guess at one account do not keep its owner out, who comes from where they are not.
func TestManyGuessersLockNobodyOut(t *testing.T) {
	th, now := NewThrottle(ThrottleConfig{}), time.Unix(1_800_000_000, 0)
	for i := range 10_000 {
		a := Attempt{Account: "ann", Source: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})}
		n := 0
		for th.Begin(a, now) == 0 {
			n++
		}
		if i > 50 && n != 1 {
			t.Fatalf("while the account is attacked source %d has %d tries", i, n)
		}
	}
	for name, a := range map[string]Attempt{
		"from elsewhere": {Account: "ann", Source: addr("198.51.100.7")},
		"a known device": {Account: "ann", Source: addr("10.0.5.1"), Device: "known"},
	} {
		if w := th.Begin(a, now); w != 0 {
			t.Errorf("the owner, %s, waits %s", name, w)
		}
		th.Passed(a)
	}
}

func TestAStrictThrottleEndsAtAnAccountButNotAtItsDevices(t *testing.T) {
	th, now := NewThrottle(ThrottleConfig{Attacked: 20, Strict: true}), time.Unix(1_800_000_000, 0)
	for i := range 20 {
		fail(t, th, Attempt{Account: "ann", Source: netip.AddrFrom4([4]byte{10, 0, byte(i), 1})}, now, 1)
	}
	other := Attempt{Account: "ann", Source: addr("198.51.100.7")}
	if w := th.Begin(other, now); w != time.Hour {
		t.Errorf("the next waits %s", w)
	}
	if w := th.Begin(Attempt{Account: "ann", Source: addr("10.0.1.1"), Device: "known"}, now); w != 0 {
		t.Errorf("a known device waits %s", w)
	}
	if w := th.Begin(other, now.Add(time.Hour)); w != 0 {
		t.Errorf("after the window it waits %s", w)
	}
}

func TestASourceThatSpraysWaits(t *testing.T) {
	th, now := NewThrottle(ThrottleConfig{}), time.Unix(1_800_000_000, 0)
	for i := range 100 {
		fail(t, th, Attempt{Account: fmt.Sprint("user", i), Source: addr("192.0.2.1")}, now, 1)
	}
	if w := th.Begin(Attempt{Account: "ann", Source: addr("192.0.2.1")}, now); w != 30*time.Second {
		t.Errorf("the next waits %s", w)
	}
	if w := th.Begin(Attempt{Account: "ann", Source: addr("192.0.2.1"), Device: "known"}, now); w != 0 {
		t.Errorf("a known device waits %s", w)
	}
}

func TestTheThrottleHasABound(t *testing.T) {
	th, now := NewThrottle(ThrottleConfig{Entries: 100}), time.Unix(1_800_000_000, 0)
	for i := range 10_000 {
		th.Begin(Attempt{Account: fmt.Sprint(i), Source: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})}, now.Add(time.Duration(i)*time.Second))
	}
	if len(th.pairs) > 100 || len(th.account) > 100 || len(th.source) > 100 || th.Evicted() == 0 {
		t.Errorf("%d, %d, %d entries, %d evicted", len(th.pairs), len(th.account), len(th.source), th.Evicted())
	}
	if w := th.Begin(Attempt{Account: "ann"}, now); w != 0 { // no address is no crash
		t.Errorf("waits %s", w)
	}
}

func TestWithoutACostTheStandardsHolds(t *testing.T) {
	h := NewHasher(Cost{}, 1)
	if !strings.HasPrefix(h.decoy, "$argon2id$v=19$m=65536,t=3,p=4$") {
		t.Error(h.decoy)
	}
}
