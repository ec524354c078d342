//go:build linux

package main

import (
	"errors"
	"strings"
	"testing"
)

func TestFewObjectsMeetTheGoals(t *testing.T) {
	var out strings.Builder
	err := run(100_000, &out)
	t.Log(out.String())
	if err != nil && !errors.Is(err, errPause) { // a busy machine makes any pause long
		t.Error(err)
	}
	if !strings.Contains(out.String(), " 0 refused, 0 missed,") {
		t.Error("objects are refused or missed")
	}
	if err := run(1000, &out); err == nil {
		t.Error("too few objects are measured")
	}
}
