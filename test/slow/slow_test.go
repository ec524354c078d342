package slow

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWhatSlowhttptestSaysIsRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	out := "\x1b[1mslow HTTP test status on 5th second:\x1b[0m\n\ninitializing:        0\npending:             10\nconnected:           \x1b[32m990\x1b[0m\n" +
		"error:               0\nclosed:              0\nservice available:   YES\n" +
		"connected:           300\nclosed:              700\n"
	if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := ReadState(file); err != nil || s != (State{Most: 990, Connected: 300, Closed: 700}) {
		t.Errorf("%+v %v", s, err)
	}
	if err := os.WriteFile(file, []byte("cannot resolve"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadState(file); err == nil {
		t.Error("figures of nothing")
	}
}

func TestEachModeHasItsOwnCommand(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range Modes() {
		c := strings.Join(Command(Attack{Mode: m, Target: "127.0.0.1:1", Connections: 7}, time.Minute), " ")
		if seen[c] || !strings.Contains(c, "-c 7 ") || !strings.Contains(c, "-l 60 ") || !strings.Contains(c, "http://127.0.0.1:1/") {
			t.Errorf("%s: %s", m, c)
		}
		seen[c] = true
	}
}
