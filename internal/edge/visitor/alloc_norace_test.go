//go:build !race

package visitor

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// These count allocations, and under the race detector sync.Pool drops values by chance:
// `make allocs` runs them without it.

func TestServeAllocatesNothing(t *testing.T) {
	g := newRig(t, policySpec())
	g.do("POST", "/cart")
	ctx := context.Background()
	for _, c := range []struct {
		name, cookie string
	}{{"without cookie", "a=1; b=2"}, {"protected", "a=1; rv=" + g.cookie}, {"forged", "rv=" + strings.Repeat("0", textLen)}} {
		r := &message.Request{}
		r.SetMethod([]byte("GET"))
		r.AddString(message.Cookie, c.cookie)
		x := &stage.Exchange{In: r, Path: []byte("/"), Site: g.site, Route: &g.site.Routes[0], Start: time.Now()}
		x.Out.CopyFrom(r)
		var next stage.Handler = &g.o
		run := func() {
			x.Trail = stage.Trail{}
			_, _ = g.st.Serve(ctx, x, next)
			x.Out.CopyFrom(r)
			g.st.Strip(x, &x.Out.Fields)
		}
		run()
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}
