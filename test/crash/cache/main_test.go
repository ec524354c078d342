package main

import (
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	os.Exit(m.Run())
}

func TestAKilledProcessLeavesAWarmAndCleanCache(t *testing.T) {
	var out strings.Builder
	ok, err := run(t.Context(), settings{dir: t.TempDir(), rounds: 5, objects: 20_000, seed: 1}, &out)
	if err != nil || !ok {
		t.Errorf("%v\n%s", err, &out)
	}
}
