package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relais-edge/relais/demo/shop"
	"github.com/relais-edge/relais/demo/visitors"
)

// fullShop is a shop both tiers of which hold four requests; metrics is where the edge shows them.
func fullShop(t *testing.T) (edge, data, edgeData, metrics string) {
	t.Helper()
	addr := ports(t, 5)
	edge, data, edgeData = addr[0], filepath.Join(t.TempDir(), "shop"), filepath.Join(t.TempDir(), "edge")
	shopCluster(t, "home", addr[2], data, 4, 60*time.Millisecond)
	shopCluster(t, "overflow", addr[3], data, 4, 60*time.Millisecond)
	text, err := os.ReadFile("../../cmd/relais/up.yaml")
	if err != nil {
		t.Fatal(err)
	}
	base := string(text)
	for _, r := range [][2]string{
		{"    - name: overflow\n", "    - name: overflow\n      capacity: {inFlight: 4}\n"},
		{"  rateLimits: [fair-use]\n", ""}, // all visitors of this test come from one address
	} {
		if !strings.Contains(base, r[0]) {
			t.Fatalf("up.yaml has no %q", r[0])
		}
		base = strings.Replace(base, r[0], r[1], 1)
	}
	file := filepath.Join(t.TempDir(), "edge.yaml")
	write(t, file, base)
	start(t, edge, []string{
		"LISTEN=" + edge, "LISTEN_TLS=" + addr[1], "CAPACITY=4", "HOME_CLUSTER=" + addr[2], "OVERFLOW_CLUSTER=" + addr[3],
	}, "serve", "-f", file, "--data", edgeData, "--metrics", addr[4])
	t.Cleanup(func() {
		if t.Failed() {
			if resp, err := http.Get("http://" + addr[4] + "/metrics"); err == nil {
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				t.Logf("%s", regexp.MustCompile(`(?m)^relais_(balance|full).*$`).FindAll(b, -1))
			}
		}
	})
	return edge, data, edgeData, addr[4]
}

// crowd is many anonymous visitors who do not do as they are told.
type crowd struct {
	served, stale, pages atomic.Int64
	page                 atomic.Pointer[http.Response] // the last one
	wrong                atomic.Pointer[string]
}

func (c *crowd) run(t *testing.T, edge string, stop <-chan struct{}) *sync.WaitGroup {
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				url, reload := fmt.Sprintf("http://%s/search?q=crowd-%d-%d", edge, i, n), n%4 == 0
				if reload {
					url = "http://" + edge + "/" // somebody who wants it new
				}
				req, _ := http.NewRequestWithContext(t.Context(), "GET", url, nil)
				req.Header.Set("Accept", "text/html")
				if reload {
					req.Header.Set("Cache-Control", "no-cache")
				}
				resp, err := client.Do(req)
				if err != nil {
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				c.judge(resp)
				if resp.StatusCode != 200 {
					time.Sleep(30 * time.Millisecond)
				}
			}
		})
	}
	return &wg
}

func (c *crowd) judge(resp *http.Response) {
	h := resp.Header
	why := ""
	switch {
	case resp.StatusCode == 200 && strings.Contains(h.Get("Cache-Status"), "no-room"):
		c.stale.Add(1)
		if !strings.Contains(h.Get("Proxy-Status"), "full=stale") {
			why = "a stored answer that stands in does not say so"
		}
	case resp.StatusCode == 200:
		c.served.Add(1)
	case resp.StatusCode == 503:
		c.pages.Add(1)
		c.page.Store(resp)
		seconds, err := strconv.Atoi(h.Get("Retry-After"))
		if err != nil || seconds < 1 || seconds > 90 || h.Get("Cache-Control") != "no-store" || h.Get("X-Request-Id") == "" ||
			h.Get("Proxy-Status") != `relais; error=destination_unavailable; details="full=page"` || resp.ContentLength > 2048 {
			why = "not the page of a full site"
		}
	default:
		why = "neither served nor the page of a full site"
	}
	if why != "" {
		why = fmt.Sprintf("%s: %s %v", why, resp.Status, h)
		c.wrong.Store(&why)
	}
}

// Both tiers are full of anonymous visitors: those get what is stored or a page that says when to come
// back, and whoever has a basket goes on to an order that is kept.
func TestWhenBothTiersAreFullBasketsStillOrder(t *testing.T) {
	edge, data, edgeData, metrics := fullShop(t)
	g, err := visitors.New(visitors.Config{
		Target: "http://" + edge, Rate: visitors.Constant(5), Duration: 16 * time.Second, Drain: 15 * time.Second, Seed: 7,
		Sources: netip.MustParsePrefix("127.8.0.0/16"),
		Funnel:  visitors.Funnel{Think: time.Second, Basket: 0.8, Checkout: 0.95, Order: 0.95},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan visitors.Report, 1)
	go func() {
		r, err := g.Run(t.Context())
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	eventually(t, "baskets are filled", func() bool { return g.Stats().Baskets >= 6 })
	var c crowd
	stop := make(chan struct{})
	wg := c.run(t, edge, stop)
	before := g.Stats().OrdersConfirmed
	eventually(t, "orders are placed while both tiers are full", func() bool {
		return g.Stats().OrdersConfirmed >= before+5 && c.stale.Load() > 0 && c.pages.Load() > 0
	})
	explainsThePage(t, edgeData, c.page.Load().Header.Get("X-Request-Id"))
	close(stop)
	wg.Wait()
	report := <-done
	t.Log(report)
	t.Logf("the crowd: %d served, %d stale, %d pages", c.served.Load(), c.stale.Load(), c.pages.Load())
	if why := c.wrong.Load(); why != nil {
		t.Error(*why)
	}
	if report.HoldersRefused > 0 {
		t.Errorf("%d answers refused somebody with a basket: %v", report.HoldersRefused, report.RefusedBy)
	}
	ledger, err := shop.OpenLedger(data)
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	v, err := report.Verify(t.Context(), ledger)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(v)
	if !v.OK() || len(v.Failed) > 0 || v.Kept < 5 {
		t.Errorf("lost %v, duplicates %v, failed %v, kept %d", v.Lost, v.Duplicates, v.Failed, v.Kept)
	}
	_, text := get(t, "http://"+metrics+"/metrics")
	for _, what := range []string{"page", "stale"} {
		if !regexp.MustCompile(`relais_full_total\{answer="` + what + `",site="demo/shop"\} [1-9]`).MatchString(text) {
			t.Errorf("relais_full_total does not count %s", what)
		}
	}
	t.Logf("%s", regexp.MustCompile(`(?m)^relais_(full|balance_queue)_total.*$`).FindAllString(text, -1))
}

func explainsThePage(t *testing.T, data, id string) {
	t.Helper()
	code, out := run(t, nil, "explain", "--data", data, id)
	for _, want := range []string{"no tier had room: page (", "no tier has room for a visitor without a basket"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("explain %s: %d, lacks %q in\n%s", id, code, want, out)
		}
	}
}
