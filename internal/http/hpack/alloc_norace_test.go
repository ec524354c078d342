//go:build !race

package hpack

import (
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

func TestDecodeAndAppendAllocateNothing(t *testing.T) {
	e, d := NewEncoder(4096, true), NewDecoder(4096)
	var b []byte
	var n count
	allocs := testing.AllocsPerRun(200, func() {
		b = e.Begin(b[:0])
		for i := range request {
			f := &request[i]
			b = e.Append(b, f.id, f.name, f.value)
		}
		b = Append(b, message.XRequestId, nil, request[5].value, true)
		if err := d.Decode(b, 1<<16, &n); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
