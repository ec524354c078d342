package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/relais-edge/relais/test/slow"
)

const hasty = `apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec:
  address: "%s"
  limits: {bodyRate: 1KiB, writeRate: 64KiB}
  timeouts: {header: 2s, body: 2s, write: 2s}
---
apiVersion: relais/v1
kind: Site
metadata: {name: s}
spec: {hostnames: ["*"], routes: [{pool: o}]}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: o}
spec: {tiers: [{origins: [{address: "%s"}]}]}
`

// The short form of the drill: some hundred slow clients of each kind are ended though they go
// on sending or reading a little all the time, and an ordinary client beside them has all its
// answers.
func TestSlowClientsAreEndedAndCostTheOthersNothing(t *testing.T) {
	for _, mode := range slow.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			addr := ports(t, 1)[0]
			back := origin(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if r.URL.Path == "/big" {
					_, _ = w.Write(make([]byte, 8<<20))
					return
				}
				fmt.Fprint(w, "ok")
			})
			file := filepath.Join(t.TempDir(), "edge.yaml")
			write(t, file, fmt.Sprintf(hasty, addr, back))
			serve(t, addr, file)
			ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
			defer cancel()
			ordinary := make(chan slow.Report, 1)
			go func() {
				ordinary <- slow.Ordinary{From: "127.0.0.2", URLs: []string{"http://" + addr + "/"}, Rate: 20, Timeout: 10 * time.Second}.Run(ctx)
			}()
			r := slow.Attack{Mode: mode, Target: addr, Connections: 300, Every: 200 * time.Millisecond}.Run(ctx)
			if r.Opened != 300 || r.Ended != r.Opened {
				t.Errorf("of %d slow connections %d were ended", r.Opened, r.Ended)
			}
			cancel()
			if o := <-ordinary; o.Asked < 10 || o.Answered != o.Asked {
				t.Errorf("the ordinary client: %d of %d answered, %v", o.Answered, o.Asked, o.Failures)
			}
			t.Logf("%d ended, the last after %s", r.Ended, r.Last.Round(time.Millisecond))
		})
	}
}
