package differential

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/document"
	"github.com/relais-edge/relais/internal/edge"
	"github.com/relais-edge/relais/internal/observe"
)

// documents are two listeners of one site. Each engine has its own origin, so that it is
// known who asked.
const documents = `
apiVersion: relais/v1
kind: Listener
metadata: {name: own}
spec: {address: "127.0.0.1:0", protocols: [http1], engine: relais, limits: {headerBytes: 16KiB, headerFields: 64, targetBytes: 4KiB, bodyBytes: 256KiB}}
---
apiVersion: relais/v1
kind: Listener
metadata: {name: std}
spec: {address: "127.0.0.2:0", protocols: [http1], engine: std, limits: {headerBytes: 16KiB, headerFields: 64, targetBytes: 4KiB, bodyBytes: 256KiB}}
---
apiVersion: relais/v1
kind: Site
metadata: {name: everything}
spec:
  hostnames: ["*"]
  routes:
    - {name: own, listeners: [own], pool: own}
    - {name: std, listeners: [std], pool: std}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: own}
spec:
  tiers: [{name: home, origins: [{address: "${OWN}"}]}]
  health: {passive: {consecutiveFailures: 0}}
  retries: {attempts: 0}
  stickiness: {on: none}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: std}
spec:
  tiers: [{name: home, origins: [{address: "${STD}"}]}]
  health: {passive: {consecutiveFailures: 0}}
  retries: {attempts: 0}
  stickiness: {on: none}
`

// engine is one of the two sides.
type engine struct {
	addr   string
	origin *origin
}

// bed is an edge with both engines.
type bed struct {
	own, std engine
	stop     func()
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{}
	for _, e := range []*engine{&b.own, &b.std} {
		o, err := newOrigin()
		if err != nil {
			t.Fatal(err)
		}
		e.origin = o
	}
	env := map[string]string{"OWN": b.own.origin.addr(), "STD": b.std.origin.addr()}
	set, problems := document.Read([]document.File{{Name: "differential.yaml", Text: []byte(documents)}},
		func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	bundle, problems := set.Compile()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	e, err := edge.New(edge.Config{Data: t.TempDir(), CacheBytes: 1 << 20, Explain: 16, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the edge ended: %v", err)
		}
		b.own.origin.close()
		b.std.origin.close()
	})
	t.Cleanup(b.stop)
	if err := e.Apply(ctx, bundle); err != nil {
		t.Fatal(err)
	}
	for _, a := range e.Addresses() {
		if strings.HasPrefix(a, "127.0.0.1:") {
			b.own.addr = a
		} else {
			b.std.addr = a
		}
	}
	return b
}

// reaction is all that an engine did because of one case.
type reaction struct {
	answers []*answer
	stray   []byte // what follows the last answer and is none
	breach  string // of the protocol, by the edge
	hung    bool
	asked   []*request // of the origin, in this case's name; all requests of it
}

// patience is how long an engine may be silent. No case needs a wait.
const patience = 20 * time.Second

// send plays a case against an engine.
func (e *engine) send(c *kase) *reaction {
	re := &reaction{}
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		re.breach = err.Error()
		return re
	}
	nc := conn.(*net.TCPConn)
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	var writing sync.WaitGroup
	reset := false
	defer func() {
		writing.Wait()
		if n := len(re.answers); n > 0 && reset && re.answers[n-1].framing == framingClose {
			re.answers[n-1].whole = false
		}
	}()
	// Writing and reading at once: an engine may answer before it has read all.
	write := func(parts ...[]byte) {
		writing.Wait()
		writing.Go(func() {
			for _, p := range parts {
				if _, err := nc.Write(p); err != nil {
					// The system tells of a reset only once: to this write or to a read.
					reset = reset || errors.Is(err, syscall.ECONNRESET)
					return
				}
				if len(parts) > 1 {
					time.Sleep(200 * time.Microsecond) // so that pieces arrive as pieces
				}
			}
		})
	}
	end := func() {
		writing.Wait()
		writing.Go(func() { _ = nc.CloseWrite() })
	}
	whole := bytes.Join([][]byte{c.head, c.body, c.next}, nil)
	switch c.mode {
	case together:
		write(whole)
		end()
	case split:
		write(pieces(c, whole)...)
		end()
	case waiting:
		write(bytes.Join([][]byte{c.head, c.body}, nil))
	case expecting:
		write(c.head)
	}
	begin := time.Now()
	defer func() { re.hung = time.Since(begin) >= patience }()
	re.read(bufio.NewReader(nc), c, func(status int) {
		// The first answer, interim or final, is here.
		switch {
		case c.mode == expecting && status == 100:
			write(c.body, c.next)
			end()
		case c.mode == expecting && status >= 200:
			end()
		case c.mode == waiting && status >= 200:
			write(c.next)
			end()
		}
	})
	return re
}

// pieces cuts a case in a few pieces, the same for both engines.
func pieces(c *kase, whole []byte) [][]byte {
	r := rand.New(rand.NewPCG(7, uint64(c.id)))
	var out [][]byte
	for len(whole) > 0 && len(out) < 7 {
		n := min(1+r.IntN(1+min(len(whole), pick(r, 3, 40, 400, 4000))), len(whole))
		out = append(out, whole[:n])
		whole = whole[n:]
	}
	return append(out, whole)
}

// read reads the reaction up to the end of the connection.
func (re *reaction) read(br *bufio.Reader, c *kase, on func(status int)) {
	methods := []string{c.method, "GET"}
	for i := 0; ; i++ {
		if i < len(methods) && i > 0 && methods[i-1] == "HEAD" && strayBody(br, re) {
			return
		}
		method := "GET"
		if i < len(methods) {
			method = methods[i]
		}
		first := i == 0
		a, err := readAnswer(br, method, func(status int) {
			if first {
				on(status)
			}
		})
		if a.status >= 200 && err == nil && first {
			on(a.status)
		}
		var w *wireError
		switch {
		case err == io.EOF:
			return
		case errors.As(err, &w):
			re.breach = w.what
			return
		}
		re.answers = append(re.answers, a)
		if !a.whole || a.framing == framingClose {
			return
		}
	}
}

// strayBody finds a body that HEAD must not have: what is there is no status line.
func strayBody(br *bufio.Reader, re *reaction) bool {
	b, err := br.Peek(5)
	if err != nil && len(b) == 0 || string(b) == "HTTP/" {
		return false
	}
	re.stray, _ = io.ReadAll(br)
	return true
}
