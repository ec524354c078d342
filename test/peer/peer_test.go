package peer

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/relais-edge/relais/internal/document"
)

// TestEachTakesItsConfiguration: what drills are written of is what the servers take, so that no drill ends after
// minutes because of it.
func TestEachTakesItsConfiguration(t *testing.T) {
	const addr, origin = "127.0.0.1:8080", "127.0.0.1:8081"
	dir := t.TempDir()
	n := Nginx{Addr: addr, Dir: dir, Connections: 4000, Logs: true, To: "shop", HTTP: "upstream shop { least_conn; server " + origin + "; }", Location: "proxy_read_timeout 5s;"}
	h := HAProxy{
		Addr: addr, Connections: 100, Server: "5s", Connect: "1s", Defaults: []string{"option redispatch", "balance leastconn"},
		Frontend: []string{"default_backend shop"}, Sections: "backend shop\n server s1 " + origin + "\n",
	}
	for _, c := range []struct {
		name, text string
		check      func(file string) []string
	}{
		{"nginx", n.Config(), func(file string) []string { return append(n.Args(file), "-t", "-q") }},
		{"haproxy", h.Config(), func(file string) []string { return []string{"haproxy", "-c", "-q", "-dW", "-f", file} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath(c.name); err != nil {
				t.Skip(c.name + " is not installed")
			}
			file := filepath.Join(dir, c.name)
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			args := c.check(file)
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s\n%s", err, out, c.text)
			}
		})
	}
	r := Relais{Program: "relais", Addr: addr, Dir: dir, Site: ShopSite, Further: Buyers, Pool: "  tiers: [{origins: [{address: \"" + origin + "\"}]}]"}
	set, problems := document.Read([]document.File{{Name: "edge.yaml", Text: []byte(r.Config())}}, func(string) (string, bool) { return "", false })
	if len(problems) == 0 {
		_, problems = set.Compile()
	}
	for _, p := range problems {
		t.Error(p)
	}
}
