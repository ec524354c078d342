package traffic

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// TestTheCorporaAreFrozen: what a figure was measured on stays what it was. A new corpus gets a new name.
func TestTheCorporaAreFrozen(t *testing.T) {
	h := sha256.New()
	for _, kind := range []string{"page", "fresh", "static", "form", "json"} {
		for n := range 200 {
			q := Request(kind, n)
			fmt.Fprintf(h, "%q %q %q %q %q\n", q.Method, q.Target, q.Proto, q.Fields, q.Body)
		}
	}
	for _, q := range Shop(400) {
		fmt.Fprintf(h, "%q %q %q %q %q %q\n", q.Name, q.Method, q.Target, q.Proto, q.Fields, q.Body)
	}
	const frozen = "e5e8e6eb317cc85b56f00651ebeeb17f6591387770ec97f733df7e288539b3ed"
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != frozen {
		t.Errorf("the requests changed: %s", got)
	}
}
