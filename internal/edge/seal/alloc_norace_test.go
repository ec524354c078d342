//go:build !race

package seal

import (
	"bytes"
	"testing"
)

// Under the race detector sync.Pool drops values by chance.
func TestSealAllocatesNothing(t *testing.T) {
	k := New("p", secrets("fedcba9876543210", "0123456789abcdef")...)
	payload := bytes.Repeat([]byte{1}, 30)
	text := New("p", secrets("0123456789abcdef")...).Append(nil, payload)
	buf := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() {
		buf = k.Append(buf[:0], payload)
		if _, err := k.Open(buf[:0], text, 30); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
