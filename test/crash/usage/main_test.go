package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	os.Exit(m.Run())
}

func TestWhatWasAcknowledgedIsCountedOnce(t *testing.T) {
	dir, err := os.MkdirTemp("", "usage-") // short: the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var out strings.Builder
	ok, err := run(t.Context(), settings{dir: dir, rounds: 5, seed: 1, most: 300 * time.Millisecond}, &out)
	if err != nil || !ok {
		t.Errorf("%v\n%s", err, &out)
	}
	t.Log("\n" + out.String())
}
