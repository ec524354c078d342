package e2e

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/relais-edge/relais/demo/shop"
	"github.com/relais-edge/relais/demo/visitors"
)

// The shop is driven through the edge as buyers do while its home cluster is full, is killed
// in the middle, comes back, and the documents change: the ledger has every order that a
// buyer was shown, exactly once, and nobody with a basket was refused.
func TestNoOrderIsLost(t *testing.T) {
	addr := ports(t, 4)
	edge, edgeTLS, home, overflow := addr[0], addr[1], addr[2], addr[3]
	dir := t.TempDir()
	data, file := filepath.Join(dir, "shop"), filepath.Join(dir, "edge.yaml")
	const capacity, service = 4, 60 * time.Millisecond
	homeShop := shopCluster(t, "home", home, data, capacity, service)
	shopCluster(t, "overflow", overflow, data, 64, service)

	base, err := os.ReadFile("../../cmd/relais/up.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(base))
	serve(t, edge, file, "LISTEN="+edge, "LISTEN_TLS="+edgeTLS, "CAPACITY=4", "HOME_CLUSTER="+home, "OVERFLOW_CLUSTER="+overflow)

	g, err := visitors.New(visitors.Config{
		Target: "http://" + edge, Rate: visitors.Spike(3, 3, 5*time.Second, 15*time.Second), Duration: 25 * time.Second, Seed: 42,
		Sources: netip.MustParsePrefix("127.7.0.0/16"),
		Funnel:  visitors.Funnel{Think: 300 * time.Millisecond, Basket: 0.7, Checkout: 0.9, Order: 0.95},
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

	eventually(t, "orders are placed", func() bool { return g.Stats().OrdersConfirmed >= 5 })
	for i := range 5 { // changes under load
		changed := strings.Replace(string(base), "requests: 200, per: 1s, burst: 400", "requests: "+[]string{"300", "400"}[i%2]+", per: 1s, burst: 600", 1)
		write(t, file, changed)
		before := g.Stats().Requests
		eventually(t, "requests go on", func() bool { return g.Stats().Requests > before+50 })
		if i == 2 {
			signal(t, homeShop, syscall.SIGKILL)
			before := g.Stats().ByCluster["overflow"]
			eventually(t, "overflow takes over", func() bool { return g.Stats().ByCluster["overflow"] > before+20 })
		}
	}
	shopCluster(t, "home", home, data, capacity, service)
	report := <-done
	t.Log(report)

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
	if !v.OK() || len(v.Lost) > 0 || len(v.Duplicates) > 0 || len(v.Failed) > 0 {
		t.Errorf("lost %v, duplicates %v, failed %v", v.Lost, v.Duplicates, v.Failed)
	}
	if v.Kept < 20 {
		t.Errorf("only %d orders: the test proves little", v.Kept)
	}
	if report.HoldersRefused > 0 {
		t.Errorf("%d answers refused somebody with a basket", report.HoldersRefused)
	}
	if report.ByCluster["overflow"] == 0 || report.ByCluster["home"] == 0 || report.EdgeHits == 0 {
		t.Errorf("home %d, overflow %d, hits %d: each should be seen", report.ByCluster["home"], report.ByCluster["overflow"], report.EdgeHits)
	}
}
