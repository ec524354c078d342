package anon

import "testing"

func TestMemoryIsZeroedAndAsLargeAsAsked(t *testing.T) {
	r, err := Map(4097)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Bytes()) != 4104 || len(r.Words()) != 513 {
		t.Fatalf("%d bytes, %d words; want 4104 and 513", len(r.Bytes()), len(r.Words()))
	}
	for i, w := range r.Words() {
		if w != 0 {
			t.Fatalf("word %d is %x", i, w)
		}
	}
	r.Words()[512] = 1 << 63
	if r.Bytes()[4103] != 0x80 && r.Bytes()[4096] != 0x80 {
		t.Fatal("words and bytes are not the same memory")
	}
	r.Huge()
	if err := r.Discard(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal("a second close:", err)
	}
}

func TestWhatCannotBeHadIsAnErrorThatSaysHowMuch(t *testing.T) {
	for _, n := range []int{0, -1, 1 << 62} {
		if r, err := Map(n); err == nil {
			_ = r.Close()
			t.Errorf("%d bytes: no error", n)
		}
	}
}
