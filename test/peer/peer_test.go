package peer

import (
	"testing"

	"github.com/relais-edge/relais/internal/document"
)

// TestTheProductTakesItsConfiguration: so that no drill ends after minutes because of it. What nginx and HAProxy are told
// is judged by themselves, when a drill starts them.
func TestTheProductTakesItsConfiguration(t *testing.T) {
	r := Relais{
		Program: "relais", Addr: "127.0.0.1:8080", Dir: t.TempDir(), Site: ShopSite, Further: Buyers,
		Pool: `  tiers: [{origins: [{address: "127.0.0.1:8081"}]}]`,
	}
	set, problems := document.Read([]document.File{{Name: "edge.yaml", Text: []byte(r.Config())}}, func(string) (string, bool) { return "", false })
	if len(problems) == 0 {
		_, problems = set.Compile()
	}
	for _, p := range problems {
		t.Error(p)
	}
}
