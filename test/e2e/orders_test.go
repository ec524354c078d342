package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// guarded is more for upgradable: a FloodPolicy, so that the site takes orders.
const guarded = `---
apiVersion: relais/v1
kind: FloodPolicy
metadata: {name: guard}
spec: {}
`

// hand is a person's on the first site, as relais shield status says it.
func (b *upgradeBed) hand(t *testing.T) string {
	t.Helper()
	code, out := run(t, nil, "shield", "status", "-o", "json", "--data", b.data)
	var list []struct{ Hand string }
	if err := json.Unmarshal([]byte(out), &list); code != 0 || err != nil {
		t.Fatalf("relais shield status: %d %s %v", code, out, err)
	}
	if len(list) == 0 {
		return ""
	}
	return list[0].Hand
}

// challenged says whether a stranger is asked for work.
func (b *upgradeBed) challenged(t *testing.T) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.clear+"/page", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.Header.Get("Relais-Challenge") == "required"
}

func TestOrdersOutliveAnUpgradeAndAKill(t *testing.T) {
	b := newUpgradeBed(t)
	text, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, b.file, strings.Replace(string(text), `hostnames: ["*"]`, "hostnames: [\"*\"]\n  flood: guard", 1)+guarded)
	eventually(t, "the site has a FloodPolicy", func() bool { get(t, "http://"+b.clear+"/"); return b.hand(t) == "auto" })
	if code, out := run(t, nil, "shield", "on", "--site", "s", "--data", b.data); code != 0 {
		t.Fatalf("relais shield on: %d %s", code, out)
	}
	eventually(t, "a stranger is challenged", func() bool { return b.challenged(t) })

	b.install(t)
	before := b.pid(t)
	if code, out := run(t, nil, "upgrade", "--data", b.data); code != 0 {
		t.Fatalf("relais upgrade: %d %s", code, out)
	}
	eventually(t, "another process serves alone", func() bool { return b.pid(t) != before && gone(before) })
	if !b.challenged(t) || b.hand(t) != "on" {
		t.Errorf("after the upgrade the hand is %s", b.hand(t))
	}
	if code, out := run(t, nil, "unblock", "127.0.0.0/8", "--data", b.data); code != 0 {
		t.Fatalf("relais unblock: %d %s", code, out)
	}

	now := b.pid(t)
	p, err := os.FindProcess(now)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process is gone", func() bool { return gone(now) })
	startProgram(t, b.program, b.clear, []string{"RELAIS_DATA=" + b.data}, "serve", "-f", b.file, "--pid-file", b.pidFile)
	if b.challenged(t) {
		t.Error("who was spared is challenged after a kill")
	}
	if h := b.hand(t); h != "on" {
		t.Errorf("after the kill the hand is %q", h)
	}
	if n := len(mustGlob(t, filepath.Join(b.data, ".orders-*"))); n > 0 {
		t.Errorf("%d files are left over", n)
	}
}

func mustGlob(t *testing.T, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
