package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/demo/shop"
)

// The README's first command: the shop is served at the printed address, the printed things
// to try do what is said, and orders are placed.
func TestUpIsWhatTheREADMESays(t *testing.T) {
	a := ports(t, 2)
	data := filepath.Join(t.TempDir(), "data")
	_, log := start(t, a[0], nil, "up", "--listen", a[0], "--listen-tls", a[1], "--data", data, "--visitors", "3")
	eventually(t, "the hints are printed", func() bool { return strings.Contains(readAll(t, log), "change the documents") })
	text := readAll(t, log)
	if !strings.Contains(text, "http://"+a[0]+"/") {
		t.Fatalf("no address in %s", text)
	}
	if resp, body := get(t, "http://"+a[0]+"/", "Accept", "text/html"); resp.StatusCode != 200 || !strings.Contains(body, "</html>") {
		t.Errorf("the shop: %s", resp.Status)
	}
	commands := regexp.MustCompile(`(?m)^    (\S.*)$`).FindAllStringSubmatch(text, -1)
	shell := func(prefix string) string {
		t.Helper()
		for _, c := range commands {
			if strings.HasPrefix(c[1], prefix) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				out, err := exec.CommandContext(ctx, "sh", "-c", c[1]).CombinedOutput()
				if err != nil {
					t.Errorf("%s: %v %s", c[1], err, out)
				}
				return string(out)
			}
		}
		t.Fatalf("no command %q among %v", prefix, commands)
		return ""
	}
	shell("curl -so")
	if out := shell("curl -so"); !strings.Contains(out, "hit") {
		t.Errorf("a picture asked for twice: %s", out)
	}
	blocked := shell("curl -s '")
	id := regexp.MustCompile(`[0-9a-z]{26}`).FindString(blocked)
	if code, out := run(t, nil, "explain", "--data", data, id); code != 0 || !strings.Contains(out, "waf") {
		t.Errorf("explain %s of %q: %d %s", id, blocked, code, out)
	}
	ledger, err := shop.OpenLedger(filepath.Join(data, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	orders := func() int {
		n, err := ledger.Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	eventually(t, "visitors order", func() bool { return orders() > 0 })
	before := orders()
	shell("kill -9")
	eventually(t, "the death is said", func() bool { return strings.Contains(readAll(t, log), "cluster home died") })
	eventually(t, "orders go on without home", func() bool { return orders() > before })
	lines := regexp.MustCompile(`(\d+) req/s`)
	eventually(t, "the live line moves", func() bool {
		for _, m := range lines.FindAllStringSubmatch(readAll(t, log), -1) {
			if n, _ := strconv.Atoi(m[1]); n > 0 {
				return true
			}
		}
		return false
	})
}
