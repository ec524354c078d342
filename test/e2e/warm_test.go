package e2e

import (
	"testing"
	"time"

	"github.com/relais-edge/relais/test/crash/warm"
)

// The long form is make crash-cache.
func TestTheDiskIsWarmAndCleanAfterKills(t *testing.T) {
	r, err := warm.Run(t.Context(), warm.Config{Server: warm.Relais(binary(t)), Dir: t.TempDir(), Rounds: 4, Objects: 3000, Load: 3 * time.Second, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if r.Corrupt != 0 || r.Expected == 0 || r.Lost*1000 > r.Expected {
		t.Errorf("%d corrupt bodies; %d of %d were lost", r.Corrupt, r.Lost, r.Expected)
	}
}
