package seal

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func secrets(s ...string) (out [][]byte) {
	for _, t := range s {
		out = append(out, []byte(t))
	}
	return out
}

func TestOpenGivesBackWhatWasSealed(t *testing.T) {
	k := New("p", secrets("0123456789abcdef")...)
	for n := range MaxPayload + 1 {
		payload := bytes.Repeat([]byte{0xa5}, n)
		text := k.Append([]byte("x="), payload)
		if len(text) != 2+TextLen(n) {
			t.Fatalf("%d bytes have a text of %d, TextLen says %d", n, len(text)-2, TextLen(n))
		}
		got, err := k.Open([]byte("y"), text[2:], n)
		if err != nil || string(got) != "y"+string(payload) {
			t.Fatalf("%d bytes: %q, %v", n, got, err)
		}
	}
}

func TestEveryCharacterCounts(t *testing.T) {
	k := New("p", secrets("0123456789abcdef")...)
	good := string(k.Append(nil, []byte("state of a visitor")))
	for i := range good {
		for _, c := range "0v-" {
			if byte(c) == good[i] {
				continue
			}
			bad := good[:i] + string(c) + good[i+1:]
			if got, err := k.Open(nil, []byte(bad), 18); err == nil {
				t.Errorf("%q opened as %q", bad, got)
			}
		}
	}
	for _, bad := range []string{"", good + "0", good[1:], strings.ToUpper(good)} {
		if _, err := k.Open(nil, []byte(bad), 18); err == nil {
			t.Errorf("%q opened", bad)
		}
	}
	if _, err := k.Open(nil, []byte(good), 17); !errors.Is(err, ErrForm) {
		t.Errorf("another length: %v", err)
	}
}

func TestPurposesAndSecretsAreApart(t *testing.T) {
	a := New("a", secrets("0123456789abcdef")...)
	text := a.Append(nil, []byte("x"))
	for _, k := range []*Keys{New("b", secrets("0123456789abcdef")...), New("a", secrets("fedcba9876543210")...), New("a")} {
		if _, err := k.Open(nil, text, 1); !errors.Is(err, ErrSignature) {
			t.Errorf("%v", err)
		}
	}
}

func TestRotationOpensOldTextsAndSignsWithTheNewKey(t *testing.T) {
	before := New("a", secrets("0123456789abcdef")...)
	text := before.Append(nil, []byte("x"))
	now := New("a", secrets("fedcba9876543210", "0123456789abcdef")...)
	if _, err := now.Open(nil, text, 1); err != nil {
		t.Errorf("the old text: %v", err)
	}
	if _, err := before.Open(nil, now.Append(nil, []byte("x")), 1); err == nil {
		t.Error("the old key still signs")
	}
}

func FuzzOpen(f *testing.F) {
	k := New("p", secrets("0123456789abcdef")...)
	f.Add(k.Append(nil, []byte("abc")))
	f.Add([]byte("000"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for n := range 5 {
			got, err := k.Open(nil, text, n)
			if err == nil && !bytes.Equal(k.Append(nil, got), text) {
				t.Fatalf("%q opened as %q, whose text is another", text, got)
			}
		}
	})
}
