package visitors_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/demo/shop"
	"github.com/relais-edge/relais/demo/visitors"
)

// pipes is a network in memory, so that a whole run with its pauses happens in a
// testing/synctest bubble and takes no time.
type pipes struct {
	calls chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{calls: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _ netip.Addr, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.calls <- far:
		return near, nil
	case <-p.done:
		return nil, errors.New("the server is gone")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.calls:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// site is a shop with something in front of it.
type site struct {
	dir  string
	wrap func(http.Handler) http.Handler
	idle time.Duration // keep-alive timeout
}

// visit runs visitors against the site inside a synctest bubble and compares their report
// with the shop's ledger.
func (s site) visit(t *testing.T, cfg visitors.Config) (visitors.Report, visitors.Verdict) {
	t.Helper()
	if s.dir == "" {
		s.dir = t.TempDir()
	}
	house, err := shop.New(shop.Config{DataDir: s.dir, Capacity: 10_000, ServiceTime: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	handler := plainImages(house.Handler())
	if s.wrap != nil {
		handler = s.wrap(handler)
	}
	wire := newPipes()
	server := &http.Server{Handler: handler, IdleTimeout: s.idle, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(wire) }()
	defer func() {
		_ = server.Close()
		_ = house.Close()
	}()
	cfg.Target, cfg.Dial = "http://shop.example", wire.dial
	g, err := visitors.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	report, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := shop.OpenLedger(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	verdict, err := report.Verify(t.Context(), ledger)
	if err != nil {
		t.Fatal(err)
	}
	if report.Live != 0 || report.OrdersOpen != 0 {
		t.Errorf("after the run %d visitors and %d orders are open", report.Live, report.OrdersOpen)
	}
	return report, verdict
}

// plainImages answers for pictures, with the shop's fields: painting takes most of the time
// of a run, and is the shop's business.
func plainImages(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/img/") {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Cache-Control", "public, max-age=86400")
		w.Header().Set("Etag", `"`+r.URL.Path+`"`)
		w.Header().Set("Content-Type", "image/jpeg")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("a picture"))
	})
}

// buyers are visitors who all order.
func buyers(perSecond float64, seconds int) visitors.Config {
	return visitors.Config{
		Rate: visitors.Constant(perSecond), Duration: time.Duration(seconds) * time.Second, Drain: 10 * time.Minute, Seed: 7,
		ReturnShare: -1, Funnel: visitors.Funnel{Pages: 6, Product: 1, Basket: 1, Checkout: 1, Order: 1},
	}
}
