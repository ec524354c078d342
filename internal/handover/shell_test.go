package handover

import (
	"net/netip"
	"os/exec"
	"syscall"
	"testing"
)

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// run runs a shell with sockets as its first inherited descriptors.
func run(t *testing.T, p Plan, script string, sockets ...syscall.Conn) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Env = p.Env
	for _, s := range sockets {
		f, err := duplicate(s, "socket")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}
