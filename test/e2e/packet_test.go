package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/packet"
	"github.com/relais-edge/relais/test/proc"
)

// inNetwork starts relais serve in a network namespace of its own with a veth d0, and returns the folder of its data and its log.
func inNetwork(t *testing.T, args ...string) (p *proc.Process, data, log string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this wants root")
		}
		t.Skip("this wants root")
	}
	dir := t.TempDir()
	doc := filepath.Join(dir, "doc.yaml")
	write(t, doc, `apiVersion: relais/v1
kind: Listener
metadata: {name: web, organization: demo}
spec: {address: "127.0.0.1:8080"}
---
apiVersion: relais/v1
kind: Site
metadata: {name: web, organization: demo}
spec:
  hostnames: ["*"]
  routes: [{respond: {body: here}}]
`)
	data, log = filepath.Join(dir, "data"), filepath.Join(dir, "log")
	script := "ip link set lo up && ip link add d0 type veth peer name d1 && ip link set d0 up && exec \"$@\""
	p, err := proc.Start(proc.Spec{
		Name: "relais serve", Log: log, Core: proc.AnyCore, Env: []string{"RELAIS_DATA=" + data, "SSH_CONNECTION="},
		Args: append([]string{"unshare", "-n", "sh", "-c", script, "sh", binary(t), "serve", "-f", doc}, args...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop(10 * time.Second)
		if t.Failed() {
			b, _ := os.ReadFile(log)
			t.Logf("log:\n%s", tail(b, 6000))
		}
	})
	return p, data, log
}

func packetStatus(t *testing.T, data string) (s packet.Status, ok bool) {
	t.Helper()
	code, out := run(t, nil, "packet", "status", "--data", data, "-o", "json")
	if code != 0 {
		return s, false
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s, true
}

func TestThePacketFilterIsAskedForByFlagsAndAnswersOnTheAdminSocket(t *testing.T) {
	_, data, _ := inNetwork(t, "--packet", "auto", "--packet-interface", "d0", "--packet-management", "203.0.113.0/28")
	var s packet.Status
	for end := time.Now().Add(time.Minute); s.Mode != packet.XDP && s.Mode != packet.NFTables; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no filter: %+v", s)
		}
		s, _ = packetStatus(t, data)
	}
	if !slices.Contains(s.Interfaces, "d0") || len(s.Management) == 0 || !slices.Contains(s.Ports, 22) {
		t.Errorf("status %+v", s)
	}
	ask := func(want int, says string, args ...string) {
		t.Helper()
		code, out := run(t, nil, append([]string{"packet"}, append(args, "--data", data)...)...)
		if code != want || !strings.Contains(out, says) {
			t.Errorf("relais packet %s: exit %d, %s; want %d and %q", strings.Join(args, " "), code, out, want, says)
		}
	}
	ask(0, "deny 192.0.2.0/24", "deny", "192.0.2.0/24", "--for", "1h", "--reason", "scan")
	ask(0, "allow 192.0.2.7/32", "allow", "192.0.2.7")
	ask(0, "scan", "list")
	ask(1, "203.0.113.0/28", "deny", "203.0.113.4")
	ask(1, "/8", "deny", "0.0.0.0/0")
	ask(1, "24h", "deny", "192.0.2.9", "--for", "48h")
	ask(2, "no address", "deny", "everybody")
	ask(0, "2 rules", "status")
	ask(0, "remove 192.0.2.0/24", "remove", "192.0.2.0/24")
	ask(1, "no rule", "remove", "192.0.2.0/24")
	code, out := run(t, nil, "packet", "list", "--data", data, "-o", "json")
	var list []packet.Rule
	if err := json.Unmarshal([]byte(out), &list); code != 0 || err != nil || len(list) != 1 || list[0].Action != packet.Allow {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
}

func TestWithoutTheFlagThereIsNoPacketFilterAndItSaysSo(t *testing.T) {
	_, data, _ := inNetwork(t)
	var s packet.Status
	for end, ok := time.Now().Add(time.Minute), false; !ok; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no answer")
		}
		s, ok = packetStatus(t, data)
	}
	if s.Mode != packet.Off {
		t.Errorf("status %+v", s)
	}
	if code, out := run(t, nil, "packet", "deny", "192.0.2.1", "--data", data); code != 1 || !strings.Contains(out, "--packet auto") {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestAPacketFilterThatCannotBeEndsTheStart(t *testing.T) {
	p, _, log := inNetwork(t, "--packet", "xdp", "--packet-interface", "none0")
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	if b, _ := os.ReadFile(log); !strings.Contains(string(b), "none0") {
		t.Errorf("it does not say why: %s", tail(b, 2000))
	}
	if code, out := run(t, nil, "serve", "-f", "x.yaml", "--data", t.TempDir(), "--packet", "yes", "--packet-interface", "d0"); code != 2 || !strings.Contains(out, "auto, xdp, nftables or off") {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, out := run(t, nil, "serve", "-f", "x.yaml", "--data", t.TempDir(), "--packet", "auto"); code != 2 || !strings.Contains(out, "ip link") {
		t.Errorf("exit %d: %s", code, out)
	}
}
