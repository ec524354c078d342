package edge

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// guest is a browser at an address of its own.
type guest struct {
	b *bed
	c *http.Client
}

func (b *bed) guest(address string) *guest {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	tr := &http.Transport{DialContext: d.DialContext, MaxIdleConnsPerHost: 1}
	b.t.Cleanup(tr.CloseIdleConnections)
	return &guest{b, &http.Client{Transport: tr, Timeout: 60 * time.Second}}
}

// ask sends a request with a token, and returns the answer and the token that it gave, if any.
func (g *guest) ask(ctx context.Context, method, path, token string) (status int, given string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, g.b.base("http1")+path, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.AddCookie(&http.Cookie{Name: "rv", Value: token})
	}
	resp, err := g.c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	for _, c := range resp.Cookies() {
		if c.Name == "rv" {
			given = c.Value
		}
	}
	return resp.StatusCode, given, err
}

const farmDocs = siteHead + `
  visitor: buyers
  routes:
    - {match: [{path: {prefix: /sale}}], waitingRoom: door, pool: ten}
    - {pool: ten}
---
apiVersion: relais/v1
kind: VisitorPolicy
metadata: {name: buyers}
spec:
  basket: [{path: /basket}]
  checkout: [{path: /checkout, methods: [GET]}]
  ordered: [{path: /order}]
---
apiVersion: relais/v1
kind: WaitingRoom
metadata: {name: door}
spec: {when: always, newPerMinute: 1}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: ten}
spec: {tiers: [{name: home, capacity: {inFlight: 10, reserve: 20%}, origins: [{address: "${ORIGIN}"}]}]}
`

// One address fills forty baskets and has all of them ask for what lasts: it gets what nobody else wants, and the orders of
// five others go through at once.
func TestAFarmOfBasketsTakesNoOrdersPlace(t *testing.T) {
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	var held atomic.Int32
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/slow") || r.URL.Path == "/order/slow" {
			held.Add(1)
			<-release
		}
		_, _ = io.WriteString(w, "the shop")
	}, farmDocs)
	token := func(g *guest) string {
		t.Helper()
		status, given, err := g.ask(t.Context(), "POST", "/basket", "")
		if err != nil || status != 200 || given == "" {
			t.Fatalf("a basket: %d %q %v", status, given, err)
		}
		return given
	}
	t.Cleanup(free) // before the bed's own, which waits for the origin
	buyers := map[*guest]string{}
	for _, a := range []string{"127.0.0.11", "127.0.1.12", "127.0.2.13", "127.0.3.14", "127.0.4.15"} {
		g := b.guest(a)
		buyers[g] = token(g)
	}
	farm := b.guest("127.1.0.1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var farmed []string
	for range 40 {
		farmed = append(farmed, token(farm))
	}
	for i, c := range farmed {
		path := "/slow"
		if i%2 == 0 {
			path = "/order/slow" // where a path makes nobody a buyer
		}
		wg.Go(func() {
			if _, _, err := farm.ask(ctx, "POST", path, c); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("the farm: %v", err)
			}
		})
	}
	until(t, "the farm does not fill the tier", func() bool { return held.Load() >= 9 })
	for g, c := range buyers {
		for _, path := range []string{"/checkout", "/order"} {
			method := "POST"
			if path == "/checkout" {
				method = "GET"
			}
			if status, _, err := g.ask(t.Context(), method, path, c); err != nil || status != 200 {
				t.Errorf("%s of a buyer: %d %v", path, status, err)
			}
		}
	}
	if n := held.Load(); n != 9 {
		t.Errorf("the farm holds %d places, want all but the one that is for others", n)
	}
	cancel()
	free()
	wg.Wait()
}

// To have looked at the checkout lets nobody past those who wait; a basket does. An order whose buyer has lost the
// cookie is an order.
func TestLookingAtTheCheckoutIsNoWayPastTheLine(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the shop") }, farmDocs)
	g := b.guest("127.0.0.1")
	for _, c := range []struct {
		name, method, path string
		sale               int
	}{
		{"nothing", "GET", "/", 503},
		{"the checkout", "GET", "/checkout", 503},
		{"a page below the checkout", "GET", "/checkout/pay", 503},
		{"the basket, looked at", "GET", "/basket", 503},
		{"an order without a basket", "POST", "/order", 503},
		{"a basket", "POST", "/basket", 200},
	} {
		status, token, err := g.ask(t.Context(), c.method, c.path, "")
		if err != nil || status != 200 {
			t.Errorf("%s: %d %v", c.name, status, err)
		}
		if status, _, err = g.ask(t.Context(), "GET", "/sale", token); err != nil || status != c.sale {
			t.Errorf("the sale after %s: %d %v, want %d", c.name, status, err, c.sale)
		}
	}
}
